"""The one output object. stdout carries data; everything for people goes to stderr."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from ultrashape_cli.errors import UsageError, UShapeError
from ultrashape_cli.formatting import duration
from ultrashape_cli.streams import send_nowhere

SCHEMA_VERSION = 1
PLAIN_INTERVAL_S = 10.0

_current: UI | None = None


class Bar(Protocol):
    """What a loop needs of a progress display."""

    def begin(self, done: int) -> None:
        """Says what was done before: neither rate nor time left count it."""

    def update(self, done: int, note: str = "") -> None:
        """Shows `done` of the total and a short note."""


class UI:
    """Messages, tables, progress and the result of one command."""

    def __init__(
        self,
        command: str,
        *,
        json_output: bool = False,
        quiet: bool = False,
        verbose: bool = False,
        progress: bool = True,
    ) -> None:
        global _current
        self.command = command
        self.json_output = json_output
        self.quiet = quiet
        self.out = _DataConsole(highlight=False, soft_wrap=True)
        self.err = Console(stderr=True, highlight=False, no_color=True if json_output else None)
        wanted = progress and not (json_output or quiet or verbose)
        wanted = wanted and not os.environ.get("USHAPE_NO_PROGRESS")
        self.bars = wanted and self.err.is_terminal and not self.err.is_dumb_terminal
        self.plain_progress = wanted and not self.bars
        self.started = time.monotonic()
        self._warned: set[str] = set()
        self._finished = False
        # The level sits on the handler: a run's log file wants more than the terminal.
        handler = logging.StreamHandler()
        handler.setLevel(logging.DEBUG if verbose else logging.WARNING)
        level = logging.DEBUG if verbose else logging.INFO
        logging.basicConfig(level=level, format="%(levelname)s %(message)s", handlers=[handler])
        for noisy in ("numba", "PIL", "matplotlib", "urllib3", "trimesh", "asyncio"):
            logging.getLogger(noisy).setLevel(logging.ERROR)
        _current = self

    @property
    def ascii_only(self) -> bool:
        """Says whether the terminal cannot show block and braille characters."""
        encoding = getattr(sys.stderr, "encoding", None) or "ascii"
        return not encoding.lower().startswith(("utf-8", "utf8"))

    def info(self, text: str) -> None:
        """Says something for people."""
        if not self.quiet:
            self.err.print(_safe(text), soft_wrap=True)

    def warn(self, text: str) -> None:
        """Says once what the user should act on."""
        if text not in self._warned:
            self._warned.add(text)
            self.err.print(f"[yellow]warning:[/] {_safe(text)}", soft_wrap=True)

    def verdict(self, text: str, good: bool) -> None:
        """Says how something came out: green where it is good, red where it is not."""
        if not self.quiet:
            color = "green" if good else "red"
            self.err.print(f"[{color}]{_safe(text)}[/]", soft_wrap=True)

    def hint(self, text: str) -> None:
        """Offers the next command."""
        if not self.quiet:
            self.err.print(f"[cyan]hint:[/] {_safe(text)}", soft_wrap=True)

    def error(self, error: UShapeError) -> None:
        """Shows a failure: always on stderr, and as the one JSON object with `--json`."""
        self.err.print(f"[red]error:[/] {_safe(error.message)}", soft_wrap=True)
        if error.hint:
            self.err.print(f"[cyan]hint:[/] {_safe(error.hint)}", soft_wrap=True)
        if self.json_output and not self._finished:
            body = {"code": error.exit_code, "message": error.message, "hint": error.hint}
            self._emit({"status": "error", "error": body})

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[Any]], title: str = "") -> None:
        """Shows a table on stderr."""
        if self.quiet:
            return
        self.err.print(_table(columns, rows, title))

    def data_table(self, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Prints a table the user asked for, on stdout."""
        self.out.print(_table(columns, rows, ""))

    def result(
        self,
        *,
        status: str = "ok",
        inputs: dict[str, Any] | None = None,
        outputs: dict[str, Any] | None = None,
        counts: dict[str, int] | None = None,
        **more: Any,
    ) -> None:
        """Ends the command: one JSON object, or the output paths, on stdout."""
        outputs = outputs or {}
        try:
            if self.json_output:
                body = {"status": status, "inputs": inputs or {}, "outputs": outputs}
                self._emit({**body, "counts": counts or {}, **more})
                return
            for value in outputs.values():
                if isinstance(value, str):
                    self.out.print(_safe(value), soft_wrap=True)
            if sys.stdout is not None:  # closed before we began
                sys.stdout.flush()
        except OSError:  # the work is done, whether or not somebody reads about it
            send_nowhere(sys.stdout)

    def data(self, text: str) -> None:
        """Prints text the user asked for, on stdout."""
        self.out.print(_safe(text), soft_wrap=True)

    def line(self, value: dict[str, Any]) -> None:
        """Prints one JSON object of a stream (`monitor --json`)."""
        sys.stdout.write(json.dumps(value, default=str) + "\n")
        sys.stdout.flush()

    def _emit(self, body: dict[str, Any]) -> None:
        self._finished = True
        seconds = round(time.monotonic() - self.started, 3)
        head = {"schema_version": SCHEMA_VERSION, "command": self.command}
        whole = {"inputs": {}, "outputs": {}, "counts": {}, **body, "seconds": seconds}
        # `monitor --json` is a stream of lines.
        indent = None if self.command == "monitor" else 1
        sys.stdout.write(json.dumps({**head, **whole}, indent=indent, default=str) + "\n")
        sys.stdout.flush()

    @contextmanager
    def progress(self, verb: str, total: int) -> Iterator[Bar]:
        """Draws a bar on a terminal, a plain line every ten seconds elsewhere."""
        if not self.bars:
            yield _PlainBar(self, verb, total)
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=self.err, refresh_per_second=4) as progress:
            yield _RichBar(progress, progress.add_task(verb, total=total, note="", rate=""))


