"""A pool of guarded worker processes: time limit, memory limit, crash isolation per step.

Its own subprocess pool because the ready-made ones lose every queued item at one segfault
(concurrent.futures, loky) or have no memory limit.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import replace
from multiprocessing.connection import wait
from typing import Any

from ultrashape_cli.config.schema import EngineConfig
from ultrashape_cli.data.layout import StepRecord
from ultrashape_cli.errors import ConfigError
from ultrashape_cli.preparation.guard import STARTING, GuardedWorker, StepEvent, Task

POLL_S = 0.25
WORKER = __package__ + ".worker"
CAUSES = frozenset({"crash", "timeout", "memory", "error"})
MOST_KILLS = 3
"""Times a step is started again after its worker was killed from outside."""
_END = object()


class Engine:
    """Runs tasks on guarded workers and yields an event per finished step."""

    def __init__(
        self,
        config: EngineConfig,
        num_workers: int,
        root: str,
        settings: dict[str, Any],
        worker: str = WORKER,
    ) -> None:
        """Prepares a pool; no process starts before `run`.

        Args:
            config: Limits of a worker, and what is tried again.
            num_workers: Most workers at a time.
            root: Dataset folder, absolute.
            settings: The flattened config.
            worker: Module that a worker process runs.
        """
        unknown = set(config.retry_causes) - CAUSES
        if unknown:
            raise ConfigError(
                f"unknown cause in `engine.retry_causes`: {', '.join(sorted(unknown))}",
                hint=f"known: {', '.join(sorted(CAUSES))}",
            )
        self.config = config
        self.num_workers = num_workers
        self.root = root
        self.settings = settings
        self.worker = worker
        self._workers: list[GuardedWorker] = []
        self._again: deque[Task] = deque()

    def run(
        self, tasks: Iterable[Task | None], stop: Callable[[], bool] = lambda: False
    ) -> Generator[StepEvent, None, None]:
        """Yields the result of every step of every task, in the order they end.

        Workers stay for a further `run` when all is done; any other end stops them.

        Args:
            tasks: What to do. None means: nothing at the moment, ask again.
            stop: Asked between events; once true, unfinished work is dropped, not recorded.
        """
        queue = iter(tasks)
        next_check = 0.0
        finished = False
        try:
            while not stop():
                waiting = self._feed(queue)
                busy = [worker for worker in self._workers if worker.task]
                if not busy:
                    if not waiting:
                        finished = True
                        return
                    time.sleep(POLL_S)
                    continue
                ready = wait([worker.pipe for worker in busy], timeout=POLL_S)
                # Reading the memory of every worker at every message would cost more than both.
                check = time.monotonic() >= next_check
                if check:
                    next_check = time.monotonic() + POLL_S
                for worker in busy:
                    event = None
                    if worker.pipe in ready:
                        event = self._read(worker)
                    elif check and (error := worker.over_limit()):
                        event = self._fail(worker, error)
                    if event is not None:
                        yield event
        finally:
            if not finished:
                self.close()

    def close(self) -> None:
        """Ends all workers; what they were doing is not recorded."""
        for worker in self._workers:
            worker.kill()
        self._workers = []
        self._again.clear()

    def _feed(self, queue: Iterator[Task | None]) -> bool:
        """Gives work to idle workers; says whether the queue may have more later."""
        while sum(worker.task is not None for worker in self._workers) < self.num_workers:
            task: Any = self._again.popleft() if self._again else next(queue, _END)
            if task is _END:
                return False
            if task is None:
                return True
            self._idle_worker().start(task, self.settings)
        return True

    def _idle_worker(self) -> GuardedWorker:
        for worker in [worker for worker in self._workers if worker.task is None]:
            if worker.usable:
                return worker
            self._drop(worker)
        self._workers.append(GuardedWorker(self.config, self.worker, self.root))
        return self._workers[-1]

    def _drop(self, worker: GuardedWorker) -> None:
        worker.kill()
        self._workers.remove(worker)

    def _read(self, worker: GuardedWorker) -> StepEvent | None:
        """Handles one message of a worker; None where it ends no step."""
        assert worker.task is not None
        try:
            message = json.loads(worker.pipe.recv_bytes())
        except (EOFError, OSError):  # also a message cut short by the worker's death
            return self._fail(worker, worker.death())
        if not message:
            worker.task = None
            return None
        worker.step = message["step"]
        worker.deadline = time.monotonic() + self.config.timeout_s
        if "result" not in message:
            return None
        return self._ended(worker.task, worker.step, StepRecord(**message["result"]))

    def _fail(self, worker: GuardedWorker, error: dict[str, Any]) -> StepEvent | None:
        assert worker.task is not None
        task = worker.task
        step = task.steps[0] if worker.step == STARTING else worker.step
        self._drop(worker)
        return self._ended(task, step, StepRecord("failed", "", error=error))

    def _ended(self, task: Task, step: str, result: StepRecord) -> StepEvent | None:
        """Returns the event of a step that ended, or None where it is tried again."""
        attempt = task.attempt if step == task.steps[0] else 1
        result.attempts = attempt
        failed = result.status == "failed"
        cause = (result.error or {}).get("cause")
        if failed and cause in self.config.retry_causes and attempt <= self.config.retries:
            self._again.append(replace(task, steps=_from(task, step), attempt=attempt + 1))
            return None
        if cause == "killed" and task.kills < MOST_KILLS:
            again = replace(task, steps=_from(task, step), attempt=attempt, kills=task.kills + 1)
            self._again.append(again)
            return None
        return StepEvent(task.record.id, step, result, failed or step == task.steps[-1])


def _from(task: Task, step: str) -> tuple[str, ...]:
    return task.steps[task.steps.index(step) :]
