"""Plans which steps of which assets are left, runs them and writes their records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from ultrashape_cli.claims import Claims, open_claims
from ultrashape_cli.config.schema import Config, EngineConfig, flatten
from ultrashape_cli.data.layout import STEPS, Dataset, Record, StepRecord
from ultrashape_cli.errors import DatasetError, DiskError
from ultrashape_cli.preparation.engine import WORKER, Engine
from ultrashape_cli.preparation.guard import StepEvent, Task
from ultrashape_cli.preparation.limits import choose_workers
from ultrashape_cli.preparation.steps import VAE_STEP, StepKeys


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
    elsewhere: int = 0
    """Assets that another run on the same dataset finished meanwhile."""
    retried: int = 0
    """Steps that needed more than one attempt."""
    failed: dict[str, str] = field(default_factory=dict)
    """Id -> message."""
    causes: Counter[str] = field(default_factory=Counter)
    notes: set[str] = field(default_factory=set)
    """Optional packages that could not load where they would have helped, one line each."""
    stopped: bool = False


class Runner(Protocol):
    """What runs tasks: the engine of this machine or of a cluster."""

    def run(self, tasks: Iterator[Task | None], stop: Callable[[], bool]) -> Iterator[StepEvent]:
        """Yields an event per finished step; None among the tasks means: ask again later."""

    def close(self) -> None:
        """Ends all workers."""


def plan_steps(
    dataset: Dataset,
    records: Sequence[Record],
    steps: Sequence[str],
    config: Config,
    *,
    force: bool = False,
    retry_failed: bool = False,
) -> Plan:
    """Returns what is left to do for `steps` of `records`.

    A step that failed stays failed until its source, settings or limits change, or until
    `retry_failed`: a resumed run must not spend its night on the hangs of the last one.

    Raises:
        DatasetError: A step needs a watertight mesh that `steps` will not make.
    """
    plan = Plan()
    keys = StepKeys(steps, config)
    for record in records:
        if steps[0] != "watertight" and not record.done("watertight"):
            continue
        left = tuple(steps) if force else _steps_left(dataset, record, keys)
        again = force or retry_failed
        if left and not again and _failed_for_good(record, left, keys, config.engine):
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


def _steps_left(dataset: Dataset, record: Record, keys: StepKeys) -> tuple[str, ...]:
    wanted = keys.of(record)
    return tuple(name for name, key in wanted.items() if not dataset.is_current(record, name, key))


def _failed_for_good(
    record: Record, left: tuple[str, ...], keys: StepKeys, config: EngineConfig
) -> bool:
    """Says whether one of the steps left has failed and would fail again."""
    wanted = keys.of(record)
    for name in left:
        old = record.steps.get(name)
        if old is not None and old.status == "failed" and old.key == wanted[name]:
            return not _may_end_differently(old, config)
    return False


def _may_end_differently(old: StepRecord, config: EngineConfig) -> bool:
    error = old.error or {}
    limits = {"timeout": config.timeout_s, "memory": config.memory_gib}
    cause = error.get("cause")
    if cause in ("killed", "storage"):
        return True
    if cause in limits and limits[cause] > error.get("limit", 0.0):
        return True
    return cause in config.retry_causes and old.attempts <= config.retries


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

    Each asset is claimed first, so that several runs share one dataset and do nothing twice.

    Raises:
        DiskError: The dataset's disk is full or read-only; finished records are kept.
        DependencyError: The cluster engine is not installed.
    """
    outcome = Outcome(failed=dict(plan.failed), causes=Counter({"earlier": len(plan.failed)}))
    if not plan.tasks:
        return outcome
    runner = _make_runner(dataset, plan, config, worker)
    with open_claims(dataset.root) as claims, closing(runner):
        _drop_orphans(dataset, claims)
        _Run(dataset, plan, config, claims, outcome, on_progress).run(runner, stop, fail_fast)
    outcome.stopped = stop()
    return outcome


def _make_runner(dataset: Dataset, plan: Plan, config: Config, worker: str) -> Runner:
    root = str(Path(dataset.root).absolute())
    settings = flatten(config)
    if config.engine.kind == "ray":
        from ultrashape_cli.preparation.ray_engine import RayEngine

        return RayEngine(config.engine, len(plan.tasks), root, settings, worker)
    workers = choose_workers(config.engine, len(plan.tasks))
    return Engine(config.engine, workers, root, settings, worker)


