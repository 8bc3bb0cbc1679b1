"""Images for the conditioner: loading, cutting out the object, resizing.

The released weights were trained and run with OpenCV and PIL resizing rules; they are written
out here, so that a grey level differs by rounding at most. Arrays are uint8 in [0, 255] with
shapes [H, W, channels]; tensors are fp32 in [-1, 1] with shapes [channels, H, W].
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from ultrashape_cli.errors import ImageError
from ultrashape_cli.formatting import cause

MAX_PIXELS = 200_000_000  # larger files are refused before they are decoded
_HALVED = 100_000_000
MAX_SIDE = 4096  # larger images are reduced; the conditioner sees 1022 pixels

INFERENCE_BORDER = 0.15  # share of the canvas kept free around the object
TRAINING_PADDING = 1.15  # canvas over object side
TRAINING_MARGIN = 5  # pixels added around the object's box

_CLEAR_WHITE = (255, 255, 255, 0)

Bytes = NDArray[np.uint8]


def load_rgba(path: str | Path) -> Bytes:  # [H, W, 4]
    """Return the first frame of an image file, upright, with straight alpha.

    Raises:
        ImageError: Missing, not an image, damaged, too large, or fully transparent.
    """
    path = Path(path)
    try:
        with _own_limit(), Image.open(path) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise ImageError(
                    f"{path}: {width} x {height} pixels are more than {MAX_PIXELS:,}",
                    hint="reduce it; a side of 4096 is more than is looked at",
                )
            image.load()
            upright = ImageOps.exif_transpose(image)
            assert upright is not None
            if width * height > _HALVED and upright.mode in ("L", "RGB", "RGBA"):
                # Before anything copies it: four bytes a pixel would be most of a GiB.
                upright = upright.reduce(2)
            rgba = _to_rgba(upright)
    except FileNotFoundError as error:
        raise ImageError(f"{path}: no such image") from error
    except UnidentifiedImageError as error:
        kind = _known_kind(path)
        what = f"is {kind}, which is not read" if kind else "is no image that can be read"
        raise ImageError(f"{path}: {what}", hint="save it as PNG or JPEG") from error
    except (
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
        IndexError,
    ) as error:
        raise ImageError(f"{path}: not a readable image ({cause(error)})") from error
    if max(rgba.size) > MAX_SIDE:
        rgba.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.BOX)
    pixels = np.asarray(rgba)
    if not pixels[..., 3].any():
        raise ImageError(f"{path}: every pixel is transparent")
    return pixels


@contextmanager
def _own_limit() -> Iterator[None]:
    """Lets MAX_PIXELS decide: Pillow's own limit is half of it, and an error in its words."""
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _known_kind(path: Path) -> str:
    """Return what a file is that Pillow does not read, by its first bytes; empty if unknown."""
    with path.open("rb") as file:
        head = file.read(512)
    if head[4:8] == b"ftyp":
        return "HEIC"
    kinds = {b"\x76\x2f\x31\x01": "OpenEXR", b"#?R": "Radiance HDR", b"%PDF": "PDF"}
    for start, kind in kinds.items():
        if head.startswith(start):
            return kind
    return "SVG" if b"<svg" in head.lower() or path.suffix.lower() == ".svg" else ""


def preprocess_inference(
    rgba: Bytes,  # [H, W, 4]
    size: int,
    border: float = INFERENCE_BORDER,
) -> tuple[Tensor, Tensor]:  # image [3, size, size], mask [1, size, size]
    """Centre the object on a white square and resize it as the reference does at inference.

    The mask is -1 outside the object.
    """
    image, mask = recentre(rgba, border)
    image = resize_cubic(image, size, size)
    mask = resize_nearest(mask, size, size)
    return _to_signed(image), _to_signed(mask)


