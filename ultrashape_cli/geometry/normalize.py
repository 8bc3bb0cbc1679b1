"""The one normalisation to the cube [-1, 1]^3, and its inverse."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ultrashape_cli.errors import MeshError
from ultrashape_cli.geometry.mesh import Mesh

Up = Literal["y", "z"]
Front = Literal["z", "-z", "x", "-x"]

# Longest side of an asset when the released weights were trained: 2 % margin in the cube.
TRAINING_SIDE = 2 / 1.02
# Longest side that the reference inference script gives its coarse mesh.
REFINE_SIDE = 2 * 0.99


@dataclass(frozen=True, slots=True)
class Frame:
    """Similarity between a source file and the normalised cube: `(p - centre) * scale`, turned.

    Attributes:
        centre: Centre of the bounding box, in source units.
        scale: Normalised units per source unit.
        up: Axis of the source that becomes y of the cube. From z, (x, y, z) becomes (x, z, -y).
        front: Axis of the source, once it is upright, that becomes z of the cube.
    """

    centre: tuple[float, float, float]
    scale: float
    up: Up = "y"
    front: Front = "z"

    def to_normalised(self, points: ArrayLike) -> NDArray[np.float64]:
        """Return source points `[..., 3]` in the normalised frame."""
        placed = (np.asarray(points, np.float64) - np.asarray(self.centre)) * self.scale
        if self.up == "z":
            placed = np.stack([placed[..., 0], placed[..., 2], -placed[..., 1]], axis=-1)
        return _turned(placed, self.front)

    def to_source(self, points: ArrayLike) -> NDArray[np.float64]:
        """Return normalised points `[..., 3]` in the source frame."""
        placed = _turned(np.asarray(points, np.float64), _BACK[self.front])
        if self.up == "z":
            placed = np.stack([placed[..., 0], -placed[..., 2], placed[..., 1]], axis=-1)
        return placed / self.scale + np.asarray(self.centre)

    def as_dict(self) -> dict[str, Any]:
        """Return the frame as plain values for a manifest."""
        return {"centre": list(self.centre), "scale": self.scale, "up": self.up,
                "front": self.front}  # fmt: skip

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Frame:
        """Return the frame that `as_dict` wrote; without axes, y is up and z the front."""
        x, y, z = (float(value) for value in values["centre"])
        up: Up = "z" if values.get("up") == "z" else "y"
        front = values.get("front", "z")
        return cls((x, y, z), float(values["scale"]), up, front if front in _BACK else "z")


_BACK: dict[Front, Front] = {"z": "z", "-z": "-z", "x": "-x", "-x": "x"}
"""Front -> the one that undoes its turn."""


def _turned(points: NDArray[np.float64], front: Front) -> NDArray[np.float64]:
    """Return points `[..., 3]` turned about y so that the front axis becomes z."""
    x, y, z = points[..., 0], points[..., 1], points[..., 2]
    if front == "x":
        return np.stack([-z, y, x], axis=-1)
    if front == "-x":
        return np.stack([z, y, -x], axis=-1)
    return np.stack([-x, y, -z], axis=-1) if front == "-z" else points


def fit_frame(
    mesh: Mesh, longest_side: float = TRAINING_SIDE, up: Up = "y", front: Front = "z"
) -> Frame:
    """Return the frame that centres the bounding box and gives its longest side this length.

    Args:
        mesh: The source; vertices that no face uses have no say.
        longest_side: Length in normalised units.
        up: Axis of the source that points up.
        front: Axis of the upright source that the front looks along.

    Raises:
        MeshError: There are no faces, or they have no extent.
    """
    if len(mesh.faces) == 0:
        raise MeshError("cannot normalise a mesh without faces")
    low, high = mesh.bounds
    side = float(np.max(high - low))
    if not np.isfinite(side) or side <= 0:
        raise MeshError(f"cannot normalise a mesh whose longest side is {side}")
    x, y, z = ((low + high) / 2).tolist()
    return Frame((x, y, z), longest_side / side, up, front)


def up_axis(setting: str, suffix: str) -> Up:
    """Return the axis that points up in a file, from `y`, `z` or `auto`.

    `auto` is z for the formats of 3D printing, 3MF by its specification and STL by custom, and y
    for all others: GLB by its specification, the rest by the custom of modelling programs.
    """
    if setting == "auto":
        return "z" if suffix.lower() in (".3mf", ".stl") else "y"
    return "z" if setting == "z" else "y"
