"""How well one surface matches another, in the units of their common frame.

Distances are between samples, so that even equal surfaces are about half the sample spacing apart:
0.5 * sqrt(area / N) for N samples. In the cube [-1, 1]^3 and with 100,000 samples that is about
0.003, the floor of Chamfer-L1 and the least sensible tau of an F-score.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from ultrashape_cli.geometry.check import bent_edges, topology
from ultrashape_cli.geometry.distance import DistanceField, morton_order
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.geometry.surface import sample_faces

TAUS = (0.001, 0.005, 0.01, 0.02)
"""Distances of the F-scores."""
NUM_POINTS = 100_000
EDGE_TAU = 0.02
EDGE_DEGREES = 30.0
"""Faces that turn by more meet in a sharp edge."""
_EDGE_SPACING = 0.005
_VOLUME_POINTS = 1 << 16


def chamfer(
    a_points: NDArray[np.floating],  # [N, 3]
    b_points: NDArray[np.floating],  # [M, 3]
) -> tuple[float, float]:
    """Return Chamfer-L1 and Chamfer-L2 of two point sets.

    L1 is the mean distance to the closest point of the other set, L2 the mean squared distance;
    both directions are averaged.
    """
    ab, ba, _, _ = _nearest(a_points, b_points)
    return _both(ab, ba), _both(np.square(ab), np.square(ba))


def f_score(
    a_points: NDArray[np.floating],  # [N, 3]
    b_points: NDArray[np.floating],  # [M, 3]
    tau: float,
) -> float:
    """Return the harmonic mean of the shares of points within `tau` of the other set."""
    ab, ba, _, _ = _nearest(a_points, b_points)
    return _harmonic(float((ab <= tau).mean()), float((ba <= tau).mean()))


def normal_consistency(
    a_points: NDArray[np.floating],  # [N, 3]
    a_normals: NDArray[np.floating],  # [N, 3], unit
    b_points: NDArray[np.floating],  # [M, 3]
    b_normals: NDArray[np.floating],  # [M, 3], unit
) -> float:
    """Return the mean absolute cosine between normals at closest points, both directions."""
    _, _, to_b, to_a = _nearest(a_points, b_points)
    return _both(*_cosines(a_normals, b_normals, to_b, to_a))


def compare_meshes(
    mesh: Mesh,
    reference: Mesh,
    num_points: int = NUM_POINTS,
    seed: int = 0,
    taus: Sequence[float] = TAUS,
) -> dict[str, float]:
    """Return the distances and angles between a mesh and a reference in the same frame.

    Args:
        mesh: The mesh to judge.
        reference: The truth.
        num_points: Area-uniform samples of each mesh.
        seed: Seed of the samples.
        taus: Distances of the F-scores, in mesh units.

    Returns:
        `chamfer_l1`, `chamfer_l2`, `hausdorff`, `hausdorff_95` (the 95th percentile, the larger
        of both directions), `normal_consistency`, `angular_error` (mean degrees between the lines
        of the normals), and `precision@`, `recall@` and `f_score@` each tau.
    """
    rng = np.random.default_rng(seed)
    a, a_normals, _ = sample_faces(mesh, num_points, rng)
    b, b_normals, _ = sample_faces(reference, num_points, rng)
    ab, ba, to_b, to_a = _nearest(a, b)
    cosines = _cosines(a_normals, b_normals, to_b, to_a)
    angles = [np.degrees(np.arccos(np.minimum(cosine, 1.0))) for cosine in cosines]
    figures = {
        "chamfer_l1": _both(ab, ba),
        "chamfer_l2": _both(np.square(ab), np.square(ba)),
        "hausdorff": float(max(ab.max(), ba.max())),
        "hausdorff_95": float(max(np.quantile(ab, 0.95), np.quantile(ba, 0.95))),
        "normal_consistency": _both(*cosines),
        "angular_error": _both(*angles),
    }
    for tau in taus:
        precision, recall = float((ab <= tau).mean()), float((ba <= tau).mean())
        figures[f"precision@{tau:g}"] = precision
        figures[f"recall@{tau:g}"] = recall
        figures[f"f_score@{tau:g}"] = _harmonic(precision, recall)
    return figures


def mesh_scores(
    mesh: Mesh, reference: Mesh, num_points: int = NUM_POINTS, seed: int = 0
) -> dict[str, float]:
    """Return the figures of `compare_meshes`, `watertight` (0 or 1) and `volume_iou`.

    The latter is left out where a mesh is open.
    """
    closed = topology(mesh).watertight
    iou = volume_iou(mesh, reference, seed=seed)
    figures = compare_meshes(mesh, reference, num_points, seed) | {"watertight": float(closed)}
    return figures if iou is None else figures | {"volume_iou": iou}


def volume_iou(
    mesh: Mesh, reference: Mesh, num_points: int = _VOLUME_POINTS, seed: int = 0
) -> float | None:
    """Return the volume of the intersection over that of the union, or None where one is open.

    Args:
        mesh: The mesh to judge.
        reference: The truth.
        num_points: Points of a jittered grid over the common box; an IoU p then has a standard
            error below sqrt(p * (1 - p) / points inside the union).
        seed: Seed of the jitter.
    """
    if not (topology(mesh).watertight and topology(reference).watertight):
        return None
    low = np.minimum(mesh.bounds[0], reference.bounds[0])
    extent = np.maximum(mesh.bounds[1], reference.bounds[1]) - low
    # About equal cells, whatever the proportions of the box.
    cell = (np.maximum(extent, 1e-9).prod() / num_points) ** (1 / 3)
    counts = np.maximum(np.ceil(extent / cell), 1).astype(int)
    corners = np.stack(np.meshgrid(*map(np.arange, counts), indexing="ij"), -1).reshape(-1, 3)
    jitter = np.random.default_rng(seed).random(corners.shape)
    points = low + (corners + jitter) / counts * extent
    inside, inside_reference = (
        DistanceField(m, winding_exists=True).contains(points) for m in (mesh, reference)
    )
    union = int((inside | inside_reference).sum())
    return float((inside & inside_reference).sum() / union) if union else None


def earth_movers_distance(
    mesh: Mesh, reference: Mesh, num_points: int = 1024, seed: int = 0
) -> float:
    """Return the mean distance of the cheapest one-to-one assignment of samples (exact).

    Its floor, for equal surfaces, is about the sample spacing: 0.06 in the cube with 1,024 points.
    """
    rng = np.random.default_rng(seed)
    costs = cdist(*(sample_faces(m, num_points, rng)[0] for m in (mesh, reference)))
    return float(costs[linear_sum_assignment(costs)].mean())


def edge_f_score(mesh: Mesh, reference: Mesh, tau: float = EDGE_TAU) -> float | None:
    """Return the F-score of points on sharp edges, or None where neither mesh has one."""
    ours, theirs = _edge_points(mesh), _edge_points(reference)
    if len(ours) == 0 or len(theirs) == 0:
        return None if len(ours) == len(theirs) else 0.0
    return f_score(ours, theirs, tau)


def _edge_points(mesh: Mesh) -> NDArray[np.float64]:  # [N, 3]
    edges = bent_edges(mesh, float(np.cos(np.radians(EDGE_DEGREES))), 0.0)
    a, b = mesh.vertices[edges[:, 0]], mesh.vertices[edges[:, 1]]
    count = np.maximum(np.linalg.norm(b - a, axis=1) / _EDGE_SPACING, 1).astype(np.int64)
    edge = np.repeat(np.arange(len(edges)), count)
    step = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count)
    return a[edge] + ((step + 0.5) / count[edge])[:, None] * (b - a)[edge]


def _nearest(
    a: NDArray[np.floating], b: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    if len(a) == 0 or len(b) == 0:
        raise ValueError("cannot compare an empty point set")
    # Neighbours in space become neighbours in memory: a third of the time of a random order.
    low, high = np.minimum(a.min(0), b.min(0)), np.maximum(a.max(0), b.max(0))
    a_order, b_order = morton_order(a, low, high), morton_order(b, low, high)
    a_tree, b_tree = (cKDTree(p, balanced_tree=False) for p in (a[a_order], b[b_order]))
    ab, to_b = _query(b_tree, b_order, a, a_order)
    ba, to_a = _query(a_tree, a_order, b, b_order)
    return ab, ba, to_b, to_a


def _query(
    tree: cKDTree,
    tree_order: NDArray[np.int64],
    points: NDArray[np.floating],
    order: NDArray[np.int64],
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    distance, closest = np.empty(len(points)), np.empty(len(points), np.int64)
    distance[order], found = tree.query(points[order])
    closest[order] = tree_order[found]
    return distance, closest


def _cosines(
    a_normals: NDArray[np.floating],
    b_normals: NDArray[np.floating],
    to_b: NDArray[np.int64],
    to_a: NDArray[np.int64],
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    forth = np.abs(np.einsum("ij,ij->i", a_normals, b_normals[to_b]))
    return forth, np.abs(np.einsum("ij,ij->i", b_normals, a_normals[to_a]))


def _both(forth: NDArray[np.floating], back: NDArray[np.floating]) -> float:
    return float((forth.mean() + back.mean()) / 2)


def _harmonic(precision: float, recall: float) -> float:
    total = precision + recall
    return 2 * precision * recall / total if total > 0 else 0.0
