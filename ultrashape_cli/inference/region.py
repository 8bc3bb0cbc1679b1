"""The part of a mesh that a refinement may change.

A region is a solid in the normalised frame, known by its signed distance. Inside it a change sets
in over some voxels from its border; outside nothing changes at all (`stitch.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ultrashape_cli.errors import MeshError, UsageError
from ultrashape_cli.geometry.bricks import all_nodes
from ultrashape_cli.geometry.normalize import Frame
from ultrashape_cli.meshfiles.appearance import load_appearance
from ultrashape_cli.rendering.colours import SurfaceColours

Points = NDArray[np.float64]  # [N, 3]
Distances = NDArray[np.float64]  # [N]
FORMS = "box=X,Y,Z,X,Y,Z, sphere=X,Y,Z,R, side=-z or mask=FILE"
_AXES = {"x": 0, "y": 1, "z": 2}
_MASK_CELLS = 96
"""Cells along a side of the grid that a painted region is read on."""
_BRIGHT = 127.5
"""Luminance of a painted colour from which it is region, of 255."""
_PLACE = 0.25
"""How far the mesh of a mask may lie beside the one it is for, and differ in size, of its half
length: a painted copy of the coarse mesh serves the refined one."""


@dataclass(frozen=True, slots=True)
class RegionSpec:
    """A region as it was asked for."""

    kind: str
    """`box`, `sphere`, `side` or `mask`."""
    numbers: tuple[float, ...] = ()
    """In the frame of the file; of a side its axis and sign."""
    file: Path | None = None


@dataclass(frozen=True, slots=True)
class Region:
    """A region in the normalised frame."""

    distance: Callable[[Points], Distances]
    """Signed distance to its border, negative inside; a bound of it where that is simpler."""
    feather: float = 0.0
    """Depth below the border at which the change is whole, in units of the cube of side 2."""

    def weight(self, points: Points, start: float = 0.0) -> Distances:  # [N, 3] -> [N]
        """Returns how much may change at points: 0 outside, 1 deeper inside than the feather.

        Args:
            points: In the normalised frame.
            start: Share of the feather, counted from the border, that still changes nothing.
        """
        depth = -self.distance(points) / max(self.feather, 1e-9)
        result: Distances = np.clip((depth - start) / (1 - start), 0.0, 1.0)
        return result


def parse_region(text: str) -> RegionSpec:
    """Returns what a setting `refine.region` asks for.

    Raises:
        UsageError: It has none of the four forms, or a mask is missing.
    """
    kind, equals, rest = text.partition("=")
    wanted = {"box": 6, "sphere": 4}
    if kind in wanted and equals:
        try:
            numbers = tuple(float(part) for part in rest.split(","))
        except ValueError:
            numbers = ()
        if len(numbers) != wanted[kind] or not np.isfinite(numbers).all():
            raise UsageError(f"`{text}` needs {wanted[kind]} numbers", hint=f"--region {FORMS}")
        if kind == "sphere" and numbers[3] <= 0:
            raise UsageError(f"the sphere of `{text}` has no radius", hint=f"--region {FORMS}")
        if kind == "box" and any(numbers[i] == numbers[i + 3] for i in range(3)):
            raise UsageError(f"the box of `{text}` has no volume", hint=f"--region {FORMS}")
        return RegionSpec(kind, numbers)
    axis = rest.lstrip("+-")
    if kind == "side" and axis in _AXES and len(rest) - len(axis) < 2:
        return RegionSpec(kind, (_AXES[axis], -1.0 if rest.startswith("-") else 1.0))
    if kind == "mask" and rest:
        if not Path(rest).is_file():
            raise UsageError(f"the mask `{rest}` does not exist", hint=f"--region {FORMS}")
        return RegionSpec(kind, file=Path(rest))
    raise UsageError(f"`{text}` is no region", hint=f"--region {FORMS}")


def place_region(spec: RegionSpec, frame: Frame) -> Region:
    """Returns a region in the normalised frame, without feather.

    Args:
        spec: From `parse_region`.
        frame: Of the mesh.

    Raises:
        MeshError: The mask cannot be read, or is of another mesh, or moved.
        UsageError: It has no colours, or none of them is bright.
    """
    if spec.kind == "side":
        axis, sign = int(spec.numbers[0]), spec.numbers[1]
        return Region(lambda points: -sign * points[:, axis])
    if spec.kind == "sphere":
        centre = frame.to_normalised(spec.numbers[:3])
        radius = spec.numbers[3] * frame.scale
        return Region(lambda points: np.linalg.norm(points - centre, axis=1) - radius)
    if spec.kind == "box":
        corners = frame.to_normalised(np.reshape(spec.numbers, (2, 3)))
        low, high = corners.min(0), corners.max(0)

        def to_box(points: Points) -> Distances:
            over = np.maximum(low - points, points - high)
            outside = np.linalg.norm(np.maximum(over, 0), axis=1)
            return outside + np.minimum(over.max(1), 0)

        return Region(to_box)
    assert spec.file is not None
    return Region(_painted(spec.file, frame))


def _painted(path: Path, frame: Frame) -> Callable[[Points], Distances]:
    """Returns the distance to what is nearest to bright colours of a mesh in the same place."""
    appearance = load_appearance(path)
    if appearance is None or not appearance.has_colour:
        problem = "; ".join(appearance.problems) if appearance else "it has no colours"
        raise UsageError(
            f"the mask `{path}` tells no region: {problem or 'it has no colours'}",
            hint="paint a copy of the mesh, white what may change, black the rest (PLY or GLB)",
        )
    _require_same_place(path, frame.to_normalised(appearance.mesh.vertices))
    colours = SurfaceColours(appearance, frame)
    cell = 2 / _MASK_CELLS
    light = colours.closest_bytes(cell * all_nodes(_MASK_CELLS) - 1) @ np.array(
        [0.2126, 0.7152, 0.0722]
    )
    inside = (light >= _BRIGHT).reshape((_MASK_CELLS + 1,) * 3)
    if not inside.any():
        raise UsageError(
            f"nothing of the mask `{path}` is bright: no region is painted",
            hint="white is what may change, black the rest",
        )
    outer = ndimage.distance_transform_edt(~inside) if not inside.all() else np.zeros(inside.shape)
    inner = ndimage.distance_transform_edt(inside) if not inside.all() else np.full(inside.shape, 9)
    grid = (outer - inner + np.where(inside, 0.5, -0.5)) * cell

    def distance(points: Points) -> Distances:
        place = ((points + 1) / cell).T
        found: Distances = ndimage.map_coordinates(grid, place, order=1, mode="nearest")
        return found

    return distance


def _require_same_place(path: Path, vertices: Points) -> None:
    """Raises MeshError unless the mesh of a mask fills about the cube that the refined one does."""
    found = vertices[np.isfinite(vertices).all(1)]
    low, high = found.min(0, initial=np.inf), found.max(0, initial=-np.inf)
    centre, half = np.abs(low + high).max() / 2, (high - low).max() / 2
    if centre > _PLACE or abs(half - 1) > _PLACE:
        raise MeshError(
            f"the mask `{path}` is not where the mesh is: {half:.3g} times as large, and "
            f"{centre:.3g} of the mesh's half length away",
            hint="paint a copy of the mesh as it is, in the same units and with the same axes",
        )


def require_tokens(weights: NDArray[np.floating], text: str) -> None:  # [M]
    """Raises MeshError where a region holds no token of the mesh."""
    if not (weights > 0).any():
        raise MeshError(
            f"the region `{text}` misses the mesh",
            hint="box and sphere are in the frame of the file, sides of the upright mesh",
        )
