"""`ushape doctor`: is this machine fit for the work?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ultrashape_cli import options as opt

if TYPE_CHECKING:
    from ultrashape_cli.config.resolve import Resolved
    from ultrashape_cli.diagnosis.check import Finding
    from ultrashape_cli.ui import UI


def doctor(
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Dataset to look at, too.", rich_help_panel="Input"),
    ] = None,
    init: Annotated[
        Path | None,
        typer.Option(
            "--init",
            help="Weights to look at: a run, a weights file, or the name of packaged ones.",
            rich_help_panel="Input",
        ),
    ] = None,
    config: opt.ConfigOpt = None,
    overrides: opt.SetOpt = None,
    no_config: opt.NoConfigOpt = False,
    profile: opt.ProfileOpt = None,
    network: Annotated[
        bool,
        typer.Option(
            "--network/--no-network",
            help="Ask the hub and wandb, for some seconds each.",
            rich_help_panel="Run",
        ),
    ] = True,
    card: Annotated[
        bool,
        typer.Option(
            "--card",
            help="Measure the card instead: kernels, training steps, refining, memory beside the "
            "plan, all with random weights.",
            rich_help_panel="Run",
        ),
    ] = False,
    minutes: Annotated[
        float | None,
        typer.Option(
            "--minutes",
            metavar="N",
            min=0.05,
            max=24 * 60,
            help="Time of the whole report; what finds none is told, and has its turn when the "
            "command is repeated (--card). Default: 10.",
            rich_help_panel="Run",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="The report (--card). Default: card.json.", rich_help_panel="Output"
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            help="Model to measure (--card): ultrashape-1.0 or tiny. Default: ultrashape-1.0, on a "
            "CPU tiny.",
            rich_help_panel="Input",
        ),
    ] = None,
    force: opt.ForceOpt = False,
    require: Annotated[
        str | None,
        typer.Option(
            "--require",
            metavar="NAME,...",
            help="Look at nothing but these, and fail where the machine lacks one: gpu, driver, "
            "disk, weights. For the first second of a rented machine, before any download.",
            rich_help_panel="Run",
        ),
    ] = None,
    fix_hints: Annotated[
        bool,
        typer.Option(
            "--fix-hints",
            help="Print only commands that help, one per line. Runs none of them.",
            rich_help_panel="Display",
        ),
    ] = False,
    json_output: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
    verbose: opt.VerboseOpt = False,
    progress: opt.ProgressOpt = True,
) -> None:
    """Check whether this machine is fit to prepare, train and refine

    Looks at Python, driver, CUDA and torch, cards, bf16, attention, the profile and the memory and
    disk it implies, limits, dataset, weights, hub, wandb, Blender, the clock and variables. Changes
    nothing. What it prints holds no secrets and can go into an issue; exits 1 if a check fails.
    Every check has a time limit, also without a network.

    With --card it measures instead, for some minutes: the card's rates, its kernels beside their
    twins, training steps of each strategy under the memory of a 16, 24 and 48 GB card, refinements
    in each memory mode, and how far memory was off its plan (exits 1 above 8 %). Writes one file
    after every case, and goes on from there when repeated.

    Examples:

      ushape doctor

      ushape doctor --data data --init ultrashape_v1.pt --profile h100

      ushape doctor --fix-hints

      ushape doctor --require gpu,driver,disk --profile a40

      ushape doctor --card --minutes 10 -o card.json
    """
    from ultrashape_cli.commands.doctor.card import CardOptions, report_card
    from ultrashape_cli.commands.settings import resolve_settings
    from ultrashape_cli.diagnosis.all_checks import CHECKS, NETWORK_CHECKS, fixes
    from ultrashape_cli.diagnosis.check import FAIL, Subject, run_checks
    from ultrashape_cli.diagnosis.required import check_required, parse_requirements
    from ultrashape_cli.ui import UI

    quiet = quiet or fix_hints
    ui = UI("doctor", json_output=json_output, quiet=quiet, verbose=verbose, progress=progress)
    options = CardOptions(minutes=minutes, out=out, model=model, force=force)
    if card:
        _refuse_checks(data, init, fix_hints, require)
        flags = {"profile": profile, "train.model": model}
        report_card(ui, resolve_settings(flags, config, overrides, no_config), options)
        return
    options.refuse()
    required = None if require is None else parse_requirements(require)
    resolved, findings = _settings(config, overrides, no_config, profile)
    if init is not None and resolved.origins["train.model"] == "default":
        model = _model_of(init)
        resolved, findings = _settings(config, overrides, no_config, profile, model)
    settings = resolved.config.train
    if data is None and resolved.origins["train.data"] != "default":
        data = Path(settings.data)
    weights = init or (Path(settings.init) if settings.init else None)
    subject = Subject(resolved, data, weights)
    ui.info("looking; this takes some seconds")
    if required is not None:
        findings += check_required(required, subject)
    else:
        findings += run_checks(CHECKS + (NETWORK_CHECKS if network else ()), subject)
    failed = sum(found.status == FAIL for found in findings)
    if json_output:
        _emit(ui, findings, failed)
    elif fix_hints:
        for fix in fixes(findings):
            ui.data(fix)
    else:
        _show(ui, findings, failed)
    if failed:
        raise typer.Exit(1)


def _refuse_checks(
    data: Path | None, init: Path | None, fix_hints: bool, require: str | None
) -> None:
    """Raises UsageError where an option of the checks is given with `--card`."""
    from ultrashape_cli.errors import UsageError

    given = {
        "--data": data is not None,
        "--init": init is not None,
        "--fix-hints": fix_hints,
        "--require": require is not None,
    }
    names = [name for name, there in given.items() if there]
    if names:
        raise UsageError(
            f"{', '.join(names)} is not for --card, which reads no data and no weights",
            hint="ushape doctor --card",
        )


def _settings(
    config: Path | None,
    overrides: list[str] | None,
    no_config: bool,
    profile: str | None,
    model: str | None = None,
) -> tuple[Resolved, list[Finding]]:
    """Returns the settings; bad ones are a finding, and the rest is checked without them."""
    from ultrashape_cli.commands.settings import resolve_settings
    from ultrashape_cli.diagnosis.check import FAIL, Finding
    from ultrashape_cli.errors import ConfigError

    flags = {"profile": profile, "train.model": model}
    try:
        return resolve_settings(flags, config, overrides, no_config), []
    except ConfigError as error:
        found = Finding("settings", FAIL, error.message)
        return resolve_settings({}, None, None, no_config=True), [found]


def _model_of(weights: Path) -> str | None:
    """Returns the model of weights; None where they, or torch, cannot tell: a check says why."""
    from ultrashape_cli.errors import CheckpointError

    try:
        from ultrashape_cli.models.sources import resolve_named

        return resolve_named(weights).model
    except (CheckpointError, ImportError, OSError):
        return None


def _show(ui: UI, findings: list[Finding], failed: int) -> None:
    from rich.text import Text

    from ultrashape_cli.diagnosis.all_checks import without_home

    styles = {"ok": "green", "warn": "yellow", "fail": "red"}
    for found in findings:
        line = Text.assemble(
            (f"{found.status:5}", f"bold {styles[found.status]}"),
            (f"{found.name:14}", "bold"),
            without_home(found.message),
        )
        ui.out.print(line)
        if found.fix:
            ui.out.print(Text.assemble(" " * 19, ("try: ", "cyan"), without_home(found.fix)))
    warned = sum(found.status == "warn" for found in findings)
    ui.info(
        f"\n{len(findings)} looked at, {warned} to mind, {failed} failed. These lines name neither "
        "you nor your secrets: paste them into an issue"
    )


def _emit(ui: UI, findings: list[Finding], failed: int) -> None:
    counts = {name: sum(found.status == name for found in findings)
              for name in ("ok", "warn", "fail")}  # fmt: skip
    rows = [
        {"name": found.name, "status": found.status, "message": found.message, "fix": found.fix}
        for found in findings
    ]
    ui.result(status="error" if failed else "ok", counts=counts, checks=rows)
