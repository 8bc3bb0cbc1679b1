"""The line that corrects the estimate of a run."""

from __future__ import annotations

from ultrashape_cli.training.pace import COUNTED_STEPS, WARMUP_STEPS, Pace
from ultrashape_cli.training.progress import Progress


def test_the_first_steps_do_not_count_and_it_is_told_once() -> None:
    told: list[str] = []
    pace = Pace(10.0, told.append)
    seconds = [60.0] * WARMUP_STEPS + [12.0] * COUNTED_STEPS + [99.0] * 20
    for index, value in enumerate(seconds):
        pace(Progress(index + 1, 1008, {"seconds": value}))
    assert told == ["measured: 12.00 s per step, 1.20 times the estimate; 3.3 h for the 1,000 "
                    "steps left"]  # fmt: skip


def test_without_a_plan_only_the_measurement_is_told() -> None:
    told: list[str] = []
    pace = Pace(0.0, told.append)
    for step in range(1, 20):
        pace(Progress(step, 1000, {"seconds": 1.0}))
    assert "estimate" not in told[0]
