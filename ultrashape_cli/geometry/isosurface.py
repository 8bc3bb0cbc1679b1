"""Marching cubes on a brick grid, with a case table derived from one rule.

Corner order, edge order and faces of the cell follow Lorensen and Cline, "Marching cubes", 1987.
The published table leaves holes on ambiguous faces; here the table is generated: on every cell
face the contour separates the inside corners from each other. Two cells that share a face thus
draw the same segments on it, and the surface is closed wherever the known cells are.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ultrashape_cli.geometry.bricks import BrickGrid
from ultrashape_cli.geometry.jit import kernel

_CORNERS = np.array(
    [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1], [1, 0, 1], [1, 1, 1], [0, 1, 1]]
)
# Each edge runs from its corner of lower index along one axis; that corner owns its vertex.
_EDGES = [
    (0, 1), (1, 2), (3, 2), (0, 3), (4, 5), (5, 6), (7, 6), (4, 7), (0, 4), (1, 5), (2, 6), (3, 7),
]  # fmt: skip
_EDGE_START = np.array([start for start, _ in _EDGES])
_EDGE_END = np.array([end for _, end in _EDGES])
_EDGE_AXIS = np.argmax(_CORNERS[_EDGE_END] - _CORNERS[_EDGE_START], axis=1)
# Corners of each cell face, counter-clockwise seen from outside the cell.
_CELL_FACES = [(0, 3, 2, 1), (4, 5, 6, 7), (0, 1, 5, 4), (2, 3, 7, 6), (0, 4, 7, 3), (1, 2, 6, 5)]

# A vertex keeps this fraction of an edge away from its ends, so that a node exactly at the level
# gives small triangles instead of degenerate ones.
_END_MARGIN = 1e-3


def extract_isosurface(
    grid: BrickGrid,
    level: float = 0.0,
    inside: Literal["positive", "negative"] = "negative",
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the surface where the field equals the level.

    Cells with an unknown (NaN) corner are skipped. Vertices are interpolated linearly and shared
    between cells.

    Args:
        grid: The field.
        level: Iso level.
        inside: Which side of the level is solid; faces point to the other side.

    Returns:
        Vertices `[V, 3]` in node-index units and faces `[F, 3]`, both empty without a surface.
    """
    sign = np.float32(-1.0 if inside == "positive" else 1.0)
    case, cut, number, base, num_faces = _count(
        grid.coords, grid.index, grid.values, np.float32(level), sign, _TABLE_COUNT
    )
    vertices, used = _place(
        grid.coords, grid.index, grid.values, np.float32(level), sign, cut, base
    )
    faces = _connect(
        grid.coords, grid.index, case, cut, number, base, num_faces, used,
        _TABLE, _TABLE_COUNT, _CORNERS, _EDGE_START, _EDGE_AXIS,
    )  # fmt: skip
    if not used.all():
        faces = (np.cumsum(used) - 1)[faces]
        vertices = vertices[used]
    return vertices, faces


def _contour_loops(inside: list[bool], edge_of: dict[tuple[int, int], int]) -> list[list[int]]:
    """Return the closed loops of cut cell edges for one pattern of inside corners."""
    successor: dict[int, int] = {}
    for face in _CELL_FACES:
        for k in range(4):
            if inside[face[k]] or not inside[face[(k + 1) % 4]]:
                continue
            entry = edge_of[face[k], face[(k + 1) % 4]]
            last = (k + 1) % 4
            while inside[face[(last + 1) % 4]]:
                last = (last + 1) % 4
            successor[entry] = edge_of[face[last], face[(last + 1) % 4]]
    loops = []
    remaining = dict(successor)
    while remaining:
        loop = []
        edge = next(iter(remaining))
        while edge in remaining:
            loop.append(edge)
            edge = remaining.pop(edge)
        loops.append(loop)
    return loops