class _DataConsole(Console):
    def on_broken_pipe(self) -> None:
        raise  # the error being handled: the command line ends by it, not rich


class _RichBar:
    def __init__(self, progress: Progress, task: TaskID) -> None:
        self.shown, self.task = progress, task
        self.first, self.started = 0, time.monotonic()

    def begin(self, done: int) -> None:
        self.first, self.started = done, time.monotonic()
        self.shown.reset(self.task, completed=done)

    def update(self, done: int, note: str = "") -> None:
        rate = _pace(done - self.first, time.monotonic() - self.started)
        self.shown.update(self.task, completed=done, note=escape(note), rate=rate)


class _PlainBar:
    def __init__(self, ui: UI, verb: str, total: int) -> None:
        self.ui, self.verb, self.total = ui, verb, total
        self.first = 0
        self.started = self.last = time.monotonic()

    def begin(self, done: int) -> None:
        self.first, self.started = done, time.monotonic()

    def update(self, done: int, note: str = "") -> None:
        now = time.monotonic()
        if not self.ui.plain_progress or (now - self.last < PLAIN_INTERVAL_S and done < self.total):
            return
        self.last = now
        new, elapsed = done - self.first, now - self.started
        left = duration((self.total - done) * elapsed / new) if new else "?"
        pace = _pace(new, elapsed)
        self.ui.info(f"{self.verb}: {done}/{self.total}, {pace}, {left} left  {note}".rstrip())


def _pace(done: int, seconds: float) -> str:
    if not done:
        return "?"
    rate = done / max(seconds, 1e-9)
    return f"{rate:.2f}/s" if rate >= 0.1 else f"{seconds / done:.0f} s each"


def current_ui() -> UI:
    """Returns the UI of the running command, or a plain one before a command has started."""
    return _current or UI("ushape")


def fail_usage(argv: Sequence[str], code: int) -> None:
    """Emits the JSON error of a command line the parser refused (its text is on stderr)."""
    if "--json" in argv and (_current is None or not _current._finished):
        ui = UI(argv[0] if argv else "ushape", json_output=True)
        error = UsageError("bad usage", hint=f"ushape {argv[0] if argv else ''} --help")
        ui._emit({"status": "error", "error": {"code": code, **_parts(error)}})


def emit_stopped(argv: Sequence[str]) -> None:
    """Emits the JSON object of a command that a signal ended before it could."""
    if "--json" in argv and not (_current and _current._finished):
        UI(argv[0] if argv else "ushape", json_output=True)._emit({"status": "stopped"})


def _parts(error: UShapeError) -> dict[str, str | None]:
    return {"message": error.message, "hint": error.hint}


def _safe(text: str) -> str:
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    return escape(text.encode(encoding, "backslashreplace").decode(encoding))


def _table(columns: Sequence[str], rows: Iterable[Sequence[Any]], title: str) -> Table:
    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, justify="left", overflow="fold", no_wrap=index == 0)
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else _safe(str(cell)) for cell in row))
    return table
