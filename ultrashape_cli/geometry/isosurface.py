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
    vertices, faces = _march(
        grid.coords, grid.index, grid.values, np.float32(level), sign,
        _TABLE, _TABLE_COUNT, _CORNERS, _EDGE_START, _EDGE_END, _EDGE_AXIS,
    )  # fmt: skip
    return vertices, faces.astype(np.int64)


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
def _grown(array, size):
    larger = np.empty((2 * len(array), 3), array.dtype)
    larger[:size] = array[:size]
    return larger


@kernel
def _read_cell(values, neighbours, x, y, z, level, sign, corners, node, field):
    """Fill node numbers and field values of a cell's corners; return its case, 0 if unknown."""
    case = 0
    for e in range(8):
        i = x + corners[e, 0]
        j = y + corners[e, 1]
        k = z + corners[e, 2]
        brick = neighbours[(i >> 3) * 4 + (j >> 3) * 2 + (k >> 3)]
        if brick < 0:
            return 0
        offset = ((i & 7) * 8 + (j & 7)) * 8 + (k & 7)
        value = (values[brick, offset] - level) * sign
        if value != value:
            return 0
        node[e] = np.int64(brick) * 512 + offset
        field[e] = value
        if value < 0:
            case |= 1 << e
    return case


@kernel
def _march(coords, index, values, level, sign, table, count, corners, start, end, axis):
    side = index.shape[0]
    vertex_of = np.full(len(coords) * 512 * 3, -1, np.int32)
    vertices = np.empty((1 << 14, 3), np.float64)
    faces = np.empty((1 << 15, 3), np.int32)
    num_vertices = 0
    num_faces = 0
    node = np.empty(8, np.int64)
    field = np.empty(8, np.float64)
    neighbours = np.empty(8, np.int64)
    for brick in range(len(coords)):
        for e in range(8):
            a = coords[brick, 0] + (e >> 2)
            b = coords[brick, 1] + ((e >> 1) & 1)
            c = coords[brick, 2] + (e & 1)
            neighbours[e] = index[a, b, c] if a < side and b < side and c < side else -1
        for offset in range(512):
            x = offset >> 6
            y = (offset >> 3) & 7
            z = offset & 7
            case = _read_cell(values, neighbours, x, y, z, level, sign, corners, node, field)
            if case == 0 or case == 255:
                continue
            if num_faces + table.shape[1] > len(faces):
                faces = _grown(faces, num_faces)
            if num_vertices + 12 > len(vertices):
                vertices = _grown(vertices, num_vertices)
            for t in range(count[case]):
                for s in range(3):
                    e = table[case, t, s]
                    a = start[e]
                    key = node[a] * 3 + axis[e]
                    if vertex_of[key] < 0:
                        u = field[a] / (field[a] - field[end[e]])
                        u = min(max(u, _END_MARGIN), 1 - _END_MARGIN)
                        vertices[num_vertices, 0] = coords[brick, 0] * 8 + x + corners[a, 0]
                        vertices[num_vertices, 1] = coords[brick, 1] * 8 + y + corners[a, 1]
                        vertices[num_vertices, 2] = coords[brick, 2] * 8 + z + corners[a, 2]
                        vertices[num_vertices, axis[e]] += u
                        vertex_of[key] = num_vertices
                        num_vertices += 1
                    faces[num_faces, s] = vertex_of[key]
                num_faces += 1
    return vertices[:num_vertices].copy(), faces[:num_faces].copy()
