"""`ushape monitor`: watch a run and the machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ultrashape_cli import options as opt

if TYPE_CHECKING:
    from ultrashape_cli.monitoring.dashboard import RunView
    from ultrashape_cli.ui import UI


def monitor(
    run: Annotated[
        Path | None,
        typer.Argument(help="Run folder. Default: the newest in ./runs.", show_default=False),
    ] = None,
    once: Annotated[
        bool, typer.Option("--once", help="Show the present state and exit.", rich_help_panel="Run")
    ] = False,
    interval: Annotated[
        float,
        typer.Option(
            "--interval", min=0.2, help="Seconds between readings.", rich_help_panel="Run"
        ),
    ] = 5.0,
    json_output: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
    verbose: opt.VerboseOpt = False,
    progress: opt.ProgressOpt = True,
) -> None:
    """Watch a run and the machine it runs on

    Reads the run folder only: finished, crashed and copied runs can be watched too. Writes
    nothing. Ctrl-C ends the view, not the run. `--json` prints one object per line.

    Examples:

      ushape monitor

      ushape monitor runs/data-tiny-dit --once

      ushape monitor --json --interval 30
    """
    from ultrashape_cli.errors import UsageError
    from ultrashape_cli.monitoring.dashboard import RunView
    from ultrashape_cli.runs import RunFolder, find_runs
    from ultrashape_cli.ui import UI

    ui = UI("monitor", json_output=json_output, quiet=quiet, verbose=verbose, progress=progress)
    if run is None:
        runs = find_runs(Path("runs"))
        if not runs:
            raise UsageError("no runs in `runs`", hint="ushape train, or name a run folder")
        folder = runs[0]
    else:
        folder = RunFolder(run)
        if not folder.config.is_file():
            raise UsageError(f"`{run}` is not a run folder", hint="ushape monitor runs/NAME")
    _watch(ui, RunView(folder), once=once, interval=interval)


def _watch(ui: UI, view: RunView, *, once: bool, interval: float) -> None:
    import time

    if ui.bars and not once:
        _live(ui, view, interval)
        return
    while True:
        state = view.read()
        if ui.json_output:
            ui.line(state)
        elif once and ui.out.is_terminal:
            ui.out.print(view.render(ui.out.width))
        else:
            ui.out.print(view.plain(state))
        if once or state["state"] in {"finished", "failed", "stopped", "dead"}:
            return
        time.sleep(interval)


def _live(ui: UI, view: RunView, interval: float) -> None:
    import time

    from rich.live import Live

    try:
        with Live(console=ui.err, screen=True, auto_refresh=False) as live:
            while True:
                live.update(view.render(ui.err.width), refresh=True)
                time.sleep(interval)
    except KeyboardInterrupt:
        ui.info(view.plain())
