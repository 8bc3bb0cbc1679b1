"""`ushape train`: fine-tune a model on a prepared dataset."""

from __future__ import annotations

from typing import Any

from ultrashape_cli import options as opt
from ultrashape_cli.commands.settings import resolve_settings, show_settings
from ultrashape_cli.commands.train import options as own
from ultrashape_cli.commands.train.benchmark import benchmark_training
from ultrashape_cli.commands.train.preflight import preflight
from ultrashape_cli.commands.train.start import start


def train(
    data: own.DataOpt = None,
    init: own.InitOpt = None,
    model: own.ModelOpt = None,
    profile: opt.ProfileOpt = None,
    steps: own.StepsOpt = None,
    out: own.OutOpt = None,
    stage: own.StageOpt = None,
    config: opt.ConfigOpt = None,
    overrides: opt.SetOpt = None,
    no_config: opt.NoConfigOpt = False,
    device: opt.DeviceOpt = None,
    num_processes: own.ProcessesOpt = None,
    num_machines: own.MachinesOpt = None,
    machine_rank: own.RankOpt = None,
    main_process_ip: own.AddressOpt = None,
    overfit: own.OverfitOpt = None,
    price_per_hour: own.PriceOpt = None,
    benchmark: own.BenchmarkOpt = None,
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
    from ultrashape_cli.processes import is_main_process
    from ultrashape_cli.runs import RunFolder
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
    resolved = resolve_settings(
        flags, config, (*overfit_settings(model, overfit), *(overrides or ())), no_config
    )
    if show_config:
        show_settings(ui, resolved, ("train", "launch"))
        return

    if benchmark:
        benchmark_training(ui, resolved, benchmark)
        return

    from ultrashape_cli.training.setup import default_run

    run = RunFolder((out or default_run(resolved.config)).absolute())
    preflight(ui, resolved, run)
    if dry_run:
        ui.result(inputs={"data": resolved.config.train.data}, outputs={})
        return
    start(ui, resolved, run, force)