def _build_table() -> tuple[NDArray[np.int8], NDArray[np.int8]]:
    """Return the triangles `[256, T, 3]` of every case as edge numbers, and their counts."""
    edge_of = {}
    for number, (start, end) in enumerate(_EDGES):
        edge_of[start, end] = edge_of[end, start] = number
    faces_at: list[set[int]] = [set() for _ in _EDGES]
    for number, face in enumerate(_CELL_FACES):
        for k in range(4):
            faces_at[edge_of[face[k], face[(k + 1) % 4]]].add(number)

    cases = []
    for pattern in range(256):
        triangles = []
        for loop in _contour_loops([bool(pattern >> i & 1) for i in range(8)], edge_of):
            size = len(loop)

            # A diagonal inside a cell face could coincide with one of the neighbouring cell and
            # give an edge four triangles; start the fan where that does not happen.
            def clashes(first: int, loop: list[int] = loop, size: int = size) -> int:
                return sum(
                    bool(faces_at[loop[first]] & faces_at[loop[(first + k) % size]])
                    for k in range(2, size - 1)
                )

            first = min(range(size), key=clashes)
            loop = loop[first:] + loop[:first]
            triangles += [(loop[0], loop[k], loop[k + 1]) for k in range(1, size - 1)]
        cases.append(triangles)
    width = max(len(triangles) for triangles in cases)
    table = np.full((256, width, 3), -1, np.int8)
    for pattern, triangles in enumerate(cases):
        table[pattern, : len(triangles)] = np.array(triangles, np.int8).reshape(-1, 3)
    return table, np.array([len(triangles) for triangles in cases], np.int8)


_TABLE, _TABLE_COUNT = _build_table()


@kernel
def _read_block(coords, index, values, level, sign, brick, block):
    """Fill the field `[9, 9, 9]` at the corners of a brick's cells, NaN where it is not known."""
    side = index.shape[0]
    for e in range(8):
        a = coords[brick, 0] + (e >> 2)
        b = coords[brick, 1] + ((e >> 1) & 1)
        c = coords[brick, 2] + (e & 1)
        other = index[a, b, c] if a < side and b < side and c < side else -1
        for x in range(8, 9) if e & 4 else range(8):
            for y in range(8, 9) if e & 2 else range(8):
                for z in range(8, 9) if e & 1 else range(8):
                    value = np.float32(np.nan)
                    if other >= 0:
                        offset = ((x & 7) * 8 + (y & 7)) * 8 + (z & 7)
                        value = (values[other, offset] - level) * sign
                    block[x, y, z] = value


@kernel
def _read_sides(block, sides):
    """Fill in 1 inside, 0 outside and 2 unknown; return whether 0 and 1 occur."""
    seen = 0
    for x in range(9):
        for y in range(9):
            for z in range(9):
                value = block[x, y, z]
                side = 1 if value < 0 else (0 if value >= 0 else 2)
                sides[x, y, z] = side
                seen |= 1 << side
    return seen & 3 == 3


