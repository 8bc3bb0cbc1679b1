"""How well one surface matches another: Chamfer distance, F-score, normal consistency."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.geometry.surface import sample_faces


def chamfer(
    a_points: NDArray[np.floating],  # [N, 3]
    b_points: NDArray[np.floating],  # [M, 3]
) -> tuple[float, float]:
    """Return Chamfer-L1 and Chamfer-L2 of two point sets.

    L1 is the mean distance to the closest point of the other set, L2 the mean squared distance;
    both directions are averaged.
    """
    ab, ba, _, _ = _nearest(a_points, b_points)
    return _chamfer_l1(ab, ba), float((np.square(ab).mean() + np.square(ba).mean()) / 2)


def f_score(
    a_points: NDArray[np.floating],  # [N, 3]
    b_points: NDArray[np.floating],  # [M, 3]
    tau: float,
) -> float:
    """Return the harmonic mean of the shares of points within `tau` of the other set."""
    ab, ba, _, _ = _nearest(a_points, b_points)
    return _f_score(ab, ba, tau)


def normal_consistency(
    a_points: NDArray[np.floating],  # [N, 3]
    a_normals: NDArray[np.floating],  # [N, 3], unit
    b_points: NDArray[np.floating],  # [M, 3]
    b_normals: NDArray[np.floating],  # [M, 3], unit
) -> float:
    """Return the mean absolute cosine between normals at closest points, both directions."""
    _, _, to_b, to_a = _nearest(a_points, b_points)
    return _normal_consistency(a_normals, b_normals, to_b, to_a)


def compare_meshes(
    mesh: Mesh,
    reference: Mesh,
    num_points: int = 100_000,
    seed: int = 0,
    taus: Sequence[float] = (0.01, 0.02),
) -> dict[str, float]:
    """Return all metrics of a mesh against a reference in the same frame.

    Args:
        mesh: The mesh to judge.
        reference: The truth.
        num_points: Area-uniform samples of each mesh. Even equal meshes have a distance of about
            half the sample spacing.
        seed: Seed of the samples.
        taus: Distances of the F-scores, in mesh units.
    """
    rng = np.random.default_rng(seed)
    a, a_normals, _ = sample_faces(mesh, num_points, rng)
    b, b_normals, _ = sample_faces(reference, num_points, rng)
    ab, ba, to_b, to_a = _nearest(a, b)
    figures = {
        "chamfer_l1": _chamfer_l1(ab, ba),
        "chamfer_l2": float((np.square(ab).mean() + np.square(ba).mean()) / 2),
        "normal_consistency": _normal_consistency(a_normals, b_normals, to_b, to_a),
        "hausdorff": float(max(ab.max(), ba.max())),
    }
    return figures | {f"f_score@{tau:g}": _f_score(ab, ba, tau) for tau in taus}


def _nearest(
    a: NDArray[np.floating], b: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    if len(a) == 0 or len(b) == 0:
        raise ValueError("cannot compare an empty point set")
    ab, to_b = cKDTree(b).query(a)
    ba, to_a = cKDTree(a).query(b)
    return ab, ba, to_b, to_a


def _chamfer_l1(ab: NDArray[np.float64], ba: NDArray[np.float64]) -> float:
    return float((ab.mean() + ba.mean()) / 2)


def _f_score(ab: NDArray[np.float64], ba: NDArray[np.float64], tau: float) -> float:
    precision, recall = float((ab <= tau).mean()), float((ba <= tau).mean())
    total = precision + recall
    return 2 * precision * recall / total if total > 0 else 0.0


def _normal_consistency(
    a_normals: NDArray[np.floating],
    b_normals: NDArray[np.floating],
    to_b: NDArray[np.int64],
    to_a: NDArray[np.int64],
) -> float:
    forth = np.abs(np.einsum("ij,ij->i", a_normals, b_normals[to_b])).mean()
    back = np.abs(np.einsum("ij,ij->i", b_normals, a_normals[to_a])).mean()
    return float((forth + back) / 2)
