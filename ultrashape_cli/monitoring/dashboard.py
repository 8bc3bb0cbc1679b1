"""The view of a run: everything is read from its folder, nothing from the trainer."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from ultrashape_cli.formatting import duration
from ultrashape_cli.monitoring import panels
from ultrashape_cli.monitoring.alerts import Alert, AlertBook, Facts
from ultrashape_cli.monitoring.panels import Snapshot
from ultrashape_cli.monitoring.plot import number
from ultrashape_cli.monitoring.run_state import RunReader, RunState
from ultrashape_cli.monitoring.system import MachineReader
from ultrashape_cli.runs import RunFolder

LABEL_WIDTH = 12
WIDE = 132
"""Columns from which on two columns are drawn."""
MIN_PLOT, MAX_PLOT = 5, 14
_GAP = 3


class RunView:
    """Follows one run."""

    def __init__(
        self, run: RunFolder, *, book: AlertBook | None = None, ascii_only: bool = False
    ) -> None:
        """Follows a run.

        Args:
            run: Its folder.
            book: Judges it; without one there are no alerts.
            ascii_only: Whether the terminal cannot show more.
        """
        self.run = run
        self._reader = RunReader(run)
        self._machine = MachineReader(run.root)
        self._book = book
        self._ascii = ascii_only

    def look(self) -> Snapshot:
        """Reads the present state."""
        now, clock = time.time(), time.monotonic()
        state, machine = self._reader.read(now, clock), self._machine.read()
        history = self._reader.history
        alerts: tuple[Alert, ...] = ()
        if self._book:
            alerts = self._book.look(Facts(state, history, machine), now, clock)
        return Snapshot(state, history, machine, alerts, self._ascii)


def to_json(shot: Snapshot) -> dict[str, Any]:
    """Returns a snapshot as plain values."""
    return shot.state.to_json() | {
        "machine": shot.machine.to_json() if shot.machine else None,
        "alerts": [
            {"rule": a.rule, "level": a.level, "message": a.message, "since": a.time}
            for a in shot.alerts
        ],
    }


def plain(state: RunState, alerts: Sequence[Alert] = ()) -> str:
    """Returns one plain line about a state."""
    parts = [state.state, f"step {state.step:,}/{state.steps:,}"]
    if "loss_smooth" in state.metrics:
        parts.append(f"loss {number(state.metrics['loss_smooth'])}")
    parts += [f"{name} {number(value)}" for name, value in state.metrics.items()
              if name.startswith("reward_")]  # fmt: skip
    if state.validation:
        parts.append(f"val {number(state.validation.get('val_loss'))}")
    if state.seconds_left is not None:
        parts.append(f"{duration(state.seconds_left)} left")
    if state.cost is not None:
        parts.append(f"cost {state.cost:,.2f}")
    if state.error:
        parts.append(f"error: {state.error}")
    parts += [f"{alert.level}: {alert.message}" for alert in alerts if alert.rule != "failed"]
    return "  ".join(parts)


def render(shot: Snapshot, width: int, height: int) -> RenderableType:
    """Returns the view, at most `height` rows of at most `width` columns."""
    rows = panels.headline(shot, width)[: max(2, height // 3)]
    rows += _wide(shot, width, height - len(rows)) if width >= WIDE else _narrow(
        shot, width, height - len(rows)
    )  # fmt: skip
    free = height - len(rows)
    if free > 0:
        rows += labelled("log", panels.log_rows(shot, free))
    for row in rows:
        row.no_wrap, row.overflow = True, "ellipsis"
        row.truncate(width, overflow="ellipsis")
    return Group(*rows[:height])


def labelled(label: str, rows: Sequence[Text]) -> list[Text]:
    """Returns rows behind a label; none for none."""
    labels = itertools.chain([label], itertools.repeat(""))
    return [
        Text.assemble((f"{name:{LABEL_WIDTH}}", "bold"), row)
        for name, row in zip(labels, rows, strict=False)
    ]


def _narrow(shot: Snapshot, width: int, height: int) -> list[Text]:
    inner = width - LABEL_WIDTH
    machine = labelled("machine", panels.machine_rows(shot, inner))
    rates = labelled("now", panels.rates(shot, inner))
    bins = labelled("loss by t", panels.t_bins(shot))
    split = labelled("step", panels.split_row(shot, inner)[:1])
    saved = labelled("checkpoints", panels.checkpoints(shot, 1 if height < 30 else 3))
    validation = labelled("validation", panels.validation(shot))
    fixed = len(machine) + len(bins) + len(split) + len(saved)
    # What is left for plot, rates, validation and log, in this order of importance.
    free = height - fixed
    rates = rates[: max(1, min(len(rates), free - MIN_PLOT - 2))]
    free -= len(rates)
    validation = validation[: max(1, free - MIN_PLOT - 2)]
    free -= len(validation)
    plot_rows = min(MAX_PLOT, max(MIN_PLOT, free - (2 if height < 30 else 8)))
    loss = labelled("loss", panels.curve(shot, "loss_smooth", inner, plot_rows))
    return [*loss, *bins, *rates, *split, *validation, *saved, *machine]


def _wide(shot: Snapshot, width: int, height: int) -> list[Text]:
    left_width = (width - _GAP) // 2
    inner = width - _GAP - left_width - LABEL_WIDTH
    right = [
        *labelled("now", panels.rates(shot, inner)),
        *labelled("step", panels.split_row(shot, inner)),
        *labelled("validation", panels.validation(shot)),
        *labelled("checkpoints", panels.checkpoints(shot)),
        *labelled("machine", panels.machine_rows(shot, inner)),
    ][: height - 1]
    bins = labelled("loss by t", panels.t_bins(shot))
    free = max(MIN_PLOT, max(len(right), height - 12) - len(bins))
    second = "val_loss" if len(shot.history.validations) > 1 else "grad_norm"
    names = (
        {"loss": "loss_smooth", second: second} if free >= 3 * MIN_PLOT else {"loss": "loss_smooth"}
    )
    plot_rows = min(MAX_PLOT, free // len(names))
    left = list(bins)
    for label, name in reversed(names.items()):
        left = labelled(label, panels.curve(shot, name, left_width - LABEL_WIDTH, plot_rows)) + left
    rows = []
    for one, other in itertools.zip_longest(left, right):
        row = (one or Text()).copy()
        row.truncate(left_width, pad=True, overflow="ellipsis")
        row.append(" " * _GAP)
        rows.append(row.append_text(other or Text()))
    return rows