@kernel
def _count(coords, index, values, level, sign, count):
    """Return the case of each cell and how many vertices and faces come before.

    Returns:
        `case [B, 512]`: pattern of inside corners, 0 where one is unknown. `cut [B, 512]`: bit d is
        set where the edge from the node along axis d is cut. `number [B, 512]`: cut edges before
        the node in its brick, and `base [B + 1]` those in the bricks before. `num_faces [B]`.
    """
    num_bricks = len(coords)
    case = np.zeros((num_bricks, 512), np.uint8)
    cut = np.zeros((num_bricks, 512), np.uint8)
    number = np.empty((num_bricks, 512), np.uint16)
    base = np.zeros(num_bricks + 1, np.int64)
    block = np.empty((9, 9, 9), np.float32)
    sides = np.empty((9, 9, 9), np.int64)
    faces = np.zeros(num_bricks, np.int64)
    for brick in range(num_bricks):
        base[brick + 1] = base[brick]
        _read_block(coords, index, values, level, sign, brick, block)
        if not _read_sides(block, sides):
            continue
        made = 0
        for column in range(64):
            x, y = column >> 3, column & 7
            near = 0
            for z in range(9):
                s = sides[x, y, z]
                a, b, c = sides[x + 1, y, z], sides[x, y + 1, z], sides[x + 1, y + 1, z]
                # Corners 0 to 3 of the cell above this layer, 4 to 7 of the one below.
                layer = s | a << 1 | c << 2 | b << 3
                if (s | a | b | c) & 2:
                    layer = 256
                pattern = near | layer << 4
                near = layer
                if z > 0 and pattern < 256:
                    case[brick, column * 8 + z - 1] = pattern
                    faces[brick] += count[pattern]
                if z < 8:
                    d = sides[x, y, z + 1]
                    bits = (s ^ a == 1) | (s ^ b == 1) << 1 | (s ^ d == 1) << 2
                    number[brick, column * 8 + z] = made
                    cut[brick, column * 8 + z] = bits
                    made += (bits & 1) + (bits >> 1 & 1) + (bits >> 2)
        base[brick + 1] += made
    return case, cut, number, base, faces


@kernel
def _place(coords, index, values, level, sign, cut, base):
    """Return the vertices `[V, 3]` on the cut edges, and `[V]` whether a face uses them: no."""
    vertices = np.empty((base[-1], 3), np.float64)
    block = np.empty((9, 9, 9), np.float32)
    made = 0
    for brick in range(len(coords)):
        if base[brick + 1] == base[brick]:
            continue
        _read_block(coords, index, values, level, sign, brick, block)
        for offset in range(512):
            bits = cut[brick, offset]
            if bits == 0:
                continue
            x, y, z = offset >> 6, (offset >> 3) & 7, offset & 7
            here = np.float64(block[x, y, z])
            for d in range(3):
                if not bits >> d & 1:
                    continue
                there = np.float64(block[x + (d == 0), y + (d == 1), z + (d == 2)])
                u = min(max(here / (here - there), _END_MARGIN), 1 - _END_MARGIN)
                vertices[made, 0] = coords[brick, 0] * 8 + x
                vertices[made, 1] = coords[brick, 1] * 8 + y
                vertices[made, 2] = coords[brick, 2] * 8 + z
                vertices[made, d] += u
                made += 1
    return vertices, np.zeros(made, np.bool_)


@kernel
def _connect(
    coords, index, case, cut, number, base, num_faces, used, table, count, corners, start, axis
):
    """Return the faces `[F, 3]`, and mark the vertices they use."""
    faces = np.empty((num_faces.sum(), 3), np.int64)
    vertex = np.empty(12, np.int64)
    made = 0
    for brick in range(len(coords)):
        if num_faces[brick] == 0:
            continue
        for offset in range(512):
            pattern = case[brick, offset]
            if pattern == 0 or pattern == 255:
                continue
            x, y, z = offset >> 6, (offset >> 3) & 7, offset & 7
            for e in range(12):
                a = start[e]
                i, j, k = x + corners[a, 0], y + corners[a, 1], z + corners[a, 2]
                owner = brick
                if (i | j | k) & 8:
                    i_brick, j_brick = coords[brick, 0] + (i >> 3), coords[brick, 1] + (j >> 3)
                    owner = index[i_brick, j_brick, coords[brick, 2] + (k >> 3)]
                node = ((i & 7) * 8 + (j & 7)) * 8 + (k & 7)
                bits = cut[owner, node]
                if not bits >> axis[e] & 1:
                    continue
                before = bits & ((1 << axis[e]) - 1)
                vertex[e] = base[owner] + number[owner, node] + (before & 1) + (before >> 1)
                used[vertex[e]] = True
            for t in range(count[pattern]):
                for s in range(3):
                    faces[made, s] = vertex[table[pattern, t, s]]
                made += 1
    return faces
