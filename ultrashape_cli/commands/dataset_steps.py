"""Steps on a dataset as prepare, render and sample run them: progress, summary, report."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ultrashape_cli.commands.settings import show_settings
from ultrashape_cli.files import read_json

if TYPE_CHECKING:
    from ultrashape_cli.config.resolve import Resolved
    from ultrashape_cli.config.schema import Config
    from ultrashape_cli.data.layout import Dataset, Record
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
    from ultrashape_cli.data.remembered import write_settings
    from ultrashape_cli.preparation.pipeline import plan_steps

    if show_config:
        show_settings(ui, resolved, (step, "engine"))
        return
    dataset = Dataset(data)
    dataset.require()
    known = dataset.load_records()
    records = list(known.values())[:limit]
    plan = plan_steps(dataset, records, (step,), resolved.config, force=force)
    few = len(records) < len(known)
    changed, trial = say_changes(ui, dataset, resolved, (step,), plan, few=few)
    if not dry_run and not trial:
        write_settings(dataset, resolved.config, (step,))
    outcome = run_steps(ui, dataset, plan, resolved.config, dry_run=dry_run, fail_fast=fail_fast)
    inputs = {"data": str(data)}
    report_outcome(
        ui, dataset, plan, outcome, resolved.config, inputs, changed=changed, dry=dry_run
    )


def say_changes(
    ui: UI,
    dataset: Dataset,
    resolved: Resolved,
    sections: Sequence[str],
    plan: Plan | None = None,
    *,
    few: bool = False,
) -> tuple[dict[str, tuple[Any, Any]], bool]:
    """Says which settings of the dataset change, and what is redone.

    Args:
        ui: To say it.
        dataset: Whose settings change.
        resolved: The settings now, and those of the dataset.
        sections: Those that the command uses.
        plan: What it will do.
        few: It leaves out assets that the dataset has.

    Returns:
        key -> (old, new), and whether this is a trial: other steps on a few assets, after which
        the dataset keeps its settings.
    """
    from ultrashape_cli.data.layout import STEPS, TRAINING_STEPS
    from ultrashape_cli.data.remembered import changed_settings

    changed = changed_settings(resolved.remembered, resolved.config, sections)
    for key, (old, new) in changed.items():
        ui.info(f"`{dataset.root}`: {key} {_show(old)} -> {_show(new)}")
    tasks = plan.tasks if plan is not None and changed else []
    for step in STEPS:
        again = sum(step in task.steps and task.record.done(step) for task in tasks)
        if again:
            ui.info(f"{step}: {again} finished assets are made again")
    trial = few and any(key.partition(".")[0] in TRAINING_STEPS for key in changed)
    if trial:
        ui.warn(
            f"a trial on some of the assets: `{dataset.root}` keeps its settings, and the next "
            "`ushape prepare` makes these assets like the others again"
        )
    return changed, trial


def _show(value: Any) -> str:
    text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return text or "none"


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
    changed: dict[str, tuple[Any, Any]],
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
    if not dry or changed:
        more, outputs = conclude(ui, dataset, config, judge=judge, split=split, dry=dry)
        counts |= more
    for note in sorted(outcome.notes):
        ui.warn(note)
    for asset_id, message in list(outcome.failed.items())[:10]:
        ui.warn(f"{asset_id}: {message}")
    if len(outcome.failed) > 10:
        ui.warn(f"{len(outcome.failed) - 10} more failures are in {outputs.get('report')}")
    ui.table(tuple(counts), [tuple(counts.values())])
    failed = bool(outcome.failed)
    if split and not dry and counts.get("train"):
        ui.hint(f"ushape train --data {shlex.quote(str(dataset.root))}")
    elif failed:
        ui.hint("`ushape prepare` with --retry-failed tries failed assets again")
    ui.result(
        status="failed" if failed else "ok",
        inputs=inputs,
        outputs=outputs,
        counts=counts,
        failures=outcome.failed,
        changed=changed,
    )
    if failed:
        raise typer.Exit(1)


def conclude(
    ui: UI, dataset: Dataset, config: Config, *, judge: bool, split: bool, dry: bool = False
) -> tuple[dict[str, int], dict[str, Any]]:
    """Writes what the records say together; returns counts and outputs.

    Args:
        ui: For warnings.
        dataset: Whose records are read once.
        config: For the filter and the split.
        judge: Apply the filter of the config.
        split: Write the lists.
        dry: Say what would come out, and write nothing.
    """
    from ultrashape_cli.errors import DatasetError
    from ultrashape_cli.preparation.report import notes_of, problems_of, write_report
    from ultrashape_cli.preparation.verdicts import update_verdicts

    records = dataset.load_records()
    counts: dict[str, int] = {}
    if judge:
        update_verdicts(dataset, records, config.quality.filter, dry=dry)
        if config.quality.filter != "none":
            counts["rejected"] = sum(bool(r.rejected) for r in records.values())
    if split:
        try:
            lists = place_assets(ui, dataset, split_rule(config), records, dry=dry)
            counts |= {name: len(ids) for name, ids in lists.items()}
        except DatasetError as error:
            ui.warn(error.message)
    if dry:
        return counts, {}
    lost = {r.id: found[0] for r in records.values() if (found := problems_of(r))}
    if lost:
        example, problem = next(iter(lost.items()))
        ui.warn(f"{len(lost)} assets are shown without their colours or some of them, such as "
                f"`{example}`: {problem}")  # fmt: skip
    noted = {r.id: found[0] for r in records.values() if (found := notes_of(r))}
    if noted:
        example, note = next(iter(noted.items()))
        ui.warn(
            f"{len(noted)} sources are not all surface, or not whole, such as `{example}`: {note}"
        )
    report = write_report(dataset, list(records.values()))
    return counts, {"data": str(dataset.root), "report": str(report)}


def place_assets(
    ui: UI, dataset: Dataset, rule: SplitRule, records: dict[str, Record], *, dry: bool
) -> dict[str, list[str]]:
    """Writes the lists and says which assets move; with `dry` only says it.

    Raises:
        DatasetError: No asset can be placed, or files of one are gone.
    """
    from ultrashape_cli.data.splits import LISTS, plan_splits, write_splits

    before = {i: name for name in LISTS for i in read_json(dataset.list_path(name)) or ()}
    lists = plan_splits(dataset, rule, records) if dry else write_splits(dataset, rule, records)
    after = {i: name for name, ids in lists.items() for i in ids}
    moved = sum(after.get(i, name) != name for i, name in before.items())
    left = len(before.keys() - after.keys())
    if moved or left:
        ui.info(f"lists: {moved} assets move to another one, {left} leave")
    what = "assets" if rule.group_by == "none" else "groups"
    for name, share in rule.shares().items():
        if share and not lists.get(name):
            ui.warn(f"{name}: 0 of {100 * share:g} %: too few {what}")
    return lists


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
