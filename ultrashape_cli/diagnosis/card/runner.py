"""Gives every case its time, in processes that can be killed. Free of torch and of any card."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from ultrashape_cli.diagnosis.card.case import IDENTIFY
from ultrashape_cli.diagnosis.card.parts import Part, Settings, all_names
from ultrashape_cli.diagnosis.card.report import Report
from ultrashape_cli.errors import DependencyError, UsageError
from ultrashape_cli.files import try_lock

CASE = [sys.executable, "-m", "ultrashape_cli.diagnosis.card.case"]
IDENTIFY_S = 120.0
"""Seconds until a machine that does not say what it is counts as broken."""
LEAST_S = {"cuda": 10.0, "cpu": 2.0}
"""Seconds below which it is no use to start a process."""
DEFAULT_TFLOPS = {"cuda": 40.0, "cpu": 0.05}
"""Rate of products where it was not measured."""
NO_TURN = "time: its turn did not come"
STOPPED = "stopped before its turn"
_POLL_S = 0.2


@contextlib.contextmanager
def alone_on_card() -> Iterator[None]:
    """Holds the cards that this process sees: two reports at once would measure each other.

    Raises:
        UsageError: Another report is being made on them.
    """
    seen = re.sub(r"\W+", "-", os.environ.get("CUDA_VISIBLE_DEVICES", "all"))
    path = Path(tempfile.gettempdir()) / f"ushape-card-{os.getuid()}-{seen}.lock"
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError:  # nowhere to write: without
        yield
        return
    try:
        if not _alone(file):
            raise UsageError(
                "another `ushape doctor --card` is measuring here", hint="wait until it is done"
            )
        yield
    finally:
        os.close(file)


def _alone(file: int) -> bool:
    try:
        return try_lock(file)
    except OSError:  # no locks in this place: without
        return True


def identify(device: str, should_stop: Callable[[], bool]) -> dict[str, Any]:
    """Returns what the machine is, asked in a process of its own.

    Raises:
        DependencyError: It does not say, or its card cannot be used.
    """
    request = {"device": device}
    for _, result in _events([IDENTIFY], request, IDENTIFY_S, should_stop):
        if result["status"] == "ok":
            found: dict[str, Any] = result["figures"]
            return found
        raise DependencyError(result["reason"], hint=result.get("hint") or "ushape doctor")
    return {}


def run_report(
    report: Report,
    parts: Sequence[Part],
    settings: Settings,
    seconds: float,
    *,
    on_result: Callable[[str, dict[str, Any]], None] = lambda name, result: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Runs the cases that have no result yet, and records those for which there is no time.

    Every part has a share of the time that is left when its turn comes, and what is left in the
    end goes to those that had too little, in the same order.

    Args:
        report: Gets the results, one by one.
        parts: In the order of their value.
        settings: Of the cases.
        seconds: For all of them.
        on_result: Called with each result.
        should_stop: Asked all the time; a case that is running then is lost.
    """
    started, before = time.monotonic(), report.seconds
    deadline = started + seconds
    for name in all_names(parts):
        report.results.setdefault(name, {"status": "not run", "reason": NO_TURN})

    def record(name: str, result: dict[str, Any]) -> None:
        report.seconds = before + time.monotonic() - started
        report.record(name, result)
        on_result(name, result)

    for is_rest in (False, True):
        for index, part in enumerate(parts):
            waiting = report.waiting(part.names)
            if not waiting or should_stop():
                continue
            left = deadline - time.monotonic()
            behind = sum(p.share for p in parts[index:] if report.waiting(p.names))
            # Less than the least would be the turn of nothing.
            share = max(left * part.share / behind, LEAST_S[settings.device] + 1)
            allowed = left if is_rest else min(share, left)
            box = _Box(time.monotonic() + allowed, deadline)
            alone = part.alone and settings.device == "cuda"
            for names in [[name] for name in waiting] if alone else [waiting]:
                _run_cases(names, report, settings, box, record, should_stop)
    if should_stop():
        for result in report.results.values():
            if result.get("reason") == NO_TURN:
                result["reason"] = STOPPED


