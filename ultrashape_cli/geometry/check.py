"""Topology of a triangle mesh: is it closed, manifold, consistently wound, and of what volume."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ultrashape_cli.geometry.jit import kernel
from ultrashape_cli.geometry.mesh import Mesh


@dataclass(frozen=True, slots=True)
class Topology:
    """Counts that decide whether a mesh bounds a volume.

    Attributes:
        boundary_edges: Edges with one face.
        nonmanifold_edges: Edges with three faces or more.
        inconsistent_edges: Edges whose two faces run along it in the same direction.
        nonmanifold_vertices: Vertices whose faces form more than one fan.
        components: Parts that share no vertex.
        euler: V - E + F over the vertices in use.
        volume: Signed volume, in cubed mesh units.
    """

    boundary_edges: int
    nonmanifold_edges: int
    inconsistent_edges: int
    nonmanifold_vertices: int
    components: int
    euler: int
    volume: float

    @property
    def closed(self) -> bool:
        """Whether no edge is open."""
        return self.boundary_edges == 0

    @property
    def watertight(self) -> bool:
        """Whether every edge has two faces that agree on the outside, whatever the sign."""
        edges = self.boundary_edges + self.nonmanifold_edges + self.inconsistent_edges
        return edges == 0 and self.components > 0

    @property
    def solid(self) -> bool:
        """Whether the mesh is also vertex-manifold and encloses a positive volume."""
        return self.watertight and self.nonmanifold_vertices == 0 and self.volume > 0

    @property
    def genus(self) -> float:
        """Handles summed over the components; meaningful for a watertight mesh."""
        return self.components - self.euler / 2


def topology(mesh: Mesh) -> Topology:
    """Return the topology of a mesh whose identical vertices are already merged."""
    faces = mesh.faces
    if len(faces) == 0:
        return Topology(0, 0, 0, 0, 0, 0, 0.0)
    num_vertices = len(mesh.vertices)
    start, half_edges, upper = _edges_by_vertex(faces, num_vertices)
    num_edges, boundary, branching, inconsistent, fans = _census(faces, start, half_edges, upper)
    labels = vertex_components(faces, num_vertices)
    used = fans > 0
    return Topology(
        boundary_edges=boundary,
        nonmanifold_edges=branching,
        inconsistent_edges=inconsistent,
        nonmanifold_vertices=int((fans > 1).sum()),
        components=int((labels[used] == np.flatnonzero(used)).sum()),
        euler=int(used.sum()) - num_edges + len(faces),
        volume=float(part_volumes(mesh.vertices, faces, np.zeros_like(labels))[0]),
    )


def boundary_edges(
    faces: NDArray[np.int64],  # [F, 3]
) -> NDArray[np.int64]:
    """Return the directed edges `[E, 2]`, as their face runs, that have one face only."""
    start, half_edges, upper = _edges_by_vertex(faces, int(faces.max(initial=-1)) + 1)
    single = np.sort(_single_edges(start, half_edges, upper))
    edges = np.stack([faces, np.roll(faces, -1, axis=1)], axis=-1).reshape(-1, 2)
    return edges[single]


def bent_edges(mesh: Mesh, cosine: float, shortest: float) -> NDArray[np.int64]:
    """Return the edges `[E, 2]` of two faces whose normals have at most this cosine.

    Faces may be wound either way. Edges below the shortest length are left out.
    """
    start, half_edges, upper = _edges_by_vertex(mesh.faces, len(mesh.vertices))
    limits = cosine, shortest * shortest
    return _bent_edges(mesh.vertices, mesh.faces, start, half_edges, upper, *limits)


def face_components(
    faces: NDArray[np.int64],  # [F, 3]
    num_vertices: int,
) -> NDArray[np.int64]:
    """Return a component number `[F]`, counted from 0, of faces joined by shared vertices."""
    labels = vertex_components(faces, num_vertices)[faces[:, 0]]
    return np.unique(labels, return_inverse=True)[1]


@kernel
def _edges_by_vertex(faces, num_vertices):
    """Return the half-edges ordered by edge, without looking far afield for each of them.

    Returns:
        `start [V + 1]`: where those of each lower vertex start. `order [3F]`: half-edge 3f + k from
        corner k of face f to the next, or its complement where that runs down to the lower vertex.
        `upper [3F]`: the other vertex, rising within a group.
    """
    start = np.zeros(num_vertices + 1, np.int64)
    for f in range(len(faces)):
        for k in range(3):
            start[min(faces[f, k], faces[f, (k + 1) % 3]) + 1] += 1
    for v in range(num_vertices):
        start[v + 1] += start[v]
    fill = start[:-1].astype(np.int32)
    order = np.empty(3 * len(faces), np.int32)
    upper = np.empty(3 * len(faces), np.int32)
    for f in range(len(faces)):
        for k in range(3):
            a, b = faces[f, k], faces[f, (k + 1) % 3]
            low = min(a, b)
            h = 3 * f + k
            order[fill[low]] = h if a < b else ~h
            upper[fill[low]] = max(a, b)
            fill[low] += 1
    for v in range(num_vertices):
        _sort_pairs(upper, order, start[v], start[v + 1])
    return start, order, upper


@kernel
def _sort_pairs(keys, values, first, stop):
    """Sort a few keys and their values in place (Shell's method: hubs of large fans have many)."""
    gap = 1
    while gap < (stop - first) // 9:
        gap = 3 * gap + 1
    while gap > 0:
        for i in range(first + gap, stop):
            key, value = keys[i], values[i]
            j = i
            while j >= first + gap and keys[j - gap] > key:
                keys[j], values[j] = keys[j - gap], values[j - gap]
                j -= gap
            keys[j], values[j] = key, value
        gap //= 3


@kernel
def _unite(parent, a, b):
    while parent[a] != a:
        parent[a] = parent[parent[a]]
        a = parent[a]
    while parent[b] != b:
        parent[b] = parent[parent[b]]
        b = parent[b]
    if a < b:
        parent[b] = a
    elif b < a:
        parent[a] = b


@kernel
def _corners(half_edge):
    """Return the corners of a half-edge at the lower and at the upper vertex."""
    h = half_edge if half_edge >= 0 else ~half_edge
    after = h - 2 if h % 3 == 2 else h + 1
    if half_edge >= 0:
        return h, after
    return after, h


@kernel
def _census(faces, start, order, upper):
    """Return the counts of edges, in all and by fault, and the fans of faces at each vertex."""
    edges, boundary, branching, inconsistent = 0, 0, 0, 0
    # Corners of one vertex are joined where their faces share an edge.
    parent = np.arange(3 * len(faces)).astype(np.int32)
    for v in range(len(start) - 1):
        first = start[v]
        while first < start[v + 1]:
            stop = first + 1
            while stop < start[v + 1] and upper[stop] == upper[first]:
                stop += 1
            edges += 1
            if stop - first == 1:
                boundary += 1
            elif stop - first > 2:
                branching += 1
            else:
                inconsistent += (order[first] >= 0) == (order[first + 1] >= 0)
                one, two = _corners(order[first]), _corners(order[first + 1])
                _unite(parent, one[0], two[0])
                _unite(parent, one[1], two[1])
            first = stop
    fans = np.zeros(len(start) - 1, np.int64)
    for c in range(len(parent)):
        if parent[c] == c:
            fans[faces[c // 3, c % 3]] += 1
    return edges, boundary, branching, inconsistent, fans


@kernel
def _single_edges(start, order, upper):
    """Return the half-edges of edges with one face."""
    found = np.empty(len(order), np.int32)
    count = 0
    for v in range(len(start) - 1):
        for i in range(start[v], start[v + 1]):
            same_before = i > start[v] and upper[i - 1] == upper[i]
            same_after = i + 1 < start[v + 1] and upper[i + 1] == upper[i]
            if not same_before and not same_after:
                found[count] = order[i] if order[i] >= 0 else ~order[i]
                count += 1
    return found[:count]


@kernel
def _normal(vertices, face, normal):
    a, b, c = vertices[face[0]], vertices[face[1]], vertices[face[2]]
    for x in range(3):
        y, z = (x + 1) % 3, (x + 2) % 3
        normal[x] = (b[y] - a[y]) * (c[z] - a[z]) - (b[z] - a[z]) * (c[y] - a[y])
    normal /= max(np.sqrt((normal * normal).sum()), 1e-300)


@kernel
def _bent_edges(vertices, faces, start, order, upper, cosine, shortest_squared):
    found = np.empty((len(order) // 2, 2), np.int64)
    count = 0
    one, two = np.empty(3), np.empty(3)
    for v in range(len(start) - 1):
        stop = start[v]
        while stop < start[v + 1]:
            i = stop
            while stop < start[v + 1] and upper[stop] == upper[i]:
                stop += 1
            if stop - i != 2:
                continue
            if np.square(vertices[v] - vertices[upper[i]]).sum() < shortest_squared:
                continue
            h, g = order[i], order[i + 1]
            _normal(vertices, faces[max(h, ~h) // 3], one)
            _normal(vertices, faces[max(g, ~g) // 3], two)
            dot = (one * two).sum()
            # Faces that agree run along their common edge in opposite directions.
            if (-dot if (h >= 0) == (g >= 0) else dot) <= cosine:
                found[count, 0], found[count, 1] = v, upper[i]
                count += 1
    return found[:count]


@kernel
def part_volumes(vertices, faces, label):
    """Return the signed volume of the faces of each label `[L]`, taken from their first vertex."""
    # Measured from a corner of the mesh: an origin far away would cancel all digits.
    x, y, z = vertices[faces[0, 0]]
    volume = np.zeros(label.max() + 1)
    for f in range(len(faces)):
        a, b, c = vertices[faces[f, 0]], vertices[faces[f, 1]], vertices[faces[f, 2]]
        ax, ay, az = a[0] - x, a[1] - y, a[2] - z
        bx, by, bz = b[0] - x, b[1] - y, b[2] - z
        cx, cy, cz = c[0] - x, c[1] - y, c[2] - z
        part = ax * (by * cz - bz * cy) + ay * (bz * cx - bx * cz) + az * (bx * cy - by * cx)
        volume[label[faces[f, 0]]] += part / 6
    return volume


@kernel
def vertex_components(faces, num_vertices):
    """Return the lowest vertex `[V]` reachable from each vertex along faces `[F, 3]`."""
    parent = np.arange(num_vertices)
    for f in range(len(faces)):
        for k in range(1, 3):
            _unite(parent, faces[f, 0], faces[f, k])
    for v in range(num_vertices):
        parent[v] = parent[parent[v]]
    return parent