def _drop_orphans(dataset: Dataset, claims: Claims) -> None:
    """Removes what killed runs left half written, except where another run is at work."""
    for asset_id, paths in dataset.partial_files().items():
        if claims.take(asset_id):
            for path in paths:
                with suppress(OSError):
                    path.unlink(missing_ok=True)
            claims.release(asset_id)


class _Run:
    """One pass over a plan: claims, tasks, events, records and counts."""

    def __init__(
        self,
        dataset: Dataset,
        plan: Plan,
        config: Config,
        claims: Claims,
        outcome: Outcome,
        on_progress: Callable[[int, str], None],
    ) -> None:
        self.dataset = dataset
        self.plan = plan
        self.claims = claims
        self.outcome = outcome
        self.on_progress = on_progress
        self.done = 0
        self._config = config
        self._keys: dict[tuple[str, ...], StepKeys] = {}
        self._tasks: dict[str, Task] = {}

    def run(self, runner: Runner, stop: Callable[[], bool], fail_fast: bool) -> None:
        """Runs everything, or until `stop`, or with `fail_fast` until the first failure."""
        earlier = len(self.outcome.failed)

        def halted() -> bool:
            return stop() or (fail_fast and len(self.outcome.failed) > earlier)

        for event in runner.run(self._claimed(), halted):
            self._record(event)

    def _claimed(self) -> Iterator[Task | None]:
        """Yields tasks whose asset is claimed; those of other runs at the end, when given back."""
        waiting: list[Task] = []
        for task in self.plan.tasks:
            if self.claims.take(task.record.id):
                yield from self._refreshed(task)
            else:
                waiting.append(task)
        while waiting:
            free = [task for task in waiting if self.claims.take(task.record.id)]
            waiting = [task for task in waiting if task not in free]
            for task in free:
                yield from self._refreshed(task)
            if waiting:
                yield None

    def _refreshed(self, task: Task) -> Iterator[Task]:
        """Yields a claimed task without the steps that another run ended since it was planned."""
        planned = task.record
        record = self.dataset.read_record(planned.id) or planned
        keys = self._keys_of(task.steps).of(record)
        ended = {
            name: record.steps[name].status
            for name in task.steps
            if name in record.steps
            and record.steps[name] != planned.steps.get(name)
            and record.steps[name].key == keys[name]
        }
        left = tuple(name for name in task.steps if name not in ended)
        if left and "failed" not in ended.values():
            self._tasks[record.id] = task = replace(task, record=record, steps=left)
            yield task
            return
        self.claims.release(record.id)
        self.done += 1
        if "failed" in ended.values():
            error = record.error or {}
            self.outcome.failed[record.id] = str(error.get("message"))
            self.outcome.causes[str(error.get("cause"))] += 1
        else:
            self.outcome.elsewhere += 1

    def _record(self, event: StepEvent) -> None:
        task, result, outcome = self._tasks[event.asset_id], event.result, self.outcome
        error = result.error or {}
        if error.get("cause") == "disk":
            raise DiskError(error["message"], hint=error.get("hint"))
        result.key = self._keys_of(task.steps).of(task.record)[event.step]
        self.dataset.write_step(event.asset_id, event.step, result)
        if "missing" in result.measurements:
            outcome.notes.add(str(result.measurements["missing"]))
        outcome.retried += result.attempts > 1
        failed = result.status == "failed"
        if failed:
            outcome.failed[event.asset_id] = str(error.get("message"))
            outcome.causes[str(error.get("cause"))] += 1
        if event.last:
            self.claims.release(event.asset_id)
            del self._tasks[event.asset_id]
            self.done += 1
            outcome.made += not failed
        self.on_progress(self.done, self._note(event))

    def _keys_of(self, steps: tuple[str, ...]) -> StepKeys:
        if steps not in self._keys:
            self._keys[steps] = StepKeys(steps, self._config)
        return self._keys[steps]

    def _note(self, event: StepEvent) -> str:
        causes = ", ".join(f"{n} {cause}" for cause, n in self.outcome.causes.items() if n)
        return f"{event.step} {event.asset_id}" + (f"; failed: {causes}" if causes else "")


def steps_until(last: str, *, vae_check: bool = False) -> tuple[str, ...]:
    """Returns the per-asset steps up to and including `last` (`split` means all)."""
    steps = STEPS if last == "split" else STEPS[: STEPS.index(last) + 1]
    return (*steps, VAE_STEP) if vae_check else steps
