"""Parts of a surface too thin for the grid, and how they get a thickness.

Where a sheet, or a plate thinner than a cell, has no inside node nearby, marching cubes would lose
it. Its pieces are found here, so that the remesher can add them back as a slab.
"""

import numpy as np
from numpy.typing import NDArray

from ultrashape_cli.geometry.bricks import BrickGrid
from ultrashape_cli.geometry.jit import kernel
from ultrashape_cli.geometry.mesh import unit
from ultrashape_cli.geometry.rays import RayScene
from ultrashape_cli.watertight.scatter import split_triangles

# Half the thickness of a slab, in cells. Every point has a grid node within sqrt(3) / 2 = 0.866,
# so a slab of this size has an inside node along its whole extent, whatever its direction.
SLAB_HALF_WIDTH = 0.9
# Pieces are judged one by one, so they are about as small as a cell.
_PIECE_SIDE = 2.0
# The level set cuts a grid edge within 0.87 cells of any smooth piece it represents, and about a
# cell from the sharp edges that it bevels.
_TOO_FAR = 1.1
# Walls closer than this, in cells, can pass between the nodes.
_THIN_WALL = 1.2
_RAY_OFFSET = 0.01
# Half the thickness that a slab keeps once its faces are made.
FINAL_HALF_WIDTH = 0.5


def lost_pieces(
    triangles: NDArray[np.float64],  # [F, 3, 3] in node-index units
    grid: BrickGrid,
    side: NDArray[np.int8],  # [B, 512], 1 outside, -1 inside
    scene: RayScene,
) -> NDArray[np.float64]:
    """Return the pieces `[P, 3, 3]` of the triangles that the level set does not represent.

    A piece is lost when its cell has no inside corner and the level set is too far, or when that
    cell, or one without a node deep inside nearby, has the opposite wall close behind: such a wall
    comes and goes with the nodes. All pieces up to two cells from
    a lost one are taken as well, so that a fin stays attached to its body and a wedge does not fray
    where it gets thinner than a cell.

    Args:
        triangles: The surface.
        grid: Unsigned distances, positive in all bricks.
        side: Side of every node.
        scene: The same surface, for rays.
    """
    candidates = _any_in_doubt(triangles, grid.index, side, grid.values)
    if not candidates.any():
        return np.zeros((0, 3, 3))
    pieces, _ = split_triangles(triangles[candidates], _PIECE_SIDE)
    centres = pieces.mean(axis=1)
    level = _lost_level(centres, grid.index, side, grid.values)
    seeds = level == 2
    doubtful = np.flatnonzero(level == 1)
    a, b, c = (pieces[doubtful, k] for k in range(3))
    inward = -unit(np.cross(b - a, c - a, axis=1))
    start = centres[doubtful] + _RAY_OFFSET * inward
    seeds[doubtful] = scene.occluded(start, inward, _THIN_WALL)
    near = np.zeros(side.shape, bool)
    mark_cells(np.floor(centres[seeds]).astype(np.int64), grid.index, near)
    chosen = seeds | is_marked(centres, grid.index, near)
    return pieces[chosen]


def narrow_slabs(
    vertices: NDArray[np.float64],  # [V, 3] in node-index units
    faces: NDArray[np.int64],  # [F, 3]
    moves: NDArray[np.bool_],  # [V]
) -> None:
    """Move the vertices of slabs inward, until the slabs are a cell thick.

    The grid needs them thicker, but once the faces exist only positions change. The normal of a
    slab points away from its sheet. Vertices of a face that would turn over stay.

    Args:
        vertices, faces: The level set; the vertices are changed.
        moves: Vertices of slabs.
    """
    normals = _summed_normals(vertices, faces, moves)
    length = np.sqrt(np.square(normals).sum(axis=1))
    normals *= ((FINAL_HALF_WIDTH - SLAB_HALF_WIDTH) / np.maximum(length, 1e-30))[:, None]
    before = vertices.copy()
    vertices += normals
    turned = _turned(before, vertices, faces)
    while len(turned):
        vertices[faces[turned]] = before[faces[turned]]
        turned = _turned(before, vertices, faces)


