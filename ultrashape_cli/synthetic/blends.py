"""Solids as blends of simple parts, evaluated near their surface only.

A part is a primitive in its own frame, its surface moved by patterns and joined to the parts
before it by a smooth minimum (the polynomial one of Inigo Quilez, "smooth minimum").
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ultrashape_cli.geometry.bricks import BRICK_NODES, BRICK_SIDE, BrickGrid, bricks_per_axis
from ultrashape_cli.geometry.isosurface import extract_isosurface
from ultrashape_cli.geometry.jit import kernel
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.synthetic.patterns import Pattern, pattern
from ultrashape_cli.synthetic.primitives import Shape, lower_bound, primitive

__all__ = ["EXTENT", "Detail", "Frame", "Part", "Pattern", "Shape", "blend_mesh", "find_frame"]

EXTENT = 1.1
"""Half the side of the cube that solids are evaluated in."""
MAX_DETAILS = 3
_COLUMNS = 28 + 3 * MAX_DETAILS
_SLACK = 0.1
"""What patterns and joints may move a surface by."""
_SEARCH_EXTENT, _SEARCH_CELLS = 2.6, 48
"""Where and how finely a solid of unknown size is looked for."""


class Detail(NamedTuple):
    """One layer of a part's surface."""

    pattern: Pattern
    depth: float
    frequency: float


class Frame(NamedTuple):
    """The cube that a solid is evaluated in."""

    centre: tuple[float, float, float] = (0.0, 0.0, 0.0)
    half: float = EXTENT


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One primitive of a solid, in the order in which it is joined."""

    shape: Shape
    centre: Sequence[float]
    size: Sequence[float]
    rotation: NDArray[np.float64] | None = None
    """[3, 3], from the part's frame to the solid's"""
    round: float = 0.0
    blend: float = 0.0
    """width of the joint; 0 is a sharp crease"""
    cut: bool = False
    """takes the part away instead"""
    keep: bool = False
    """takes away what lies outside the part instead"""
    pattern: Pattern = Pattern.NONE
    depth: float = 0.0
    frequency: float = 0.0
    details: Sequence[Detail] = ()
    """further layers, at most `MAX_DETAILS`; together less deep than 0.08"""
    table: NDArray[np.float64] | None = None
    """numbers of the shape: a polygon, a curve, heights, planes"""
    taper: float = 0.0
    sides: int = 0
    """from 3: a polygon in place of the circle around y (cylinder, cone, revolved, tube)"""
    shell: float = 0.0
    """thickness of the wall that is left of a solid; 0 leaves it solid"""
    seed: int = 0
    """chooses the noise of the patterns"""

    def row(self, start: int = 0) -> list[float]:
        """Returns the numbers the kernel reads; its table begins at `start`."""
        assert len(self.details) <= MAX_DETAILS
        assert sum(abs(detail.depth) for detail in self.details) < 0.08, self.details
        rotation = np.eye(3) if self.rotation is None else self.rotation
        size = [*self.size, 0.0, 0.0][:3]
        operation = 1.0 if self.cut else 2.0 if self.keep else 0.0
        head = [float(self.shape), operation, self.blend, float(self.pattern)]
        tail = [self.depth, self.frequency, self.round]
        place = [*self.centre, *size, *np.asarray(rotation).T.ravel()]
        count = 0 if self.table is None else self.table.size
        more = [self.taper, self.sides, start, count, self.shell, self.seed % 9973]
        layers = [value for detail in self.details for value in detail]
        return [*head, *tail, *place, *more, *layers, *[0.0] * (3 * MAX_DETAILS - len(layers))]


def limb(
    start: NDArray[np.float64], end: NDArray[np.float64], radius: float, end_radius: float
) -> dict[str, Any]:
    """Returns shape, centre, size and rotation of a capsule between two points."""
    axis = np.asarray(end, float) - np.asarray(start, float)
    length = float(np.linalg.norm(axis))
    return {
        "shape": Shape.CAPSULE,
        "centre": tuple(np.asarray(start, float)),
        "size": (radius, length, end_radius),
        "rotation": turn_up(axis / max(length, 1e-9)),
    }


def turn_up(direction: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns a rotation [3, 3] that takes y to a unit direction."""
    side = np.array([0.0, 0.0, 1.0]) if abs(direction[2]) < 0.9 else np.array([1.0, 0.0, 0.0])
    x = np.cross(direction, side)
    x /= np.linalg.norm(x)
    return np.stack([x, direction, np.cross(x, direction)], axis=1)


