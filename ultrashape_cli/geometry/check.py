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
        components: Parts that share no vertex.
        euler: V - E + F over the vertices in use.
        volume: Signed volume, in cubed mesh units.
    """

    boundary_edges: int
    nonmanifold_edges: int
    inconsistent_edges: int
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
    def genus(self) -> float:
        """Handles summed over the components; meaningful for a watertight mesh."""
        return self.components - self.euler / 2


def topology(mesh: Mesh) -> Topology:
    """Return the topology of a mesh whose identical vertices are already merged."""
    faces = mesh.faces
    if len(faces) == 0:
        return Topology(0, 0, 0, 0, 0, 0.0)
    keys = np.sort(_directed_edge_keys(faces, len(mesh.vertices)))
    starts = np.flatnonzero(np.concatenate([[True], np.diff(keys >> 1) != 0]))
    uses = np.diff(np.append(starts, len(keys)))
    pairs = starts[uses == 2]
    labels = vertex_components(faces, len(mesh.vertices))
    used = np.zeros(len(mesh.vertices), bool)
    used[faces] = True
    return Topology(
        boundary_edges=int((uses == 1).sum()),
        nonmanifold_edges=int((uses > 2).sum()),
        inconsistent_edges=int((keys[pairs] == keys[pairs + 1]).sum()),
        components=int((labels[used] == np.flatnonzero(used)).sum()),
        euler=int(used.sum()) - len(starts) + len(faces),
        volume=mesh.volume,
    )


def boundary_edges(
    faces: NDArray[np.int64],  # [F, 3]
) -> NDArray[np.int64]:
    """Return the directed edges `[E, 2]`, as their face runs, that have one face only."""
    num_vertices = int(faces.max(initial=-1)) + 1
    keys = _directed_edge_keys(faces, num_vertices)
    order = np.argsort(keys, kind="stable")
    undirected = keys[order] >> 1
    single = np.ones(len(order), bool)
    same = undirected[1:] == undirected[:-1]
    single[1:] &= ~same
    single[:-1] &= ~same
    edges = np.stack([faces, np.roll(faces, -1, axis=1)], axis=-1).reshape(-1, 2)
    return edges[np.sort(order[single])]


def face_components(
    faces: NDArray[np.int64],  # [F, 3]
    num_vertices: int,
) -> NDArray[np.int64]:
    """Return a component number `[F]`, counted from 0, of faces joined by shared vertices."""
    labels = vertex_components(faces, num_vertices)[faces[:, 0]]
    return np.unique(labels, return_inverse=True)[1]


def _directed_edge_keys(faces: NDArray[np.int64], num_vertices: int) -> NDArray[np.int64]:
    """Return one integer for each face edge `[3F]`: its vertex pair, last bit the direction."""
    start = faces.ravel()
    end = np.roll(faces, -1, axis=1).ravel()
    undirected = np.minimum(start, end) * np.int64(num_vertices) + np.maximum(start, end)
    return undirected * 2 + (start > end)


@kernel
def vertex_components(faces, num_vertices):
    """Return the lowest vertex `[V]` reachable from each vertex along faces `[F, 3]`."""
    parent = np.arange(num_vertices)
    for f in range(len(faces)):
        for k in range(1, 3):
            a = faces[f, 0]
            while parent[a] != a:
                parent[a] = parent[parent[a]]
                a = parent[a]
            b = faces[f, k]
            while parent[b] != b:
                parent[b] = parent[parent[b]]
                b = parent[b]
            if a < b:
                parent[b] = a
            elif b < a:
                parent[a] = b
    for v in range(num_vertices):
        parent[v] = parent[parent[v]]
    return parent
