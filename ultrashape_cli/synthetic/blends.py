"""Solids as blends of simple parts, evaluated near their surface only.

A part is a primitive in its own frame, its surface moved by a pattern and joined to the parts
before it by a smooth minimum (the polynomial one of Inigo Quilez, "smooth minimum").
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ultrashape_cli.geometry.bricks import BRICK_NODES, BRICK_SIDE, BrickGrid, bricks_per_axis
from ultrashape_cli.geometry.isosurface import extract_isosurface
from ultrashape_cli.geometry.jit import kernel
from ultrashape_cli.geometry.mesh import Mesh

EXTENT = 1.1
"""Half the side of the cube that solids are evaluated in."""
_COLUMNS = 25
_SLACK = 0.1
"""What patterns and joints may move a surface by."""


class Shape(IntEnum):
    """Primitives; `size` is their radii or half-sides in their own frame."""

    ELLIPSOID = 0
    BOX = 1
    """rounded by `round`"""
    CYLINDER = 2
    """around y: size[0] its radius, size[1] half its height; rounded by `round`"""
    CAPSULE = 3
    """along y from the origin: size[1] its length, radius size[0], at the end size[2]"""
    TORUS = 4
    """around y: size[0] its radius, size[1] that of the tube"""


class Pattern(IntEnum):
    """What moves the surface of a part, by up to `depth`, with `frequency` waves per unit."""

    NONE = 0
    RINGS = 1
    """engraved grooves across y"""
    SCALES = 2
    """rows of bumps, every other row shifted"""
    FOLDS = 3
    """waves around y, deeper towards the hem"""
    STRANDS = 4
    """fine grooves down y that wind"""
    STUDS = 5
    """round bumps on a square lattice"""


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
    pattern: Pattern = Pattern.NONE
    depth: float = 0.0
    frequency: float = 0.0

    def row(self) -> list[float]:
        """Returns the numbers the kernel reads."""
        rotation = np.eye(3) if self.rotation is None else self.rotation
        size = [*self.size, 0.0, 0.0][:3]
        head = [float(self.shape), float(self.cut), self.blend, float(self.pattern)]
        tail = [self.depth, self.frequency, self.round]
        return [*head, *tail, *self.centre, *size, *np.asarray(rotation).T.ravel(), 0.0, 0.0, 0.0]


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


def blend_mesh(parts: Sequence[Part], resolution: int) -> Mesh:
    """Returns the closed surface of the joined parts in the cube of half-side `EXTENT`.

    Args:
        parts: At least one that is not cut away.
        resolution: Cells along one side of the cube.
    """
    rows = np.array([part.row() for part in parts])
    assert rows.shape[1] == _COLUMNS
    side, cell = bricks_per_axis(resolution), 2 * EXTENT / resolution
    bricks = np.argwhere(np.ones((side, side, side), bool))
    # Distances are lower bounds away from the surface, so a brick whose centre is further than
    # its corners (and the joints' width) has no surface.
    centres = (bricks * BRICK_SIDE + BRICK_SIDE / 2) * cell - EXTENT
    reach = (BRICK_SIDE / 2 + 1) * cell * math.sqrt(3) + _SLACK
    near = np.abs(_evaluate(centres, rows)) < reach
    grid = BrickGrid.allocate(resolution, bricks[near])
    nodes = grid.nodes(np.ones((len(grid.coords), BRICK_NODES), bool))
    grid.values[:] = _evaluate(nodes * cell - EXTENT, rows).reshape(grid.values.shape)
    vertices, faces = extract_isosurface(grid)
    return Mesh.from_arrays(vertices * cell - EXTENT, faces)


@kernel
def _evaluate(points, rows):
    """Return the signed distance of the joined parts, negative inside, `[N]`."""
    out = np.empty(len(points))
    for n in range(len(points)):
        total = 1e9
        for r in range(len(rows)):
            row = rows[r]
            x = points[n, 0] - row[7]
            y = points[n, 1] - row[8]
            z = points[n, 2] - row[9]
            u = row[13] * x + row[14] * y + row[15] * z
            v = row[16] * x + row[17] * y + row[18] * z
            w = row[19] * x + row[20] * y + row[21] * z
            distance = _primitive(u, v, w, row)
            if row[3] > 0 and abs(distance) < 0.2:
                distance += _pattern(u, v, w, row)
            if row[1] > 0:
                distance, joint = -distance, row[2]
                h = max(joint - abs(total - distance), 0.0) / max(joint, 1e-9)
                total = max(total, distance) + h * h * joint * 0.25
            else:
                joint = row[2]
                h = max(joint - abs(total - distance), 0.0) / max(joint, 1e-9)
                total = min(total, distance) - h * h * joint * 0.25
        out[n] = total
    return out


@kernel
def _primitive(u, v, w, row):
    a, b, c = row[10], row[11], row[12]
    kind = int(row[0])
    if kind == 0:
        # First-order distance: exact at the surface, a lower bound close to it.
        k0 = math.sqrt((u / a) ** 2 + (v / b) ** 2 + (w / c) ** 2)
        k1 = math.sqrt((u / (a * a)) ** 2 + (v / (b * b)) ** 2 + (w / (c * c)) ** 2)
        return k0 * (k0 - 1.0) / max(k1, 1e-6) if k0 < 1.5 else (k0 - 1.0) * min(a, min(b, c))
    if kind == 1:
        x, y, z = abs(u) - a + row[6], abs(v) - b + row[6], abs(w) - c + row[6]
        far = math.sqrt(max(x, 0.0) ** 2 + max(y, 0.0) ** 2 + max(z, 0.0) ** 2)
        return far + min(max(x, max(y, z)), 0.0) - row[6]
    if kind == 2:
        x, y = math.sqrt(u * u + w * w) - a + row[6], abs(v) - b + row[6]
        far = math.sqrt(max(x, 0.0) ** 2 + max(y, 0.0) ** 2)
        return far + min(max(x, y), 0.0) - row[6]
    if kind == 3:
        t = min(max(v / max(b, 1e-9), 0.0), 1.0)
        return math.sqrt(u * u + (v - t * b) ** 2 + w * w) - (a + (c - a) * t)
    ring = math.sqrt(u * u + w * w) - a
    return math.sqrt(ring * ring + v * v) - b


@kernel
def _pattern(u, v, w, row):
    depth, frequency = row[4], row[5]
    kind = int(row[3])
    wave = 2.0 * math.pi * frequency
    angle = math.atan2(u, w)
    # The same number of waves around a part of any size: whole, so that they meet at the back.
    around = max(round(wave * 0.5 * (row[10] + row[12])), 3.0)
    if kind == 1:
        return depth * max(0.0, math.sin(wave * v) - 0.3)
    if kind == 2:
        turn = math.pi / around if math.floor(frequency * v + 0.5) % 2 else 0.0
        return -depth * abs(math.cos(0.5 * wave * v)) * abs(math.cos(around * 0.5 * (angle + turn)))
    if kind == 3:
        fall = min(max(0.5 - v / max(2.0 * row[11], 1e-6), 0.1), 1.0)
        return -depth * fall * math.cos(around * angle + 3.0 * v)
    if kind == 4:
        return -depth * abs(math.sin(around * angle + 4.0 * math.sin(5.0 * v)))
    bump = math.cos(wave * v) * math.cos(around * angle)
    return -depth * max(0.0, bump) ** 2
