"""Rims of double walls: two outlines side by side that belong together, such as those of a cup.

A lid on each would make a plug of what is hollow; a strip between them makes the wall whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from ultrashape_cli.geometry.jit import kernel
from ultrashape_cli.geometry.mesh import Mesh


class _Rule(NamedTuple):
    """When two outlines are the rims of one wall: they run side by side all along.

    Attributes:
        thickness: Most mean distance, beside the radius.
        longer: How much longer one may be.
        along: The wall must lead away from the strip: two rims of one band have the band itself
            between them. Most of the strip that may run along the wall.
        neighbours: Points among which the nearest of another outline is looked for.
    """

    thickness: float
    longer: float
    along: float
    neighbours: int


_SHARE = 0.9
"""Points of an outline that must see the other one."""
_FEW = 64
"""Points of an outline that are asked for what lies across a thick wall."""
_THIN = _Rule(0.35, 2.0, 0.5, 8)
# What only the surface that a lid would hide tells from two holes.
_THICK = _Rule(3.0, 5.0, 0.75, _FEW + 1)


def pair_rims(
    mesh: Mesh,
    loops: Sequence[NDArray[np.int64]],
    inward: NDArray[np.float64],
    *,
    thick: bool = False,
) -> list[tuple[int, int]]:
    """Return the pairs of outlines, by index, between which a strip belongs.

    Args:
        mesh: Whose outlines they are.
        loops: From `boundary_loops`.
        inward: Unit direction `[V, 3]` from each boundary vertex into its faces.
        thick: Also those of thick walls.
    """
    rule = _THICK if thick else _THIN
    if len(loops) < 2:
        return []
    lengths = np.array([_length(mesh.vertices[loop]) for loop in loops])
    if thick:
        loops = [loop[np.arange(_FEW) * len(loop) // _FEW] if len(loop) > _FEW else loop
                 for loop in loops]  # fmt: skip
    points = np.concatenate([mesh.vertices[loop] for loop in loops])
    owner = np.repeat(np.arange(len(loops)), [len(loop) for loop in loops])
    into = np.concatenate([inward[loop] for loop in loops])
    count = min(rule.neighbours, len(points))
    distance, near = cKDTree(points).query(points, k=count)
    other = owner[near] != owner[:, None]
    found = other.any(axis=1)
    first = np.argmax(other, axis=1)
    rows = np.arange(len(points))
    partner = np.where(found, owner[near[rows, first]], -1)
    gap = np.where(found, distance[rows, first], np.inf)
    along = np.einsum("ij,ij->i", points[near[rows, first]] - points, into)
    best = [_partner(points, owner, partner, gap, along, loop, rule) for loop in range(len(loops))]
    return [
        (a, b)
        for a, b in enumerate(best)
        if b > a and best[b] == a and 1 / rule.longer <= lengths[a] / lengths[b] <= rule.longer
    ]


def _partner(
    points: NDArray[np.float64],
    owner: NDArray[np.int64],
    partner: NDArray[np.int64],
    gap: NDArray[np.float64],
    along: NDArray[np.float64],
    loop: int,
    rule: _Rule,
) -> int:
    """Return the outline that runs beside one, or -1."""
    own = np.flatnonzero(owner == loop)
    ids, counts = np.unique(partner[own], return_counts=True)
    other = int(ids[np.argmax(counts)])
    beside = own[partner[own] == other]
    if other < 0 or len(beside) < _SHARE * len(own):
        return -1
    centred = points[own] - points[own].mean(axis=0)
    radius = float(np.sqrt(np.square(centred).sum(axis=1).mean()))
    thickness = float(gap[beside].mean())
    if thickness > rule.thickness * radius or along[beside].mean() > rule.along * thickness:
        return -1
    return other


def _length(points: NDArray[np.float64]) -> float:
    return float(np.linalg.norm(points - np.roll(points, -1, axis=0), axis=1).sum())


def inward_directions(mesh: Mesh, edges: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the mean unit direction `[V, 3]` from the boundary into the faces at it.

    Args:
        mesh: With a boundary.
        edges: Its directed boundary edges `[E, 2]`.
    """
    keys = {(a, b) for a, b in edges.tolist()} | {(b, a) for a, b in edges.tolist()}
    on_edge = np.zeros(len(mesh.vertices), bool)
    on_edge[edges] = True
    candidates = mesh.faces[on_edge[mesh.faces].sum(axis=1) >= 2]
    total = np.zeros_like(mesh.vertices)
    for a, b, c in (candidates[:, [i, (i + 1) % 3, (i + 2) % 3]].T for i in range(3)):
        kept = np.fromiter(((x, y) in keys for x, y in zip(a.tolist(), b.tolist(), strict=True)),
                           bool, len(a))  # fmt: skip
        a, b, c = a[kept], b[kept], c[kept]
        start, edge = mesh.vertices[a], mesh.vertices[b] - mesh.vertices[a]
        to_apex = mesh.vertices[c] - start
        length = np.maximum(np.square(edge).sum(axis=1), 1e-300)
        into = to_apex - edge * (np.einsum("ij,ij->i", to_apex, edge) / length)[:, None]
        into /= np.maximum(np.linalg.norm(into, axis=1), 1e-300)[:, None]
        np.add.at(total, a, into)
        np.add.at(total, b, into)
    size = np.linalg.norm(total, axis=1, keepdims=True)
    return np.divide(total, size, out=np.zeros_like(total), where=size > 0)


def strip(
    vertices: NDArray[np.float64], first: NDArray[np.int64], second: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return triangles `[N + M, 3]` between two outlines, facing as the faces of the first do.

    Args:
        vertices: `[V, 3]`.
        first: Outline `[N]` in the direction of the faces around it.
        second: The other one `[M]`, in either direction.
    """
    a, b = vertices[first], vertices[second]
    near = cKDTree(b).query(a)[1]
    # The other rim of a wall whose faces agree runs the other way.
    turns = np.diff(np.unwrap(2 * np.pi * near / len(b)))
    if turns.sum() > 0:
        second = second[::-1]
        b = b[::-1]
        near = len(b) - 1 - near
    begin = int(near[0])
    backwards = np.roll(second[::-1], begin + 1 - len(second))
    return _zip(vertices[first], vertices[backwards], first, backwards)


@kernel
def _zip(a, b, first, second):
    """Walk along both outlines, always over the shorter diagonal."""
    n, m = len(a), len(b)
    faces = np.empty((n + m, 3), np.int64)
    i = j = 0
    for k in range(n + m):
        ahead = behind = 0.0
        for x in range(3):
            ahead += (a[(i + 1) % n, x] - b[j % m, x]) ** 2
            behind += (a[i % n, x] - b[(j + 1) % m, x]) ** 2
        if j == m or (i < n and ahead <= behind):
            faces[k, 0], faces[k, 1], faces[k, 2] = first[(i + 1) % n], first[i % n], second[j % m]
            i += 1
        else:
            faces[k, 0], faces[k, 1], faces[k, 2] = second[j % m], second[(j + 1) % m], first[i % n]
            j += 1
    return faces
