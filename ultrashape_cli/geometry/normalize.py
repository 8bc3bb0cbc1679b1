"""The one normalisation to the cube [-1, 1]^3, and its inverse."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ultrashape_cli.errors import MeshError

# Longest side of an asset when the released weights were trained: 2 % margin in the cube.
TRAINING_SIDE = 2 / 1.02
# Longest side that the reference inference script gives its coarse mesh.
REFINE_SIDE = 2 * 0.99


@dataclass(frozen=True, slots=True)
class Frame:
    """Similarity between a source file and the normalised cube: `(p - centre) * scale`.

    Attributes:
        centre: Centre of the bounding box, in source units.
        scale: Normalised units per source unit.
    """

    centre: tuple[float, float, float]
    scale: float

    def to_normalised(self, points: ArrayLike) -> NDArray[np.float64]:
        """Return source points `[..., 3]` in the normalised frame."""
        return (np.asarray(points, np.float64) - np.asarray(self.centre)) * self.scale

    def to_source(self, points: ArrayLike) -> NDArray[np.float64]:
        """Return normalised points `[..., 3]` in the source frame."""
        return np.asarray(points, np.float64) / self.scale + np.asarray(self.centre)

    def as_dict(self) -> dict[str, Any]:
        """Return the frame as plain values for a manifest."""
        return {"centre": list(self.centre), "scale": self.scale}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Frame:
        """Return the frame that `as_dict` wrote."""
        x, y, z = (float(value) for value in values["centre"])
        return cls(centre=(x, y, z), scale=float(values["scale"]))


def fit_frame(
    vertices: NDArray[np.floating],  # [V, 3]
    longest_side: float = TRAINING_SIDE,
) -> Frame:
    """Return the frame that centres the bounding box and gives its longest side this length.

    Raises:
        MeshError: There are no vertices, or they have no extent.
    """
    if len(vertices) == 0:
        raise MeshError("cannot normalise a mesh without vertices")
    low = np.min(vertices, axis=0).astype(np.float64)
    high = np.max(vertices, axis=0).astype(np.float64)
    side = float(np.max(high - low))
    if not np.isfinite(side) or side <= 0:
        raise MeshError(f"cannot normalise a mesh whose longest side is {side}")
    x, y, z = ((low + high) / 2).tolist()
    return Frame(centre=(x, y, z), scale=longest_side / side)
