"""One guarded worker process: its pipe, its time and memory limit, and why it ended."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from ultrashape_cli.config.schema import EngineConfig
from ultrashape_cli.data.layout import Dataset, Record, StepRecord
from ultrashape_cli.processes import start_with_pipe

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)
STARTING = "start-up"
_GRACE_S = 2.0


@dataclass(frozen=True, slots=True)
class Task:
    """Steps to run, in order, on one asset."""

    record: Record
    steps: tuple[str, ...]
    attempt: int = 1
    """Of the first step; the others have not been tried."""
    kills: int = 0
    """Times a worker was killed from outside at it, which is no fault of the asset."""


@dataclass(frozen=True, slots=True)
class StepEvent:
    """One step of one asset ended."""

    asset_id: str
    step: str
    result: StepRecord
    last: bool
    """Whether nothing more follows of this asset."""


class GuardedWorker:
    """One child process, its pipe, and the deadline of the step it is in."""

    def __init__(self, config: EngineConfig, module: str, root: str) -> None:
        self.config = config
        self.root = root
        self.log = tempfile.TemporaryFile()  # noqa: SIM115  lives as long as the worker
        memory = int(config.memory_gib * 2**30)
        # One thread per worker: the pool is the parallelism. Two arenas keep the heap compact.
        variables = dict.fromkeys(THREAD_VARIABLES, "1") | {"MALLOC_ARENA_MAX": "2"}
        self.process, self.pipe = start_with_pipe(module, [str(memory)], variables, self.log)
        self.task: Task | None = None
        self.step = STARTING
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
        self.task, self.step = task, STARTING
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
            return {"cause": "timeout", "message": message, "hint": hint, "limit": seconds}
        try:
            used = psutil.Process(self.process.pid).memory_info().rss
        except psutil.Error:  # ended in between; its pipe says so next
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
        if "MemoryError" in tail or "bad_alloc" in tail:
            return self._memory_error()
        if code == -signal.SIGKILL:
            message = f"the {self.step} step was killed from outside, or for lack of memory"
            hint = "fewer --workers leave more memory to each"
            return {"cause": "killed", "message": message, "hint": hint}
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
            "limit": limit,
        }

    def _log_tail(self) -> str:
        self.log.seek(max(0, self.log.seek(0, os.SEEK_END) - 4096))
        return self.log.read().decode(errors="replace")

    def kill(self) -> None:
        """Ends the worker and its children, and removes what it left half written."""
        # The whole session, so that children of third-party code go too.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.pipe.close()
        self.log.close()
        if self.task is not None:
            Dataset(Path(self.root)).drop_partial(self.task.record.id, self.process.pid)
