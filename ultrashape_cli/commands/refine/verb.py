"""`ushape refine`: coarse mesh and reference image to refined mesh."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ultrashape_cli import options as opt
from ultrashape_cli.commands.refine import options as own

if TYPE_CHECKING:
    from ultrashape_cli.config.resolve import Resolved
    from ultrashape_cli.inference.job import Job
    from ultrashape_cli.models.sources import WeightSource
    from ultrashape_cli.ui import UI


class Request(NamedTuple):
    """What the user asked for, beside the settings."""

    mesh: Path | None
    image: Path | None
    out: Path | None
    batch: Path | None
    checkpoint: Path | None
    model: str | None
    ground_truth: Path | None
    preview: Path | None
    metrics: bool
    keep_full: bool
    compare_speed: bool
    num_processes: int
    limit: int | None
    fail_fast: bool
    force: bool
    dry_run: bool


def refine(
    mesh: own.MeshArg = None,
    image: own.ImageArg = None,
    out: own.OutOpt = None,
    checkpoint: own.CheckpointOpt = None,
    model: own.ModelOpt = None,
    batch: own.BatchOpt = None,
    background: own.BackgroundOpt = None,
    repair: own.RepairOpt = None,
    ground_truth: own.TruthOpt = None,
    quality: own.QualityOpt = None,
    steps: own.StepsOpt = None,
    guidance_scale: own.GuidanceOpt = None,
    tokens: own.TokensOpt = None,
    grid_resolution: own.ResolutionOpt = None,
    compare_speed: own.CompareOpt = False,
    faces: own.FacesOpt = None,
    keep_full: own.KeepFullOpt = False,
    keep_floaters: own.FloatersOpt = None,
    frame: own.FrameOpt = None,
    preview: own.PreviewOpt = None,
    metrics: own.MetricsOpt = False,
    config: opt.ConfigOpt = None,
    overrides: opt.SetOpt = None,
    no_config: opt.NoConfigOpt = False,
    profile: opt.ProfileOpt = None,
    device: opt.DeviceOpt = None,
    max_memory_gib: own.MemoryOpt = None,
    num_processes: own.ProcessesOpt = None,
    seed: opt.SeedOpt = None,
    limit: opt.LimitOpt = None,
    fail_fast: opt.FailFastOpt = False,
    force: opt.ForceOpt = False,
    dry_run: opt.DryRunOpt = False,
    show_config: opt.ShowConfigOpt = False,
    json_output: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
    verbose: opt.VerboseOpt = False,
    progress: opt.ProgressOpt = True,
) -> None:
    """Refine a coarse mesh so that it shows what the image shows

    Reads MESH, IMAGE and a checkpoint. Writes the refined mesh in the size and place of the
    input, and OUT.json with what made it. The same seed gives the same mesh.

    Examples:

      ushape refine coarse.glb reference.png -o refined.glb --preview refined.png

      ushape refine coarse.stl view.png --faces 500000 --keep-full

      ushape refine --batch jobs.csv -o refined
    """  # fmt: skip
    from ultrashape_cli.config.resolve import resolve
    from ultrashape_cli.training.launch import is_distributed_child
    from ultrashape_cli.ui import UI

    quiet = quiet or is_distributed_child()
    ui = UI("refine", json_output=json_output, quiet=quiet, verbose=verbose, progress=progress)
    flags = {
        "refine.background": background,
        "refine.repair": repair,
        "refine.quality": quality,
        "refine.steps": steps,
        "refine.guidance_scale": guidance_scale,
        "refine.tokens": tokens,
        "refine.grid_resolution": grid_resolution,
        "refine.faces": faces,
        "refine.keep_floaters": keep_floaters,
        "refine.frame": frame,
        "refine.max_memory_gib": max_memory_gib,
        "profile": profile,
        "device": device,
        "launch.num_processes": num_processes,
        "seed": seed,
    }

    def settings(of_model: str | None) -> Resolved:
        return resolve(
            flags=flags,
            overrides=overrides or (),
            file=None if no_config else config,
            environ={} if no_config else None,
            model=of_model,
        )

    metrics = metrics or ground_truth is not None
    request = Request(
        *(mesh, image, out, batch, checkpoint, model, ground_truth, preview, metrics, keep_full),
        *(compare_speed, num_processes or 1, limit, fail_fast, force, dry_run),
    )
    _run(ui, request, settings, show_config)


def _run(
    ui: UI, request: Request, settings: Callable[[str | None], Resolved], show_config: bool
) -> None:
    from ultrashape_cli.commands.render import show_settings
    from ultrashape_cli.models.sources import find_weights

    # Bad settings are refused before the weights are looked for.
    resolved = settings(None)
    if show_config and request.checkpoint is None:
        show_settings(ui, settings(request.model), ("refine",))
        return
    if not show_config:
        _check_usage(request)
    source = find_weights(request.checkpoint, request.model)
    resolved = settings(source.model)
    if show_config:
        show_settings(ui, resolved, ("refine",))
    elif request.batch is not None:
        from ultrashape_cli.commands.refine.batch import refine_batch

        refine_batch(ui, request, source, resolved)
    elif request.compare_speed:
        from ultrashape_cli.commands.refine.compare import refine_compare

        refine_compare(ui, request, source, resolved)
    else:
        from ultrashape_cli.interrupts import exit_on_terminate

        with exit_on_terminate():
            _refine_one(ui, request, source, resolved)


def _check_usage(request: Request) -> None:
    from ultrashape_cli.errors import UsageError
    from ultrashape_cli.meshfiles.load import MESH_SUFFIXES

    if request.batch is not None:
        for name, given in (
            ("MESH", request.mesh),
            ("--preview", request.preview),
            ("--ground-truth", request.ground_truth),
            ("--compare-speed", request.compare_speed),
        ):
            if given:
                raise UsageError(
                    f"`{name}` has no meaning with --batch",
                    hint="a CSV names meshes and ground truths; previews are always written",
                )
        return
    if request.mesh is None or request.image is None:
        raise UsageError(
            "a mesh and an image are needed", hint="ushape refine MESH IMAGE, or --batch CSV|DIR"
        )
    if request.num_processes > 1:
        raise UsageError("`--num-processes` needs --batch", hint="leave it out for one mesh")
    target = _target(request)
    if target.suffix.lower() not in set(MESH_SUFFIXES) - {".gltf"}:
        raise UsageError(f"cannot write `{target.suffix}` meshes", hint=f"-o {target.stem}.glb")


def _target(request: Request) -> Path:
    assert request.mesh is not None
    return request.out or request.mesh.with_name(f"{request.mesh.stem}_refined.glb")


def make_job(request: Request, resolved: Resolved) -> Job:
    """Returns the job of a request for one mesh."""
    from ultrashape_cli.inference.job import Job

    assert request.mesh is not None
    assert request.image is not None
    return Job(
        name=request.mesh.stem,
        mesh=request.mesh,
        image=request.image,
        target=_target(request),
        seed=resolved.config.seed,
        ground_truth=request.ground_truth,
        preview=request.preview,
        metrics=request.metrics,
        keep_full=request.keep_full,
    )


def _refine_one(ui: UI, request: Request, source: WeightSource, resolved: Resolved) -> None:
    from ultrashape_cli.inference.job import recipe_of

    job = make_job(request, resolved)
    recipe = recipe_of(job, source, resolved.config)
    if _already_made(ui, job, recipe, request.force):
        return
    _work(ui, request, job, source, resolved, recipe)


def _already_made(ui: UI, job: Job, recipe: dict[str, Any], force: bool) -> bool:
    from ultrashape_cli.errors import UsageError
    from ultrashape_cli.files import read_json
    from ultrashape_cli.inference.job import is_made

    if force:
        return False
    if is_made(job, recipe):
        ui.info(f"{job.target} is already made from these inputs")
        measured = (read_json(job.record) or {})["result"]
        ui.result(
            inputs=recipe["inputs"],
            outputs=outputs_of(job),
            counts={"skipped": 1},
            result=measured,
        )
        return True
    if job.target.exists() and not is_made(job, recipe, ignore_preview=True):
        raise UsageError(
            f"`{job.target}` exists and was made from something else",
            hint="another -o, or --force",
        )
    return False


def outputs_of(job: Job) -> dict[str, str]:
    """Returns the files of a job that are there."""
    files = {"mesh": job.target, "full": job.full_target, "preview": job.preview}
    kept = {"full": job.keep_full}
    return {
        name: str(path)
        for name, path in files.items()
        if path is not None and kept.get(name, True) and path.exists()
    }


def _work(
    ui: UI,
    request: Request,
    job: Job,
    source: WeightSource,
    resolved: Resolved,
    recipe: dict[str, Any],
) -> None:
    from ultrashape_cli.commands.refine.plan import planned
    from ultrashape_cli.devices import choose_device
    from ultrashape_cli.inference.job import check_writable, read_inputs, write_outputs
    from ultrashape_cli.inference.refiner import Refiner, prepare_mesh
    from ultrashape_cli.models.registry import model_spec

    config, spec = resolved.config.refine, model_spec(source.model)
    device = choose_device(resolved.config.device)
    # Inputs, output folder and memory are checked before the weights are loaded.
    inputs = read_inputs(job, config)
    for warning in inputs.warnings:
        ui.warn(warning)
    with naming_the_command():
        prepared = prepare_mesh(inputs.mesh, job.seed, spec, config, inputs.up)
        settings = planned(ui, spec, config, device, prepared.voxels.shape[1])
    if request.dry_run:
        ui.info(f"would refine {job.mesh} into {job.target} with {source.files['dit']}")
        ui.result(inputs=recipe["inputs"], outputs={})
        return
    for folder in {path.parent for path in (job.target, job.preview) if path is not None}:
        check_writable(folder)
    refiner = Refiner.load(source, settings, device)
    with ui.progress("refine", 100) as bar, naming_the_command():

        def on_progress(stage: str, done: int, total: int) -> None:
            bar.update(100 * done // max(total, 1), stage)

        grid = refiner.evaluate(prepared, inputs.rgba, on_progress)
        refined = refiner.finish(prepared, grid)
    measured = write_outputs(job, inputs, prepared, refined, recipe, device)
    if refined.repaired:
        ui.warn("the decoded surface was open and was closed by the watertight step")
    show_result(ui, measured)
    ui.result(inputs=recipe["inputs"], outputs=outputs_of(job), result=measured)


@contextlib.contextmanager
def naming_the_command() -> Iterator[None]:
    """Lets the error of exhausted memory show the whole command that needs less."""
    from ultrashape_cli.inference.memory import OutOfMemory

    try:
        yield
    except OutOfMemory as error:
        command = shlex.join(["ushape", *sys.argv[1:]])
        raise OutOfMemory(error.message, hint=f"{command} {error.option}") from error


def show_result(ui: UI, measured: dict[str, Any]) -> None:
    """Shows the figures of a result as a table."""
    yes = {True: "yes", False: "no"}
    seconds = measured["seconds"]
    rows: list[tuple[str, str]] = [
        ("faces", f"{measured['faces']:,}"),
        ("vertices", f"{measured['vertices']:,}"),
        ("watertight", f"{yes[measured['watertight']]}, {measured['open_edges']} open edges"),
        (
            "manifold",
            f"{yes[measured['manifold']]}, {measured['branching_edges']} branching edges, "
            f"{measured['branching_vertices']} vertices",
        ),
        (
            "normals",
            f"{'outward' if measured['outward'] else 'INWARD'}, "
            f"{measured['inconsistent_edges']} edges disagree",
        ),
        ("components", f"{measured['components']}, {measured['floaters_removed']} removed"),
        ("tokens", f"{measured['tokens']:,}, {measured['passes']} passes of the DiT"),
        (
            "seconds",
            f"{sum(seconds.values()):.1f}: "
            + ", ".join(f"{name} {value:.1f}" for name, value in seconds.items()),
        ),
        (
            "peak memory, GiB",
            ", ".join(f"{name} {value:.2f}" for name, value in measured["peak_memory_gib"].items()),
        ),
    ]
    for what, figures in measured.get("metrics", {}).items():
        text = ", ".join(f"{name} {value:.4f}" for name, value in figures.items())
        rows.append((what.replace("_", " "), text))
    ui.table(("result", ""), rows)
