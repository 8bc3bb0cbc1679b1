"""`ushape train`: fine-tune the diffusion transformer, or the autoencoder."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ultrashape_cli import options as opt

if TYPE_CHECKING:
    from ultrashape_cli.config.resolve import Resolved
    from ultrashape_cli.config.schema import Config
    from ultrashape_cli.runs import RunFolder
    from ultrashape_cli.training.memory.plan import RunPlan
    from ultrashape_cli.ui import UI


class StageName(StrEnum):
    """Which network trains."""

    DIT = "dit"
    VAE = "vae"


def train(
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Prepared dataset. Default: data.", rich_help_panel="Input"),
    ] = None,
    init: Annotated[
        Path | None,
        typer.Option(
            "--init",
            help="Weights to start from: a run, a safetensors file, the reference bundle, or "
            "`tiny` for those that come with the package.",
            rich_help_panel="Input",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            help="Row of the model table: ultrashape-1.0 or tiny. Default: ultrashape-1.0.",
            rich_help_panel="Input",
        ),
    ] = None,
    stage: Annotated[
        StageName | None,
        typer.Option("--stage", help="Which network trains. Default: dit.", rich_help_panel="Run"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Run folder. Default: runs/DATA-MODEL-STAGE; the same folder resumes.",
            rich_help_panel="Output",
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            "--steps", min=1, help="Optimizer steps of the whole run.", rich_help_panel="Run"
        ),
    ] = None,
    config: opt.ConfigOpt = None,
    overrides: opt.SetOpt = None,
    no_config: opt.NoConfigOpt = False,
    profile: opt.ProfileOpt = None,
    device: opt.DeviceOpt = None,
    num_processes: Annotated[
        int | None,
        typer.Option(
            "--num-processes",
            min=1,
            help="Processes over all machines, one per GPU.",
            rich_help_panel="Hardware",
        ),
    ] = None,
    num_machines: Annotated[
        int | None,
        typer.Option(
            "--num-machines", min=1, help="Machines that take part.", rich_help_panel="Hardware"
        ),
    ] = None,
    machine_rank: Annotated[
        int | None,
        typer.Option(
            "--machine-rank", min=0, help="Rank of this machine.", rich_help_panel="Hardware"
        ),
    ] = None,
    main_process_ip: Annotated[
        str | None,
        typer.Option("--main-process-ip", help="Address of machine 0.", rich_help_panel="Hardware"),
    ] = None,
    overfit: Annotated[
        int | None,
        typer.Option(
            "--overfit",
            min=1,
            help="Train on so few assets only, an eighth of the tokens and no dropout, and judge "
            "whether the loss gets near zero.",
            rich_help_panel="Run",
        ),
    ] = None,
    price_per_hour: Annotated[
        float | None,
        typer.Option(
            "--price-per-hour",
            min=0,
            help="Price of all machines, for the plan and the monitor.",
            rich_help_panel="Run",
        ),
    ] = None,
    benchmark: Annotated[
        int | None,
        typer.Option(
            "--benchmark",
            min=1,
            help="Time so many steps on synthetic data with random weights, against the plan; "
            "trains and writes nothing.",
            rich_help_panel="Run",
        ),
    ] = None,
    seed: opt.SeedOpt = None,
    force: opt.ForceOpt = False,
    dry_run: opt.DryRunOpt = False,
    show_config: opt.ShowConfigOpt = False,
    json_output: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
    verbose: opt.VerboseOpt = False,
    progress: opt.ProgressOpt = True,
) -> None:
    """Fine-tune a model on a prepared dataset

    Reads DATA. Writes runs/NAME with the settings, metrics.jsonl, log.txt and checkpoints.
    Repeating the command resumes from the newest checkpoint. Ctrl-C saves and stops.

    Examples:

      ushape train --profile a40 --init ultrashape_v1.pt

      ushape train --model tiny --stage vae --steps 500

      ushape train --profile h100 --benchmark 10 --price-per-hour 2.5
    """  # fmt: skip
    from ultrashape_cli.commands.render import show_settings
    from ultrashape_cli.config.resolve import resolve
    from ultrashape_cli.runs import RunFolder
    from ultrashape_cli.training.launch import is_main_process
    from ultrashape_cli.training.overfit import overfit_settings
    from ultrashape_cli.ui import UI

    quiet = quiet or not is_main_process()
    ui = UI("train", json_output=json_output, quiet=quiet, verbose=verbose, progress=progress)
    flags: dict[str, Any] = {
        "train.data": str(data) if data else None,
        "train.init": str(init) if init else None,
        "train.model": model,
        "train.stage": stage.value if stage else None,
        "train.steps": steps,
        "train.overfit": overfit,
        "profile": profile,
        "device": device,
        "launch.num_processes": num_processes,
        "launch.num_machines": num_machines,
        "launch.machine_rank": machine_rank,
        "launch.main_process_ip": main_process_ip,
        "launch.price_per_hour": price_per_hour,
        "seed": seed,
    }
    resolved = resolve(
        flags=flags,
        overrides=(*overfit_settings(model, overfit), *(overrides or ())),
        file=None if no_config else config,
        environ={} if no_config else None,
    )
    if show_config:
        show_settings(ui, resolved, ("train", "launch"))
        return

    if benchmark:
        from ultrashape_cli.commands.train.benchmark import benchmark_training

        benchmark_training(ui, resolved, benchmark)
        return

    from ultrashape_cli.training.setup import default_run

    run = RunFolder((out or default_run(resolved.config)).absolute())
    _preflight(ui, resolved, run)
    if dry_run:
        ui.result(inputs={"data": resolved.config.train.data}, outputs={})
        return
    _start(ui, resolved, run, force)


def _preflight(ui: UI, resolved: Resolved, run: RunFolder) -> None:
    """Fails in seconds, before weights are loaded; says what will be trained and what it needs."""
    from ultrashape_cli.data.layout import Dataset
    from ultrashape_cli.devices import choose_device
    from ultrashape_cli.errors import DatasetError
    from ultrashape_cli.runs import complete_checkpoints
    from ultrashape_cli.training.base import check_init
    from ultrashape_cli.training.memory.plan import check_plan, plan_run
    from ultrashape_cli.training.validation import check_best_metric

    settings = resolved.config.train
    choose_device(resolved.config.device)
    dataset = Dataset(Path(settings.data))
    dataset.require()
    ids = dataset.read_split("train")[: settings.overfit or None]
    missing = [asset for asset in ids if not dataset.samples(asset).is_file()]
    if missing:
        raise DatasetError(
            f"no samples for {len(missing)} of {len(ids)} assets in `{dataset.root}`",
            hint=f"ushape sample {dataset.root} && ushape split {dataset.root}",
        )
    if not ids:
        raise DatasetError(f"`{dataset.root}` has no training assets", hint="ushape split")
    if not run.base.exists():
        check_init(resolved.config)
    check_best_metric(settings)
    plan = plan_run(resolved.config, resolved.profile)
    ui.info(
        f"profile {resolved.profile.name}: {settings.dtype}, {settings.strategy} "
        f"({plan.strategy.reason}), microbatch {settings.microbatch} x {settings.accumulation}, "
        f"{len(ids)} assets, seed {resolved.config.seed}"
    )
    _show_plan(ui, plan, resolved.config.launch.price_per_hour)
    check_plan(plan, resolved.config, resolved.profile)
    found = complete_checkpoints(run.checkpoints)
    if found:
        ui.info(f"resumes from {found[-1]}")


def _show_plan(ui: UI, plan: RunPlan, price_per_hour: float) -> None:
    rows = [(name, f"{size / 2**30:.3f}") for name, size in plan.rows()]
    rows.append(("total", f"{plan.device_bytes / 2**30:.3f}"))
    ui.table(("memory per process", "GiB"), rows)
    found = plan.footprint
    ui.info(
        f"trains {found.trained:,} parameters of {found.total:,}, "
        f"recomputes {plan.checkpoint_blocks} blocks in the backward pass"
    )
    disk = plan.checkpoint_bytes / 2**30
    ui.info(
        f"host memory {plan.host_bytes / 2**30:.1f} GiB; disk {disk:.2f} GiB per checkpoint, "
        f"{disk * plan.kept_checkpoints:.1f} GiB for those kept"
    )
    cost = f", {plan.hours * price_per_hour:,.2f} to pay" if price_per_hour else ""
    ui.info(
        f"estimate: {plan.seconds_per_step:.2f} s per step, {plan.hours:,.1f} h "
        f"for {plan.steps:,} steps{cost}"
    )


def _start(ui: UI, resolved: Resolved, run: RunFolder, force: bool) -> None:
    import sys

    from ultrashape_cli.runs import checkpoint_name, complete_checkpoints
    from ultrashape_cli.training.launch import (
        is_distributed_child,
        is_main_process,
        launch_processes,
        wait_for_run_folder,
    )
    from ultrashape_cli.training.setup import open_run, record_origins

    config = resolved.config
    child = is_distributed_child()
    main = is_main_process() and config.launch.machine_rank == 0
    if main:
        open_run(run, config, force=force, command=["ushape", *sys.argv[1:]])
        record_origins(run, resolved.origins)
    outputs = {"run": str(run.root)}
    final = run.checkpoints / checkpoint_name(config.train.steps)
    # Processes started by others decide together, in the trainer.
    if not child and final in complete_checkpoints(run.checkpoints):
        ui.info(f"{final} is there: nothing left to train")
        ui.result(inputs={"data": config.train.data}, outputs=outputs, counts={"steps": 0})
        return

    def on_signal() -> None:
        ui.warn("Stopping after this step; press Ctrl-C again to quit without saving")

    if config.launch.num_processes > 1 and not child:
        wait_for_run_folder(run)
        code = launch_processes(run, config, on_signal)
    else:
        code = _train_here(ui, run, config, on_signal)
    status = run.read_status()
    if code:
        ui.hint(f"ushape train --config {run.config} --out {run.root}")
        ui.result(status="stopped", outputs=outputs)
        raise typer.Exit(code)
    if main and config.train.overfit:
        _judge_overfit(ui, run, config)
    if main:
        vae = config.train.stage == "vae"
        next_command = "train --init" if vae else "refine MESH IMAGE --checkpoint"
        ui.hint(f"ushape {next_command} {run.root}")
        ui.result(
            inputs={"data": config.train.data},
            outputs=outputs,
            counts={"steps": int(status.get("step", 0))},
        )


def _judge_overfit(ui: UI, run: RunFolder, config: Config) -> None:
    """Says whether the network memorised its few assets, which shows that training works."""
    from ultrashape_cli.training.overfit import judge

    verdict = judge(run.metrics)
    ui.info(verdict.text)
    if not verdict.passed:
        ui.hint(
            f"more --steps than {config.train.steps:,}, or another train.learning_rate; if the "
            "loss stays, look at the samples and views of these assets"
        )


def _train_here(ui: UI, run: RunFolder, config: Config, on_signal: Callable[[], None]) -> int:
    from ultrashape_cli.training.build import train_run
    from ultrashape_cli.training.progress import Progress, describe

    with ui.progress("train", config.train.steps) as bar:

        def on_step(progress: Progress) -> None:
            note = describe(progress).split("  ", 1)[1]
            bar.update(progress.step, note)

        return train_run(run, config, on_step=on_step, on_signal=on_signal)
