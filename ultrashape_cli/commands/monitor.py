"""`ushape monitor`: watch a run, a dataset or a folder of runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ultrashape_cli import options as opt

if TYPE_CHECKING:
    from ultrashape_cli.monitoring.hooks import Notifier
    from ultrashape_cli.monitoring.views import View
    from ultrashape_cli.ui import UI


def monitor(
    path: Annotated[
        Path | None,
        typer.Argument(
            metavar="[RUN|DATASET|ROOT]",
            help="Run, dataset, or folder of runs. Default: the newest run in ./runs.",
            show_default=False,
        ),
    ] = None,
    once: Annotated[
        bool, typer.Option("--once", help="Show the present state and exit.", rich_help_panel="Run")
    ] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="With --once: exit 1 while an alert is active, for cron.",
            rich_help_panel="Run",
        ),
    ] = False,
    interval: Annotated[
        float,
        typer.Option(
            "--interval", min=0.2, help="Seconds between readings.", rich_help_panel="Run"
        ),
    ] = 5.0,
    config: opt.ConfigOpt = None,
    overrides: opt.SetOpt = None,
    no_config: opt.NoConfigOpt = False,
    json_output: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
    verbose: opt.VerboseOpt = False,
    progress: opt.ProgressOpt = True,
) -> None:
    """Watch a run, a dataset being prepared, or a folder of runs

    Reads files only: finished, crashed, copied and remotely mounted runs can be watched too. Writes
    nothing but alerts.jsonl in the run folder. Ctrl-C ends the view, not the run. `--json` prints
    one object per line. The limits and hooks of the alerts are settings: `--set alerts.KEY=VALUE`,
    the table [alerts] of --config, or USHAPE_ALERTS_KEY (also in a file .env).

    Examples:

      ushape monitor

      ushape monitor runs --once

      ushape monitor runs/data-tiny-dit --once --check --set alerts.temperature=80

      ushape monitor --json --interval 30
    """
    from ultrashape_cli.config.resolve import resolve
    from ultrashape_cli.errors import UsageError
    from ultrashape_cli.monitoring.alerts import AlertBook
    from ultrashape_cli.monitoring.hooks import Notifier
    from ultrashape_cli.monitoring.views import open_view
    from ultrashape_cli.ui import UI

    ui = UI("monitor", json_output=json_output, quiet=quiet, verbose=verbose, progress=progress)
    if check and not once:
        raise UsageError("--check goes with --once", hint="ushape monitor RUN --once --check")
    alerts = resolve(
        # Named, so that no card is looked for.
        flags={"profile": "cpu"},
        overrides=overrides or (),
        file=None if no_config else config,
        environ={} if no_config else None,
    ).config.alerts
    notifier = Notifier(alerts)
    view = open_view(
        path,
        lambda run: AlertBook(run.root, alerts, notify=notifier, remember=once),
        ascii_only=ui.ascii_only,
    )
    alarm = _watch(ui, view, notifier, once=once, interval=interval)
    notifier.wait()
    for problem in notifier.problems:
        ui.warn(problem)
    if check and alarm:
        raise typer.Exit(1)


def _watch(ui: UI, view: View, notifier: Notifier, *, once: bool, interval: float) -> bool:
    """Shows the view until it ends or for one look; returns whether an alert is active."""
    import time

    if ui.bars and not once:
        return _live(ui, view, notifier, interval)
    while True:
        look = view.look()
        if ui.json_output:
            ui.line(look.json)
        elif once and ui.out.is_terminal:
            ui.out.print(look.render(ui.out.width, max(40, ui.out.height)))
        else:
            ui.out.print(look.plain, markup=False)
        if once or look.ended:
            return look.alarm
        time.sleep(interval)


def _live(ui: UI, view: View, notifier: Notifier, interval: float) -> bool:
    import time

    from rich.live import Live

    look = view.look()
    try:
        with Live(console=ui.err, screen=True, auto_refresh=False) as live:
            while True:
                width, height = ui.err.size
                live.update(look.render(width, height), refresh=True)
                time.sleep(interval)
                look = view.look()
    except KeyboardInterrupt:
        ui.info(look.plain)
    return look.alarm
