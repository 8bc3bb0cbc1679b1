"""One refinement as files: what is read, what is written, and the record of what made it."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ultrashape_cli import __version__
from ultrashape_cli.config.schema import Config, RefineConfig, flatten
from ultrashape_cli.data.background import image_warnings, load_reference
from ultrashape_cli.files import file_hash, write_json
from ultrashape_cli.finishing.finish import finish
from ultrashape_cli.finishing.write import check_finish, is_finished, save_finished
from ultrashape_cli.geometry.check import topology
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.geometry.metrics import compare_meshes
from ultrashape_cli.geometry.normalize import Up, up_axis
from ultrashape_cli.geometry.places import shared_places
from ultrashape_cli.inference.acceptance import judge
from ultrashape_cli.inference.candidates import Chosen, placed
from ultrashape_cli.inference.files import Job
from ultrashape_cli.inference.gate import InputReport, inspect_input
from ultrashape_cli.inference.prepared import Prepared, add_views, prepare_mesh
from ultrashape_cli.inference.preview import side_by_side
from ultrashape_cli.inference.refiner import Refined
from ultrashape_cli.inference.views import View, place_views
from ultrashape_cli.meshfiles.appearance import Appearance, appearance_of
from ultrashape_cli.meshfiles.load import load_mesh, mesh_of, read_contents
from ultrashape_cli.meshfiles.save import COLOUR_SUFFIXES, require_precision, save_mesh
from ultrashape_cli.models.registry import ModelSpec
from ultrashape_cli.models.sources import WeightSource
from ultrashape_cli.rendering.colours import SurfaceColours
from ultrashape_cli.rendering.output import save_png
from ultrashape_cli.runs import ADAPTER_FILE
from ultrashape_cli.watertight.ladder import make_watertight
from ultrashape_cli.watertight.surroundings import without_surroundings

METRIC_POINTS = 100_000
"""Samples of each surface; the distance of equal surfaces is about half their spacing."""
REPAIR_RESOLUTION = 256
"""Cells of the watertight step on a coarse mesh, whose detail is coarser anyway."""


@dataclass(slots=True)
class Inputs:
    """What a job reads, checked."""

    mesh: Mesh
    rgba: NDArray[np.uint8]
    report: InputReport
    up: Up
    repaired: bool
    warnings: list[str] = field(default_factory=list)
    appearance: Appearance | None = None
    """Colours that the result is to keep."""


def read_inputs(job: Job, config: RefineConfig) -> Inputs:
    """Returns the checked inputs of a job, the mesh closed first where the settings ask for it.

    Raises:
        MeshError: The mesh cannot be used.
        ImageError: The image cannot be used.
        UsageError: The image is opaque and the settings do not say what its background is.
    """
    check_finish(config, job.target)
    contents = read_contents(job.mesh, colours=config.colours == "keep")
    asset = without_surroundings(mesh_of(job.mesh, contents))
    mesh = asset.mesh
    if config.frame == "input":
        require_precision(mesh.bounds, job.target)
    rgba = load_reference(job.image, config.background)
    if job.ground_truth is not None:
        load_mesh(job.ground_truth)  # a bad one is found before the work
    report = inspect_input(mesh)
    warnings, repaired = image_warnings(job.image, rgba), False
    if config.repair:
        closed = make_watertight(mesh, REPAIR_RESOLUTION)
        mesh, repaired = closed.mesh, closed.rung != "keep"
    elif report.problems:
        warnings.append(
            f"{job.mesh} is fragmented: {', '.join(report.problems)}; --repair closes it first"
        )
    warnings += [f"{job.mesh}: {note}" for note in (*contents.notes, *asset.notes)]
    appearance = appearance_of(contents)
    if appearance is not None:
        warnings += [f"{job.mesh}: {problem}" for problem in appearance.problems]
        if not appearance.has_colour:
            appearance = None
        elif not asset.kept.all():
            appearance = appearance.kept(asset.kept)
        if appearance is not None and job.target.suffix.lower() not in COLOUR_SUFFIXES:
            warnings.append(
                f"{job.target.suffix} holds no colours of vertices: those of {job.mesh} are lost; "
                f"{' '.join(COLOUR_SUFFIXES)} keep them"
            )
            appearance = None
    up = up_axis(config.up, job.mesh.suffix)
    return Inputs(mesh, rgba, report, up, repaired, warnings, appearance)


def prepare_inputs(job: Job, inputs: Inputs, spec: ModelSpec, config: RefineConfig) -> Prepared:
    """Returns the mesh in the normalised frame, its voxels, and its references in their places.

    Raises:
        MeshError: The mesh is empty or has no extent, or a region does not go with it.
        UsageError: A view does not show the mesh, or the region is none.
        ImageError: A view cannot be used.
    """
    prepared = prepare_mesh(inputs.mesh, job.seed, spec, config, inputs.up)
    if not job.views:
        add_views(prepared, [View(job.image, inputs.rgba, 0.0, 0.0)], spec, config)
        return prepared
    images = [
        inputs.rgba if file.path == job.image else load_reference(file.path, config.background)
        for file in job.views
    ]
    views = place_views(prepared.mesh, job.views, images, config.view_overlap)
    inputs.warnings += [view.note for view in views if view.note]
    add_views(prepared, views, spec, config)
    unasked = [view.name for at, view in enumerate(views) if at not in prepared.asked]
    if unasked:
        inputs.warnings.append(f"not asked, as they add too little: {', '.join(unasked)}")
    return prepared


def recipe_of(job: Job, source: WeightSource, config: Config) -> dict[str, Any]:
    """Returns everything the result of a job depends on."""
    adapters = {f"{name}_adapters": path / ADAPTER_FILE for name, path in source.adapters.items()}
    weights = {
        name: {"path": str(path), "bytes": path.stat().st_size, "mtime_ns": path.stat().st_mtime_ns}
        for name, path in (source.files | adapters).items()
    }
    return {
        "version": __version__,
        "inputs": {
            "mesh": str(job.mesh),
            "mesh_sha256": file_hash(job.mesh),
            "image": str(job.image),
            "image_sha256": file_hash(job.image),
            "weights": weights,
            **_further_inputs(job),
        },
        "model": source.model,
        "seed": job.seed,
        "settings": flatten(config.refine),
    }


def _further_inputs(job: Job) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if job.views:
        found["views"] = [view.as_dict() for view in job.views]
    if job.mask is not None:
        found["mask_sha256"] = file_hash(job.mask)
    return found


def write_outputs(
    job: Job,
    inputs: Inputs,
    best: Chosen,
    recipe: dict[str, Any],
    device: torch.device,
) -> dict[str, Any]:
    """Writes mesh, preview and record, the record last; returns what was measured.

    Raises:
        DiskError: A folder cannot be written.
    """
    prepared, refined, straying = best.prepared, best.refined, best.straying
    config = RefineConfig(**recipe["settings"])

    def normalised(mesh: Mesh) -> Mesh:
        return placed(mesh, prepared, config)

    result, verdict = normalised(refined.mesh), None
    if config.accept_only_better:
        verdict = judge(result, prepared.mesh, prepared.views[0], straying)
        if not verdict.better:
            result = prepared.mesh
            instead = result if config.frame == "normalised" else inputs.mesh
            refined = _input_instead(refined, instead)
    colours = SurfaceColours(inputs.appearance, prepared.frame) if inputs.appearance else None
    finished, figures = None, None
    if is_finished(config):
        finished, figures = finish(refined.mesh, refined.full or refined.mesh, config)
    files = [] if finished else [(refined.mesh, job.target)]
    if job.keep_full and refined.full is not None:
        files.append((refined.full, job.full_target))
    files += [(mesh, job.candidate_target(seed)) for seed, mesh in best.others.items()]
    for mesh, path in files:
        save_mesh(mesh, path, _vertex_colours(colours, normalised(mesh)))
    if finished is not None:
        own = _vertex_colours(colours, normalised(finished.mesh))
        save_finished(finished, job.target, own)
    measured = measure(inputs, refined, device)
    if figures is not None:
        measured["finished"] = figures
    measured["colours"] = "kept" if colours else "none"
    measured["straying"] = straying.as_dict()
    if best.scores:
        measured["candidates"], measured["seed"] = best.scores, prepared.seed
    if job.views:
        measured["views"] = [
            {"image": str(v.path), "azimuth": v.azimuth, "elevation": v.elevation,
             "overlap": round(v.overlap, 4), "share": round(prepared.share(at), 4)}
            for at, v in enumerate(prepared.views)
        ]  # fmt: skip
    if verdict is not None:
        measured["acceptance"] = verdict.as_dict()
    truth = _ground_truth(job, prepared)
    if job.metrics:
        pairs = {"to_input": (result, prepared.mesh)}
        if truth is not None:
            pairs["to_ground_truth"] = (result, truth)
            pairs["input_to_ground_truth"] = (prepared.mesh, truth)
        measured["metrics"] = {
            name: compare_meshes(*pair, num_points=METRIC_POINTS) for name, pair in pairs.items()
        }
    if job.preview is not None:
        meshes = [("input", prepared.mesh), ("refined", result)]
        if truth is not None:
            meshes.append(("ground truth", truth))
        save_png(side_by_side(inputs.rgba, meshes), job.preview)
        measured["preview"] = str(job.preview)
    write_json(job.record, {**recipe, "result": measured})
    return measured


def _input_instead(refined: Refined, mesh: Mesh) -> Refined:
    """Returns what is written where the result is not better than the mesh it came from."""
    return replace(
        refined,
        mesh=mesh,
        topology=topology(mesh),
        full=None,
        repaired=False,
        floaters=0,
        dropped_faces=0,
    )


def _vertex_colours(colours: SurfaceColours | None, mesh: Mesh) -> NDArray[np.uint8] | None:
    return colours.bytes_at(mesh.vertices, mesh.vertex_normals) if colours else None


def _ground_truth(job: Job, prepared: Prepared) -> Mesh | None:
    if job.ground_truth is None:
        return None
    truth = load_mesh(job.ground_truth)
    return Mesh(prepared.frame.to_normalised(truth.vertices), truth.faces)


def measure(inputs: Inputs, refined: Refined, device: torch.device) -> dict[str, Any]:
    """Returns the figures of a result as plain values."""
    state = refined.topology
    return {
        "tokens": refined.tokens,
        "passes": refined.passes,
        "memory": refined.memory,
        "backend": refined.backend,
        "vertices": len(refined.mesh.vertices),
        "faces": len(refined.mesh.faces),
        "components": state.components,
        "watertight": state.watertight,
        "manifold": state.nonmanifold_edges + state.nonmanifold_vertices == 0,
        "open_edges": state.boundary_edges,
        "branching_edges": state.nonmanifold_edges,
        "branching_vertices": state.nonmanifold_vertices,
        "inconsistent_edges": state.inconsistent_edges,
        "outward": state.volume > 0,
        "shared_places": len(shared_places(refined.mesh.vertices)),
        "closed_by_remesh": refined.repaired,
        "floaters_removed": refined.floaters,
        "faces_dropped": refined.dropped_faces,
        "input": {**inputs.report.as_dict(), "repaired": inputs.repaired},
        "seconds": refined.seconds,
        "peak_memory_gib": peak_memory(device),
    }


def peak_memory(device: torch.device) -> dict[str, float]:
    """Returns the highest memory of this process on the host and on the device, in GiB."""
    import resource  # Windows has none

    # Linux counts in KiB, macOS in bytes.
    unit = 2**30 if sys.platform == "darwin" else 2**20
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    found = {"host": round(host, 3)}
    if device.type == "cuda":
        found["device"] = round(torch.cuda.max_memory_reserved(device) / 2**30, 3)
    return found
