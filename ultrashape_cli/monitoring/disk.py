"""Whether the disk of a run lasts: by what was seen, and by the checkpoints still to come."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MIN_WINDOW_S = 300.0
"""Shorter observations say nothing: one checkpoint would look like a flood."""
MAX_WINDOW_S = 3600.0
_MOST_READINGS = 800


@dataclass(frozen=True, kw_only=True, slots=True)
class DiskForecast:
    """What is known about the disk of a run."""

    free_gib: float
    total_gib: float
    needed_gib: float | None
    """For the checkpoints still to come; None before the first one."""
    seconds_until_full: float | None
    """At the pace of the last hour; None where it does not fill, or has not been watched."""

    def full_before(self, seconds_left: float | None) -> bool:
        """Says whether the disk fills before a run ends that takes so long."""
        if self.needed_gib is not None and self.needed_gib > self.free_gib:
            return True
        until = self.seconds_until_full
        return until is not None and seconds_left is not None and until < seconds_left


class DiskWatch:
    """Remembers free space over time; clock in seconds that never goes back."""

    def __init__(self) -> None:
        self._readings: deque[tuple[float, float]] = deque(maxlen=_MOST_READINGS)

    def add(self, now: float, free_gib: float) -> float | None:
        """Adds a reading; returns the seconds until nothing is left at the present pace."""
        self._readings.append((now, free_gib))
        while now - self._readings[0][0] > MAX_WINDOW_S:
            self._readings.popleft()
        then, before = self._readings[0]
        if now - then < MIN_WINDOW_S or free_gib >= before:
            return None
        return free_gib * (now - then) / (before - free_gib)


def checkpoint_need(
    sizes_gib: Sequence[float], steps_left: int, settings: Mapping[str, Any]
) -> float | None:
    """Returns the GiB that the checkpoints of the remaining steps take, or None before the first.

    Args:
        sizes_gib: Of the checkpoints there are, oldest first.
        steps_left: Of the run.
        settings: The [train] table of the run's config.
    """
    every = int(settings.get("save_every_steps") or 0)
    if not sizes_gib or every <= 0:
        return None
    forever = int(settings.get("keep_every_steps") or 0)
    # The newest ones, the best, and the one that is written before the oldest goes.
    kept = int(settings.get("keep_checkpoints") or 0) + 2
    coming = -(-max(steps_left, 0) // every)
    more = min(coming, max(0, kept - len(sizes_gib)))
    if forever > 0:
        more += max(steps_left, 0) // forever
    return more * max(sizes_gib[-3:])