def recentre(rgba: Bytes, border: float) -> tuple[Bytes, Bytes]:  # [S, S, 3] and [S, S, 1]
    """Return the object scaled to a square of the longer side S, on white, and its alpha."""
    if not 0 <= border < 1:
        raise ValueError(f"border must be in [0, 1), got {border}")
    rows = np.flatnonzero(rgba[..., 3].any(axis=1))
    cols = np.flatnonzero(rgba[..., 3].any(axis=0))
    # The last row and column are left out: the released weights were tuned on such cut-outs.
    height, width = (int(i[-1] - i[0]) if len(i) else 0 for i in (rows, cols))
    if not height or not width:
        raise ImageError("the image shows nothing: too few pixels are opaque")
    cut = rgba[rows[0] : rows[0] + height, cols[0] : cols[0] + width]
    side = max(rgba.shape[:2])
    scale = int(side * (1 - border)) / max(height, width)
    new_height, new_width = int(height * scale), int(width * scale)
    if not new_height or not new_width:
        raise ImageError(f"the object is too thin: {width} x {height} pixels")
    canvas = np.zeros((side, side, 4), np.uint8)
    top, left = (side - new_height) // 2, (side - new_width) // 2
    canvas[top : top + new_height, left : left + new_width] = resize_area(
        cut, new_height, new_width
    )
    return composite_on_white(canvas), canvas[..., 3:]


def preprocess_training(
    rgba: Bytes,  # [H, W, 4]
    size: int,
    padding: float = TRAINING_PADDING,
) -> tuple[Tensor, Tensor]:  # image [3, size, size], mask [1, size, size]
    """Cut out the object, pad it to a white square and resize it as the reference does to train.

    The mask is -1 outside the object, with soft edges.
    """
    cut = _composite_cut(rgba[object_box(rgba)])
    height, width = cut.shape[:2]
    side = int(max(height, width) * padding)
    top, left = (side - height) // 2, (side - width) // 2
    canvas = np.full((side, side, 4), _CLEAR_WHITE, np.uint8)
    canvas[top : top + height, left : left + width] = cut
    # Bytes with interleaved channels resize in a fifth of the time of floats; they round once more.
    pixels = torch.from_numpy(canvas).permute(2, 0, 1)[None]
    pixels = F.interpolate(pixels, size=(size, size), mode="bilinear", antialias=True)[0]
    signed = pixels.float().mul_(2 / 255).sub_(1).contiguous()
    return signed[:3], signed[3:]


def object_box(rgba: Bytes) -> tuple[slice, slice]:  # [H, W, 4]
    """Return the rows and columns of the object with the margin of the training images."""
    shown = rgba[..., 3] != 0
    spans = []
    for axis, length in enumerate(shown.shape):
        hits = np.flatnonzero(shown.any(axis=1 - axis))
        if not len(hits):
            raise ImageError("the image shows nothing: every pixel is transparent")
        start = max(int(hits[0]) - TRAINING_MARGIN, 0)
        spans.append(slice(start, min(int(hits[-1]) + TRAINING_MARGIN, length)))
    return spans[0], spans[1]


def jitter_colours(rgba: Bytes, strength: float, rng: np.random.Generator) -> Bytes:
    """Return the image with another contrast and other gains of its channels, the alpha kept.

    Args:
        rgba: `[H, W, 4]`.
        strength: Largest relative change of the contrast and of each gain.
        rng: Source of randomness.
    """
    contrast, *gains = 1 + rng.uniform(-strength, strength, 4)
    changed = rgba.copy()
    level = (np.arange(256) - 127.5) * contrast + 127.5
    for channel, gain in enumerate(gains):
        changed[..., channel] = _round(level * gain)[rgba[..., channel]]
    return changed


def _composite_cut(rgba: Bytes) -> Bytes:  # [H, W, 4]
    """Return the colours on white with the alpha beside, as `composite_on_white` gives them.

    Most pixels are opaque or clear and need no arithmetic: a sixth of the time.
    """
    pixels = np.ascontiguousarray(rgba).view(np.uint32)[..., 0]
    alpha = rgba[..., 3]
    pixels = np.where(alpha == 0, np.array(_CLEAR_WHITE, np.uint8).view(np.uint32), pixels)
    cut = pixels.view(np.uint8).reshape(*pixels.shape, 4)
    edge = np.flatnonzero((alpha != 0) & (alpha != 255))
    flat = cut.reshape(-1, 4)
    flat[edge, :3] = composite_on_white(flat[edge])
    return cut


