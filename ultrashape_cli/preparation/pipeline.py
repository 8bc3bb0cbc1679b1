"""Plans which steps of which assets are left, runs them and writes their records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from ultrashape_cli.config.schema import Config, flatten
from ultrashape_cli.data.layout import STEPS, Dataset, Record
from ultrashape_cli.errors import DatasetError, DiskError
from ultrashape_cli.preparation.engine import WORKER, Engine, Task, choose_workers
from ultrashape_cli.preparation.steps import step_keys

RETRIED_CAUSES = frozenset({"crash", "timeout", "memory"})
"""Failures that may end differently next time; a broken file stays broken."""


@dataclass(slots=True)
class Plan:
    """What one command will do."""

    tasks: list[Task] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)
    """Ids with nothing left to do."""
    failed: dict[str, str] = field(default_factory=dict)
    """Id -> message of assets that failed before and would fail again."""


@dataclass(slots=True)
class Outcome:
    """What one command did."""

    made: int = 0
    """Assets with at least one new result and no failure."""
    failed: dict[str, str] = field(default_factory=dict)
    """Id -> message."""
    causes: Counter[str] = field(default_factory=Counter)
    notes: set[str] = field(default_factory=set)
    """Optional packages that could not load where they would have helped, one line each."""
    stopped: bool = False


def plan_steps(
    dataset: Dataset,
    records: Sequence[Record],
    steps: Sequence[str],
    config: Config,
    *,
    force: bool = False,
) -> Plan:
    """Returns what is left to do for `steps` of `records`.

    Raises:
        DatasetError: A step needs a watertight mesh that `steps` will not make.
    """
    plan = Plan()
    for record in records:
        if steps[0] != "watertight" and not record.done("watertight"):
            continue
        left = _steps_left(dataset, record, steps, config, force)
        if left is None:
            error = record.error or {}
            plan.failed[record.id] = str(error.get("message", "failed before"))
        elif left:
            plan.tasks.append(Task(record, left))
        else:
            plan.finished.append(record.id)
    if records and not (plan.tasks or plan.finished or plan.failed):
        raise DatasetError(
            f"no asset of `{dataset.root}` has a watertight mesh",
            hint=f"ushape prepare MODELS_DIR -o {dataset.root} --until watertight",
        )
    return plan


def _steps_left(
    dataset: Dataset, record: Record, steps: Sequence[str], config: Config, force: bool
) -> tuple[str, ...] | None:
    """Returns the steps to run, or None where an old failure would only repeat itself."""
    keys = step_keys(record, steps, config)
    if force:
        return tuple(steps)
    left = [n for n in steps if not dataset.is_current(record, n, keys[n])]
    for name in left:
        old = record.steps.get(name)
        if old is not None and old.status == "failed" and old.key == keys[name]:
            return None if (old.error or {}).get("cause") not in RETRIED_CAUSES else tuple(left)
    return tuple(left)


def run_plan(
    dataset: Dataset,
    plan: Plan,
    config: Config,
    *,
    on_progress: Callable[[int, str], None] = lambda done, note: None,
    stop: Callable[[], bool] = lambda: False,
    fail_fast: bool = False,
    worker: str = WORKER,
) -> Outcome:
    """Runs a plan on guarded workers, writing each step's record as it ends.

    Raises:
        DiskError: The dataset's disk is full or read-only; finished records are kept.
    """
    outcome = Outcome(failed=dict(plan.failed), causes=Counter({"earlier": len(plan.failed)}))
    if not plan.tasks:
        return outcome
    workers = choose_workers(config.engine, len(plan.tasks))
    root = str(Path(dataset.root).absolute())
    engine = Engine(config.engine, workers, root, flatten(config), worker)
    by_id = {task.record.id: task for task in plan.tasks}
    done = 0
    earlier = len(outcome.failed)

    def halted() -> bool:
        return stop() or (fail_fast and len(outcome.failed) > earlier)

    with closing(engine.run(plan.tasks, halted)) as events:
        for event in events:
            task, result = by_id[event.asset_id], event.result
            result.key = step_keys(task.record, task.steps, config)[event.step]
            error = result.error or {}
            if error.get("cause") == "disk":
                raise DiskError(error["message"], hint=error.get("hint"))
            dataset.write_step(event.asset_id, event.step, result)
            if "missing" in result.measurements:
                outcome.notes.add(str(result.measurements["missing"]))
            failed = result.status == "failed"
            if failed:
                outcome.failed[event.asset_id] = str(error.get("message"))
                outcome.causes[str(error.get("cause"))] += 1
            if failed or event.step == task.steps[-1]:
                done += 1
                outcome.made += not failed
            on_progress(done, _note(event.asset_id, event.step, outcome))
    outcome.stopped = stop()
    return outcome


def _note(asset_id: str, step: str, outcome: Outcome) -> str:
    causes = ", ".join(f"{n} {cause}" for cause, n in outcome.causes.items() if n)
    return f"{step} {asset_id}" + (f"; failed: {causes}" if causes else "")


def steps_until(last: str) -> tuple[str, ...]:
    """Returns the per-asset steps up to and including `last` (`split` means all)."""
    return STEPS if last == "split" else STEPS[: STEPS.index(last) + 1]
