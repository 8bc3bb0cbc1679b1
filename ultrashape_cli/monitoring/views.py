"""What `ushape monitor` can watch: a run, a dataset, a folder of runs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from rich.console import Group, RenderableType
from rich.text import Text

from ultrashape_cli.data.layout import Dataset
from ultrashape_cli.errors import UsageError
from ultrashape_cli.formatting import duration
from ultrashape_cli.monitoring import dashboard
from ultrashape_cli.monitoring.alerts import Alert, AlertBook, Facts
from ultrashape_cli.monitoring.dataset_state import READ_BUDGET_S, DatasetReader, DatasetState
from ultrashape_cli.monitoring.panels import STYLES
from ultrashape_cli.monitoring.plot import number, progress
from ultrashape_cli.monitoring.run_state import ENDED, RunReader, RunState, clean
from ultrashape_cli.monitoring.system import MachineReader
from ultrashape_cli.runs import RunFolder, find_runs

MakeBook = Callable[[RunFolder], AlertBook]
MAX_CAUSES = 8


@dataclass(frozen=True, slots=True)
class Look:
    """One reading, in every form it can be shown."""

    json: dict[str, Any]
    plain: str
    """One line; several for a folder of runs."""
    render: Callable[[int, int], RenderableType]
    """Width and height to the live view."""
    ended: bool
    """Whether nothing more will happen."""
    alarm: bool
    """Whether an alert is active."""
    partial: bool = False
    """Whether there is more to read than one look took."""


class View(Protocol):
    """Something that can be looked at again and again."""

    @property
    def runs(self) -> list[RunFolder]:
        """The runs it shows."""

    def look(self) -> Look:
        """Reads the present state."""


def open_view(
    path: Path | None, make_book: MakeBook, *, ascii_only: bool = False, whole: bool = False
) -> View:
    """Returns the view of a run, a dataset or a folder of runs.

    Args:
        path: What to watch; None for the newest run in ./runs.
        make_book: Makes what judges a run.
        ascii_only: Whether the terminal cannot show more.
        whole: Whether the first look must see everything, however long it takes.

    Raises:
        UsageError: The path is none of these.
    """
    if path is None:
        runs = find_runs(Path("runs"))
        if not runs:
            raise UsageError(
                "no runs in `runs`",
                hint="ushape monitor PATH watches a run, a dataset or their folder",
            )
        path = runs[0].root
    run = RunFolder(path)
    if run.is_run():
        return RunPage(run, make_book(run), ascii_only)
    if Dataset(path).exists():
        return DatasetPage(Dataset(path), ascii_only, whole)
    if find_runs(path):
        return RunsPage(path, make_book)
    raise UsageError(
        f"`{path}` is neither a run, a dataset, nor a folder of runs",
        hint="`ushape runs` lists the runs of a folder",
    )


class RunPage:
    """A single run."""

    def __init__(self, run: RunFolder, book: AlertBook, ascii_only: bool) -> None:
        self.runs = [run]
        self.view = dashboard.RunView(run, book=book, ascii_only=ascii_only)

    def look(self) -> Look:
        """Reads the present state."""
        shot = self.view.look()
        return Look(
            json=dashboard.to_json(shot),
            plain=dashboard.plain(shot.state, shot.alerts),
            render=lambda width, height: dashboard.render(shot, width, height),
            ended=shot.state.state in ENDED,
            alarm=bool(shot.alerts),
        )


class RunsPage:
    """All runs of a folder, one line each."""

    def __init__(self, root: Path, make_book: MakeBook) -> None:
        self.root = root
        self._make_book = make_book
        self._machine = MachineReader(root)
        self._readers: dict[Path, tuple[RunReader, AlertBook]] = {}

    @property
    def runs(self) -> list[RunFolder]:
        """The runs of the folder, newest first."""
        return find_runs(self.root)

    def look(self) -> Look:
        """Reads the present state."""
        now, clock, machine = time.time(), time.monotonic(), self._machine.read()
        rows: list[tuple[RunState, tuple[Alert, ...]]] = []
        for run in self.runs:
            if run.root not in self._readers:
                self._readers[run.root] = (RunReader(run, sample=False), self._make_book(run))
            reader, book = self._readers[run.root]
            state = reader.read(now, clock)
            rows.append((state, book.look(Facts(state, reader.history, machine), now, clock)))
        lines = [(_name(state.run), dashboard.plain(state, alerts)) for state, alerts in rows]
        widest = max((len(name) for name, _ in lines), default=0)
        return Look(
            json={
                "root": str(self.root),
                "runs": [
                    {
                        "run": state.run,
                        "state": state.state,
                        "step": state.step,
                        "steps": state.steps,
                        "seconds_left": state.seconds_left,
                        "cost": state.cost,
                        "loss_smooth": state.metrics.get("loss_smooth"),
                        "alerts": [alert.rule for alert in alerts],
                    }
                    for state, alerts in rows
                ],
            },
            plain="\n".join(f"{name:{widest}}  {text}" for name, text in lines),
            render=lambda width, height: _render_runs(rows, width, height),
            ended=all(state.state in ENDED for state, _ in rows),
            alarm=any(alerts for _, alerts in rows),
        )


class DatasetPage:
    """A dataset that is being prepared."""

    runs: ClassVar[list[RunFolder]] = []

    def __init__(self, dataset: Dataset, ascii_only: bool, whole: bool) -> None:
        self._reader = DatasetReader(dataset, math.inf if whole else READ_BUDGET_S)
        self._ascii = ascii_only

    def look(self) -> Look:
        """Reads the present state."""
        state = self._reader.read()
        return Look(
            json=state.to_json(),
            plain=plain_dataset(state),
            render=lambda width, height: _render_dataset(state, width, height, self._ascii),
            ended=state.waiting == 0 and state.read == state.assets > 0,
            alarm=False,
            partial=state.read < state.assets,
        )


def plain_dataset(state: DatasetState) -> str:
    """Returns one plain line about a dataset."""
    parts = [state.state, f"{state.complete:,}/{state.assets:,} complete"]
    parts += [
        f"{name} {counts['done']:,}"
        + (f" ({counts['failed']:,} failed)" if counts["failed"] else "")
        for name, counts in state.steps.items()
    ]
    if state.state == "preparing":
        parts.append(f"{state.per_minute:.1f}/min")
    if state.seconds_left is not None:
        parts.append(f"{duration(state.seconds_left)} left")
    if state.read < state.assets:
        parts.append(f"({state.read:,} of {state.assets:,} records read)")
    return "  ".join(parts)


def _render_runs(
    rows: list[tuple[RunState, tuple[Alert, ...]]], width: int, height: int
) -> RenderableType:
    name_width = min(max((len(_name(s.run)) for s, _ in rows), default=4), width // 3)
    head = f"{'run':{name_width}}  {'state':9}{'step':>19}  {'loss':>8}  {'left':>8}  {'cost':>9}"
    lines = [Text(head, style="bold")]
    for state, alerts in rows:
        left = duration(state.seconds_left) if state.seconds_left is not None else "-"
        cost = f"{state.cost:,.2f}" if state.cost is not None else "-"
        line = Text(f"{_name(state.run)[:name_width]:{name_width}}  ")
        line.append(f"{state.state:9}", style=STYLES.get(state.state, "yellow"))
        line.append(f"{f'{state.step:,}/{state.steps:,}':>19}")
        line.append(f"  {number(state.metrics.get('loss_smooth')):>8}  {left:>8}  {cost:>9}")
        for alert in alerts:
            style = "red" if alert.level == "critical" else "yellow"
            line.append(f"  {alert.rule}", style=style)
        lines.append(line)
    return _fit(lines, width, height)


def _render_dataset(
    state: DatasetState, width: int, height: int, ascii_only: bool
) -> RenderableType:
    head = Text(_name(state.dataset), style="bold")
    head.append(f"  {state.state.upper()}", style="green bold")
    head.append(f"  {state.complete:,} of {state.assets:,} assets complete")
    if state.state == "preparing":
        head.append(f"  {state.per_minute:.1f} per minute")
    if state.seconds_left is not None:
        head.append(f"  {duration(state.seconds_left)} left")
    if state.read < state.assets:
        head.append(f"  (read {state.read:,} records)", style="dim")
    lines = [head, Text()]
    bar_width = max(10, min(60, width - 46))
    for name, counts in state.steps.items():
        share = sum(counts.values()) / state.assets if state.assets else 0.0
        line = Text(f"{name:12}", style="bold")
        line.append(progress(share, bar_width, ascii_only=ascii_only), style="cyan not bold")
        line.append(f" {100 * share:5.1f} %  {counts['done']:,} done", style="not bold")
        if counts["failed"]:
            line.append(f"  {counts['failed']:,} failed", style="red not bold")
        lines.append(line)
    facts = [f"{name} {count:,}" for name, count in state.splits.items()]
    if state.rejected:
        facts.append(f"rejected by the filter {state.rejected:,}")
    if facts:
        lines += [Text(), Text(f"{'splits':12}{'  '.join(facts)}")]
    if state.failures_by_cause:
        lines += [Text(), Text(f"{state.failed:,} failed, by cause", style="bold")]
        for cause, count in list(state.failures_by_cause.items())[:MAX_CAUSES]:
            newest = next((f for f in state.failures if f["cause"] == cause), None)
            line = Text(f"  {cause:10}{count:>7,}  ")
            if newest:
                line.append(f"{_name(newest['source'])}: {clean(newest['message'])}", style="dim")
            lines.append(line)
        lines += [Text(), Text("newest failures", style="bold")]
        lines += [
            Text(f"  {f['step']:11}{_name(f['source'])}: {clean(f['message'])}")
            for f in state.failures
        ]
    return _fit(lines, width, height)


def _name(path: str) -> str:
    return clean(Path(path).absolute().name)


def _fit(lines: list[Text], width: int, height: int) -> RenderableType:
    for line in lines:
        line.no_wrap, line.overflow = True, "ellipsis"
        line.truncate(width, overflow="ellipsis")
    return Group(*lines[:height])
