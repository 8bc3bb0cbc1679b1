"""Mesh to samples: surface points, query points and their distances (spec section 10.1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ultrashape_cli.config.schema import SampleConfig
from ultrashape_cli.data.samples import (
    NEAR_REACH,
    REFERENCE_NAMES,
    encode_normals,
    quantise_positions,
    restore_positions,
)
from ultrashape_cli.geometry.distance import DistanceField
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.geometry.normalize import Frame
from ultrashape_cli.geometry.surface import (
    curvature_weights,
    sample_faces,
    sample_sharp_edges,
    sample_uniform_and_curved,
)
from ultrashape_cli.synthetic.coarsen import COARSE_RESOLUTION, COARSE_SMOOTHING, coarsen

Arrays = dict[str, np.ndarray]

# In half-extents of the cube [-1, 1], twice the unit-cube figures of the spec.
_NEAR_SIGMAS = (0.01, 0.1)
_NEAR_LIMIT = 0.5
_CURVATURE_SIGMAS = (0.002, 0.006, 0.012, 0.02, 0.04, 0.08)


def sample_mesh(
    mesh: Mesh, settings: SampleConfig, rng: np.random.Generator
) -> tuple[Arrays, dict[str, Any]]:
    """Returns the arrays of a sample file and measurements.

    Args:
        mesh: Watertight, in the normalised frame.
        settings: Counts, contents and format.
        rng: Source of all randomness.
    """
    reference = settings.format == "reference"
    place = _in_unit_cube if reference else _in_codes
    turn = _as_float32 if reference else encode_normals
    uniform, uniform_normals, _ = sample_faces(mesh, settings.surface_points, rng)
    weights = curvature_weights(mesh)
    curved, curved_normals, _ = sample_faces(mesh, settings.curvature_points, rng, weights)
    arrays: Arrays = {
        "surface_points": place(np.concatenate([uniform, curved]), 1.0)[0],
        "surface_normals": turn(np.concatenate([uniform_normals, curved_normals])),
    }
    measurements: dict[str, Any] = {"surface_points": len(arrays["surface_points"])}
    if settings.contents == "full":
        measurements |= _add_queries(arrays, mesh, uniform, curved, settings, rng, place)
    if settings.sharp_points:
        sharp = sample_sharp_edges(mesh, settings.sharp_points, rng)
        # A surface without sharp edges gives uniform points instead, as at inference.
        points, normals = sharp or sample_faces(mesh, settings.sharp_points, rng)[:2]
        arrays["sharp_points"], arrays["sharp_normals"] = place(points, 1.0)[0], turn(normals)
        measurements["sharp_edges"] = sharp is not None
    if settings.coarse_points:
        rough = _coarse_version(mesh, settings, rng)
        points, normals = sample_uniform_and_curved(rough, settings.coarse_points, rng)
        arrays["coarse_points"], arrays["coarse_normals"] = place(points, 1.0)[0], turn(normals)
    if reference:
        arrays = {REFERENCE_NAMES.get(name, name): array for name, array in arrays.items()}
    return arrays, measurements


def reference_frame(frame: Frame) -> Arrays:
    """Returns `center` [3] and `scale` [] that lead from the source to the cube [0, 1].

    The reference keeps the axes of the source; where ours was turned upright, so are these points.
    """
    return {
        "center": np.asarray(frame.centre, np.float32),
        "scale": np.float32(2 / frame.scale),  # type: ignore[dict-item]
    }


def _add_queries(
    arrays: Arrays,
    mesh: Mesh,
    uniform: np.ndarray,
    curved: np.ndarray,
    settings: SampleConfig,
    rng: np.random.Generator,
    place: Callable[[np.ndarray, float], tuple[np.ndarray, np.ndarray]],
) -> dict[str, Any]:
    """Adds the query sets and the distances at the positions as they are stored."""
    sets = {
        "near": (jitter(uniform, settings.near_points, _NEAR_SIGMAS, rng, _NEAR_LIMIT), NEAR_REACH),
        "near_curvature": (
            jitter(curved, settings.near_curvature_points, _CURVATURE_SIGMAS, rng),
            NEAR_REACH,
        ),
        "space": (rng.uniform(-1.0, 1.0, (settings.space_points, 3)), 1.0),
    }
    field = DistanceField(mesh)
    for name, (points, reach) in sets.items():
        arrays[f"{name}_points"], stored = place(points, reach)
        distances = field.signed(stored)
        if settings.format == "reference":
            arrays[f"{name}_sdf"] = (distances / 2).astype(np.float32)
        else:
            arrays[f"{name}_sdf"] = distances.astype(np.float16)
    inside = float((arrays["space_sdf"] < 0).mean())
    count = sum(len(points) for points, _ in sets.values())
    return {"query_points": count, "inside_share": round(inside, 5)}


def jitter(
    surface: np.ndarray,  # [N, 3]
    count: int,
    sigmas: tuple[float, ...],
    rng: np.random.Generator,
    limit: float = np.inf,
) -> np.ndarray:
    """Returns surface points moved by normal noise `[count, 3]`, in equal groups of each sigma.

    Points are taken in shuffled order, each as often as the others (one more or less).

    Args:
        surface: Surface points.
        count: Number of points.
        sigmas: Standard deviation per axis of each consecutive group.
        rng: Source of randomness.
        limit: Draws beyond it, per axis, are drawn again.
    """
    rounds = -(-count // len(surface))
    rows = np.concatenate([rng.permutation(len(surface)) for _ in range(rounds)])[:count]
    sigma = np.asarray(sigmas)[np.arange(count) * len(sigmas) // count]
    offset = rng.normal(size=(count, 3)) * sigma[:, None]
    while len(beyond := np.argwhere(np.abs(offset) > limit)):
        offset[tuple(beyond.T)] = rng.normal(size=len(beyond)) * sigma[beyond[:, 0]]
    return surface[rows] + offset


def _coarse_version(mesh: Mesh, settings: SampleConfig, rng: np.random.Generator) -> Mesh:
    if not settings.coarse_spread:
        return coarsen(mesh)
    low, high = 1 - settings.coarse_spread, 1 + settings.coarse_spread
    resolution, smoothing = rng.uniform(low, high, 2) * (COARSE_RESOLUTION, COARSE_SMOOTHING)
    return coarsen(mesh, round(resolution), round(smoothing))


def _in_codes(points: np.ndarray, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns what the compact format stores of positions, and where that is."""
    codes = quantise_positions(points, reach)
    return codes, restore_positions(codes, reach).astype(np.float64)


def _in_unit_cube(points: np.ndarray, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns what the reference format stores of positions, and where that is."""
    stored = (points * 0.5 + 0.5).astype(np.float32)
    return stored, stored.astype(np.float64) * 2 - 1


def _as_float32(normals: np.ndarray) -> np.ndarray:
    return normals.astype(np.float32)
