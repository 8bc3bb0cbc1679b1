"""From linear samples to the pixels of an image: filter, tone curve, sRGB."""

import math

import numpy as np
from numpy.typing import NDArray

from ultrashape_cli.geometry.jit import kernel
from ultrashape_cli.meshfiles import srgb

# Width of the reconstruction filter: standard deviation in pixels, and reach.
_SIGMA, _REACH = 0.4, 1.0
# Brightness above the knee bends towards 1, which it reaches nowhere: highlights keep their shape.
_KNEE = 0.75
_TABLE_SIZE, _TABLE_END = 1 << 16, 4.0


def filter_weights(supersample: int) -> NDArray[np.float32]:
    """Return weights along one axis of the samples of a pixel and those around it.

    A Gaussian over two pixels, cut at one pixel from the centre. One sample per pixel is left as
    it is.
    """
    if supersample == 1:
        return np.ones(1, np.float32)
    reach = int(_REACH * supersample)
    offsets = (np.arange(-reach, reach) + 0.5) / supersample
    weights = np.exp(-0.5 * (offsets / _SIGMA) ** 2)
    return (weights / weights.sum()).astype(np.float32)


def tone(linear: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return brightness in [0, 1) of linear light; up to the knee it is the same."""
    linear = np.maximum(np.asarray(linear, np.float64), 0)
    over = np.maximum(linear - _KNEE, 0) / (1 - _KNEE)
    return np.where(linear <= _KNEE, linear, 1 - (1 - _KNEE) * np.exp(-over))


def to_srgb(linear: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return sRGB values in [0, 1] (IEC 61966-2-1) of linear ones, clipped."""
    return srgb.encode(linear).astype(np.float32)


def from_srgb(values: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return linear values of sRGB ones in [0, 1]."""
    return srgb.linear_of(np.asarray(values, np.float64)).astype(np.float32)


_CODES = np.round(255 * to_srgb(tone(np.linspace(0, _TABLE_END, _TABLE_SIZE)))).astype(np.uint8)


def develop(samples: NDArray[np.float32], supersample: int) -> NDArray[np.uint8]:
    """Return sRGB pixels `[H, W, 4]` with straight alpha.

    Args:
        samples: `[H * supersample, W * supersample, 4]` linear RGB times coverage, and coverage.
        supersample: Samples of a pixel along each axis.
    """
    scale = (_TABLE_SIZE - 1) / _TABLE_END
    return _develop(samples, supersample, filter_weights(supersample), _CODES, scale)


@kernel
def _develop(samples, supersample, weights, codes, scale):
    height, width = samples.shape[0] // supersample, samples.shape[1] // supersample
    image = np.zeros((height, width, 4), np.uint8)
    before = (len(weights) - supersample) // 2
    last = len(codes) - 1
    for y in range(height):
        for x in range(width):
            red, green, blue, cover = 0.0, 0.0, 0.0, 0.0
            for j in range(len(weights)):
                row = y * supersample - before + j
                if row < 0 or row >= samples.shape[0]:
                    continue
                for i in range(len(weights)):
                    column = x * supersample - before + i
                    if column < 0 or column >= samples.shape[1]:
                        continue
                    if samples[row, column, 3] == 0:
                        continue
                    weight = weights[j] * weights[i]
                    red += weight * samples[row, column, 0]
                    green += weight * samples[row, column, 1]
                    blue += weight * samples[row, column, 2]
                    cover += weight * samples[row, column, 3]
            alpha = math.floor(255 * cover + 0.5)
            if alpha <= 0:
                continue
            image[y, x, 0] = codes[min(int(red / cover * scale + 0.5), last)]
            image[y, x, 1] = codes[min(int(green / cover * scale + 0.5), last)]
            image[y, x, 2] = codes[min(int(blue / cover * scale + 0.5), last)]
            image[y, x, 3] = min(alpha, 255)
    return image
