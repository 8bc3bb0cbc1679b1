"""The closest of many small triangles, by a uniform grid of blocks.

For a surface made of cells this takes a tenth of the time of a tree, because nothing is sorted.
"""

import numpy as np
from numpy.typing import NDArray

from ultrashape_cli.geometry.bvh import point_triangle_squared
from ultrashape_cli.geometry.jit import kernel

# Nodes a block spans, along one axis.
_BLOCK = 4
# Search radii in cells; beyond the last one a distance is only known to be larger.
_RADII = np.array([0.5, 2.0, 8.0, 24.0])
# Edges of the faces are no longer than this, in cells.
_LONGEST = 2.0


def closest_small_faces(
    vertices: NDArray[np.float64],  # [V, 3] in node-index units, not negative
    faces: NDArray[np.int64],  # [F, 3], edges up to two cells
    points: NDArray[np.float64],  # [N, 3]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the distance `[N]` in cells and the closest face `[N]`.

    Where nothing lies within the last radius, that is the distance and the face is -1.
    """
    side = int(vertices.max(initial=0.0)) // _BLOCK + 1
    start, order = _sort_faces(vertices, faces, side)
    squared, face = _search(vertices, faces, points, start, order, side, _RADII)
    return np.sqrt(squared), face


@kernel
def _block_of(vertices, face, side):
    code = 0
    for x in range(3):
        total = vertices[face[0], x] + vertices[face[1], x] + vertices[face[2], x]
        code = code * side + int(total / 3) // _BLOCK
    return code


@kernel
def _sort_faces(vertices, faces, side):
    """Return where the faces of each block start, and the faces by block."""
    start = np.zeros(side**3 + 1, np.int32)
    for f in range(len(faces)):
        start[_block_of(vertices, faces[f], side) + 1] += 1
    for b in range(side**3):
        start[b + 1] += start[b]
    order = np.empty(len(faces), np.int32)
    for f in range(len(faces) - 1, -1, -1):
        b = _block_of(vertices, faces[f], side)
        # Counting down from the end of a block, its end becomes its start.
        start[b + 1] -= 1
        order[start[b + 1]] = f
    return start, order


@kernel
def _search(vertices, faces, points, start, order, side, radii):
    squared = np.empty(len(points))
    closest = np.full(len(points), -1, np.int64)
    low = np.empty(3, np.int64)
    high = np.empty(3, np.int64)
    for n in range(len(points)):
        p = points[n]
        best = radii[-1] ** 2
        skip = (radii[-1] + _LONGEST) ** 2
        for radius in radii:
            # The middle of a face is nearer than this to all its points.
            beyond = radius + _LONGEST / np.sqrt(3.0)
            for x in range(3):
                low[x] = max(int(np.floor(p[x] - beyond)), 0) // _BLOCK
                high[x] = min(max(int(p[x] + beyond), 0) // _BLOCK, side - 1)
            for i in range(low[0], high[0] + 1):
                for j in range(low[1], high[1] + 1):
                    for k in range(low[2], high[2] + 1):
                        b = (i * side + j) * side + k
                        stop = start[b + 2] if b + 2 < len(start) else len(order)
                        for o in range(start[b + 1], stop):
                            face = faces[order[o]]
                            a = vertices[face[0]]
                            away = (a[0] - p[0]) ** 2 + (a[1] - p[1]) ** 2 + (a[2] - p[2]) ** 2
                            if away > skip:
                                continue
                            d = point_triangle_squared(
                                p[0], p[1], p[2],
                                a, vertices[face[1]], vertices[face[2]],
                            )  # fmt: skip
                            if d < best:
                                best = d
                                closest[n] = order[o]
                                skip = (np.sqrt(best) + _LONGEST) ** 2
            if best <= radius * radius and closest[n] >= 0:
                break
        squared[n] = best
    return squared, closest
