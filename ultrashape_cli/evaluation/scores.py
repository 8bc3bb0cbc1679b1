"""Every score of one mesh against its ground truth, and which way is better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

from ultrashape_cli.evaluation.perceptual import PerceptualScore
from ultrashape_cli.geometry.check import topology
from ultrashape_cli.geometry.mesh import Mesh, unit
from ultrashape_cli.geometry.metrics import (
    NUM_POINTS,
    earth_movers_distance,
    edge_f_score,
    mesh_scores,
)
from ultrashape_cli.geometry.roughness import dihedral_percentiles, laplacian_roughness
from ultrashape_cli.rendering.cameras import Camera, bounding_radius, view_set
from ultrashape_cli.rendering.maps import view_maps
from ultrashape_cli.rendering.renderer import render_views
from ultrashape_cli.rendering.scene import Scene

GROUND = 245
"""Grey that views are compared on."""
LARGEST_PSNR = 60.0
"""dB of equal pictures, whose error is zero."""

Scores = dict[str, float]

LOWER_IS_BETTER = (
    *("chamfer_l1", "chamfer_l2", "hausdorff", "hausdorff_95", "angular_error"),
    *("earth_movers", "view_spread", "lpips", "seconds", "memory_gib"),
)
HIGHER_IS_BETTER = (
    *("normal_consistency", "volume_iou", "watertight", "manifold", "edge_f_score"),
    *("psnr", "ssim", "silhouette_iou", "normal_psnr", "front_normals", "clip"),
    *("f_score@", "precision@", "recall@"),
)


def sign_of(name: str) -> int:
    """Returns -1 where lower is better, 1 where higher is, 0 where neither is (detail, counts)."""
    if name in LOWER_IS_BETTER:
        return -1
    known = name in HIGHER_IS_BETTER or name.startswith(HIGHER_IS_BETTER[-3:])
    return 1 if known else 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """How finely scores are taken."""

    points: int = NUM_POINTS
    earth_movers_points: int = 1024
    views: int = 4
    view_size: int = 256
    seed: int = 0


def score_mesh(
    mesh: Mesh,
    truth: Mesh,
    sampling: Sampling,
    perceptual: Sequence[PerceptualScore] = (),
) -> Scores:
    """Returns all scores of a mesh in the frame of its truth; None never, absent where undefined.

    Args:
        mesh: What is judged.
        truth: Ground truth, in the normalised frame.
        sampling: Points, views and their seed.
        perceptual: Further scores of pairs of pictures.
    """
    state = topology(mesh)
    scores = mesh_scores(mesh, truth, sampling.points, sampling.seed)
    scores["manifold"] = float(state.nonmanifold_edges + state.nonmanifold_vertices == 0)
    scores["components"] = float(state.components)
    scores["open_edges"] = float(state.boundary_edges)
    if state.closed:
        # Handles and tunnels, over all components.
        scores["genus"] = state.components - state.euler / 2
    scores["faces"] = float(len(mesh.faces))
    if sampling.earth_movers_points:
        scores["earth_movers"] = earth_movers_distance(
            mesh, truth, sampling.earth_movers_points, sampling.seed
        )
    edges = edge_f_score(mesh, truth)
    if edges is not None:
        scores["edge_f_score"] = edges
    scores |= dihedral_percentiles(mesh) | {"roughness": laplacian_roughness(mesh)}
    if sampling.views:
        cameras = view_set(sampling.views, radius=bounding_radius(truth), size=sampling.view_size)
        scores |= _score_views(mesh, truth, cameras, perceptual)
    return scores


def _score_views(
    mesh: Mesh, truth: Mesh, cameras: Sequence[Camera], perceptual: Sequence[PerceptualScore]
) -> Scores:
    """Returns means over fixed views of shaded pictures, silhouettes and normals.

    `view_spread` is the standard deviation of the normals' PSNR between the views: a mesh that is
    right from one side only has a large one. `front_normals` is the mean cosine of the normals in
    the first view, where both are: the half that a reference image shows.
    """
    scenes = Scene(mesh), Scene(truth)
    light = {"supersample": 1, "ambient_rays": 0, "shadow_rays": 1}
    pictures = [list(render_views(scene, cameras, **light)) for scene in scenes]  # type: ignore[arg-type]
    rows: dict[str, list[float]] = {}
    front: Scores = {}
    for camera, ours, theirs in zip(cameras, *pictures, strict=True):
        a, b = on_ground(ours), on_ground(theirs)
        (maps, _), (true_maps, _) = (view_maps(scene, camera, 1) for scene in scenes)
        mask, true_mask = maps["mask"] > 0, true_maps["mask"] > 0
        union = mask | true_mask
        normals = [m["normal"][..., :3][union].astype(np.float64) for m in (maps, true_maps)]
        found = {
            "psnr": _psnr(a, b),
            "ssim": float(structural_similarity(a, b, channel_axis=2, data_range=255)),
            "silhouette_iou": float((mask & true_mask).sum() / max(union.sum(), 1)),
            "normal_psnr": _psnr(*normals),
            **{score.name: score(a, b) for score in perceptual},
        }
        for name, value in found.items():
            rows.setdefault(name, []).append(value)
        both = mask & true_mask
        if camera is cameras[0] and both.any():
            ours_, theirs_ = (unit(m["normal"][both][:, :3] / 127.5 - 1) for m in (maps, true_maps))
            front["front_normals"] = float((ours_ * theirs_).sum(1).mean())
    scores = {name: float(np.mean(values)) for name, values in rows.items()} | front
    return scores | {"view_spread": float(np.std(rows["normal_psnr"]))}


def on_ground(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:  # [H, W, 4] -> [H, W, 3]
    """Returns a picture on plain grey."""
    alpha = rgba[..., 3:].astype(np.float32) / 255
    mixed = rgba[..., :3] * alpha + GROUND * (1 - alpha)
    return np.round(mixed).astype(np.uint8)


def _psnr(a: NDArray[Any], b: NDArray[Any]) -> float:
    error = np.square(a.astype(np.float64) - b).mean() if a.size else 0.0
    return float(min(10 * np.log10(255**2 / max(error, 1e-12)), LARGEST_PSNR))
