"""The one normalisation to the cube [-1, 1]^3, and its inverse."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ultrashape_cli.errors import MeshError

Up = Literal["y", "z"]

# Longest side of an asset when the released weights were trained: 2 % margin in the cube.
TRAINING_SIDE = 2 / 1.02
# Longest side that the reference inference script gives its coarse mesh.
REFINE_SIDE = 2 * 0.99


@dataclass(frozen=True, slots=True)
class Frame:
    """Similarity between a source file and the normalised cube: `(p - centre) * scale`, turned up.

    Attributes:
        centre: Centre of the bounding box, in source units.
        scale: Normalised units per source unit.
        up: Axis of the source that becomes y of the cube. From z, (x, y, z) becomes (x, z, -y).
    """

    centre: tuple[float, float, float]
    scale: float
    up: Up = "y"

    def to_normalised(self, points: ArrayLike) -> NDArray[np.float64]:
        """Return source points `[..., 3]` in the normalised frame."""
        placed = (np.asarray(points, np.float64) - np.asarray(self.centre)) * self.scale
        if self.up == "z":
            placed = np.stack([placed[..., 0], placed[..., 2], -placed[..., 1]], axis=-1)
        return placed

    def to_source(self, points: ArrayLike) -> NDArray[np.float64]:
        """Return normalised points `[..., 3]` in the source frame."""
        placed = np.asarray(points, np.float64)
        if self.up == "z":
            placed = np.stack([placed[..., 0], -placed[..., 2], placed[..., 1]], axis=-1)
        return placed / self.scale + np.asarray(self.centre)

    def as_dict(self) -> dict[str, Any]:
        """Return the frame as plain values for a manifest."""
        return {"centre": list(self.centre), "scale": self.scale, "up": self.up}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Frame:
        """Return the frame that `as_dict` wrote; without an axis, y is up."""
        x, y, z = (float(value) for value in values["centre"])
        up: Up = "z" if values.get("up") == "z" else "y"
        return cls(centre=(x, y, z), scale=float(values["scale"]), up=up)


def fit_frame(
    vertices: NDArray[np.floating],  # [V, 3]
    longest_side: float = TRAINING_SIDE,
    up: Up = "y",
) -> Frame:
    """Return the frame that centres the bounding box and gives its longest side this length.

    Args:
        vertices: The source.
        longest_side: Length in normalised units.
        up: Axis of the source that points up.

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
    return Frame(centre=(x, y, z), scale=longest_side / side, up=up)


def up_axis(setting: str, suffix: str) -> Up:
    """Return the axis that points up in a file, from `y`, `z` or `auto`.

    `auto` is z for the formats of 3D printing, 3MF by its specification and STL by custom, and y
    for all others: GLB by its specification, the rest by the custom of modelling programs.
    """
    if setting == "auto":
        return "z" if suffix.lower() in (".3mf", ".stl") else "y"
    return "z" if setting == "z" else "y"
