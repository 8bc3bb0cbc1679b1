"""How much fine detail a surface carries, without a truth to compare with."""

import numpy as np
from numpy.typing import NDArray

from ultrashape_cli.geometry.mesh import Mesh

PERCENTILES = (50, 95, 99)


def dihedral_percentiles(mesh: Mesh) -> dict[str, float]:
    """Return percentiles of the angle between neighbouring faces, in degrees.

    Edges count by their length, so that a finer tessellation of one surface changes little but
    the angles themselves: compare meshes of similar face counts.
    """
    pair, edge = _neighbours(mesh)
    if len(edge) == 0:
        return {f"dihedral_p{p}": 0.0 for p in PERCENTILES}
    normals = mesh.face_normals
    cosine = np.einsum("ij,ij->i", normals[pair[:, 0]], normals[pair[:, 1]])
    angle = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    length = np.linalg.norm(mesh.vertices[edge[:, 0]] - mesh.vertices[edge[:, 1]], axis=1)
    order = np.argsort(angle)
    cumulative = np.cumsum(length[order])
    places = np.searchsorted(cumulative, np.array(PERCENTILES) / 100 * cumulative[-1])
    values = angle[order][np.minimum(places, len(order) - 1)]
    return {f"dihedral_p{p}": float(v) for p, v in zip(PERCENTILES, values, strict=True)}


def laplacian_roughness(mesh: Mesh) -> float:
    """Return how far vertices stand out from their neighbours, in millionths of the diagonal.

    It is the mean distance along the normal between a vertex and the centre of its neighbours;
    what lies across the normal is tessellation.
    """
    edges = np.concatenate([mesh.faces[:, [0, 1]], mesh.faces[:, [1, 2]], mesh.faces[:, [2, 0]]])
    edges = np.unique(np.sort(edges, axis=1), axis=0)
    both = np.concatenate([edges, edges[:, ::-1]])
    size = len(mesh.vertices)
    count = np.bincount(both[:, 0], minlength=size)
    used = count > 0
    sums = [np.bincount(both[:, 0], mesh.vertices[both[:, 1], k], size)[used] for k in range(3)]
    offset = mesh.vertices[used] - np.stack(sums, axis=1) / count[used, None]
    height = np.abs(np.einsum("ij,ij->i", offset, mesh.vertex_normals[used]))
    return float(height.mean() / np.linalg.norm(mesh.extents) * 1e6)


def _neighbours(mesh: Mesh) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the faces `[E, 2]` and vertices `[E, 2]` of edges with exactly two faces."""
    edges = np.sort(np.stack([mesh.faces, np.roll(mesh.faces, -1, axis=1)], -1).reshape(-1, 2), 1)
    code = edges[:, 0] * len(mesh.vertices) + edges[:, 1]
    order = np.argsort(code, kind="stable")
    _, first, count = np.unique(code[order], return_index=True, return_counts=True)
    first = first[count == 2]
    return np.stack([order[first], order[first + 1]], axis=1) // 3, edges[order[first]]
