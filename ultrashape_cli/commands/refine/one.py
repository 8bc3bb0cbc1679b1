"""`ushape refine MESH IMAGE`: one mesh."""

from __future__ import annotations

from collections.abc import Sequence
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
    from ultrashape_cli.errors import UShapeError
    from ultrashape_cli.files import read_json
    from ultrashape_cli.inference.candidates import best_of, evaluate_all
    from ultrashape_cli.inference.files import check_writable
    from ultrashape_cli.inference.job import prepare_inputs, read_inputs, write_outputs
    from ultrashape_cli.inference.refiner import Refiner
    from ultrashape_cli.inference.stages import Whole
    from ultrashape_cli.models.registry import model_spec

    config, spec = resolved.config.refine, model_spec(source.model)
    device = choose_device(resolved.config.device)
    # Inputs, output folder and memory are checked before the weights are loaded.
    inputs = read_inputs(job, config)
    before = read_json(job.record)
    with naming_the_command():
        prepared = prepare_inputs(job, inputs, spec, config)
        tokens, views = prepared.voxels.shape[1], len(prepared.asked)
        settings = planned(ui, source, config, device, tokens, views)
    for warning in inputs.warnings:
        ui.warn(warning)
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

        fields = evaluate_all(refiner, prepared, on_progress)
        on_progress("mesh", 0, 1)
        best = best_of(refiner, fields, keep=request.keep_candidates)
        on_progress("write", 0, 1)
        if read_json(job.record) != before:
            raise UShapeError(
                f"`{job.target}` was made by another command while this one worked",
                hint="repeat it with another -o",
            )
        measured = write_outputs(job, inputs, best, recipe, device)
        on_progress("write", 1, 1)
    if best.refined.repaired:
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
    _show_finished(ui, measured.get("finished"))
    _show_views(ui, measured.get("views", ()))
    _show_candidates(ui, measured)
    show_scores(ui, measured.get("metrics", {}))
    if _is_kept(ui, measured.get("acceptance")):
        _show_straying(ui, measured["straying"])


def _show_finished(ui: UI, found: dict[str, Any] | None) -> None:
    """Shows the faces that were made of a result, its texture and its normal map."""
    if found is None:
        return
    rows = [("faces", f"{found['faces']:,}, {found['quad_share']:.0%} quads")]
    if "charts" in found:
        rows.append(("texture", f"{found['charts']} charts, {found['texture_used']:.0%} used"))
    if "coverage" in found:
        rows.append(("normal map", f"{found['coverage']:.1%} of its texels found the full mesh"))
    rows.append(("seconds", ", ".join(f"{k} {v:.1f}" for k, v in found["seconds"].items())))
    ui.table(("finished", ""), rows)
    if found["open_edges"]:
        ui.warn(
            f"the quads have {found['open_edges']} open edges: fill them before printing, or take "
            "--topology triangles"
        )


def _show_views(ui: UI, views: Sequence[dict[str, Any]]) -> None:
    """Shows where each reference was seen from, and how many tokens listen to it."""
    from ultrashape_cli.inference.views import direction_name

    if len(views) > 1:
        rows = [
            (
                direction_name(view["azimuth"], view["elevation"]),
                view["image"],
                f"{view['overlap']:.0%}",
                f"{view['share']:.0%}" if view["share"] else "not asked",
            )
            for view in views
        ]
        ui.table(("view", "image", "outline", "share"), rows)


def _show_candidates(ui: UI, measured: dict[str, Any]) -> None:
    """Shows what was thought of each seed, the chosen one marked."""
    rows = []
    for each in measured.get("candidates", ()):
        seed = f"{each['seed']}{' (written)' if each['seed'] == measured['seed'] else ''}"
        if "problem" in each:
            rows.append((seed, "-", each["problem"], "", "", ""))
            continue
        seen = each["views"].values()
        crossing = each["crossing_share"]
        rows.append(
            (
                seed,
                f"{each['score']:.4f}",
                ", ".join(f"{one['silhouette']:.3f} {one['shading']:.3f}" for one in seen),
                f"{each['components']}",
                f"{each['open_edges']}",
                "-" if crossing is None else f"{crossing:.4%}",
            )
        )
    if rows:
        ui.table(("seed", "score", "outline, shading", "parts", "open edges", "crossing"), rows)


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
