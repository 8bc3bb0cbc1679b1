"""One worker process and its jobs: leases them, passes them on, watches, and tells how they went.

The agent runs in the parent and holds no model: whatever the worker does, be it native code that
never returns, the lease is kept alive, a cancellation is heard and a time limit holds.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from ultrashape_cli.config.serve import ServeConfig
from ultrashape_cli.errors import DiskError
from ultrashape_cli.service.child import Child
from ultrashape_cli.service.guard import Guard
from ultrashape_cli.service.jobs import Lease, Outcome
from ultrashape_cli.service.lessor import Answer, Lessor, attempt_folder

logger = logging.getLogger(__name__)

T = TypeVar("T")
AWAY = (OSError, sqlite3.Error, DiskError)
"""What a lessor raises that cannot be reached for now."""
_LISTEN_S = 0.1
_TELL_S = 0.5
"""Least time between two notes of progress: each is written to the disk."""
_LONGEST_PAUSE_S = 60.0
_FULL_S = 5.0
"""Pause of a worker whose disk is full."""
_AWAY = 3
"""Pause after a lessor was out of reach, in those between two questions."""


@dataclass(slots=True)
class _Attempt:
    """A job at work."""

    lease: Lease
    started: float
    stage: str = ""
    percent: int = 0
    notes: list[str] = field(default_factory=list)
    told: float = 0.0
    changed: bool = True
    computed: tuple[float, float] = (-1.0, 0.0)
    """Seconds that the worker had computed when it was last seen to go on, and when that was."""
    cancelled: float | None = None
    """When the worker was asked to stop."""
    why: str = ""
    """`cancel`, `lost`, `timeout`, `stop`, or `full` where the disk was."""


class _Ended(Exception):
    """The work on a job ends before its worker saw it."""


class Agent(threading.Thread):
    """Works on jobs with one worker process until it is stopped."""

    def __init__(
        self,
        name: str,
        lessor: Lessor,
        config: ServeConfig,
        *,
        module: str,
        arguments: list[str],
        environ: Mapping[str, str],
        log: Path,
    ) -> None:
        """Prepares a worker; nothing starts before `start`.

        Args:
            name: For the log.
            lessor: Where jobs come from.
            config: Limits.
            module: What the worker process runs.
            arguments: Its arguments.
            environ: Its variables, such as the card that it sees.
            log: File for what it prints.
        """
        super().__init__(name=name, daemon=True)
        self.lessor, self.config = lessor, config
        self._start_child = lambda: Child(module, arguments, environ, log)
        self._guard = Guard(config, log)
        self._child: Child | None = None
        self._about: dict[str, Any] = {}
        self._stopping = threading.Event()
        self._until = float("inf")
        self._failures = 0
        self._told = ("", 0.0)

    def stop(self, grace_s: float) -> None:
        """Lets the job at hand end within so many seconds, and takes no other."""
        self._until = time.monotonic() + grace_s
        self._stopping.set()

    def run(self) -> None:
        """Works until it is stopped."""
        try:
            while not self._stopping.is_set():
                if self._ready():
                    self._next()
        finally:
            self._guard.close()
            if self._child is not None:
                self._child.stop(1.0)
            self._tell("gone")

    def _ready(self) -> bool:
        """Starts the worker where there is none; says whether it can take a job."""
        if self._child is not None and self._child.alive:
            return True
        self._tell("loading")
        self._guard.warm()
        child = self._start_child()
        try:
            while (answer := child.receive(_LISTEN_S)) is None:
                if self._stopping.is_set():
                    child.kill()
                    return False
                self._tell("loading")
        except EOFError:
            answer = {"error": {"message": f"the worker {child.death()}", "hint": None}}
        if "loaded" in answer:
            self._child, self._about, self._failures = child, answer["loaded"], 0
            logger.info("%s has loaded `%s`", self.name, self._about.get("model"))
            self._tell("idle")
            return True
        child.kill()
        self._failures += 1
        pause = min(_LONGEST_PAUSE_S, 2.0 ** (self._failures - 1))
        error = answer["error"]
        logger.error("%s cannot load (again in %.0f s): %s", self.name, pause, error["message"])
        self._tell("failing", note=error["message"], hint=error.get("hint"))
        self._stopping.wait(pause)
        return False

    def _next(self) -> None:
        if not self.lessor.has_room():
            self._tell("idle", note="the disk is full")
            self._stopping.wait(_FULL_S)
            return
        try:
            lease = self.lessor.lease()
        except AWAY as error:
            logger.warning("%s gets no job: %s", self.name, error)
            self._stopping.wait(_AWAY * self.lessor.poll_s)
            return
        if lease is None:
            self._tell("idle")
            self._stopping.wait(self.lessor.poll_s)
            return
        logger.info("%s begins %s (attempt %d)", self.name, lease.job, lease.attempt)
        self._tell("busy", job=lease.job)
        attempt = _Attempt(lease, time.monotonic())
        try:
            outcome = self._work(attempt)
        except OSError as error:  # of this machine, such as a full disk or no more processes
            logger.error("%s cannot work on %s: %s", self.name, lease.job, error)
            outcome, attempt.why = Outcome("released"), "full"
        if outcome is not None and attempt.why != "lost":
            self._finish(attempt, outcome)
            if attempt.why == "full":
                self._stopping.wait(_FULL_S)
        else:
            self.lessor.drop(lease)
            logger.warning("%s lost %s to another worker", self.name, lease.job)

    def _work(self, attempt: _Attempt) -> Outcome | None:
        """Returns how a job ended; None where it is not ours any more."""
        lease = attempt.lease
        try:
            folder = self.lessor.fetch(lease)
        except AWAY as error:
            logger.warning("%s cannot get the files of %s: %s", self.name, lease.job, error)
            return Outcome("released")
        mesh, image = (folder / lease.inputs[part]["file"] for part in ("mesh", "image"))
        attempt.stage = "read"
        try:
            problem = self._guard.check(mesh, image, lambda: self._while_reading(attempt))
        except _Ended:
            self._guard.close()
            return self._stopped(attempt)
        if problem is not None:
            return Outcome("failed", error=problem)
        assert self._child is not None
        made = attempt_folder(folder, lease.fence)
        made.mkdir(exist_ok=True)
        self._child.send(
            {
                "do": "refine", "job": lease.job, "model": lease.model, "options": lease.options,
                "inputs": lease.inputs, "mesh": str(mesh), "image": str(image), "made": str(made),
                "attempt": lease.attempt,
            }
        )  # fmt: skip
        return self._listen(attempt)

    def _while_reading(self, attempt: _Attempt) -> None:
        self._watch(attempt)
        if attempt.cancelled is not None:
            raise _Ended

    def _listen(self, attempt: _Attempt) -> Outcome | None:
        """Follows the worker until the job has ended or the worker has."""
        assert self._child is not None
        while True:
            try:
                message = self._child.receive(_LISTEN_S)
            except EOFError:
                death = self._child.death()
                logger.error("%s: the worker %s at %s", self.name, death, attempt.lease.job)
                return self._gone(attempt, death)
            if message is not None:
                if "end" in message:
                    return self._ended(attempt, message["end"])
                if "note" in message:
                    attempt.notes.append(message["note"])
                else:
                    attempt.stage, attempt.percent = message["stage"], message["percent"]
                attempt.changed = True
            self._watch(attempt)
            if self._is_stuck(attempt):
                logger.error("%s is stuck at %s: killed", self.name, attempt.lease.job)
                self._child.kill()
                return self._gone(attempt, f"did nothing for {self.config.stuck_s:g} s")
            late = attempt.cancelled and time.monotonic() - attempt.cancelled
            if late and late > self.config.cancel_s:
                logger.warning("%s did not stop at %s: killed", self.name, attempt.lease.job)
                self._child.kill()
                return self._stopped(attempt)

    def _watch(self, attempt: _Attempt) -> None:
        """Tells the lessor how far the job is, and asks the worker to stop where it must."""
        now = time.monotonic()
        due = now - attempt.told >= self.config.heartbeat_s
        if due or (attempt.changed and now - attempt.told >= _TELL_S):
            answer = self._beat(attempt)
            attempt.told, attempt.changed = now, False
            if answer in ("cancel", "lost"):
                self._cancel(attempt, answer)
            self._tell("busy", job=attempt.lease.job)
        if now - attempt.started > self.config.job_timeout_s:
            self._cancel(attempt, "timeout")
        if now > self._until:
            self._cancel(attempt, "stop")

    def _is_stuck(self, attempt: _Attempt) -> bool:
        """Says whether the worker has neither computed nor said anything for `stuck_s`."""
        assert self._child is not None
        now, computed = time.monotonic(), self._child.cpu_seconds()
        # Threads that only wait take some milliseconds too.
        if attempt.changed or computed > attempt.computed[0] + 0.1:
            attempt.computed = (computed, now)
        return now - attempt.computed[1] > self.config.stuck_s

    def _beat(self, attempt: _Attempt) -> Answer:
        notes, attempt.notes = attempt.notes, []
        try:
            return self.lessor.beat(attempt.lease, attempt.stage, attempt.percent, notes)
        except AWAY as error:
            attempt.notes = notes + attempt.notes
            logger.warning("%s cannot give a sign of life: %s", self.name, error)
            return "go"

    def _cancel(self, attempt: _Attempt, why: str) -> None:
        if attempt.cancelled is None:
            attempt.cancelled, attempt.why = time.monotonic(), why
            if self._child is not None:
                self._child.send({"do": "cancel", "job": attempt.lease.job})

    def _gone(self, attempt: _Attempt, death: str) -> Outcome | None:
        if attempt.cancelled is not None:
            return self._stopped(attempt)
        message = f"the worker {death}"
        return Outcome("crashed", error={"code": "crashed", "message": message, "hint": None})

    def _ended(self, attempt: _Attempt, end: dict[str, Any]) -> Outcome | None:
        if end["state"] == "cancelled":
            return self._stopped(attempt)
        if end["state"] == "failed" and end["error"]["code"] == "disk-full":
            # No fault of the job, and none of those behind it: all wait for room.
            logger.error("%s: %s", self.name, end["error"]["message"])
            attempt.why = "full"
            return Outcome("released")
        folder = f"attempt-{attempt.lease.fence}"
        files = {name: f"{folder}/{file}" for name, file in end.get("files", {}).items()}
        return Outcome(end["state"], end.get("result", {}), files, end.get("error"))

    def _stopped(self, attempt: _Attempt) -> Outcome | None:
        """Returns the end of a job that was not let go on."""
        match attempt.why:
            case "cancel":
                return Outcome("cancelled")
            case "stop":
                return Outcome("released")
            case "timeout":
                seconds = self.config.job_timeout_s
                error = {
                    "code": "timeout",
                    "message": f"the job took longer than {seconds:g} s",
                    "hint": "a lower quality, fewer tokens or a coarser grid_resolution",
                }
                return Outcome("failed", error=error)
        return None

    def _finish(self, attempt: _Attempt, outcome: Outcome) -> None:
        """Tells how a job ended, again and again until it is heard."""
        lease = attempt.lease
        if attempt.notes:
            self._beat(attempt)
        pause = 0.2
        while True:
            try:
                counted = self.lessor.finish(lease, outcome)
                break
            except FileNotFoundError as error:  # its files were removed: the lease ends by itself
                logger.warning("%s cannot end %s: %s", self.name, lease.job, error)
                self.lessor.drop(lease)
                return
            except AWAY as error:
                logger.warning("%s cannot end %s: %s", self.name, lease.job, error)
            if time.monotonic() > self._until + self.config.cancel_s:
                return  # the lease ends by itself
            time.sleep(pause)
            pause = min(10.0, 2 * pause)
        seconds = time.monotonic() - attempt.started
        word = outcome.state if counted else f"{outcome.state}, which counts no more"
        logger.info("%s: %s is %s after %.1f s", self.name, lease.job, word, seconds)

    def _tell(self, state: str, **data: Any) -> None:
        """Tells what the worker is doing: at once where it is news, else now and then."""
        now = time.monotonic()
        if state == self._told[0] and now - self._told[1] < self.config.heartbeat_s:
            return
        memory = self._child.memory_bytes() if self._child is not None else 0
        about = {**self._about, **data, "memory_bytes": memory}
        self._told = (state, now)
        _unless_away(lambda: self.lessor.tell(state, about))


def _unless_away(call: Callable[[], T]) -> T | None:
    try:
        return call()
    except AWAY as error:
        logger.debug("not told: %s", error)
        return None
