"""`ushape prepare`: dirty meshes to a watertight, rendered, sampled, split dataset."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ultrashape_cli import options as opt


class Until(StrEnum):
    """Last step to run."""

    WATERTIGHT = "watertight"
    RENDER = "render"
    SAMPLE = "sample"
    SPLIT = "split"


def prepare(
    models_dir: Annotated[
        Path,
        typer.Argument(help="Folder with meshes, read recursively.", exists=True, file_okay=False),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help="Dataset to write.", file_okay=False, rich_help_panel="Output"
        ),
    ] = Path("data"),
    until: Annotated[
        Until, typer.Option("--until", help="Last step to run.", rich_help_panel="Run")
    ] = Until.SPLIT,
    config: opt.ConfigOpt = None,
    overrides: opt.SetOpt = None,
    no_config: opt.NoConfigOpt = False,
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
    """Turn a folder of meshes into a training dataset

    Reads OBJ, STL, PLY, GLB, GLTF, OFF and 3MF. Writes watertight meshes, views, samples, splits,
    one record per asset and report.html. Repeating it does only what is missing or changed.

    Examples:

      ushape prepare ./models

      ushape prepare ./models -o data --until watertight --set watertight.resolution=1024

      ushape prepare ./models --dry-run
    """
    from ultrashape_cli.commands.steps import (
        report_outcome,
        resolve_settings,
        run_steps,
        show_settings,
    )
    from ultrashape_cli.data.layout import Dataset
    from ultrashape_cli.preparation.discover import find_meshes, new_records
    from ultrashape_cli.preparation.pipeline import plan_steps, steps_until
    from ultrashape_cli.ui import UI

    ui = UI("prepare", json_output=json_output, quiet=quiet, verbose=verbose, progress=progress)
    resolved = resolve_settings(config, overrides, no_config, workers, seed)
    if show_config:
        show_settings(ui, resolved, ("watertight", "render", "sample", "split", "engine"))
        return
    dataset = Dataset(out)
    known = dataset.load_records() if dataset.exists() else {}
    records = list(new_records(find_meshes(models_dir)[:limit], known))
    plan = plan_steps(dataset, records, steps_until(until.value), resolved.config, force=force)
    if not dry_run:
        for record in records:
            if record.id not in known or known[record.id].source != record.source:
                dataset.add_record(record)
    outcome = run_steps(ui, dataset, plan, resolved.config, dry_run=dry_run, fail_fast=fail_fast)
    inputs = {"models": str(models_dir), "assets": len(records)}
    split = until is Until.SPLIT and not dry_run
    report_outcome(ui, dataset, plan, outcome, resolved.config, inputs, split=split, dry=dry_run)
