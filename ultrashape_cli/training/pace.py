"""What a run's first steps say about the estimate it was planned with."""

from __future__ import annotations

import statistics
from collections.abc import Callable

from ultrashape_cli.training.progress import Progress

WARMUP_STEPS = 3
"""Steps that are not counted: allocators fill, kernels are chosen, blocks are compiled."""
COUNTED_STEPS = 5


class Pace:
    """Tells once, after a run's first steps, how long they took and what that means for the rest.

    Args:
        planned: Seconds per step of the plan; 0 where nothing was planned.
        tell: Called with one line.
    """

    def __init__(self, planned: float, tell: Callable[[str], None]) -> None:
        self._planned = planned
        self._tell = tell
        self._seen: list[float] = []
        self.seconds = 0.0
        """Measured per step; 0 before it is known."""

    def __call__(self, progress: Progress) -> None:
        """Takes a step into account."""
        if self.seconds:
            return
        self._seen.append(progress.values["seconds"])
        if len(self._seen) < WARMUP_STEPS + COUNTED_STEPS:
            return
        self.seconds = statistics.median(self._seen[WARMUP_STEPS:])
        left = progress.steps - progress.step
        times = f", {self.seconds / self._planned:.2f} times the estimate" if self._planned else ""
        self._tell(
            f"measured: {self.seconds:.2f} s per step{times}; "
            f"{self.seconds * left / 3600:,.1f} h for the {left:,} steps left"
        )