@kernel
def _summed_normals(vertices, faces, wanted):
    """Return the summed normals `[V, 3]`, weighted by area, of the wanted vertices."""
    total = np.zeros(vertices.shape)
    for f in range(len(faces)):
        if not (wanted[faces[f, 0]] or wanted[faces[f, 1]] or wanted[faces[f, 2]]):
            continue
        a, b, c = vertices[faces[f, 0]], vertices[faces[f, 1]], vertices[faces[f, 2]]
        for x in range(3):
            y, z = (x + 1) % 3, (x + 2) % 3
            n = (b[y] - a[y]) * (c[z] - a[z]) - (b[z] - a[z]) * (c[y] - a[y])
            for k in range(3):
                if wanted[faces[f, k]]:
                    total[faces[f, k], x] += n
    return total


@kernel
def on_slab(vertices, index, thick):
    """Return `[V]` whether each vertex, on a grid edge, has an end `[B, 512]` inside a slab."""
    found = np.zeros(len(vertices), np.bool_)
    for v in range(len(vertices)):
        for end in range(2):
            i = int(vertices[v, 0]) if end == 0 else int(np.ceil(vertices[v, 0]))
            j = int(vertices[v, 1]) if end == 0 else int(np.ceil(vertices[v, 1]))
            k = int(vertices[v, 2]) if end == 0 else int(np.ceil(vertices[v, 2]))
            brick = index[i >> 3, j >> 3, k >> 3]
            found[v] |= brick >= 0 and thick[brick, ((i & 7) * 8 + (j & 7)) * 8 + (k & 7)]
    return found


@kernel
def _turned(before, after, faces):
    """Return the faces whose normal has turned by more than a right angle."""
    found = np.empty(len(faces), np.int64)
    count = 0
    for f in range(len(faces)):
        a, b, c = faces[f]
        dot = 0.0
        for x in range(3):
            y, z = (x + 1) % 3, (x + 2) % 3
            old = (before[b, y] - before[a, y]) * (before[c, z] - before[a, z])
            old -= (before[b, z] - before[a, z]) * (before[c, y] - before[a, y])
            new = (after[b, y] - after[a, y]) * (after[c, z] - after[a, z])
            new -= (after[b, z] - after[a, z]) * (after[c, y] - after[a, y])
            dot += old * new
        if dot <= 0:
            found[count] = f
            count += 1
    return found[:count]


@kernel
def _all_outside(x, y, z, index, side):
    """Return whether the eight corners of the cell at x, y, z are outside."""
    limit = index.shape[0] * 8
    for i in range(x, min(x + 2, limit)):
        for j in range(y, min(y + 2, limit)):
            for k in range(z, min(z + 2, limit)):
                brick = index[i >> 3, j >> 3, k >> 3]
                if brick >= 0 and side[brick, ((i & 7) * 8 + (j & 7)) * 8 + (k & 7)] < 0:
                    return False
    return True


@kernel
def _is_deep_within(x, y, z, steps, index, side, distances):
    """Return whether a node of the cell at x, y, z, or some steps around it, is deep inside."""
    limit = index.shape[0] * 8
    for i in range(max(x - steps, 0), min(x + steps + 2, limit)):
        for j in range(max(y - steps, 0), min(y + steps + 2, limit)):
            for k in range(max(z - steps, 0), min(z + steps + 2, limit)):
                brick = index[i >> 3, j >> 3, k >> 3]
                offset = ((i & 7) * 8 + (j & 7)) * 8 + (k & 7)
                deep = brick >= 0 and distances[brick, offset] > _THIN_WALL / 2
                if deep and side[brick, offset] < 0:
                    return True
    return False


@kernel
def _is_shallow(x, y, z, index, side, distances):
    """Return whether no node around the cell at x, y, z is deep inside.

    Two steps see past the inner layer of a doubled shell; one is enough for most cells.
    """
    if _is_deep_within(x, y, z, 1, index, side, distances):
        return False
    return not _is_deep_within(x, y, z, 2, index, side, distances)


@kernel
def _is_in_doubt(x, y, z, index, side, distances):
    """Return whether the cell at x, y, z may be one that the level set misses."""
    return _all_outside(x, y, z, index, side) or _is_shallow(x, y, z, index, side, distances)


