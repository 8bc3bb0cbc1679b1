"""Random points on a surface: area-uniform, weighted by curvature, and along sharp edges."""

import numpy as np
from numpy.typing import NDArray

from ultrashape_cli.geometry.jit import kernel
from ultrashape_cli.geometry.mesh import Mesh, unit

# A vertex is sharp when one of its faces turns away from its normal by more than about 10 degrees.
# The value belongs to the released weights.
SHARP_COSINE = 0.985


def sample_faces(
    mesh: Mesh,
    count: int,
    rng: np.random.Generator,
    weights: NDArray[np.floating] | None = None,  # [F], not negative
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Return points `[N, 3]`, their face normals `[N, 3]` and face numbers `[N]`.

    Args:
        mesh: The surface.
        count: Number of points.
        rng: Source of randomness.
        weights: Probability of each face, up to a factor; its area by default.
    """
    chosen = mesh.area_faces if weights is None else np.asarray(weights, np.float64)
    if chosen.shape != (len(mesh.faces),):
        raise ValueError(f"weights have shape {chosen.shape}, the mesh has {len(mesh.faces)} faces")
    cumulative = np.cumsum(chosen)
    if not (len(chosen) and np.isfinite(cumulative[-1]) and cumulative[-1] > 0):
        raise ValueError("the weights of the faces do not sum to a positive number")
    face = np.searchsorted(cumulative, rng.random(count) * cumulative[-1], side="right")
    # A draw that rounds up to the total must not run past the last face that has weight.
    face = np.minimum(face, np.flatnonzero(chosen)[-1])
    root = np.sqrt(rng.random(count))[:, None]
    v = rng.random(count)[:, None]
    a, b, c = (mesh.vertices[mesh.faces[face, k]] for k in range(3))
    points = (1 - root) * a + root * (1 - v) * b + root * v * c
    return points, unit(np.cross(b - a, c - a, axis=1)), face


def vertex_curvature(mesh: Mesh) -> NDArray[np.float64]:
    """Return how much normals change around each vertex `[V]`, scaled to [0, 1] over the mesh.

    The value is the mean length of the difference of the vertex normals over the face edges that
    touch the vertex. All zeros where the curvature is the same everywhere.
    """
    total, uses = _normal_changes(mesh.vertex_normals, mesh.faces)
    value = np.divide(total, uses, out=np.zeros_like(total), where=uses > 0)
    used = uses > 0
    low = value[used].min(initial=np.inf)
    spread = value[used].max(initial=-np.inf) - low
    # Below this the differences are rounding of equal curvatures.
    if not spread > 1e-9:
        return np.zeros_like(total)
    return np.where(used, (value - low) / spread, 0.0)


@kernel
def _normal_changes(normals, faces):
    """Return the summed change of the normal along face edges, and their number, per vertex."""
    total = np.zeros(len(normals))
    uses = np.zeros(len(normals))
    for f in range(len(faces)):
        for k in range(3):
            a, b = faces[f, k], faces[f, (k + 1) % 3]
            squared = 0.0
            for x in range(3):
                squared += (normals[a, x] - normals[b, x]) ** 2
            change = np.sqrt(squared)
            total[a] += change
            total[b] += change
            uses[a] += 1
            uses[b] += 1
    return total, uses


def curvature_weights(mesh: Mesh) -> NDArray[np.float64]:
    """Return a sampling weight `[F]` for each face: the mean curvature of its vertices.

    The area is left out, as in the training data of the released weights. A mesh of constant
    curvature gets its areas instead, that is uniform sampling.
    """
    value = vertex_curvature(mesh)
    weights = sum(value[mesh.faces[:, k]] for k in range(3)) / 3
    # A face without area has no direction to sample; it must not draw points either.
    areas = mesh.area_faces
    weights = np.where(areas > 0, weights, 0.0)
    return weights if weights.sum() > 0 else areas


def sharp_edges(mesh: Mesh) -> NDArray[np.int64]:
    """Return the edges `[E, 2]` whose both vertices are sharp, each undirected edge once."""
    vertex_normals, face_normals = mesh.vertex_normals, mesh.face_normals
    lowest = np.ones(len(mesh.vertices))
    for k in range(3):
        cosine = np.einsum("ij,ij->i", vertex_normals[mesh.faces[:, k]], face_normals)
        np.minimum.at(lowest, mesh.faces[:, k], cosine)
    sharp = lowest < SHARP_COSINE
    edges = np.stack([mesh.faces, np.roll(mesh.faces, -1, axis=1)], axis=-1).reshape(-1, 2)
    edges = edges[sharp[edges].all(axis=1)]
    return np.unique(np.sort(edges, axis=1), axis=0)


def sample_sharp_edges(
    mesh: Mesh,
    count: int,
    rng: np.random.Generator,
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Return points `[N, 3]` on sharp edges and their blended vertex normals `[N, 3]`.

    Edges are drawn by length. Normals are not rescaled to length one, as the released weights
    expect. Returns None where the mesh has no sharp edge; use uniform samples then.
    """
    edges = sharp_edges(mesh)
    a, b = mesh.vertices[edges[:, 0]], mesh.vertices[edges[:, 1]]
    cumulative = np.cumsum(np.linalg.norm(a - b, axis=1))
    if len(edges) == 0 or not cumulative[-1] > 0:
        return None
    edge = np.searchsorted(cumulative, rng.random(count) * cumulative[-1], side="right")
    edge = np.minimum(edge, len(edges) - 1)
    w = rng.random(count)[:, None]
    normals = mesh.vertex_normals[edges[edge]]
    return w * a[edge] + (1 - w) * b[edge], w * normals[:, 0] + (1 - w) * normals[:, 1]


def sample_uniform_and_curved(
    mesh: Mesh, count: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return points `[count, 3]` and normals `[count, 3]` as the autoencoder reads a surface.

    The first half is area-uniform, the others (`count // 2`) weighted by curvature (spec
    section 10.2).
    """
    half = count // 2
    uniform = sample_faces(mesh, count - half, rng)[:2]
    curved = sample_faces(mesh, half, rng, curvature_weights(mesh))[:2]
    return np.concatenate([uniform[0], curved[0]]), np.concatenate([uniform[1], curved[1]])
