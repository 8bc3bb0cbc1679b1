"""`ushape render` and `ushape sample`: one preparation step on a prepared dataset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ultrashape_cli import options as opt
from ultrashape_cli.config.choices import Contents, Lights, Renderer, SampleFormat

if TYPE_CHECKING:
    from ultrashape_cli.config.resolve import Resolved
    from ultrashape_cli.config.schema import Config
    from ultrashape_cli.data.layout import Dataset
    from ultrashape_cli.preparation.pipeline import Outcome, Plan
    from ultrashape_cli.ui import UI

Quality = Literal["full", "preview"]
_OUTPUT, _VIEWS = "Output", "Views"


def render(
    data: opt.DatasetArg = Path("data"),
    config: opt.ConfigOpt = None,
    overrides: opt.SetOpt = None,
    no_config: opt.NoConfigOpt = False,
    views: Annotated[
        int | None,
        typer.Option("--views", min=1, help="Views per asset. Default: 8.", rich_help_panel=_VIEWS),
    ] = None,
    elevations: Annotated[
        str | None,
        typer.Option(
            "--elevations",
            metavar="DEGREES,...",
            help="Rings of views at these elevations. Default: all sides, then from above and "
            "below, then all around.",
            rich_help_panel=_VIEWS,
        ),
    ] = None,
    fov: Annotated[
        float | None,
        typer.Option(
            "--fov", metavar="DEGREES", help="Opening angle. Default: 40.", rich_help_panel=_VIEWS
        ),
    ] = None,
    ortho: Annotated[
        bool | None,
        typer.Option(
            "--ortho/--no-ortho", help="Parallel rays. Default: no.", rich_help_panel=_VIEWS
        ),
    ] = None,
    lights: Annotated[
        Lights | None,
        typer.Option(
            "--lights",
            help="Default: studio. `random` also varies opening angle and roll, by the seed.",
            rich_help_panel=_VIEWS,
        ),
    ] = None,
    maps: Annotated[
        str | None,
        typer.Option(
            "--maps",
            metavar="NAME,...",
            help="Extra files: depth, normal, mask.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    contact_sheet: Annotated[
        bool | None,
        typer.Option(
            "--contact-sheet/--no-contact-sheet",
            help="Also one picture of all views.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    quality: Annotated[
        Quality | None,
        typer.Option(
            "--quality",
            help="`preview`: 1 sample, hard shadow, no ambient occlusion; "
            "about three times as fast. Default: full.",
            rich_help_panel=_VIEWS,
        ),
    ] = None,
    renderer: Annotated[
        Renderer | None,
        typer.Option(
            "--renderer",
            help="Default: rays. `blender` runs Cycles, in Blender "
            "4.2 or later or the package bpy.",
            rich_help_panel=_VIEWS,
        ),
    ] = None,
    workers: opt.WorkersOpt = None,
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
    """Render reference views of every asset

    Reads DATA/meshes, and the colours of the source files. Writes DATA/renders/ID/view_000.png
    ... and cameras.json.

    Examples:

      ushape render data

      ushape render data --views 16 --lights random --maps depth,normal

      ushape render data --quality preview --contact-sheet --set render.size=512
    """
    ui = make_ui("render", json_output, quiet, verbose, progress)
    preview: dict[str, Any] = {}
    if quality == "preview":
        preview = {"render__supersample": 1, "render__ambient_rays": 0, "render__shadow_rays": 1}
    resolved = resolve_settings(
        config,
        overrides,
        no_config,
        workers,
        seed,
        render__views=views,
        render__elevations=elevations,
        render__fov_degrees=fov,
        render__orthographic=ortho,
        render__lights=lights,
        render__maps=maps,
        render__contact_sheet=contact_sheet,
        render__renderer=renderer,
        **preview,
    )
    if resolved.config.render.renderer == "blender" and not show_config:
        from ultrashape_cli.rendering.blender import require_blender

        require_blender(resolved.config.render.blender)
    _one_step(ui, data, "render", resolved, limit, fail_fast, force, dry_run, show_config)


def sample(
    data: opt.DatasetArg = Path("data"),
    config: opt.ConfigOpt = None,
    overrides: opt.SetOpt = None,
    no_config: opt.NoConfigOpt = False,
    contents: Annotated[
        Contents | None,
        typer.Option(
            "--contents",
            help="`dit`: surface points. `full`: also query points with "
            "distances, for the VAE. Default: dit.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    file_format: Annotated[
        SampleFormat | None,
        typer.Option(
            "--format",
            help="`compact`: quantised. `reference`: the float32 arrays of "
            "the reference. Default: compact.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    workers: opt.WorkersOpt = None,
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
    """Sample surface points and normals, and distances when asked

    Reads DATA/meshes. Writes DATA/samples/ID.npz. The VAE stage of training needs
    --contents full.

    Examples:

      ushape sample data

      ushape sample data --contents full

      ushape sample data --contents full --format reference
    """
    ui = make_ui("sample", json_output, quiet, verbose, progress)
    flags = {"sample__contents": contents, "sample__format": file_format}
    resolved = resolve_settings(config, overrides, no_config, workers, seed, **flags)
    _one_step(ui, data, "sample", resolved, limit, fail_fast, force, dry_run, show_config)


def _one_step(
    ui: UI,
    data: Path,
    step: str,
    resolved: Resolved,
    limit: int | None,
    fail_fast: bool,
    force: bool,
    dry_run: bool,
    show_config: bool,
) -> None:
    from ultrashape_cli.data.layout import Dataset
    from ultrashape_cli.preparation.pipeline import plan_steps

    if show_config:
        show_settings(ui, resolved, (step, "engine"))
        return
    dataset = Dataset(data)
    dataset.require()
    records = list(dataset.load_records().values())[:limit]
    plan = plan_steps(dataset, records, (step,), resolved.config, force=force)
    outcome = run_steps(ui, dataset, plan, resolved.config, dry_run=dry_run, fail_fast=fail_fast)
    inputs = {"data": str(data)}
    report_outcome(ui, dataset, plan, outcome, resolved.config, inputs, dry=dry_run)


def run_steps(
    ui: UI, dataset: Dataset, plan: Plan, config: Config, *, dry_run: bool, fail_fast: bool
) -> Outcome:
    """Runs a plan with progress and signal handling; repeating the command goes on after both."""
    from ultrashape_cli.interrupts import SignalFlag
    from ultrashape_cli.preparation.pipeline import Outcome, run_plan

    if dry_run:
        return Outcome(failed=dict(plan.failed))
    stopping = "Stopping; finished work is kept. Press Ctrl-C again to quit at once"
    with (
        SignalFlag(lambda: ui.warn(stopping)) as flag,
        ui.progress(ui.command, len(plan.tasks)) as bar,
    ):
        outcome = run_plan(
            dataset,
            plan,
            config,
            on_progress=bar.update,
            stop=lambda: bool(flag),
            fail_fast=fail_fast,
        )
    if flag:
        ui.hint("repeat the command to go on")
        ui.result(status="stopped", counts={"made": outcome.made, "failed": len(outcome.failed)})
        raise typer.Exit(flag.exit_code)
    return outcome


def report_outcome(
    ui: UI,
    dataset: Dataset,
    plan: Plan,
    outcome: Outcome,
    config: Config,
    inputs: dict[str, Any],
    *,
    judge: bool = False,
    split: bool = False,
    dry: bool = False,
) -> None:
    """Writes verdicts, splits and the report, prints the summary, exits 1 if an asset failed."""
    counts = {
        "planned" if dry else "made": len(plan.tasks) if dry else outcome.made,
        "skipped": len(plan.finished) + outcome.elsewhere,
        "failed": len(outcome.failed),
    }
    outputs: dict[str, Any] = {}
    if dry:
        for task in plan.tasks[:20]:
            ui.info(f"would run {', '.join(task.steps)} on {task.record.id}")
    else:
        more, outputs = conclude(ui, dataset, config, judge=judge, split=split)
        counts |= more
    for note in sorted(outcome.notes):
        ui.warn(note)
    for asset_id, message in list(outcome.failed.items())[:10]:
        ui.warn(f"{asset_id}: {message}")
    if len(outcome.failed) > 10:
        ui.warn(f"{len(outcome.failed) - 10} more failures are in {outputs.get('report')}")
    ui.table(tuple(counts), [tuple(counts.values())])
    failed = bool(outcome.failed)
    if split and counts.get("train"):
        ui.hint(f"ushape train --data {dataset.root}")
    elif failed:
        ui.hint("ushape prepare ... --retry-failed tries failed assets again")
    ui.result(
        status="failed" if failed else "ok",
        inputs=inputs,
        outputs=outputs,
        counts=counts,
        failures=outcome.failed,
    )
    if failed:
        raise typer.Exit(1)


def conclude(
    ui: UI, dataset: Dataset, config: Config, *, judge: bool, split: bool
) -> tuple[dict[str, int], dict[str, Any]]:
    """Writes what the records say together; returns counts and outputs.

    Args:
        ui: For warnings.
        dataset: Whose records are read once.
        config: For the filter and the split.
        judge: Apply the filter of the config.
        split: Write the lists.
    """
    from ultrashape_cli.commands.split import split_rule
    from ultrashape_cli.data.splits import write_splits
    from ultrashape_cli.errors import DatasetError
    from ultrashape_cli.preparation.report import write_report
    from ultrashape_cli.preparation.verdicts import update_verdicts

    records = dataset.load_records()
    counts: dict[str, int] = {}
    if judge:
        update_verdicts(dataset, records, config.quality.filter)
        if config.quality.filter != "none":
            counts["rejected"] = sum(bool(r.rejected) for r in records.values())
    if split:
        try:
            lists = write_splits(dataset, split_rule(config), records)
            counts |= {name: len(ids) for name, ids in lists.items()}
        except DatasetError as error:
            ui.warn(error.message)
    report = write_report(dataset, list(records.values()))
    return counts, {"data": str(dataset.root), "report": str(report)}


def show_settings(ui: UI, resolved: Resolved, sections: tuple[str, ...]) -> None:
    """Prints every setting of the sections with its origin, on stdout."""
    rows = resolved.rows(sections)
    if ui.json_output:
        settings = {key: {"value": value, "origin": origin} for key, value, origin in rows}
        ui.result(settings=settings, profile=resolved.profile.name)
    else:
        ui.data_table(("key", "value", "origin"), rows)


def make_ui(command: str, json_output: bool, quiet: bool, verbose: bool, progress: bool) -> UI:
    """Returns the output object of a verb."""
    from ultrashape_cli.ui import UI

    return UI(command, json_output=json_output, quiet=quiet, verbose=verbose, progress=progress)


def resolve_settings(
    config: Path | None,
    overrides: list[str] | None,
    no_config: bool,
    workers: int | None,
    seed: int | None,
    **flags: Any,
) -> Resolved:
    """Merges the settings of a preparation verb; `flags` are `section__field` to value."""
    from ultrashape_cli.config.resolve import resolve

    return resolve(
        flags={
            "engine.workers": workers,
            "seed": seed,
            **{name.replace("__", "."): value for name, value in flags.items()},
        },
        overrides=overrides or (),
        file=None if no_config else config,
        environ={} if no_config else None,
    )