def turn(x: float = 0.0, y: float = 0.0, z: float = 0.0) -> NDArray[np.float64]:
    """Returns the rotation [3, 3] by these angles in radians about z, then x, then y."""
    (cx, sx), (cy, sy), (cz, sz) = ((math.cos(a), math.sin(a)) for a in (x, y, z))
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_y @ about_x @ about_z


def blend_mesh(parts: Sequence[Part], resolution: int, frame: Frame = Frame()) -> Mesh:  # noqa: B008
    """Returns the closed surface of the joined parts in a cube.

    Args:
        parts: At least one that is not cut away.
        resolution: Cells along one side of the cube.
        frame: The cube; what reaches out of it is open.
    """
    rows, table = _numbers(parts)
    grid, cell = _field(rows, table, resolution, frame)
    vertices, faces = extract_isosurface(grid)
    return Mesh.from_arrays(vertices * cell - frame.half + np.array(frame.centre), faces)


def find_frame(parts: Sequence[Part]) -> Frame:
    """Returns the smallest cube, with a margin, that holds the joined parts."""
    rows, table = _numbers(parts)
    search = Frame(half=_SEARCH_EXTENT)
    grid, cell = _field(rows, table, _SEARCH_CELLS, search)
    values = grid.values.ravel()
    nodes = grid.nodes(np.ones((len(grid.coords), BRICK_NODES), bool))
    near = values < cell
    points, far = nodes[near] * cell - search.half, values[near, None].astype(float)
    # A surface lies within its distance of a node, so beyond these.
    low, high = (points + far).min(axis=0), (points - far).max(axis=0)
    x, y, z = (low + high) / 2
    return Frame((float(x), float(y), float(z)), float((high - low).max()) * 0.5 * 1.04 + 0.03)


