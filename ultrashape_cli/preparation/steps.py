"""The per-asset steps: what each reads, writes, measures and depends on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ultrashape_cli.config.schema import Config
from ultrashape_cli.data.layout import Dataset, Record, settings_text, step_key
from ultrashape_cli.errors import MeshError
from ultrashape_cli.files import file_hash
from ultrashape_cli.preparation.remote import source_path

VAE_STEP = "vae"
"""The optional step behind `--vae-check`, after all others."""

_PALETTE_SAMPLES = 20_000

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
        self._coloured = config.render.textures

    def of(self, record: Record) -> dict[str, str]:
        """Returns the key each step would have if it ran now.

        All but the first depend on the watertight mesh that exists, whatever settings made it,
        unless the steps make a new one; views also on the colours beside the source.
        """
        keys: dict[str, str] = {}
        mesh = record.steps["watertight"].key if "watertight" in record.steps else ""
        for name in self.steps:
            upstream = record.source["sha256"] if name == "watertight" else mesh
            if name == "render" and self._coloured and "colours" in record.source:
                upstream = f"{mesh}:{record.source['colours']}"
            keys[name] = step_key(self._settings[name], upstream)
            mesh = keys[name] if name == "watertight" else mesh
        return keys


def _require_named(path: Path, source: Mapping[str, Any]) -> None:
    """Raises MeshError where a manifest means another file: its author and licence are of that."""
    origin = source.get("origin") or {}
    wanted = origin.get("sha256")
    # A hash of a GLTF counts its buffers too.
    if wanted and wanted != source["sha256"] and path.suffix.lower() != ".gltf":
        raise MeshError(
            f"`{path}` is not the file that `{origin['manifest']}` names (another sha256)",
            hint="ushape import with --fetch brings that one; or correct the line",
        )


def _watertight(dataset: Dataset, record: Record, config: Config) -> StepResult:
    from ultrashape_cli.geometry.front import front_axis
    from ultrashape_cli.geometry.mesh import Mesh
    from ultrashape_cli.geometry.normalize import fit_frame, up_axis
    from ultrashape_cli.meshfiles.load import mesh_of, read_contents
    from ultrashape_cli.meshfiles.save import save_mesh
    from ultrashape_cli.watertight.ladder import make_watertight
    from ultrashape_cli.watertight.surroundings import without_surroundings

    settings = config.watertight
    limit = int(settings.max_file_gib * 2**30)
    path = source_path(dataset, record, limit)
    _require_named(path, record.source)
    contents = read_contents(path, colours=False, max_bytes=limit)
    source, _, around = without_surroundings(mesh_of(path, contents))
    up = up_axis(settings.up, path.suffix)
    frame = fit_frame(source, up=up, front=front_axis(settings.front, source, up))
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
    measurements: dict[str, Any] = {
        "rung": result.rung,
        "source_vertices": len(source.vertices),
        "source_faces": len(source.faces),
        "vertices": len(mesh.vertices),
        "faces": len(mesh.faces),
        "frame": frame.as_dict(),
        **result.measurements,
    }
    if notes := contents.notes + around:
        measurements["notes"] = notes
    return measurements, [path]


def _quality(dataset: Dataset, record: Record, config: Config) -> StepResult:
    from ultrashape_cli.meshfiles.load import load_mesh
    from ultrashape_cli.preparation.quality import measure_source, measure_surface

    limit = int(config.watertight.max_file_gib * 2**30)
    source = load_mesh(source_path(dataset, record, limit), max_bytes=limit)
    mesh = load_mesh(dataset.mesh(record.id))
    seed = asset_seed(record.id, 0)
    return {**measure_source(source), **measure_surface(mesh, seed)}, []


def _vae(dataset: Dataset, record: Record, config: Config) -> StepResult:
    from ultrashape_cli.meshfiles.load import load_mesh
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
    from ultrashape_cli.meshfiles.load import load_mesh
    from ultrashape_cli.rendering.cameras import bounding_radius, view_set
    from ultrashape_cli.rendering.maps import view_maps
    from ultrashape_cli.rendering.output import write_views
    from ultrashape_cli.rendering.renderer import render_views
    from ultrashape_cli.rendering.scene import Scene

    settings = config.render
    mesh = load_mesh(dataset.mesh(record.id))
    colours, problems = _source_colours(dataset, record, config)
    scene = Scene(mesh, colours)
    is_random = settings.lights == "random"
    seed = asset_seed(record.id, config.seed) if is_random else config.seed
    cameras = view_set(
        settings.views,
        radius=bounding_radius(mesh),
        size=settings.size,
        fov_degrees=settings.fov_degrees,
        orthographic=settings.orthographic,
        elevations=settings.elevations,
        seed=seed if is_random else None,
    )
    if settings.renderer == "blender":
        from ultrashape_cli.rendering.blender import blender_views

        images = blender_views(
            scene,
            cameras,
            lights=settings.lights,
            samples=settings.blender_samples,
            seed=seed,
            program=settings.blender,
        )
    else:
        images = render_views(
            scene,
            cameras,
            lights=settings.lights,
            supersample=settings.supersample,
            ambient_rays=settings.ambient_rays,
            shadow_rays=settings.shadow_rays,
            seed=seed,
        )
    measurements, paths = write_views(
        dataset.views(record.id),
        cameras,
        images,
        (view_maps(scene, camera, settings.supersample) for camera in cameras),
        map_names=settings.maps,
        contact_sheet=settings.contact_sheet,
    )
    measurements["surface"] = "clay" if colours is None else "colours"
    if colours is not None:
        measurements["palette"] = _palette_of(mesh, colours, asset_seed(record.id, 0))
    if problems:
        measurements["problems"] = problems[:5]
    return measurements, paths


def _source_colours(dataset: Dataset, record: Record, config: Config) -> tuple[Any, list[str]]:
    """Returns the `SurfaceColours` of the source or None, and what is wrong with them."""
    if not config.render.textures:
        return None, []
    from ultrashape_cli.geometry.normalize import Frame
    from ultrashape_cli.meshfiles.appearance import load_appearance
    from ultrashape_cli.rendering.colours import SurfaceColours
    from ultrashape_cli.watertight.surroundings import without_surroundings

    path = source_path(dataset, record, int(config.watertight.max_file_gib * 2**30))
    done = record.steps.get("watertight")
    if done is None or not path.exists():
        return None, [f"`{path}` is gone, and its colours with it"]
    appearance = load_appearance(path)
    if appearance is None or not appearance.has_colour:
        return None, appearance.problems if appearance else []
    frame = Frame.from_dict(done.measurements["frame"])
    if "notes" in done.measurements:
        appearance = appearance.kept(without_surroundings(appearance.mesh).kept)
    return SurfaceColours(appearance, frame), appearance.problems


def _palette_of(mesh: Any, colours: Any, seed: int) -> str:
    """Returns the colours of a surface, for telling near-duplicates from painted copies."""
    from ultrashape_cli.geometry.surface import sample_faces
    from ultrashape_cli.preparation.twins import encode_palette, palette

    points, normals, _ = sample_faces(mesh, _PALETTE_SAMPLES, np.random.default_rng(seed))
    found = colours.at(points, normals)
    return encode_palette(palette(found[found[:, 3] > 0, :3]))


def _sample(dataset: Dataset, record: Record, config: Config) -> StepResult:
    from ultrashape_cli.data.samples import NEAR_REACH, write_arrays, write_samples
    from ultrashape_cli.data.sampling import reference_frame, sample_mesh
    from ultrashape_cli.geometry.normalize import Frame
    from ultrashape_cli.meshfiles.load import load_mesh

    settings = config.sample
    rng = np.random.default_rng(asset_seed(record.id, config.seed))
    arrays, measurements = sample_mesh(load_mesh(dataset.mesh(record.id)), settings, rng)
    path = dataset.samples(record.id)
    if settings.format == "reference":
        frame = Frame.from_dict(record.steps["watertight"].measurements["frame"])
        write_arrays(path, {**arrays, **reference_frame(frame)})
    else:
        meta = {
            "contents": settings.contents,
            "num_uniform": settings.surface_points,
            "near_reach": NEAR_REACH,
            "seed": config.seed,
            "frame": "normalised",
            "units": "half-extent of the [-1, 1] cube",
        }
        write_samples(path, meta, arrays)
    return {**measurements, "sha256": file_hash(path)}, [path]


def asset_seed(asset_id: str, seed: int) -> int:
    """Returns the seed of one asset's random draws."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{asset_id}".encode()).digest()[:8], "big")


WATERTIGHT = Step("watertight", 3, lambda c: asdict(c.watertight), _watertight)
STEP_TABLE: dict[str, Step] = {
    step.name: step
    for step in (
        WATERTIGHT,
        Step("quality", 1, lambda c: {}, _quality),
        Step("render", 2, lambda c: {**asdict(c.render), "seed": c.seed}, _render),
        Step("sample", 2, lambda c: {**asdict(c.sample), "seed": c.seed}, _sample),
        Step(VAE_STEP, 1, _vae_params, _vae),
    )
}
