"""`ushape train`: fine-tune a model on a prepared dataset."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ultrashape_cli import options as opt
from ultrashape_cli.commands.settings import resolve_settings, show_settings
from ultrashape_cli.commands.train import options as own
from ultrashape_cli.commands.train.benchmark import benchmark_training
from ultrashape_cli.commands.train.preflight import compare_profiles, preflight, training_assets
from ultrashape_cli.commands.train.start import start

if TYPE_CHECKING:
    from ultrashape_cli.config.resolve import Resolved
    from ultrashape_cli.config.schema import Config
    from ultrashape_cli.ui import UI


def train(
    data: own.DataOpt = None,
    init: own.InitOpt = None,
    model: own.ModelOpt = None,
    profile: own.ProfilesOpt = None,
    resume_from: own.ResumeOpt = None,
    steps: own.StepsOpt = None,
    epochs: own.EpochsOpt = None,
    learning_rate: own.LearningRateOpt = None,
    strategy: own.StrategyOpt = None,
    batch: own.BatchOpt = None,
    accumulation: own.AccumulationOpt = None,
    out: own.OutOpt = None,
    stage: own.StageOpt = None,
    objective: own.ObjectiveOpt = None,
    pairs: own.PairsOpt = None,
    config: opt.ConfigOpt = None,
    overrides: opt.SetOpt = None,
    no_config: opt.NoConfigOpt = False,
    device: opt.DeviceOpt = None,
    num_processes: own.ProcessesOpt = None,
    num_machines: own.MachinesOpt = None,
    machine_rank: own.RankOpt = None,
    main_process_ip: own.AddressOpt = None,
    overfit: own.OverfitOpt = None,
    host_memory_gib: own.HostMemoryOpt = None,
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

      ushape train --profile a40 --init ultrashape_v1.pt --epochs 40

      ushape train --model tiny --stage vae --steps 500

      ushape train --dry-run --profile a40,a5000,h100 --price-per-hour 0.4,0.3,2.5

      ushape train --model tiny --objective reject --pairs generations

      ushape train --profile h100 --benchmark 10 --price-per-hour 2.5
    """  # fmt: skip
    from ultrashape_cli.runs import RunFolder
    from ultrashape_cli.training.overfit import overfit_settings

    ui = _make_ui(json_output, quiet, verbose, progress)
    profiles = (profile or "").split(",")
    prices = price_per_hour or own.Prices()
    _check(steps, epochs, dry_run, profiles, prices, host_memory_gib)
    flags: dict[str, Any] = {
        "train.data": data or None,
        "train.init": str(init) if init else None,
        "train.model": model,
        "train.resume_from": resume_from,
        "train.stage": stage.value if stage else None,
        "train.objective": objective,
        "train.pairs": str(pairs) if pairs else None,
        "train.steps": steps,
        "train.overfit": overfit,
        "train.learning_rate": learning_rate,
        "train.strategy": strategy,
        "train.microbatch": batch,
        "train.accumulation": accumulation,
        "device": device,
        "launch.num_processes": num_processes,
        "launch.num_machines": num_machines,
        "launch.machine_rank": machine_rank,
        "launch.main_process_ip": main_process_ip,
        "launch.host_memory_gib": host_memory_gib,
        "seed": seed,
    }
    texts = (*overfit_settings(model, overfit), *(overrides or ()))

    def resolved_for(index: int) -> Resolved:
        own_flags = flags | {
            "profile": profiles[index] or None,
            "launch.price_per_hour": prices[index % len(prices)] if prices else None,
        }
        found = resolve_settings(own_flags, config, texts, no_config)
        if epochs:
            own_flags["train.steps"] = _steps(found.config, epochs)
            found = resolve_settings(own_flags, config, texts, no_config)
        return found

    resolved = resolved_for(0)
    if show_config:
        show_settings(ui, resolved, ("train", "distill", "reward", "launch"))
        return
    if len(profiles) > 1:
        plans = [resolved_for(index) for index in range(len(profiles))]
        compare_profiles(ui, [(plan, plan.config.launch.price_per_hour) for plan in plans])
        return
    if benchmark:
        benchmark_training(ui, resolved, benchmark)
        return

    from ultrashape_cli.training.setup import default_run

    run = RunFolder((out or default_run(resolved.config)).absolute())
    plan = preflight(ui, resolved, run, dry_run=dry_run, force=force)
    if dry_run:
        ui.result(inputs={"data": resolved.config.train.data}, plan=plan)
        return
    start(ui, resolved, run, plan, force=force)


def _make_ui(json_output: bool, quiet: bool, verbose: bool, progress: bool) -> UI:
    from ultrashape_cli.processes import forget_others, is_main_process
    from ultrashape_cli.ui import UI

    quiet = quiet or not is_main_process()
    ui = UI("train", json_output=json_output, quiet=quiet, verbose=verbose, progress=progress)
    if told := forget_others():
        ui.warn(told)
    return ui


def _check(
    steps: int | None,
    epochs: float | None,
    dry_run: bool,
    profiles: list[str],
    prices: own.Prices,
    host_memory_gib: float | None,
) -> None:
    from ultrashape_cli.errors import UsageError

    if steps and epochs:
        raise UsageError("both --steps and --epochs are given", hint="leave one out")
    if not dry_run and (len(profiles) > 1 or len(prices) > 1 or host_memory_gib):
        raise UsageError(
            "several profiles or prices, and another host's memory, are for planning",
            hint="add --dry-run, or give one profile and one price",
        )
    if len(prices) > 1 and len(prices) != len(profiles):
        raise UsageError(
            f"{len(prices)} prices for {len(profiles)} profiles",
            hint="one for each, or one for all",
        )


def _steps(config: Config, epochs: float) -> int:
    """Returns the steps of so many passes over a run's training assets."""
    settings = config.train
    per_step = settings.microbatch * settings.accumulation * config.launch.num_processes
    return math.ceil(epochs * len(training_assets(config)) / per_step)
