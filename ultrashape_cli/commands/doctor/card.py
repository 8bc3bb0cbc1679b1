"""`ushape doctor --card`: the first minutes on a rented card."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ultrashape_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ultrashape_cli.config.resolve import Resolved
    from ultrashape_cli.diagnosis.card.parts import Part
    from ultrashape_cli.diagnosis.card.report import Report
    from ultrashape_cli.ui import UI

DEFAULT_OUT = Path("card.json")
DEFAULT_MINUTES = 10.0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class CardOptions:
    """What belongs to `--card` alone; None where it was not given."""

    minutes: float | None
    out: Path | None
    model: str | None
    force: bool

    def refuse(self) -> None:
        """Raises UsageError where one of them is given without `--card`."""
        given = [
            name
            for name, value in (
                ("--minutes", self.minutes), ("--out", self.out), ("--model", self.model),
                ("--force", self.force or None),
            )
            if value is not None
        ]  # fmt: skip
        if given:
            raise UsageError(f"{', '.join(given)}: only with --card", hint="ushape doctor --card")


def report_card(ui: UI, resolved: Resolved, options: CardOptions) -> None:
    """Runs what is left of the report, and shows it; exits 1 where something is red."""
    from ultrashape_cli.diagnosis.card.parts import Settings, all_names, all_parts
    from ultrashape_cli.diagnosis.card.report import check_target, open_report
    from ultrashape_cli.diagnosis.card.runner import alone_on_card, identify, run_report
    from ultrashape_cli.diagnosis.card.table import counts
    from ultrashape_cli.interrupts import SignalFlag

    out = options.out or DEFAULT_OUT
    minutes = DEFAULT_MINUTES if options.minutes is None else options.minutes
    check_target(out)
    started = time.monotonic()

    def say_stopping() -> None:
        ui.info("Stopping; press Ctrl-C again to quit at once")

    with alone_on_card(), SignalFlag(say_stopping) as stop:
        ui.info("asking the machine what it is")
        machine = identify(resolved.config.device, lambda: bool(stop))
        if stop:
            raise typer.Exit(stop.exit_code)
        chosen = resolved.origins["train.model"] != "default"
        usual = resolved.config.train.model if machine["device"] == "cuda" else "tiny"
        settings = Settings(
            device=machine["device"],
            model=resolved.config.train.model if chosen else usual,
            profile=_profile(resolved, machine),
            seed=resolved.config.seed,
        )
        parts = all_parts(settings.sizes)
        report = open_report(out, machine, dataclasses.asdict(settings), force=options.force)
        report.save()
        names = list(all_names(parts))
        done = len(names) - len(report.waiting(names))
        if done:
            ui.info(f"going on with {out}: {done} of {len(names)} cases are done")
        with ui.progress("card", len(names)) as bar:
            bar.begin(done)

            def show(name: str, result: dict[str, Any]) -> None:
                bar.update(len(names) - len(report.waiting(names)), name)
                _show_case(ui, name, result)

            run_report(
                *(report, parts, settings, started + 60 * minutes - time.monotonic()),
                on_result=show,
                should_stop=lambda: bool(stop),
            )
    _finish(ui, report, parts, stopped=bool(stop))
    if stop:
        ui.hint("the same command goes on from here")
        raise typer.Exit(stop.exit_code)
    ended = counts(report)
    if not ended["ok"]:
        ui.verdict("nothing was measured: give it more --minutes", good=False)
    if ended["red"] or not ended["ok"]:
        raise typer.Exit(1)


def _profile(resolved: Resolved, machine: dict[str, Any]) -> str:
    """Returns the profile of the device that was found, also where `nvidia-smi` is missing."""
    from ultrashape_cli.config.profiles import PROFILES

    if machine["device"] == "cpu" or resolved.profile.memory_gib:
        return "cpu" if machine["device"] == "cpu" else resolved.profile.name
    fitting = [row for row in PROFILES.values() if row.fits(machine["gib"])]
    return max(fitting, key=lambda row: row.memory_gib, default=PROFILES["rtx5070ti-16"]).name


def _show_case(ui: UI, name: str, result: dict[str, Any]) -> None:
    from ultrashape_cli.diagnosis.card.report import is_red
    from ultrashape_cli.diagnosis.card.table import case_row

    row = case_row(name, result)
    text = f"{name}: {row.text}" + (f", {row.off} off its plan" if row.off else "")
    if is_red(result):
        ui.verdict(text, good=False)
    else:
        ui.info(text)


def _finish(ui: UI, report: Report, parts: Sequence[Part], *, stopped: bool) -> None:
    """Writes and shows the table and the line to paste."""
    from rich.text import Text

    from ultrashape_cli.diagnosis.card.table import COLUMNS, counts, paste_line, rows

    table, line, ended = rows(report, parts), paste_line(report, parts), counts(report)
    report.save(table=[row._asdict() for row in table], line=line)
    if not (ui.quiet or ui.json_output):
        cells = [
            [Text(cell, style="red" if row.red else "") for cell in row.cells] for row in table
        ]
        ui.data_table(COLUMNS, cells)
        ui.data(line)
        ui.info(
            f"\n{ended['ok']} done, {ended['skipped']} not for this machine, {ended['red']} red, "
            f"{ended['not run'] + ended['timed out']} without time. The line above and the file "
            "name neither you nor your folders: paste and attach them"
        )
    ui.result(
        status="stopped" if stopped else "error" if ended["red"] else "ok",
        outputs={"report": str(report.path)},
        counts=ended,
        machine=report.machine,
        results=report.results,
        line=line,
    )