@kernel
def _any_in_doubt(triangles, index, side, distances):
    """Return `[F]` whether any sample of a triangle, about a cell apart, is in doubt."""
    lost = np.zeros(len(triangles), np.bool_)
    for f in range(len(triangles)):
        t = triangles[f]
        squared = 0.0
        for k in range(3):
            n = (k + 1) % 3
            d = (t[n, 0] - t[k, 0]) ** 2 + (t[n, 1] - t[k, 1]) ** 2 + (t[n, 2] - t[k, 2]) ** 2
            squared = max(squared, d)
        steps = max(1, int(np.ceil(np.sqrt(squared))))
        for i in range(steps):
            for j in range(steps - i):
                u, v = (i + 1 / 3) / steps, (j + 1 / 3) / steps
                x = int(t[0, 0] + u * (t[1, 0] - t[0, 0]) + v * (t[2, 0] - t[0, 0]))
                y = int(t[0, 1] + u * (t[1, 1] - t[0, 1]) + v * (t[2, 1] - t[0, 1]))
                z = int(t[0, 2] + u * (t[1, 2] - t[0, 2]) + v * (t[2, 2] - t[0, 2]))
                if _is_in_doubt(x, y, z, index, side, distances):
                    lost[f] = True
                    break
            if lost[f]:
                break
    return lost


@kernel
def _lost_level(points, index, side, distances):
    """Return 2 where the level set is too far, else 1 where the cell is in doubt, or 0."""
    level = np.zeros(len(points), np.int8)
    for p in range(len(points)):
        x, y, z = int(points[p, 0]), int(points[p, 1]), int(points[p, 2])
        if not _is_in_doubt(x, y, z, index, side, distances):
            continue
        level[p] = 1
        if _all_outside(x, y, z, index, side):
            near = _level_set_squared(points[p], index, side, distances)
            if near > _TOO_FAR * _TOO_FAR:
                level[p] = 2
    return level


@kernel
def _level_set_squared(point, index, side, distances):
    """Return the squared distance to the closest grid edge cut by the level set around a point."""
    limit = index.shape[0] * 8
    best = np.inf
    x, y, z = int(point[0]), int(point[1]), int(point[2])
    for i in range(max(x - 1, 1), min(x + 3, limit - 1)):
        for j in range(max(y - 1, 1), min(y + 3, limit - 1)):
            for k in range(max(z - 1, 1), min(z + 3, limit - 1)):
                brick = index[i >> 3, j >> 3, k >> 3]
                offset = ((i & 7) * 8 + (j & 7)) * 8 + (k & 7)
                if brick < 0 or side[brick, offset] > 0:
                    continue
                for d in range(6):
                    step = 1 if d & 1 else -1
                    a = i + (step if d >> 1 == 0 else 0)
                    b = j + (step if d >> 1 == 1 else 0)
                    c = k + (step if d >> 1 == 2 else 0)
                    other = index[a >> 3, b >> 3, c >> 3]
                    place = ((a & 7) * 8 + (b & 7)) * 8 + (c & 7)
                    if other < 0 or side[other, place] < 0:
                        continue
                    u = distances[brick, offset]
                    u /= max(u + distances[other, place], 1e-6)
                    dx, dy, dz = i + u * (a - i), j + u * (b - j), k + u * (c - k)
                    dx, dy, dz = dx - point[0], dy - point[1], dz - point[2]
                    best = min(best, dx * dx + dy * dy + dz * dz)
    return best


@kernel
def mark_cells(cells, index, marks):
    """Mark the 5 x 5 x 5 cells `[B, 512]` around each cell `[N, 3]`."""
    limit = index.shape[0] * 8
    for c in range(len(cells)):
        x, y, z = cells[c]
        for i in range(max(x - 2, 0), min(x + 3, limit)):
            for j in range(max(y - 2, 0), min(y + 3, limit)):
                for k in range(max(z - 2, 0), min(z + 3, limit)):
                    brick = index[i >> 3, j >> 3, k >> 3]
                    if brick >= 0:
                        marks[brick, ((i & 7) * 8 + (j & 7)) * 8 + (k & 7)] = True


@kernel
def is_marked(points, index, marks):
    """Return whether the cell of each point `[N, 3]` is marked `[N]`."""
    found = np.zeros(len(points), np.bool_)
    for p in range(len(points)):
        i, j, k = int(points[p, 0]), int(points[p, 1]), int(points[p, 2])
        brick = index[i >> 3, j >> 3, k >> 3]
        if brick >= 0:
            found[p] = marks[brick, ((i & 7) * 8 + (j & 7)) * 8 + (k & 7)]
    return found