def composite_on_white(rgba: Bytes) -> Bytes:  # [..., 4] -> [..., 3]
    """Blend with white by alpha; fractions are cut off."""
    alpha = rgba[..., 3:].astype(np.float32) / 255
    return (rgba[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)


def resize_area(image: Bytes, height: int, width: int) -> Bytes:  # -> [height, width, C]
    """Resize like OpenCV's INTER_AREA: exact pixel areas, or linear if either side grows."""
    shrinks = height <= image.shape[0] and width <= image.shape[1]
    weights = _area_weights if shrinks else _enlarging_weights
    rows = weights(image.shape[0], height)
    cols = weights(image.shape[1], width)
    pixels = np.einsum("yh,hwc->ywc", rows, image.astype(np.float64), optimize=True)
    pixels = np.einsum("xw,ywc->yxc", cols, pixels, optimize=True)
    return _round(pixels)


def resize_cubic(image: Bytes, height: int, width: int) -> Bytes:  # -> [height, width, C]
    """Resize like OpenCV's INTER_CUBIC: a = -0.75, half-pixel centres, no antialiasing."""
    if image.shape[:2] == (height, width):
        return image
    pixels = torch.from_numpy(image).permute(2, 0, 1).double()[None]
    pixels = F.interpolate(pixels, size=(height, width), mode="bicubic", align_corners=False)
    return _round(pixels[0].permute(1, 2, 0).numpy())


def resize_nearest(image: Bytes, height: int, width: int) -> Bytes:  # -> [height, width, C]
    """Resize like OpenCV's INTER_NEAREST."""
    rows = np.arange(height) * image.shape[0] // height
    cols = np.arange(width) * image.shape[1] // width
    return image[rows[:, None], cols]


def _area_weights(source: int, target: int) -> NDArray[np.float64]:  # [target, source]
    """Share of each source pixel in each target pixel."""
    edges = np.arange(target + 1) * (source / target)
    low, high = edges[:-1, None], edges[1:, None]
    pixel = np.arange(source)
    overlap = np.minimum(high, pixel + 1) - np.maximum(low, pixel)
    overlap = np.maximum(overlap, 0.0)
    return overlap / overlap.sum(axis=1, keepdims=True)


def _enlarging_weights(source: int, target: int) -> NDArray[np.float64]:  # [target, source]
    """OpenCV's rule for INTER_AREA when a side grows: pixels keep their extent, edges blend."""
    index = np.arange(target)
    left = np.floor(index * (source / target)).astype(int)
    blend = (index + 1) - (left + 1) * (target / source)
    blend = np.where(blend <= 0, 0.0, blend - np.floor(blend))
    weights = np.zeros((target, source))
    np.add.at(weights, (index, np.minimum(left, source - 1)), 1 - blend)
    np.add.at(weights, (index, np.minimum(left + 1, source - 1)), blend)
    return weights


def _round(pixels: NDArray[Any]) -> Bytes:
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def _to_signed(image: Bytes) -> Tensor:  # [H, W, C] -> [C, H, W] in [-1, 1]
    return torch.from_numpy(image.copy()).permute(2, 0, 1).float() / 255 * 2 - 1


def _to_rgba(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        # Pillow clips such grey images at 255 instead of scaling them.
        values = np.asarray(image, dtype=np.float64)
        largest = max(float(values.max(initial=0)), 1.0)
        # Cameras and scanners store 12 bits in 16, where full white would be near black.
        top = (4095.0 if largest <= 4095 else 65535.0) if image.mode.startswith("I") else largest
        image = Image.fromarray(_round(values / top * 255))
    return image if image.mode == "RGBA" else image.convert("RGBA")
