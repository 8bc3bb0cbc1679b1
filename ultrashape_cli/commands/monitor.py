"""`ushape monitor`: watch a run, a dataset or a folder of runs."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ultrashape_cli import options as opt

if TYPE_CHECKING:
    from ultrashape_cli.monitoring.hooks import Notifier
    from ultrashape_cli.monitoring.tensorboard import Feed
    from ultrashape_cli.monitoring.views import View
    from ultrashape_cli.ui import UI


def monitor(
    path: Annotated[
        Path | None,
        typer.Argument(
            metavar="RUN|DATASET|ROOT",
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
            "--interval",
            metavar="SECONDS",
            min=0.2,
            help="Seconds between readings.",
            rich_help_panel="Run",
        ),
    ] = 5.0,
    tensorboard: Annotated[
        bool,
        typer.Option(
            "--tensorboard",
            help="Also start TensorBoard on the runs, and print the command for an ssh tunnel.",
            rich_help_panel="Run",
        ),
    ] = False,
    config: opt.ConfigOpt = None,
    overrides: opt.SetOpt = None,
    no_config: opt.NoConfigOpt = False,
    show_config: opt.ShowConfigOpt = False,
    json_output: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
    verbose: opt.VerboseOpt = False,
    progress: opt.ProgressOpt = True,
) -> None:
    """Watch a run, a dataset being prepared, or a folder of runs

    Reads files only: finished, crashed, copied and remotely mounted runs can be watched too. Writes
    nothing but alerts.jsonl in the run folder. Ctrl-C ends the view, not the run. `--json` prints
    one object per line. The limits and hooks of the alerts are settings: `--set alerts.KEY=VALUE`,
    the table `alerts` of --config, or USHAPE_ALERTS_KEY (also in a file .env); `--show-config`
    lists them.

    Examples:

      ushape monitor

      ushape monitor runs --once

      ushape monitor runs/data-tiny-dit --once --check --set alerts.temperature=80

      ushape monitor --json --interval 30

      ushape monitor runs --tensorboard
    """
    from ultrashape_cli.commands.settings import resolve_settings, show_settings
    from ultrashape_cli.errors import UsageError
    from ultrashape_cli.monitoring.alerts import AlertBook
    from ultrashape_cli.monitoring.hooks import Notifier
    from ultrashape_cli.monitoring.views import open_view
    from ultrashape_cli.ui import UI

    ui = UI("monitor", json_output=json_output, quiet=quiet, verbose=verbose, progress=progress)
    if check and not once:
        target = shlex.quote(str(path or "runs"))
        raise UsageError("--check goes with --once", hint=f"ushape monitor {target} --once --check")
    # A named profile, so that no card is looked for.
    resolved = resolve_settings({"profile": "cpu"}, config, overrides, no_config)
    if show_config:
        show_settings(ui, resolved, ("alerts",))
        return
    alerts = resolved.config.alerts
    notifier = Notifier(alerts)
    view = open_view(
        path,
        lambda run: AlertBook(run.root, alerts, notify=notifier, remember=once),
        ascii_only=ui.ascii_only,
        whole=once,
    )
    if tensorboard and not view.runs:
        raise UsageError("--tensorboard shows runs", hint="ushape monitor runs --tensorboard")
    with ExitStack() as stack:
        feeds = stack.enter_context(_tensorboard(ui, view)) if tensorboard else []
        alarm = _watch(ui, view, notifier, feeds, once=once, interval=interval)
    notifier.wait()
    for problem in notifier.problems:
        ui.warn(problem)
    if check and alarm:
        raise typer.Exit(1)


@contextmanager
def _tensorboard(ui: UI, view: View) -> Iterator[list[Feed]]:
    from ultrashape_cli.monitoring.tensorboard import serve, tunnel_command

    with serve(view.runs) as (port, feeds):
        ui.info(f"TensorBoard: http://localhost:{port}")
        ui.info(f"from your own computer: {tunnel_command(port)}")
        yield feeds


def _watch(
    ui: UI, view: View, notifier: Notifier, feeds: list[Feed], *, once: bool, interval: float
) -> bool:
    """Shows the view until it ends or for one look; returns whether an alert is active."""
    import time

    if ui.bars and not once:
        return _live(ui, view, notifier, feeds, interval)
    try:
        while True:
            look = view.look()
            if ui.json_output:
                ui.line(look.json)
            elif once and ui.out.is_terminal:
                ui.out.print(look.render(ui.out.width, max(40, ui.out.height)))
            else:
                ui.data(look.plain)
            # TensorBoard stays after the end of a run, until Ctrl-C.
            if once or (look.ended and not feeds):
                return look.alarm
            time.sleep(interval)
            for feed in feeds:
                feed.update()
    except KeyboardInterrupt:
        if not feeds:
            raise
        return look.alarm


def _live(ui: UI, view: View, notifier: Notifier, feeds: list[Feed], interval: float) -> bool:
    import time

    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    look = view.look()
    try:
        with Live(console=ui.err, screen=True, auto_refresh=False) as live:
            while True:
                width, height = ui.err.size
                notes = [
                    Text(text, style="yellow", no_wrap=True) for text in notifier.problems[-1:]
                ]
                live.update(Group(look.render(width, height - len(notes)), *notes), refresh=True)
                time.sleep(0.2 if look.partial else interval)
                look = view.look()
                for feed in feeds:
                    feed.update()
    except KeyboardInterrupt:
        ui.info(look.plain)
    return look.alarm
