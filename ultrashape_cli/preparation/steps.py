"""The per-asset steps: what each reads, writes, measures and depends on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ultrashape_cli.config.schema import Config
from ultrashape_cli.data.layout import Dataset, Record, settings_text, step_key
from ultrashape_cli.data.samples import (
    encode_normals,
    quantise_positions,
    restore_positions,
    write_samples,
)
from ultrashape_cli.files import write_json

VAE_STEP = "vae"
"""The optional step behind `--vae-check`, after all others."""

StepResult = tuple[dict[str, Any], list[Path]]
"""Measurements, and the files written."""


@dataclass(frozen=True, slots=True)
class Step:
    """One per-asset step."""

    name: str
    version: int
    """Raised when its algorithm changes, so that all results are redone."""
    params: Callable[[Config], dict[str, Any]]
    run: Callable[[Dataset, Record, Config], StepResult]


class StepKeys:
    """The keys of steps under one config, whose settings are read once for all assets."""

    def __init__(self, steps: Sequence[str], config: Config) -> None:
        self.steps = tuple(steps)
        table = {name: STEP_TABLE[name] for name in steps}
        self._settings = {
            name: settings_text(name, step.version, step.params(config))
            for name, step in table.items()
        }

    def of(self, record: Record) -> dict[str, str]:
        """Returns the key each step would have if it ran now.

        All but the first depend on the watertight mesh that exists, whatever settings made it,
        unless the steps make a new one.
        """
        keys: dict[str, str] = {}
        mesh = record.steps["watertight"].key if "watertight" in record.steps else ""
        for name in self.steps:
            upstream = record.source["sha256"] if name == "watertight" else mesh
            keys[name] = step_key(self._settings[name], upstream)
            mesh = keys[name] if name == "watertight" else mesh
        return keys


def _watertight(dataset: Dataset, record: Record, config: Config) -> StepResult:
    from ultrashape_cli.geometry.mesh import Mesh, load_mesh, save_mesh
    from ultrashape_cli.geometry.normalize import fit_frame, up_axis
    from ultrashape_cli.geometry.watertight import make_watertight

    settings = config.watertight
    path = Path(record.source["path"])
    source = load_mesh(path, max_bytes=int(settings.max_file_gib * 2**30))
    frame = fit_frame(source.vertices, up=up_axis(settings.up, path.suffix))
    placed = Mesh(frame.to_normalised(source.vertices), source.faces)
    result = make_watertight(
        placed,
        settings.resolution,
        keep_cavities=settings.keep_cavities,
        max_faces=settings.max_faces,
        max_error=settings.max_error,
        max_memory_bytes=int(settings.max_memory_gib * 2**30),
    )
    mesh = result.mesh
    if result.rung == "remesh":
        # Single precision is far below a cell; it halves the file. Kept vertices stay exact.
        mesh = Mesh(mesh.vertices.astype(np.float32).astype(np.float64), mesh.faces)
    path = dataset.mesh(record.id)
    save_mesh(mesh, path)
    measurements = {
        "rung": result.rung,
        "source_vertices": len(source.vertices),
        "source_faces": len(source.faces),
        "vertices": len(mesh.vertices),
        "faces": len(mesh.faces),
        "frame": frame.as_dict(),
        **result.measurements,
    }
    return measurements, [path]


def _quality(dataset: Dataset, record: Record, config: Config) -> StepResult:
    from ultrashape_cli.geometry.mesh import load_mesh
    from ultrashape_cli.preparation.quality import measure_source, measure_surface

    limit = int(config.watertight.max_file_gib * 2**30)
    source = load_mesh(Path(record.source["path"]), max_bytes=limit)
    mesh = load_mesh(dataset.mesh(record.id))
    seed = asset_seed(record.id, 0)
    return {**measure_source(source), **measure_surface(mesh, seed)}, []


def _vae(dataset: Dataset, record: Record, config: Config) -> StepResult:
    from ultrashape_cli.geometry.mesh import load_mesh
    from ultrashape_cli.preparation.vae_check import load_vae, round_trip

    mesh = load_mesh(dataset.mesh(record.id))
    vae = load_vae(config.quality.vae_check, config.device)
    seed = asset_seed(record.id, config.seed)
    settings = config.quality
    return round_trip(vae, mesh, settings.vae_tokens, settings.vae_resolution, seed), []


def _vae_params(config: Config) -> dict[str, Any]:
    from ultrashape_cli.preparation.vae_check import weights_fingerprint

    settings = config.quality
    return {
        "weights": weights_fingerprint(settings.vae_check),
        "tokens": settings.vae_tokens,
        "resolution": settings.vae_resolution,
        "seed": config.seed,
    }


def _render(dataset: Dataset, record: Record, config: Config) -> StepResult:
    from ultrashape_cli.geometry.mesh import load_mesh
    from ultrashape_cli.rendering.cameras import bounding_radius, view_set
    from ultrashape_cli.rendering.renderer import render_views, save_png

    mesh = load_mesh(dataset.mesh(record.id))
    cameras = view_set(config.render.views, radius=bounding_radius(mesh), size=config.render.size)
    folder = dataset.views(record.id)
    images = render_views(
        mesh,
        cameras,
        supersample=config.render.supersample,
        ambient_rays=config.render.ambient_rays,
        shadow_rays=config.render.shadow_rays,
        seed=config.seed,
    )
    paths, filled, clipped = [], [], 0.0
    for index, image in enumerate(images):
        path = folder / f"view_{index:03d}.png"
        save_png(image, path)
        paths.append(path)
        inside = image[..., 3] > 0
        filled.append(float(inside.mean()))
        bright = image[..., :3].max(-1) == 255
        clipped = max(clipped, float((bright & inside).sum() / max(inside.sum(), 1)))
    for stale in set(folder.glob("view_*.png")) - set(paths):
        stale.unlink()
    cameras_path = folder / "cameras.json"
    write_json(cameras_path, {"views": [camera.to_dict() for camera in cameras]})
    measurements = {
        "views": len(paths),
        "filled": round(float(np.mean(filled)), 4),
        "clipped": round(clipped, 5),
    }
    return measurements, [*paths, cameras_path]


def _sample(dataset: Dataset, record: Record, config: Config) -> StepResult:
    from ultrashape_cli.geometry.mesh import load_mesh
    from ultrashape_cli.geometry.surface import curvature_weights, sample_faces

    mesh = load_mesh(dataset.mesh(record.id))
    settings = config.sample
    rng = np.random.default_rng(asset_seed(record.id, config.seed))
    uniform, uniform_normals, _ = sample_faces(mesh, settings.surface_points, rng)
    weights = curvature_weights(mesh)
    curved, curved_normals, _ = sample_faces(mesh, settings.curvature_points, rng, weights)
    arrays = {
        "surface_points": quantise_positions(np.concatenate([uniform, curved])),
        "surface_normals": encode_normals(np.concatenate([uniform_normals, curved_normals])),
    }
    measurements: dict[str, Any] = {"surface_points": len(arrays["surface_points"])}
    if settings.contents == "full":
        measurements |= _sample_queries(mesh, uniform, curved, config, rng, arrays)
    meta = {
        "contents": settings.contents,
        "num_uniform": settings.surface_points,
        "seed": config.seed,
        "frame": "normalised",
        "units": "half-extent of the [-1, 1] cube",
    }
    path = dataset.samples(record.id)
    write_samples(path, meta, arrays)
    return measurements, [path]


# Spec section 10.1, in half-extents of the [-1, 1] cube (twice the unit-cube figures).
_NEAR_SIGMAS = (0.01, 0.1)
_CURVATURE_SIGMAS = (0.002, 0.006, 0.012, 0.02, 0.04, 0.08)
_NEAR_LIMIT = 0.5


def _sample_queries(
    mesh: Any,
    uniform: np.ndarray,
    curved: np.ndarray,
    config: Config,
    rng: np.random.Generator,
    arrays: dict[str, np.ndarray],
) -> dict[str, Any]:
    """Adds the query sets of spec section 10.1 and their distances to `arrays`."""
    from ultrashape_cli.geometry.distance import DistanceField

    settings = config.sample
    points = {
        "near": _jitter(uniform, settings.near_points, _NEAR_SIGMAS, rng),
        "near_curvature": _jitter(curved, settings.near_curvature_points, _CURVATURE_SIGMAS, rng),
        "space": rng.uniform(-1.0, 1.0, (settings.space_points, 3)),
    }
    field = DistanceField(mesh)
    for name, positions in points.items():
        codes = quantise_positions(positions)
        distances = field.signed(restore_positions(codes).astype(np.float64))
        arrays[f"{name}_points"] = codes
        arrays[f"{name}_sdf"] = distances.astype(np.float16)
    inside = float((arrays["space_sdf"] < 0).mean())
    return {"query_points": sum(map(len, points.values())), "inside_share": round(inside, 5)}


def _jitter(
    surface: np.ndarray, count: int, sigmas: tuple[float, ...], rng: np.random.Generator
) -> np.ndarray:
    rows = rng.integers(0, len(surface), count)
    group = np.arange(count) * len(sigmas) // count
    offset = rng.normal(size=(count, 3)) * np.asarray(sigmas)[group, None]
    return surface[rows] + np.clip(offset, -_NEAR_LIMIT, _NEAR_LIMIT)


def asset_seed(asset_id: str, seed: int) -> int:
    """Returns the seed of one asset's random draws."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{asset_id}".encode()).digest()[:8], "big")


WATERTIGHT = Step("watertight", 2, lambda c: asdict(c.watertight), _watertight)
STEP_TABLE: dict[str, Step] = {
    step.name: step
    for step in (
        WATERTIGHT,
        Step("quality", 1, lambda c: {}, _quality),
        Step("render", 1, lambda c: {**asdict(c.render), "seed": c.seed}, _render),
        Step("sample", 1, lambda c: {**asdict(c.sample), "seed": c.seed}, _sample),
        Step(VAE_STEP, 1, _vae_params, _vae),
    )
}
