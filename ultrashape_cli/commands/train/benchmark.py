"""`ushape train --benchmark N`: what a step takes here, beside the plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ultrashape_cli.config.resolve import Resolved
    from ultrashape_cli.training.benchmark import Benchmark
    from ultrashape_cli.ui import UI


def benchmark_training(ui: UI, resolved: Resolved, steps: int) -> None:
    """Runs the steps and prints seconds, utilisation, memory beside the plan, hours and cost."""
    import torch

    from ultrashape_cli.errors import ConfigError, TrainingError
    from ultrashape_cli.training.benchmark import run_benchmark
    from ultrashape_cli.training.memory.plan import check_plan, lower_strategy, plan_run
    from ultrashape_cli.training.worker import start_accelerator

    config, profile = resolved.config, resolved.profile
    if config.train.objective not in ("flow", "distill"):
        raise ConfigError(
            f"--benchmark has no generations to time `{config.train.objective}` on",
            hint="--objective flow",
        )
    plan = plan_run(config, profile)
    check_plan(plan, config, profile)
    try:
        found = run_benchmark(config, profile, plan, start_accelerator(config), steps)
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"out of memory: planned {plan.device_bytes / 2**30:.1f} GiB "
            f"({str(error).splitlines()[0]})",
            hint=lower_strategy(config) or "a lower train.num_latents",
        ) from error
    _report(ui, resolved, found)


def _report(ui: UI, resolved: Resolved, found: Benchmark) -> None:
    settings, price = resolved.config.train, resolved.config.launch.price_per_hour
    ui.info(
        f"{settings.model} {settings.stage}, {settings.strategy}, {settings.dtype}, microbatch "
        f"{settings.microbatch} x {settings.accumulation}, {settings.num_latents} tokens: "
        f"median of {found.steps} steps"
    )
    rows = [("microbatch", f"{found.seconds_per_microbatch:.3f}")]
    rows += [(f"  {name}", f"{seconds:.3f}") for name, seconds in found.split.items()]
    ui.table(("step", "seconds"), [("step", f"{found.seconds_per_step:.3f}"), *rows])
    gib = [
        (name, f"{planned / 2**30:.3f}", "-" if size is None else f"{size / 2**30:.3f}")
        for name, planned, size in found.memory
    ]
    ui.table(("memory, GiB", "planned", "measured"), gib)
    for name, share in found.utilisation.items():
        ui.info(f"{name.upper()} {share:.1%} of {resolved.profile.peak_bf16_tflops:g} TFLOP/s")
    hours = found.hours(settings.steps)
    cost = f", {hours * price:,.2f} to pay" if price else ""
    ui.info(f"{hours:,.2f} h for {settings.steps:,} steps{cost}")
    ui.result(
        outputs={
            "seconds_per_step": found.seconds_per_step,
            "seconds_per_microbatch": found.seconds_per_microbatch,
            "split": found.split,
            **found.utilisation,
            "memory_bytes": {name: [planned, size] for name, planned, size in found.memory},
            "hours": hours,
            **({"cost": hours * price} if price else {}),
        },
        counts={"steps": found.steps},
    )
