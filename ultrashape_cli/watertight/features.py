"""Sharp edges kept by a level set: vertices beside an edge of the source move onto it.

Marching cubes bevels an edge by up to a cell. Here a vertex that lies close enough is put on the
edge, or on a corner where edges meet, unless a face around it would turn over or become a needle.
Only positions change, so the surface stays as closed as it was.
"""

import numpy as np
from numpy.typing import NDArray

from ultrashape_cli.geometry.check import bent_edges
from ultrashape_cli.geometry.jit import kernel
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.watertight.sheets import is_marked, mark_cells

# Edges whose faces turn by less are left to the level set: it errs by a few hundredths of a cell.
_SHARP_COSINE = float(np.cos(np.radians(30)))
# Cells; in a denser source nearly every edge of the relief is bent, and none stands out.
_SHORTEST = 3.0
# Cells between samples of an edge, and the farthest that a vertex moves.
_SPACING = 0.25
_REACH = 0.75
# A face keeps this ratio of twice its area to its longest edge squared (an equilateral one has
# 0.87), and its normal within about 70 degrees.
_LEAST_RATIO, _LEAST_COSINE = 0.1, 0.3


def snap_to_edges(
    vertices: NDArray[np.float64],  # [V, 3] in node-index units
    faces: NDArray[np.int64],  # [F, 3]
    fixed: NDArray[np.bool_],  # [V]
    source: Mesh,
    index: NDArray[np.int32],
) -> int:
    """Move vertices onto the sharp edges of the source nearby; return how many.

    Args:
        vertices, faces: The level set; the vertices are changed.
        fixed: Vertices that stay.
        source: What the level set was made from, in node-index units.
        index: Brick numbers of its grid.
    """
    from scipy.spatial import cKDTree

    edges = bent_edges(source, _SHARP_COSINE, _SHORTEST)
    if len(edges) == 0:
        return 0
    a, b = source.vertices[edges[:, 0]], source.vertices[edges[:, 1]]
    length = np.sqrt(np.square(b - a).sum(axis=1))
    count = np.maximum(np.ceil(length / _SPACING), 1).astype(np.int64)
    edge = np.repeat(np.arange(len(edges)), count)
    step = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count)
    samples = a[edge] + ((step + 0.5) / count[edge])[:, None] * (b - a)[edge]

    marks = np.zeros((int(index.max()) + 1, 512), bool)
    mark_cells(samples.astype(np.int64), index, marks)
    near = np.flatnonzero(is_marked(vertices, index, marks) & ~fixed)
    if len(near) == 0:
        return 0
    numbers = np.full(len(vertices), -1, np.int64)
    numbers[near] = np.arange(len(near))
    start, incident = _incident_faces(faces, numbers, len(near))

    uses = np.bincount(edges.ravel())
    corners = source.vertices[np.flatnonzero((uses != 2) & (uses != 0))]
    distance, closest = cKDTree(vertices[near]).query(corners, distance_upper_bound=_REACH)
    found = np.flatnonzero(np.isfinite(distance))
    found = found[np.argsort(distance[found], kind="stable")]
    taken = np.zeros(len(near), bool)
    moved = _move(vertices, faces, near, closest[found], corners[found], start, incident, taken)

    distance, sample = cKDTree(samples).query(vertices[near], distance_upper_bound=_REACH)
    free = np.flatnonzero(np.isfinite(distance) & ~taken)
    on = edge[sample[free]]
    along = np.einsum("ij,ij->i", vertices[near[free]] - a[on], (b - a)[on])
    share = np.clip(along / np.maximum(length[on] ** 2, 1e-30), 0, 1)[:, None]
    target = a[on] + share * (b - a)[on]
    order = np.argsort(np.square(vertices[near[free]] - target).sum(axis=1), kind="stable")
    return moved + _move(vertices, faces, near, free[order], target[order], start, incident, taken)


@kernel
def _incident_faces(faces, numbers, count):
    """Return where the faces of each numbered vertex start, and those faces."""
    start = np.zeros(count + 1, np.int64)
    for f in range(len(faces)):
        for k in range(3):
            if numbers[faces[f, k]] >= 0:
                start[numbers[faces[f, k]] + 1] += 1
    for n in range(count):
        start[n + 1] += start[n]
    fill = start[:-1].copy()
    incident = np.empty(start[-1], np.int64)
    for f in range(len(faces)):
        for k in range(3):
            n = numbers[faces[f, k]]
            if n >= 0:
                incident[fill[n]] = f
                fill[n] += 1
    return start, incident


@kernel
def _shape(a, b, c, normal):
    """Fill in the normal of a triangle, twice its area long; return the longest edge squared."""
    longest = 0.0
    for x in range(3):
        y, z = (x + 1) % 3, (x + 2) % 3
        normal[x] = (b[y] - a[y]) * (c[z] - a[z]) - (b[z] - a[z]) * (c[y] - a[y])
    for p, q in ((a, b), (b, c), (c, a)):
        squared = (p[0] - q[0]) ** 2 + (p[1] - q[1]) ** 2 + (p[2] - q[2]) ** 2
        longest = max(longest, squared)
    return longest


@kernel
def _move(vertices, faces, near, chosen, targets, start, incident, taken):
    """Move `near[chosen]` to the targets `[N, 3]`, one by one, where all faces allow it."""
    moved = 0
    old, new, here = np.empty(3), np.empty(3), np.empty(3)
    for i in range(len(chosen)):
        n = chosen[i]
        if taken[n]:
            continue
        v = near[n]
        here[:] = vertices[v]
        allowed = True
        for k in range(start[n], start[n + 1]):
            a, b, c = faces[incident[k]]
            _shape(vertices[a], vertices[b], vertices[c], old)
            vertices[v] = targets[i]
            longest = _shape(vertices[a], vertices[b], vertices[c], new)
            vertices[v] = here
            size = np.sqrt((new * new).sum())
            turned = (old * new).sum() < _LEAST_COSINE * size * np.sqrt((old * old).sum())
            if turned or size < _LEAST_RATIO * longest:
                allowed = False
                break
        if allowed:
            vertices[v] = targets[i]
            taken[n] = True
            moved += 1
    return moved
