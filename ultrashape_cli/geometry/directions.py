"""Directions that a mesh is seen from: azimuth and elevation in degrees, in its frame.

0, 0 is the front (+z), 90, 0 is seen from +x, and elevation is positive above.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


def direction_of(position: NDArray[np.float64]) -> tuple[float, float]:
    """Return azimuth in [0, 360) and elevation, in degrees, of a camera's position `[3]`."""
    x, y, z = position / max(float(np.linalg.norm(position)), 1e-12)
    return math.degrees(math.atan2(x, z)) % 360, math.degrees(math.asin(min(max(y, -1), 1)))


def direction_of_camera(row: Mapping[str, Any]) -> tuple[float, float]:
    """Return the direction that a row of our `cameras.json` looks from.

    Raises:
        KeyError: It has no `world_to_camera`.
        TypeError: That is no matrix.
        ValueError: That is no finite 4 x 4 matrix.
    """
    matrix = np.asarray(row["world_to_camera"], np.float64).reshape(4, 4)
    if not np.isfinite(matrix).all():
        raise ValueError("a camera is not finite")
    rotation = matrix[:3, :3]
    if row.get("model") == "orthographic":
        return direction_of(-rotation[2])
    return direction_of(-rotation.T @ matrix[:3, 3])
