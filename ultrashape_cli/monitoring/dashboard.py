"""The view of a run: everything is read from its folder, nothing from the trainer."""

from __future__ import annotations

import math
from collections import deque
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from ultrashape_cli.monitoring.events import MetricsReader
from ultrashape_cli.monitoring.system import read_machine
from ultrashape_cli.runs import RunFolder, complete_checkpoints, describe_state
from ultrashape_cli.ui import duration

HISTORY = 4000
LOG_TAIL_BYTES = 4096
_STYLES = {"running": "green", "finished": "green", "failed": "red", "dead": "red"}


class RunView:
    """Follows one run."""

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self._reader = MetricsReader(run.metrics)
        self._lines: deque[dict[str, Any]] = deque(maxlen=HISTORY)
        self._validation: deque[dict[str, Any]] = deque(maxlen=HISTORY)

    def read(self) -> dict[str, Any]:
        """Returns the present state as plain values."""
        for line in self._reader.read_new():
            _append(self._lines, line)
            if "val_loss" in line:
                _append(self._validation, line)
        status = self.run.read_status()
        latest = self._lines[-1] if self._lines else {}
        step = int(status.get("step") or latest.get("step") or 0)
        steps = int(status.get("steps") or 0)
        checkpoints = complete_checkpoints(self.run.checkpoints)
        state = describe_state(status)
        return {
            "run": str(self.run.root),
            "state": state,
            "step": step,
            "steps": steps,
            "seconds_left": self._seconds_left(step, steps) if state == "running" else None,
            "metrics": {k: v for k, v in latest.items() if k not in {"time", "step"}},
            "validation": self._validation[-1] if self._validation else None,
            "checkpoint": checkpoints[-1].name if checkpoints else None,
            "error": status.get("error"),
            "machine": read_machine(self.run.root).to_json(),
        }

    def render(self, width: int) -> RenderableType:
        """Returns the live view."""
        state = self.read()
        return Panel(
            Group(
                self._headline(state),
                self._numbers(state),
                Text(),
                Text("loss (smoothed)", style="bold"),
                *self._plot("loss_smooth", width - 16),
                Text(),
                _machine_line(state["machine"]),
                *self._log_lines(),
            ),
            title=f"ushape monitor {self.run.root.name}",
            title_align="left",
        )

    def plain(self, state: dict[str, Any] | None = None) -> str:
        """Returns one plain line about a state, or about the present one."""
        state = state or self.read()
        metrics = state["metrics"]
        parts = [f"{state['state']}", f"step {state['step']}/{state['steps']}"]
        if "loss_smooth" in metrics:
            parts.append(f"loss {_number(metrics['loss_smooth'])}")
        if state["validation"]:
            parts.append(f"val {_number(state['validation']['val_loss'])}")
        if state["seconds_left"] is not None:
            parts.append(f"{duration(state['seconds_left'])} left")
        if state["error"]:
            parts.append(f"error: {state['error']}")
        return "  ".join(parts)

    def _seconds_left(self, step: int, steps: int) -> float | None:
        recent: list[Any] = [line.get("seconds") for line in list(self._lines)[-50:]]
        seconds = sorted(float(value) for value in recent if _is_number(value))
        if not seconds or steps <= step:
            return None
        return (steps - step) * seconds[len(seconds) // 2]

    def _headline(self, state: dict[str, Any]) -> Text:
        text = Text()
        text.append(state["state"].upper(), style=_STYLES.get(state["state"], "yellow") + " bold")
        text.append(f"  step {state['step']:,} of {state['steps']:,}")
        if state["seconds_left"] is not None:
            text.append(f"  {duration(state['seconds_left'])} left")
        if state["checkpoint"]:
            text.append(f"  last checkpoint {state['checkpoint']}")
        if state["error"]:
            text.append(f"\n{state['error']}", style="red")
        return text

    def _numbers(self, state: dict[str, Any]) -> Table:
        table = Table.grid(padding=(0, 3))
        metrics = state["metrics"]
        names = ("loss", "loss_smooth", "learning_rate", "grad_norm", "seconds", "data_wait")
        cells = [Text(f"{name} {_number(metrics[name])}") for name in names if name in metrics]
        if state["validation"]:
            line = state["validation"]
            cells.append(Text(f"val_loss {_number(line['val_loss'])} at {line.get('step')}"))
        for start in range(0, len(cells), 4):
            table.add_row(*cells[start : start + 4])
        return table

    def _plot(self, name: str, width: int) -> list[Text]:
        values = [line[name] for line in self._lines if _is_number(line.get(name))]
        return plot(values, max(width, 10), 6)

    def _log_lines(self) -> list[Text]:
        try:
            with self.run.log().open("rb") as file:
                file.seek(max(0, file.seek(0, 2) - LOG_TAIL_BYTES))
                text = file.read().decode("utf-8", "replace")
        except OSError:
            return []
        return [Text(line, style="dim", no_wrap=True) for line in text.splitlines()[-3:]]


def plot(values: list[float], width: int, height: int) -> list[Text]:
    """Returns a block-character plot of a series, with its highest and lowest value."""
    if len(values) < 2:
        return [Text("waiting for values", style="dim")]
    columns = min(width, len(values))
    means = []
    for index in range(columns):
        part = values[index * len(values) // columns : (index + 1) * len(values) // columns]
        means.append(sum(part) / len(part))
    low, high = min(means), max(means)
    scale = (height * 8 - 1) / (high - low) if high > low else 0.0
    levels = [int((mean - low) * scale) for mean in means]
    rows = []
    for row in reversed(range(height)):
        bar = "".join(" ▁▂▃▄▅▆▇█"[max(0, min(8, level + 1 - row * 8))] for level in levels)
        label = high if row == height - 1 else low if row == 0 else None
        rows.append(Text(f"{_number(label):>10} {bar}" if label is not None else f"{'':>10} {bar}"))
    return rows


def _append(lines: deque[dict[str, Any]], line: dict[str, Any]) -> None:
    """Adds a line in place of those of its step and later: a resumed run does them again."""
    step = line.get("step") or 0
    while lines and (lines[-1].get("step") or 0) >= step:
        lines.pop()
    lines.append(line)


def _machine_line(machine: dict[str, Any]) -> Text:
    text = Text(
        f"cpu {machine['cpu']:.0f}%  "
        f"memory {machine['used_gib']:.1f}/{machine['total_gib']:.1f} GiB  "
        f"disk free {machine['disk_free_gib']:.0f} GiB"
    )
    for gpu in machine["gpus"]:
        text.append(
            f"\ngpu{gpu['index']} {gpu['name']}  {_number(gpu['utilisation'])}%  "
            f"{_number(gpu['used_gib'])}/{_number(gpu['total_gib'])} GiB  "
            f"{_number(gpu['celsius'])} C  {_number(gpu['watts'])} W"
        )
    return text


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _number(value: Any) -> str:
    if not isinstance(value, int | float):
        return "-"
    return f"{value:.4g}"
