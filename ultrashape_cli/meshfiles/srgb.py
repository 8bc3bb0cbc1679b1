"""The curve of sRGB (IEC 61966-2-1), in the precision of its input."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def linear_of(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """Returns linear values of sRGB ones in [0, 1]."""
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def encode(linear: NDArray[np.floating]) -> NDArray[np.floating]:
    """Returns sRGB values in [0, 1] of linear ones, clipped."""
    linear = np.clip(linear, 0.0, 1.0)
    # The power of what is dark is taken and not used; it must not warn.
    curved = 1.055 * np.maximum(linear, 1e-12) ** (1 / 2.4) - 0.055
    return np.where(linear <= 0.0031308, 12.92 * linear, curved)
