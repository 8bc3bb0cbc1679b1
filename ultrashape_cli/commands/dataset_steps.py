"""Steps on a dataset as prepare, render and sample run them: progress, summary, report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ultrashape_cli.commands.settings import show_settings

if TYPE_CHECKING:
    from ultrashape_cli.config.resolve import Resolved
    from ultrashape_cli.config.schema import Config
    from ultrashape_cli.data.layout import Dataset
    from ultrashape_cli.data.splits import SplitRule
    from ultrashape_cli.preparation.pipeline import Outcome, Plan
    from ultrashape_cli.ui import UI


def run_one_step(
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
    """Runs one step on the assets of a dataset, the first `limit` of them."""
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


def split_rule(config: Config) -> SplitRule:
    """Returns how the settings place assets; UsageError where the shares exceed 1."""
    from ultrashape_cli.data.splits import SplitRule

    settings = config.split
    return SplitRule(
        val=settings.val,
        seed=config.seed,
        test=settings.test,
        train=settings.train,
        group_by=settings.group_by,
        stratify=settings.stratify,
    )