def _numbers(parts: Sequence[Part]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns a row per part, `[P, columns]`, and their tables one after the other."""
    tables = [np.empty(0) if part.table is None else part.table.ravel() for part in parts]
    starts = np.cumsum([0, *(table.size for table in tables)])
    rows = np.array([part.row(int(start)) for part, start in zip(parts, starts[:-1], strict=True)])
    assert rows.shape[1] == _COLUMNS
    return rows, np.concatenate([*tables, np.zeros(1)]).astype(np.float64)


def _field(
    rows: NDArray[np.float64], table: NDArray[np.float64], resolution: int, frame: Frame
) -> tuple[BrickGrid, float]:
    """Returns the field in the bricks that may hold the surface, and the side of a cell."""
    side, cell = bricks_per_axis(resolution), 2 * frame.half / resolution
    bricks = np.argwhere(np.ones((side, side, side), bool))
    corner = np.array(frame.centre) - frame.half
    # Distances are lower bounds away from the surface, so a brick whose centre is further than
    # its corners (and the joints' width) has no surface.
    centres = (bricks * BRICK_SIDE + BRICK_SIDE / 2) * cell + corner
    radius = (BRICK_SIDE / 2 + 1) * cell * math.sqrt(3)
    everything = np.arange(len(rows))
    all_of_them = np.array([0, len(rows)])
    value = _evaluate(centres, len(centres), all_of_them, everything, rows, table, True)
    near = np.abs(value) < radius + _SLACK
    grid = BrickGrid.allocate(resolution, bricks[near])
    starts, order = _parts_near(centres[near], radius, 2 * cell, rows, table)
    nodes = grid.nodes(np.ones((len(grid.coords), BRICK_NODES), bool))
    values = _evaluate(nodes * cell + corner, BRICK_NODES, starts, order, rows, table, False)
    grid.values[:] = values.reshape(grid.values.shape)
    return grid, cell


@kernel
def _local(x, y, z, row):
    """Return a place in the part's own frame."""
    x, y, z = x - row[7], y - row[8], z - row[9]
    u = row[13] * x + row[14] * y + row[15] * z
    v = row[16] * x + row[17] * y + row[18] * z
    w = row[19] * x + row[20] * y + row[21] * z
    return u, v, w


@kernel
def _parts_near(centres, radius, margin, rows, table):
    """Return for each brick which parts can have a say at its surface, in their order.

    Returns:
        `starts [B + 1]` into `order`, the numbers of the parts.
    """
    # A joint is as wide as the widest: a part may be joined to one that comes later.
    widest = rows[:, 2].max() + margin
    starts = np.zeros(len(centres) + 1, np.int64)
    order = np.empty(len(centres) * len(rows), np.int64)
    made = 0
    for n in range(len(centres)):
        for r in range(len(rows)):
            row = rows[r]
            u, v, w = _local(centres[n, 0], centres[n, 1], centres[n, 2], row)
            distance = lower_bound(u, v, w, row, table)
            if row[26] > 0:
                distance = abs(distance) - 0.5 * row[26]
            if row[1] == 2:
                distance = -distance
            deep = abs(row[29]) + abs(row[32]) + abs(row[35])
            # Values may change a little faster than the place does (tapered parts).
            if distance < 1.3 * radius + widest + row[4] + deep:
                order[made] = r
                made += 1
        starts[n + 1] = made
    return starts, order[:made].copy()


@kernel
def _evaluate(points, group, starts, order, rows, table, afar):
    """Return the signed distance of the joined parts, negative inside, `[N]`.

    Each `group` points in a row share the parts `order[starts[g]:starts[g + 1]]`. `afar` takes
    for a relief the bound by its steepest slope: a cliff may be nearer than the ground below.
    """
    out = np.empty(len(points))
    for n in range(len(points)):
        total = 1e9
        for k in range(starts[n // group], starts[n // group + 1]):
            row = rows[order[k]]
            u, v, w = _local(points[n, 0], points[n, 1], points[n, 2], row)
            if afar and row[0] == 10:
                distance = lower_bound(u, v, w, row, table)
            else:
                distance = _moved(u, v, w, row, table)
            joint = row[2]
            if row[1] > 0:
                if row[1] == 1:
                    distance = -distance
                h = max(joint - abs(total - distance), 0.0) / max(joint, 1e-9)
                total = max(total, distance) + h * h * joint * 0.25
            else:
                h = max(joint - abs(total - distance), 0.0) / max(joint, 1e-9)
                total = min(total, distance) - h * h * joint * 0.25
        out[n] = total
    return out


@kernel
def _moved(u, v, w, row, table):
    """Return the distance of one part, its surface moved by its patterns."""
    distance, u, v, w = primitive(u, v, w, row, table)
    if row[26] > 0:
        distance = abs(distance + 0.5 * row[26]) - 0.5 * row[26]
    if row[3] > 0 and abs(distance) < 0.2:
        distance += pattern(u, v, w, row, int(row[3]), row[4], row[5], 0)
    if row[28] > 0:
        # Away from the surface patterns fade out: they are dear, and joints are smooth.
        deep = abs(row[29]) + abs(row[32]) + abs(row[35])
        weight = min((deep + 0.1 - abs(distance)) * 20, 1.0)
        if weight > 0:
            offset = 0.0
            for d in range(28, 37, 3):
                if row[d] > 0:
                    seed = int(row[27]) + d
                    offset += pattern(u, v, w, row, int(row[d]), row[d + 1], row[d + 2], seed)
            distance += weight * offset
    return distance
