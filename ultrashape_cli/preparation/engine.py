"""A pool of guarded worker processes: time limit, memory limit, crash isolation per step.

Its own subprocess pool because the ready-made ones lose every queued item at one segfault
(concurrent.futures, loky) or have no memory limit.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import psutil

from ultrashape_cli.config.schema import EngineConfig
from ultrashape_cli.data.layout import Dataset, Record, StepRecord

POLL_S = 0.25
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)
WORKER = __package__ + ".worker"
_STARTING = "start-up"
_GRACE_S = 2.0


@dataclass(frozen=True, slots=True)
class Task:
    """Steps to run, in order, on one asset."""

    record: Record
    steps: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StepEvent:
    """One step of one asset ended."""

    asset_id: str
    step: str
    result: StepRecord


def choose_workers(config: EngineConfig, num_tasks: int) -> int:
    """Returns the number of workers: as asked, or one per core as far as the memory allows."""
    wanted = config.workers
    if wanted == 0:
        by_memory = int(psutil.virtual_memory().available / 2**30 // min(config.memory_gib, 3.0))
        # macOS has no affinity.
        affinity = getattr(os, "sched_getaffinity", None)
        cores = len(affinity(0)) if affinity else os.cpu_count() or 1
        wanted = max(1, min(cores, by_memory))
    return max(1, min(wanted, num_tasks))


class _Worker:
    """One child process, its pipe, and the deadline of the step it is in."""

    def __init__(self, config: EngineConfig, module: str, root: str) -> None:
        self.config = config
        self.root = root
        ours, theirs = socket.socketpair()
        self.log = tempfile.TemporaryFile()  # noqa: SIM115  lives as long as the worker
        memory = int(config.memory_gib * 2**30)
        # One thread per worker: the pool is the parallelism. Two arenas keep the heap compact.
        variables = dict.fromkeys(THREAD_VARIABLES, "1") | {"MALLOC_ARENA_MAX": "2"}
        # The parent's modules, and none that happens to lie in the current folder.
        variables["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", module, str(theirs.fileno()), str(memory)],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=self.log,
                stderr=self.log,
                start_new_session=True,
                env={**os.environ, **variables},
            )
        self.pipe = Connection(ours.detach())
        self.task: Task | None = None
        self.step = _STARTING
        self.handled = 0
        self.deadline = 0.0

    @property
    def usable(self) -> bool:
        """Says whether the worker is alive and not yet due for replacement."""
        return self.handled < self.config.recycle_after and self.process.poll() is None

    def start(self, task: Task, settings: dict[str, Any]) -> None:
        """Sends a task; where the worker is gone, its end of the pipe says so later."""
        if self.handled:  # what a fresh worker has said so far may be why it died
            self.log.seek(0)
            self.log.truncate()
        self.task, self.step = task, _STARTING
        self.handled += 1
        self.deadline = time.monotonic() + self.config.timeout_s
        message = {
            "root": self.root,
            "settings": settings,
            "record": task.record.to_json(),
            "steps": task.steps,
        }
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.pipe.send_bytes(json.dumps(message).encode())

    def over_limit(self) -> dict[str, Any] | None:
        """Returns the error of a worker beyond its time or memory, else None."""
        if time.monotonic() > self.deadline:
            seconds = self.config.timeout_s
            message = f"the {self.step} step took longer than {seconds:g} s and was stopped"
            hint = f"--set engine.timeout_s={seconds * 4:g}"
            return {"cause": "timeout", "message": message, "hint": hint}
        try:
            used = psutil.Process(self.process.pid).memory_info().rss
        except psutil.Error:
            return None
        if used > self.config.memory_gib * 2**30:
            return self._memory_error()
        return None

    def death(self) -> dict[str, Any]:
        """Returns the error of a worker that ended by itself."""
        try:
            code = self.process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:  # third-party code closed our end of the pipe
            os.killpg(self.process.pid, signal.SIGKILL)
            code = self.process.wait()
        tail = self._log_tail()
        if "MemoryError" in tail or "bad_alloc" in tail or code == -signal.SIGKILL:
            return self._memory_error()
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        last = f" ({tail.splitlines()[-1].strip()[:200]})" if tail.strip() else ""
        message = f"the {self.step} step crashed its worker: {name}{last}"
        return {"cause": "crash", "message": message, "hint": None}

    def _memory_error(self) -> dict[str, Any]:
        limit = self.config.memory_gib
        message = f"the {self.step} step needs more than the {limit:g} GiB a worker has"
        return {
            "cause": "memory",
            "message": message,
            "hint": f"--set engine.memory_gib={limit * 2:g}",
        }

    def _log_tail(self) -> str:
        self.log.seek(max(0, self.log.seek(0, os.SEEK_END) - 4096))
        return self.log.read().decode(errors="replace")

    def kill(self) -> None:
        # The whole session, so that children of third-party code go too.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.pipe.close()
        self.log.close()
        if self.task is not None:
            Dataset(Path(self.root)).drop_partial(self.task.record.id)


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
            config: Limits of a worker.
            num_workers: Most workers at a time.
            root: Dataset folder, absolute.
            settings: The flattened config.
            worker: Module that a worker process runs.
        """
        self.config = config
        self.num_workers = num_workers
        self.root = root
        self.settings = settings
        self.worker = worker

    def run(
        self, tasks: Iterable[Task], stop: Callable[[], bool] = lambda: False
    ) -> Generator[StepEvent, None, None]:
        """Yields the result of every step of every task, in the order they end.

        Args:
            tasks: What to do.
            stop: Asked between events; once true, unfinished work is dropped, not recorded.
        """
        queue = iter(tasks)
        workers: list[_Worker] = []
        try:
            while not stop():
                self._feed(workers, queue)
                busy = [worker for worker in workers if worker.task]
                if not busy:
                    return
                ready = wait([worker.pipe for worker in busy], timeout=POLL_S)
                for worker in busy:
                    event = self._poll(worker, worker.pipe in ready)
                    if event is not None:
                        yield event
                workers = [w for w in workers if w.process.returncode is None]
        finally:
            for worker in workers:
                worker.kill()

    def _feed(self, workers: list[_Worker], queue: Iterator[Task]) -> None:
        while sum(worker.task is not None for worker in workers) < self.num_workers:
            task = next(queue, None)
            if task is None:
                return
            self._idle_worker(workers).start(task, self.settings)

    def _idle_worker(self, workers: list[_Worker]) -> _Worker:
        for worker in [worker for worker in workers if worker.task is None]:
            if worker.usable:
                return worker
            worker.kill()
            workers.remove(worker)
        workers.append(_Worker(self.config, self.worker, self.root))
        return workers[-1]

    def _poll(self, worker: _Worker, readable: bool) -> StepEvent | None:
        assert worker.task is not None
        if not readable:
            error = worker.over_limit()
            return self._fail(worker, error) if error else None
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
        return StepEvent(worker.task.record.id, worker.step, StepRecord(**message["result"]))

    def _fail(self, worker: _Worker, error: dict[str, Any]) -> StepEvent:
        assert worker.task is not None
        task = worker.task
        step = task.steps[0] if worker.step == _STARTING else worker.step
        worker.kill()
        return StepEvent(task.record.id, step, StepRecord("failed", "", error=error))