@dataclasses.dataclass(frozen=True, slots=True)
class _Box:
    """Until when, on the clock of `time.monotonic`."""

    part: float
    """Cases that would end later do not start."""
    whole: float
    """When the time of the command is over."""

    def kill_after(self) -> float:
        """Returns the seconds from now after which nothing of the part may run."""
        now = time.monotonic()
        # An estimate may be wrong by half; what has begun is worth finishing.
        return min(self.whole - now, 1.5 * (self.part - now) + 10)


def _run_cases(
    names: list[str],
    report: Report,
    settings: Settings,
    box: _Box,
    record: Callable[[str, dict[str, Any]], None],
    should_stop: Callable[[], bool],
) -> None:
    """Runs cases in one process, or in further ones where one of them ends it."""
    waiting = [name for name in names if _may_fit(report.results[name], box, settings)]
    while waiting and not should_stop():
        if box.part - time.monotonic() < LEAST_S[settings.device]:
            return
        request = {
            "settings": dataclasses.asdict(settings),
            "deadline": box.part,
            "tflops": report.figure("device/products", "tflops") or DEFAULT_TFLOPS[settings.device],
        }
        for name, result in _events(waiting, request, box.kill_after(), should_stop):
            record(name, result)
            waiting = waiting[waiting.index(name) + 1 :]


def _may_fit(result: dict[str, Any], box: _Box, settings: Settings) -> bool:
    """Says whether a case is worth a process, by what it said itself the last time."""
    needed = max(result.get("needs", 0.0), LEAST_S[settings.device])
    return bool(needed <= box.part - time.monotonic())


def _events(
    names: Sequence[str], request: dict[str, Any], seconds: float, should_stop: Callable[[], bool]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields results as a process tells them, and for the case that ends it, why.

    Where it is to stop, nothing is said of the case that was running.
    """
    deadline = time.monotonic() + seconds
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [*CASE, *names],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=os.environ | {"OMP_WAIT_POLICY": "PASSIVE"},
            # Ctrl-C is for the command, which says what becomes of the case.
            start_new_session=True,
        )
        lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        told, ended = 0, False
        own = {**request, "parent": os.getpid()}
        thread = threading.Thread(target=_pump, args=(process, own, lines), daemon=True)
        thread.start()
        try:
            while (line := _next(lines, deadline, should_stop)) is not None:
                if line == "":
                    break
                answer = json.loads(line)
                told += 1
                yield answer["name"], answer["result"]
            ended = line == ""
        finally:
            _end(process, ended)
            # What it leaves behind, out of reach, may keep the pipe open.
            thread.join(timeout=5)
        if told == len(names) or (not ended and should_stop()):
            return
        if not ended:
            reason = f"it was not done after {seconds:.0f} s"
            yield names[told], {"status": "timed out", "reason": reason}
        elif told == 0 or process.returncode != 1:
            why = [_how(process.returncode), _last_line(errors)]
            reason = ", ".join(filter(None, why)) or "without a word"
            yield names[told], {"status": "failed", "reason": f"the process ended: {reason}"}


def _pump(
    process: subprocess.Popen[str], request: dict[str, Any], lines: queue.SimpleQueue[str]
) -> None:
    """Gives a process its request and puts what it prints into a queue, then an empty line."""
    assert process.stdin is not None
    assert process.stdout is not None
    # One that has ended takes nothing more.
    with contextlib.suppress(OSError), process.stdin:
        process.stdin.write(json.dumps(request))
    with process.stdout:
        for line in process.stdout:
            lines.put(line)
    lines.put("")


def _next(
    lines: queue.SimpleQueue[str], deadline: float, should_stop: Callable[[], bool]
) -> str | None:
    """Returns the next line; None where time is up or the command is to stop."""
    while not should_stop() and time.monotonic() < deadline:
        try:
            return lines.get(timeout=_POLL_S)
        except queue.Empty:
            continue
    return None


def _end(process: subprocess.Popen[str], ended: bool) -> None:
    """Ends a process and all that it started, such as those of a compiler."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        # One that has closed its output is about to say how it ended.
        process.wait(timeout=5 if ended else 0)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _how(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else ""


def _last_line(errors: IO[bytes]) -> str:
    errors.seek(0)
    lines = errors.read().decode(errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else ""
