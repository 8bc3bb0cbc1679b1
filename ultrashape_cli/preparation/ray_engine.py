"""The engine on a Ray cluster: the same guarded subprocesses, inside Ray actors on its nodes.

Ray itself has no time limit for a task, and its `memory` only schedules; so an actor holds a pool
of one guarded worker and hands it one asset at a time. The nodes need the package and the paths of
the dataset and of the sources, as on any shared folder.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from ultrashape_cli.config.schema import EngineConfig
from ultrashape_cli.data.layout import Record, StepRecord
from ultrashape_cli.preparation.engine import POLL_S, WORKER, Engine
from ultrashape_cli.preparation.guard import StepEvent, Task
from ultrashape_cli.processes import join_cluster

logger = logging.getLogger(__name__)

_END = object()


class _Node:
    """What runs inside an actor: an engine of one guarded worker that outlives its tasks."""

    def __init__(
        self, config: EngineConfig, root: str, settings: dict[str, Any], worker: str
    ) -> None:
        self.engine = Engine(config, 1, root, settings, worker)

    def run(self, record: dict[str, Any], steps: tuple[str, ...]) -> list[dict[str, Any]]:
        """Returns the events of one asset as plain values."""
        task = Task(Record.from_json(record), steps)
        return [asdict(event) for event in self.engine.run([task])]


class RayEngine:
    """Runs tasks on a cluster and yields an event per finished step, as `Engine` does."""

    def __init__(
        self,
        config: EngineConfig,
        num_tasks: int,
        root: str,
        settings: dict[str, Any],
        worker: str = WORKER,
    ) -> None:
        """Joins the cluster and starts an actor per worker.

        Args:
            config: Limits of a worker, retries, and the cluster's address.
            num_tasks: No more actors than this are started.
            root: Dataset folder, absolute, the same on all nodes.
            settings: The flattened config.
            worker: Module that a worker process runs.

        Raises:
            DependencyError: Ray is not installed.
            UsageError: There is no cluster at the address.
        """
        ray, self._owns = join_cluster(config.address)
        self._ray = ray
        self._config = config
        self._start = lambda: (
            ray.remote(_Node)
            .options(num_cpus=1, memory=int(config.memory_gib * 2**30))
            .remote(config, root, settings, worker)
        )
        self._idle = [self._start() for _ in range(min(self._slots(), num_tasks))]

    def _slots(self) -> int:
        """Returns how many actors the cluster's cores and memory hold."""
        if self._config.workers:
            return self._config.workers
        total = self._ray.cluster_resources()
        by_memory = total.get("memory", 0) // (self._config.memory_gib * 2**30)
        return int(max(1, min(total.get("CPU", 1), by_memory)))

    def run(
        self, tasks: Iterator[Task | None], stop: Callable[[], bool] = lambda: False
    ) -> Iterator[StepEvent]:
        """Yields the results of tasks; a lost node costs its asset an attempt, not the run."""
        ray = self._ray
        running: dict[Any, tuple[Any, Task]] = {}
        again: list[Task] = []
        while not stop():
            waiting = False
            while self._idle:
                task: Any = again.pop() if again else next(tasks, _END)
                waiting = task is None
                if task is None or task is _END:
                    break
                actor = self._idle.pop()
                running[actor.run.remote(task.record.to_json(), task.steps)] = (actor, task)
            if not running:
                if not waiting:
                    return
                time.sleep(POLL_S)
                continue
            ready, _ = ray.wait(list(running), timeout=POLL_S)
            for reference in ready:
                actor, task = running.pop(reference)
                try:
                    events = ray.get(reference)
                except ray.exceptions.RayActorError as error:
                    self._idle.append(self._start())
                    if task.attempt <= self._config.retries:
                        logger.warning("lost the node of `%s`, trying again", task.record.id)
                        again.append(Task(task.record, task.steps, task.attempt + 1))
                        continue
                    yield _lost(task, str(error))
                    continue
                self._idle.append(actor)
                for fields in events:
                    yield StepEvent(**{**fields, "result": StepRecord(**fields["result"])})

    def close(self) -> None:
        """Ends the actors and, where this run joined the cluster, leaves it."""
        if self._owns:
            self._ray.shutdown()


def _lost(task: Task, reason: str) -> StepEvent:
    message = f"the cluster lost the actor: {' '.join(reason.split())[:300]}"
    error = {"cause": "crash", "message": message, "hint": None}
    result = StepRecord("failed", "", error=error, attempts=task.attempt)
    return StepEvent(task.record.id, task.steps[0], result, last=True)
