"""Training steps at full size, each strategy under the smallest card that its plan fits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from ultrashape_cli.config.profiles import HardwareProfile, get_profile
from ultrashape_cli.config.resolve import Resolved
from ultrashape_cli.devices import CONTEXT_BYTES
from ultrashape_cli.diagnosis.card.context import Context, Failed, NotHere
from ultrashape_cli.diagnosis.card.device import datasheet
from ultrashape_cli.errors import ConfigError, DependencyError
from ultrashape_cli.monitoring.system import read_memory
from ultrashape_cli.training.benchmark import Benchmark, run_benchmark
from ultrashape_cli.training.memory.plan import RunPlan, check_plan, plan_run
from ultrashape_cli.training.worker import start_accelerator

CAPS = {"16 GB": 15.5, "24 GB": 23.5, "48 GB": 44.9}
"""Cards to imitate, and their usable GiB as in the profiles."""
WHOLE = "whole card"
ACCUMULATION = 2
"""Microbatches of a step: gradients are all there when the second one's come."""
RUN_ACCUMULATION = 4
"""Those of a run, whose step is told from the parts of a measured one."""
SETUP_S = 30.0
"""Weights, their way to the host and back, first and compiled kernels, of the full model."""
HOST_BYTES_PER_S = 8e9
"""Rate at which a host goes through its part of an offloaded step."""


def measure_steps(context: Context, strategy: str) -> dict[str, Any]:
    """Returns seconds by part, MFU and memory beside the plan.

    Raises:
        NotHere: No cap of this card has room for the strategy, or a package is missing.
        NoTime: The steps would take longer than is left.
        Failed: Memory ran out under the cap that the plan had said to suffice.
    """
    cap, resolved, profile, plan = _plan(context, strategy)
    needed = {count: _seconds(context, plan, count) for count in (1, 2)}
    context.need(needed[1])
    count = 2 if needed[2] < 0.6 * context.left else 1
    figures: dict[str, Any] = {
        "cap": cap,
        "cap_gib": profile.memory_gib or None,
        "planned_bytes": plan.footprint.peak if context.cuda else None,
        "planned_with_margins": plan.device_bytes,
        "planned_seconds": plan.seconds_per_step,
        "planned_split": dict(plan.step_time.parts()),
        "recomputed_blocks": plan.checkpoint_blocks,
        "counted_steps": count,
        "accumulation": ACCUMULATION,
    }
    if context.cuda and cap != WHOLE:
        limit(context, profile.memory_gib)
    # What the profile says of the peak holds for the card that it names only.
    peak = datasheet(context.settings.profile, torch.cuda.get_device_name()) if context.cuda else 0
    config = resolved.config
    try:
        accelerator = start_accelerator(config)
        profile = replace(profile, peak_bf16_tflops=float(peak))
        found = run_benchmark(config, profile, plan, accelerator, count, warmup=1)
    except torch.OutOfMemoryError as error:
        figures["measured_bytes"] = torch.cuda.max_memory_allocated()
        figures["out_of_memory"] = True
        reason = f"out of memory under {cap}: {str(error).splitlines()[0]}"
        raise Failed(reason, figures) from error
    return figures | _figures(context, plan, found)


def limit(context: Context, gib: float) -> None:
    """Lets this process use no more than a card of so many GiB would leave to its tensors."""
    total = torch.cuda.get_device_properties(context.device).total_memory
    share = (gib * 2**30 - CONTEXT_BYTES) / total
    if share < 1:
        torch.cuda.set_per_process_memory_fraction(share, torch.cuda.current_device())


def caps(card_gib: float) -> list[tuple[str, float]]:
    """Returns the cards to imitate on one with so much memory, smallest first, and the whole one.

    A card is taken for one of the caps where it has nearly as much: vendors' sizes differ.
    """
    found = [(name, min(gib, card_gib)) for name, gib in CAPS.items() if gib <= 1.02 * card_gib]
    if not found or card_gib > 1.02 * found[-1][1]:
        found.append((WHOLE, card_gib))
    return found


def _plan(context: Context, strategy: str) -> tuple[str, Resolved, HardwareProfile, RunPlan]:
    """Returns the smallest cap with room, the settings there, the imitated card, and its plan."""
    profile = get_profile(context.settings.profile)
    try:
        if not context.cuda:
            resolved = _settings(context, strategy, "none")
            plan = plan_run(resolved.config, profile)
            check_plan(plan, resolved.config, profile)
            return "", resolved, profile, plan
        total = torch.cuda.get_device_properties(context.device).total_memory / 2**30
        choices = caps(min(profile.memory_gib, total))
        resolved = _settings(context, strategy, "all")
        plan = plan_run(resolved.config, profile)
        for name, gib in choices:
            imitated = replace(profile, memory_gib=gib)
            if name == WHOLE and profile.activation_checkpointing != "all":
                # As the profile would train there.
                resolved = _settings(context, strategy, profile.activation_checkpointing)
                plan = plan_run(resolved.config, imitated)
            if plan.device_bytes <= gib * 2**30 or name == choices[-1][0]:
                check_plan(plan, resolved.config, imitated)
                return name, resolved, imitated, plan
    except (ConfigError, DependencyError) as error:
        raise NotHere(error.message) from error
    raise AssertionError("the last cap is checked or refused")


def _settings(context: Context, strategy: str, checkpointing: str) -> Resolved:
    return context.resolve(
        train__strategy=strategy,
        train__activation_checkpointing=checkpointing,
        train__num_latents=context.sizes.train_tokens,
        train__surface_points=context.sizes.surface_points,
        train__microbatch=1,
        train__accumulation=ACCUMULATION,
        # A container may have less than its host, and is killed beyond it.
        launch__host_memory_gib=read_memory()[1] / 2**30,
    )


def _seconds(context: Context, plan: RunPlan, count: int) -> float:
    """Returns about how long the warm-up and the counted steps take, and what is before them."""
    step = context.seconds_of(plan.footprint.work.flops * ACCUMULATION)
    step += plan.footprint.host / HOST_BYTES_PER_S
    return (1 + count) * step + (SETUP_S if context.cuda else 0.0)


def _figures(context: Context, plan: RunPlan, found: Benchmark) -> dict[str, Any]:
    split = found.split
    once = sum(split.get(name, 0.0) for name in ("offload", "update"))
    each = (found.seconds_per_step - once) / ACCUMULATION
    figures: dict[str, Any] = {
        "seconds_per_step": found.seconds_per_step,
        "seconds_per_run_step": RUN_ACCUMULATION * each + once,
        "split": split,
        **found.utilisation,
        # Recomputation included, of what large products reach here.
        "of_products": plan.footprint.work.flops
        * ACCUMULATION
        / found.seconds_per_step
        / (context.tflops * 1e12),
        "memory_bytes": {name: [planned, size] for name, planned, size in found.memory},
        "measured_bytes": None,
    }
    if context.cuda:
        figures["measured_bytes"] = found.memory[-1][2]
        figures["reserved_bytes"] = torch.cuda.max_memory_reserved(context.device)
        free, total = torch.cuda.mem_get_info(context.device)
        # Others may hold some of it, but on a rented card there are none.
        rest = total - free - torch.cuda.memory_reserved(context.device)
        figures["context_bytes"] = rest
        figures["planned_context_bytes"] = CONTEXT_BYTES
    return figures
