"""A run in one line: where it is, its best score, what it has cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ultrashape_cli.errors import UsageError
from ultrashape_cli.files import read_json
from ultrashape_cli.formatting import duration
from ultrashape_cli.monitoring.history import MetricsHistory
from ultrashape_cli.monitoring.panels import LOWER_IS_BETTER
from ultrashape_cli.monitoring.plot import number
from ultrashape_cli.monitoring.run_state import RunReader, RunState, clean
from ultrashape_cli.runs import CHECKPOINT_MANIFEST, RunFolder, complete_checkpoints, find_runs

COLUMNS = ("run", "state", "step", "best", "cost", "updated")


@dataclass(frozen=True, slots=True)
class Summary:
    """One run. Ages and durations are in seconds."""

    run: str
    state: str
    step: int
    steps: int
    metric: str
    """What decides the run's best checkpoint."""
    best: float | None
    best_step: int | None
    cost: float | None
    """Price per hour x hours trained; None where no price is known."""
    seconds_active: float
    updated: float | None
    """Seconds since the run last gave a sign of life."""

    @property
    def name(self) -> str:
        """Name of the run's folder."""
        return clean(Path(self.run).absolute().name)

    def cells(self) -> tuple[str, ...]:
        """Returns its line in a table of `COLUMNS`."""
        best = "-" if self.best is None else f"{number(self.best)} {self.metric}"
        cost = "-" if self.cost is None else f"{self.cost:,.2f}"
        age = "-" if self.updated is None else f"{duration(self.updated)} ago"
        return (self.name, self.state, f"{self.step:,}/{self.steps:,}", best, cost, age)

    def to_json(self) -> dict[str, Any]:
        """Returns plain values."""
        return asdict(self)


def runs_of(root: Path) -> list[RunFolder]:
    """Returns the runs below a folder, newest first, or the one that it is.

    Raises:
        UsageError: There are none.
    """
    run = RunFolder(root)
    found = [run] if run.is_run() else find_runs(root)
    if not found:
        raise UsageError(
            f"no runs in `{root}`", hint="ushape runs DIR, or `ushape train` makes one"
        )
    return found


def summarise(run: RunFolder) -> Summary:
    """Returns what a run's folder tells of it."""
    reader = RunReader(run)
    return summary_of(run, reader.read(), reader.history)


def summary_of(run: RunFolder, state: RunState, history: MetricsHistory) -> Summary:
    """Returns the summary of a run that has been read."""
    metric = str(state.train("best_metric", "val_loss"))
    scores = history.series(metric) + _kept_scores(run, metric)
    found = best(scores, metric)
    ages = [age for age in (state.heartbeat_age, state.step_age) if age is not None]
    return Summary(
        run=str(run.root),
        state=state.state,
        step=state.step,
        steps=state.steps,
        metric=metric,
        best=found and found[1],
        best_step=int(found[0]) if found else None,
        cost=state.cost,
        seconds_active=state.seconds_active,
        updated=min(ages, default=None),
    )


def best(scores: Sequence[tuple[float, float]], metric: str) -> tuple[float, float] | None:
    """Returns the (step, value) of the best value of a validation metric; the earlier of equals."""
    return min(scores, key=lambda s: (s[1] * _sign(metric), s[0]), default=None)


def _sign(metric: str) -> int:
    """Returns 1 where a lower value of a validation metric is better, -1 where a higher one is."""
    return 1 if metric.removeprefix("val_").removeprefix("ema_") in LOWER_IS_BETTER else -1


def _kept_scores(run: RunFolder, metric: str) -> list[tuple[float, float]]:
    """Returns (step, value) of the checkpoints: of long runs not every validation is read."""
    found = []
    for path in complete_checkpoints(run.checkpoints):
        score = (read_json(path / CHECKPOINT_MANIFEST) or {}).get("score")
        if isinstance(score, float):  # lower is better, whatever the metric
            found.append((float(path.name.split("-")[1]), score * _sign(metric)))
    return found
