"""Polygons to triangles.

Convex ones become fans, others lose one ear after the other; no triangle lies outside of its
polygon or turns its back, and every corner stays in use, also those on a straight edge, so that
closed surfaces stay closed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ultrashape_cli.geometry.jit import kernel
from ultrashape_cli.meshfiles.parts import Unreadable

# Rounding of coordinates, relative to the largest: corners within it lie on a line.
_ROUNDING = 1e-15


@dataclass(frozen=True, slots=True)
class Triangles:
    """What polygons were cut into.

    Attributes:
        faces: `[T, 3]` vertices, in the order of the polygons.
    """

    faces: NDArray[np.int64]
    _cut: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None
    """Positions and polygons; None where every polygon is a triangle."""

    @property
    def positions(self) -> NDArray[np.int64]:
        """`[T, 3]` of the faces in the corners."""
        return self._cut[0] if self._cut else np.arange(self.faces.size).reshape(-1, 3)

    @property
    def polygon(self) -> NDArray[np.int64]:
        """`[T]` that each was part of."""
        return self._cut[1] if self._cut else np.arange(len(self.faces))


def triangulate(
    vertices: NDArray[np.float64], corners: NDArray[Any], sizes: NDArray[Any]
) -> Triangles:
    """Cuts polygons into triangles; those of one or two corners are left out.

    Args:
        vertices: `[V, 3]`.
        corners: `[C]` vertices of all polygons, one after the other.
        sizes: `[P]` corners of each polygon.

    Raises:
        Unreadable: A polygon uses a vertex that does not exist.
    """
    if len(corners) and not (corners.min() >= 0 and corners.max() < len(vertices)):
        wrong = corners[(corners < 0) | (corners >= len(vertices))][0]
        raise Unreadable(f"a face uses vertex {wrong}, the file has {len(vertices)} (from 0)")
    corners = np.ascontiguousarray(corners, np.int64)
    if (sizes == 3).all():
        return Triangles(corners.reshape(-1, 3))
    sizes = np.ascontiguousarray(sizes, np.int64)
    polygon = np.repeat(np.arange(len(sizes)), np.maximum(sizes - 2, 0))
    positions = np.empty((len(polygon), 3), np.int64)
    _cut(np.ascontiguousarray(vertices, np.float64), corners, sizes, positions)
    return Triangles(corners[positions], (positions, polygon))


@kernel
def _cut(
    vertices: NDArray[np.float64],
    corners: NDArray[np.int64],
    sizes: NDArray[np.int64],
    faces: NDArray[np.int64],
) -> None:
    start = row = 0
    largest = max(sizes.max(), 4)
    points = np.empty((largest, 2))
    for size in sizes:
        if size >= 3:
            first = 0
            noise = 0.0 if size == 3 else _flatten(vertices, corners[start : start + size], points)
            if size == 3 or noise < 0 or _is_fan(points, size, noise):
                pass
            elif size == 4:
                first = int(_worst(points, 1) > _worst(points, 0))
            else:
                _clip_ears(points, size, start, noise, faces[row : row + size - 2])
                first = -1
            if first >= 0:
                for k in range(size - 2):
                    faces[row + k, 0] = start + first
                    faces[row + k, 1] = start + first + k + 1
                    faces[row + k, 2] = start + (first + k + 2) % size
            row += size - 2
        start += size


@kernel
def _flatten(
    vertices: NDArray[np.float64], corners: NDArray[np.int64], points: NDArray[np.float64]
) -> float:
    """Puts a polygon into its plane, anticlockwise, its area about 1.

    Returns how far its points are from where they belong; -1 where there is no plane.
    """
    ox, oy, oz = vertices[corners[0]]
    nx = ny = nz = 0.0
    for k in range(1, len(corners) - 1):
        ax, ay, az = vertices[corners[k]]
        bx, by, bz = vertices[corners[k + 1]]
        ax, ay, az, bx, by, bz = ax - ox, ay - oy, az - oz, bx - ox, by - oy, bz - oz
        nx += ay * bz - az * by
        ny += az * bx - ax * bz
        nz += ax * by - ay * bx
    length = math.sqrt(nx * nx + ny * ny + nz * nz)
    if not 0.0 < length < math.inf:
        return -1.0
    nx, ny, nz = nx / length, ny / length, nz / length
    # Two axes across the normal, the first from the axis that it is farthest from.
    if abs(nx) <= abs(ny) and abs(nx) <= abs(nz):
        ux, uy, uz = 0.0, nz, -ny
    elif abs(ny) <= abs(nz):
        ux, uy, uz = -nz, 0.0, nx
    else:
        ux, uy, uz = ny, -nx, 0.0
    scale = 1.0 / math.sqrt((ux * ux + uy * uy + uz * uz) * length)
    ux, uy, uz = ux * scale, uy * scale, uz * scale
    wx, wy, wz = ny * uz - nz * uy, nz * ux - nx * uz, nx * uy - ny * ux
    largest = 0.0
    for k in range(len(corners)):
        x, y, z = vertices[corners[k]]
        largest = max(largest, abs(x), abs(y), abs(z))
        x, y, z = x - ox, y - oy, z - oz
        points[k, 0] = x * ux + y * uy + z * uz
        points[k, 1] = x * wx + y * wy + z * wz
    return _ROUNDING * (1.0 + largest / math.sqrt(length))


@kernel
def _twice_area(points: NDArray[np.float64], a: int, b: int, c: int) -> float:
    x, y = points[a, 0], points[a, 1]
    return (points[b, 0] - x) * (points[c, 1] - y) - (points[b, 1] - y) * (points[c, 0] - x)


@kernel
def _sticks_out(points: NDArray[np.float64], a: int, b: int, c: int, noise: float) -> bool:
    """Says whether corner b lies outside of the line from a to c, by more than noise."""
    around = (abs(points[b, 0] - points[a, 0]) + abs(points[b, 1] - points[a, 1])
              + abs(points[c, 0] - points[b, 0]) + abs(points[c, 1] - points[b, 1]))  # fmt: skip
    return _twice_area(points, a, b, c) > noise * around


@kernel
def _worst(points: NDArray[np.float64], first: int) -> float:
    """Returns the smaller area of the two triangles of a quad that is cut at corner `first`."""
    a, b, c, d = first, first + 1, first + 2, (first + 3) % 4
    return min(_twice_area(points, a, b, c), _twice_area(points, a, c, d))


@kernel
def _is_fan(points: NDArray[np.float64], size: int, noise: float) -> bool:
    """Says whether triangles from corner 0 fill the polygon: they turn one way, once at most."""
    passed_half = False
    for k in range(1, size - 1):
        if not _sticks_out(points, 0, k, k + 1, noise):
            return False
        turned = _twice_area(points, 0, 1, k + 1)
        if passed_half and turned > 0:
            return False
        passed_half = passed_half or turned < 0
    return True


@kernel
def _clip_ears(
    points: NDArray[np.float64], size: int, start: int, noise: float, faces: NDArray[np.int64]
) -> None:
    before, behind = np.empty(size, np.int64), np.empty(size, np.int64)
    for k in range(size):
        before[k], behind[k] = (k - 1) % size, (k + 1) % size
    # Only corners that do not stick out can lie in the way of a cut.
    dented = np.empty(size, np.bool_)
    for k in range(size):
        dented[k] = not _sticks_out(points, before[k], k, behind[k], noise)
    tip = tried = row = 0
    left = size
    while left > 2:
        is_ear = left == 3 or (not dented[tip] and _is_clear(points, behind, dented, before, tip))
        if not is_ear and tried < left:
            tip, tried = behind[tip], tried + 1
            continue
        if not is_ear:
            tip = _least_harm(points, before, behind, tip, noise)
        a, c = before[tip], behind[tip]
        faces[row, 0], faces[row, 1], faces[row, 2] = start + a, start + tip, start + c
        behind[a], before[c] = c, a
        for k in (a, c):
            dented[k] = not _sticks_out(points, before[k], k, behind[k], noise)
        tip, tried, row, left = behind[c], 0, row + 1, left - 1


@kernel
def _is_clear(
    points: NDArray[np.float64],
    behind: NDArray[np.int64],
    dented: NDArray[np.bool_],
    before: NDArray[np.int64],
    tip: int,
) -> bool:
    """Says whether no other corner lies in or on the triangle at a tip."""
    a, c = before[tip], behind[tip]
    k = behind[c]
    while k != a:
        if (
            dented[k]
            and _twice_area(points, a, tip, k) >= 0
            and _twice_area(points, tip, c, k) >= 0
            and _twice_area(points, c, a, k) >= 0
        ):
            # A cut towards a hole passes its ends twice.
            x, y = points[k, 0], points[k, 1]
            same = False
            for other in (a, tip, c):
                same = same or (points[other, 0] == x and points[other, 1] == y)
            if not same:
                return False
        k = behind[k]
    return True


@kernel
def _least_harm(
    points: NDArray[np.float64],
    before: NDArray[np.int64],
    behind: NDArray[np.int64],
    tip: int,
    noise: float,
) -> int:
    """Returns the corner to cut where a polygon crosses itself: a flat one, or the largest."""
    best, largest = tip, -math.inf
    k = tip
    while True:
        area = _twice_area(points, before[k], k, behind[k])
        if not (_sticks_out(points, before[k], k, behind[k], noise)
                or _sticks_out(points, behind[k], k, before[k], noise)):  # fmt: skip
            return k
        if area > largest:
            best, largest = k, area
        k = behind[k]
        if k == tip:
            return best
