"""`ushape refine MESH IMAGE`: one mesh."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ultrashape_cli.commands.refine.made import already_made, outputs_of
from ultrashape_cli.commands.refine.plan import planned
from ultrashape_cli.commands.refine.request import make_job, naming_the_command
from ultrashape_cli.commands.refine.scores import show_scores, verdict_of

if TYPE_CHECKING:
    from ultrashape_cli.commands.refine.request import Request
    from ultrashape_cli.config.resolve import Resolved
    from ultrashape_cli.inference.files import Job
    from ultrashape_cli.models.sources import WeightSource
    from ultrashape_cli.ui import UI


def refine_one(ui: UI, request: Request, source: WeightSource, resolved: Resolved) -> None:
    """Refines one mesh, unless its result is there, and shows the figures."""
    from ultrashape_cli.files import check_outputs
    from ultrashape_cli.inference.job import recipe_of

    job = make_job(request, resolved)
    other = job.mesh.with_name(f"{job.mesh.stem}_refined{job.target.suffix}")
    check_outputs(job.outputs, [*job.inputs, *source.inputs], hint=f"-o {other}")
    recipe = recipe_of(job, source, resolved.config)
    if already_made(ui, job, recipe, recipe["inputs"], request.force):
        return
    _work(ui, request, job, source, resolved, recipe)


def _work(
    ui: UI,
    request: Request,
    job: Job,
    source: WeightSource,
    resolved: Resolved,
    recipe: dict[str, Any],
) -> None:
    from ultrashape_cli.devices import choose_device
    from ultrashape_cli.inference.files import check_writable
    from ultrashape_cli.inference.job import read_inputs, write_outputs
    from ultrashape_cli.inference.refiner import Refiner, prepare_mesh
    from ultrashape_cli.inference.stages import Whole
    from ultrashape_cli.models.registry import model_spec

    config, spec = resolved.config.refine, model_spec(source.model)
    device = choose_device(resolved.config.device)
    # Inputs, output folder and memory are checked before the weights are loaded.
    inputs = read_inputs(job, config)
    for warning in inputs.warnings:
        ui.warn(warning)
    with naming_the_command():
        prepared = prepare_mesh(inputs.mesh, job.seed, spec, config, inputs.up)
        settings = planned(ui, source, config, device, prepared.voxels.shape[1])
    if request.dry_run:
        ui.info(f"would refine {job.mesh} into {job.target} with {source.files['dit']}")
        ui.result(inputs=recipe["inputs"], outputs={})
        return
    for folder in {path.parent for path in (job.target, job.preview) if path is not None}:
        check_writable(folder)
    refiner = Refiner.load(source, settings, device)
    with ui.progress("refine", 100) as bar, naming_the_command():
        whole = Whole(settings, refiner.levels)

        def on_progress(stage: str, done: int, total: int) -> None:
            bar.update(whole.percent(stage, done, total), stage)

        grid = refiner.evaluate(prepared, inputs.rgba, on_progress)
        on_progress("mesh", 0, 1)
        refined = refiner.finish(prepared, grid)
        on_progress("write", 0, 1)
        measured = write_outputs(job, inputs, prepared, refined, recipe, device)
        on_progress("write", 1, 1)
    if refined.repaired:
        ui.warn("the decoded surface was open and was closed by the watertight step")
    show_result(ui, measured)
    ui.result(
        inputs=recipe["inputs"],
        outputs=outputs_of(job),
        result=measured,
        **verdict_of(measured.get("metrics", {})),
    )


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
    ui.table(("result", ""), rows)
    show_scores(ui, measured.get("metrics", {}))
    if _is_kept(ui, measured.get("acceptance")):
        _show_straying(ui, measured["straying"])


def _is_kept(ui: UI, found: dict[str, Any] | None) -> bool:
    """Says what `--accept-only-better` decided, and returns whether the result was kept."""
    if found is None:
        return True
    pairs = [
        f"{name} {found['result'][name]:.3f} against {found['input'][name]:.3f}"
        for name in ("silhouette", "shading")
    ]
    kept = "the result" if found["better"] else "the INPUT, for the result is not better"
    ui.verdict(f"written: {kept} ({', '.join(pairs)} of the input)", good=found["better"])
    return bool(found["better"])


def _show_straying(ui: UI, found: dict[str, Any]) -> None:
    """Says in red where the result is of another shape than the input."""
    if found["strayed"]:
        ui.verdict(
            f"the result has STRAYED: {found['beyond']:.0%} of it is far from the input, "
            f"{found['lost']:.0%} of the input is lost. This model may not know such shapes, or "
            "the image shows something else; the input may be the better mesh",
            good=False,
        )
