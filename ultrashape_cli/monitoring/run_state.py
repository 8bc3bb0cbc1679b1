"""The present state of a run, read from its folder alone: running, finished, crashed or copied."""

from __future__ import annotations

import math
import os
import re
import time
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import psutil

from ultrashape_cli.files import read_json
from ultrashape_cli.monitoring.disk import DiskForecast, DiskWatch, checkpoint_need
from ultrashape_cli.monitoring.events import parse_line
from ultrashape_cli.monitoring.history import Line, MetricsHistory
from ultrashape_cli.runs import (
    CHECKPOINT_MANIFEST,
    STALE_AFTER_S,
    RunFolder,
    complete_checkpoints,
    describe_state,
)

DEAD_AFTER_S = 900.0
"""Silence after which a run on another machine counts as dead."""
ENDED = frozenset({"finished", "failed", "stopped", "dead"})
PARTS = ("data_wait", "encode", "rollout", "judge", "forward", "backward", "compute", "update",
         "offload")  # fmt: skip
"""Metrics that split the seconds of a step."""
LOG_TAIL_BYTES = 16_384
MAX_EVENTS_BYTES = 1 << 20
RECENT = 50
"""Logged lines that rates and shares are taken from."""
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A whole checkpoint."""

    name: str
    step: int
    gib: float
    age_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class RunState:
    """One reading of a run. Ages and durations are in seconds."""

    run: str
    state: str
    """`running`, `stalled`, `dead`, `finished`, `failed`, `stopped` or `unknown`."""
    here: bool
    """Whether its process is, or was, on this machine."""
    time: float
    """Of the reading, seconds since 1970."""
    step: int
    steps: int
    seconds_left: float | None
    seconds_active: float
    price_per_hour: float
    heartbeat_age: float | None
    step_age: float | None
    """Since the last line of metrics.jsonl."""
    metrics: dict[str, float]
    validation: dict[str, float] | None
    split: dict[str, float]
    """Part of a step -> its share of the seconds, over the newest lines."""
    checkpoints: tuple[Checkpoint, ...]
    disk: DiskForecast | None
    settings: dict[str, Any]
    """Tables of config.toml."""
    error: str | None
    log: tuple[str, ...]
    events: tuple[dict[str, Any], ...]

    @property
    def cost(self) -> float | None:
        """What the run has cost; None where no price is known."""
        return self.price_per_hour * self.seconds_active / 3600 if self.price_per_hour else None

    @property
    def cost_at_end(self) -> float | None:
        """What the run will have cost; None where price or time left are unknown."""
        if self.cost is None or self.seconds_left is None:
            return None
        return self.cost + self.price_per_hour * self.seconds_left / 3600

    def train(self, name: str, default: Any = None) -> Any:
        """Returns one setting of the [train] table."""
        return self.settings.get("train", {}).get(name, default)

    def to_json(self) -> dict[str, Any]:
        """Returns plain values."""
        values = asdict(self)
        del values["settings"]
        newest = self.checkpoints[-1].name if self.checkpoints else None
        return values | {
            "cost": self.cost,
            "cost_at_end": self.cost_at_end,
            "checkpoint": newest,
        }


class RunReader:
    """Follows one run; `history` keeps its metrics."""

    def __init__(self, run: RunFolder, *, sample: bool = True) -> None:
        """Follows a run.

        Args:
            run: Its folder.
            sample: Whether to look at the older part of long metrics, too.
        """
        self.run = run
        self.history = MetricsHistory(run.metrics, sample=sample)
        self._disk = DiskWatch()
        self._settings: tuple[float, dict[str, Any]] = (-1.0, {})
        self._beat: float | None = None
        self._beat_seen = 0.0
        self._beat_moved = False

    def read(self, now: float | None = None, clock: float | None = None) -> RunState:
        """Returns the present state.

        Args:
            now: Wall clock, seconds since 1970; the present by default.
            clock: A clock that never goes back; the machine's by default.
        """
        now = time.time() if now is None else now
        clock = time.monotonic() if clock is None else clock
        self.history.update()
        status = self._status()
        latest = self.history.lines[-1] if self.history.lines else {}
        step = int(status.get("step") or latest.get("step") or 0)
        settings = self._read_settings()
        steps = int(status.get("steps") or settings.get("train", {}).get("steps") or 0)
        state = self._judge(status, now, clock)
        checkpoints = self._checkpoints(now)
        events = read_events(self.run)
        beat = status.get("time")
        return RunState(
            run=str(self.run.root),
            state=state,
            here=status.get("host") in (None, os.uname().nodename),
            time=now,
            step=step,
            steps=steps,
            seconds_left=(
                seconds_left(since_start(self.history.recent(4 * RECENT), events), steps - step)
                if state == "running"
                else None
            ),
            seconds_active=seconds_active(events, status, self.history.lines, now),
            price_per_hour=_number(settings.get("launch", {}).get("price_per_hour")),
            heartbeat_age=None if beat is None else max(0.0, now - beat),
            step_age=max(0.0, now - latest["time"]) if "time" in latest else None,
            metrics={k: v for k, v in latest.items() if k not in {"time", "step"}},
            validation=self.history.validations[-1] if self.history.validations else None,
            split=step_split(self.history.recent(RECENT)),
            checkpoints=checkpoints,
            disk=self._forecast(clock, checkpoints, steps - step, settings),
            settings=settings,
            error=None if status.get("error") is None else clean(str(status["error"])),
            log=read_log(self.run),
            events=events,
        )

    def _status(self) -> dict[str, Any]:
        """Returns status.json with numbers where numbers belong."""
        try:
            status = self.run.read_status()
        except OSError:
            return {}
        for name in ("time", "step", "steps", "pid"):
            if status.get(name) is not None:
                status[name] = _number(status[name])
        return status | {"pid": int(status.get("pid") or 0)}

    def _judge(self, status: dict[str, Any], now: float, clock: float) -> str:
        """Returns the state; a clock that jumps does not make a living run look dead."""
        state = describe_state(status, now)
        if state not in ("running", "stalled"):
            return state
        beat = status.get("time")
        if beat != self._beat or self._beat_seen == 0.0:
            self._beat_moved = self._beat is not None
            self._beat, self._beat_seen = beat, clock
        silence = clock - self._beat_seen
        if self._beat_moved and silence <= STALE_AFTER_S:
            return "running"
        here = status.get("host") in (None, os.uname().nodename)
        if here and _is_another_process(status["pid"], beat):
            return "dead"
        age = max(now - (beat or 0.0), silence)
        if not here and age > DEAD_AFTER_S:
            return "dead"
        return "stalled" if silence > STALE_AFTER_S else state

    def _read_settings(self) -> dict[str, Any]:
        try:
            changed = self.run.config.stat().st_mtime
            if changed != self._settings[0]:
                tables = tomllib.loads(self.run.config.read_text(encoding="utf-8"))
                self._settings = (changed, tables)
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
            pass
        return self._settings[1]

    def _checkpoints(self, now: float) -> tuple[Checkpoint, ...]:
        found = []
        try:
            for path in complete_checkpoints(self.run.checkpoints):
                manifest = path / CHECKPOINT_MANIFEST
                files = (read_json(manifest) or {}).get("files", {})
                size = sum(entry["bytes"] for entry in files.values()) / 2**30
                age = max(0.0, now - manifest.stat().st_mtime)
                found.append(Checkpoint(path.name, int(path.name.split("-")[1]), size, age))
        except (OSError, ValueError):  # pruned while it was looked at
            pass
        return tuple(found)

    def _forecast(
        self,
        clock: float,
        checkpoints: Sequence[Checkpoint],
        steps_left: int,
        settings: dict[str, Any],
    ) -> DiskForecast | None:
        try:
            usage = psutil.disk_usage(str(self.run.root))
        except OSError:
            return None
        free = usage.free / 2**30
        sizes = [checkpoint.gib for checkpoint in checkpoints]
        return DiskForecast(
            free_gib=free,
            total_gib=usage.total / 2**30,
            needed_gib=checkpoint_need(sizes, steps_left, settings.get("train", {})),
            seconds_until_full=self._disk.add(clock, free),
        )


def since_start(lines: Sequence[Line], events: Sequence[dict[str, Any]]) -> Sequence[Line]:
    """Returns the lines of the process that trains now: another one may have been faster."""
    starts = [_number(event.get("time")) for event in events if event.get("event") == "start"]
    return [line for line in lines if line.get("time", math.inf) >= starts[-1]] if starts else lines


def seconds_left(lines: Sequence[Line], steps: int) -> float | None:
    """Returns the time for so many more steps at the pace of the lines, pauses left out."""
    if steps <= 0:
        return None
    paces = []
    for before, after in pairwise(lines):
        if "time" in before and "time" in after and after["step"] > before["step"]:
            pace = (after["time"] - before["time"]) / (after["step"] - before["step"])
            paces.append((max(0.0, pace), after["step"] - before["step"]))
    if not paces:
        seconds = sorted(line["seconds"] for line in lines if "seconds" in line)
        return steps * seconds[len(seconds) // 2] if seconds else None
    # Validations and checkpoints count; nights between two starts do not.
    usual = sorted(pace for pace, _ in paces)[len(paces) // 2]
    kept = [(pace, count) for pace, count in paces if pace <= 20 * usual or pace == usual]
    return steps * sum(p * n for p, n in kept) / sum(n for _, n in kept)


def seconds_active(
    events: Sequence[dict[str, Any]], status: dict[str, Any], lines: Sequence[Line], now: float
) -> float:
    """Returns the time that processes of the run were there, by its events.

    Runs without events count from their first line to their last sign of life.
    """
    total, opened = 0.0, None
    for event in events:
        moment = _number(event.get("time"))
        if event.get("event") == "start":
            opened = moment
        elif opened is not None:
            total, opened = total + max(0.0, moment - opened), None
    last = min(_number(status.get("time")), now)
    if opened is not None:
        return total + max(0.0, last - opened)
    if not events and lines and "time" in lines[0]:
        return max(0.0, last - lines[0]["time"] + lines[0].get("seconds", 0.0))
    return total


def step_split(lines: Sequence[Line]) -> dict[str, float]:
    """Returns part -> share of the seconds of the lines; the rest is `other`."""
    timed = [line for line in lines if line.get("seconds", 0.0) > 0]
    whole = sum(line["seconds"] for line in timed)
    if not whole:
        return {}
    parts = {
        name: sum(line.get(name, 0.0) for line in timed) / whole
        for name in PARTS
        if any(name in line for line in timed)
    }
    return parts | {"other": max(0.0, 1.0 - sum(parts.values()))}


def read_events(run: RunFolder) -> tuple[dict[str, Any], ...]:
    """Returns the timeline; its end, should it be very long."""
    try:
        with run.events.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - MAX_EVENTS_BYTES))
            lines = file.read().splitlines()
    except OSError:
        return ()
    return tuple(event for line in lines if (event := parse_line(line)) is not None)


def read_log(run: RunFolder, count: int = 40) -> tuple[str, ...]:
    """Returns the last lines of the main process's log, free of control characters."""
    try:
        with run.log().open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LOG_TAIL_BYTES))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ()
    return tuple(clean(line) for line in text.splitlines()[-count:] if line.strip())


def clean(text: str) -> str:
    """Returns a text that any terminal can show: no control characters, no broken Unicode."""
    return _CONTROL.sub("", text.encode(errors="backslashreplace").decode())


def _is_another_process(pid: int, beat: float | None) -> bool:
    """Says whether a process started after the heartbeat that carries its number."""
    try:
        return beat is not None and psutil.Process(pid).create_time() > beat + 2.0
    except psutil.Error:
        return False


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return 0.0
