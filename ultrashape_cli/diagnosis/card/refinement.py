"""Refinements at full size in each memory mode: seconds by stage, and memory beside the plan."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ultrashape_cli.config.choices import MemoryMode
from ultrashape_cli.config.models import quality_settings
from ultrashape_cli.config.schema import RefineConfig
from ultrashape_cli.devices import CONTEXT_BYTES, FRAGMENTATION, empty_cache
from ultrashape_cli.diagnosis.card.context import Context, Failed, NotHere
from ultrashape_cli.diagnosis.card.steered import decoded_points, sphere_voxels, steer
from ultrashape_cli.diffusion.sampler import SOLVERS
from ultrashape_cli.inference.memory import STAGES, RefinePlan, plan_refinement
from ultrashape_cli.inference.refiner import Refiner
from ultrashape_cli.inference.streaming import quantise_dit
from ultrashape_cli.models.flops import dit_flops, vae_flops
from ultrashape_cli.models.random_weights import random_networks
from ultrashape_cli.models.registry import Networks
from ultrashape_cli.monitoring.system import read_memory

EVALUATIONS = 2
"""Guided evaluations of the network that are sampled; the last one is timed."""
SETUP_S = 12.0
"""Weights, pinned memory and first kernels of the full model."""
WARM_TOKENS = 16


def measure_refinement(context: Context, tokens: int, mode: MemoryMode) -> dict[str, Any]:
    """Returns seconds and memory of the stages that the networks do.

    Raises:
        NotHere: The mode does not fit the memory that is free.
        NoTime: It would take longer than is left.
        Failed: Memory ran out although the plan fits.
    """
    config = context.resolve(
        refine__memory=mode,
        refine__tokens=tokens,
        refine__solver="euler",
        refine__steps=EVALUATIONS + 1,
        refine__guidance_scale=context.sizes.guidance_scale,
        refine__grid_resolution=context.sizes.coarse_cells,
    ).config.refine
    plan = plan_refinement(context.spec, config, context.device, tokens)
    if not plan.fits:
        needed, free = plan.needed / 2**30, plan.budget / 2**30
        raise NotHere(f"needs about {needed:.1f} GiB, {free:.1f} are free")
    used, total = read_memory()
    if context.cuda and plan.host > total - used:
        free = (total - used) / 2**30
        raise NotHere(f"{plan.host / 2**30:.1f} GiB would wait on the host, {free:.1f} are free")
    evaluation = guided_flops(context, tokens)
    context.need(
        (SETUP_S if context.cuda else 0.0)
        + context.seconds_of(EVALUATIONS * evaluation + _decode_flops(context, tokens))
    )
    figures: dict[str, Any] = {
        "planned_stages": _tensors(plan, context),
        "planned_bytes": max(_tensors(plan, context).values()) if context.cuda else None,
        "planned_with_margins": plan.needed,
        "chunk_size": plan.chunk_size,
    }
    config = replace(config, chunk_size=plan.chunk_size)
    try:
        refiner = Refiner(_networks(context, mode), context.spec, config, context.device)
        return figures | _measure(context, refiner, tokens, evaluation)
    except torch.OutOfMemoryError as error:
        figures["measured_bytes"] = torch.cuda.max_memory_allocated()
        figures["out_of_memory"] = True
        raise Failed(f"out of memory: {str(error).splitlines()[0]}", figures) from error


def guided_flops(context: Context, tokens: int) -> int:
    """Returns the FLOPs of one evaluation with and one without the image."""
    params = context.spec.dit
    seen = context.spec.conditioner.num_tokens
    return dit_flops(params, tokens, seen) + dit_flops(params, tokens, 0)


def standard_evaluations(model: str) -> int:
    """Returns the evaluations of the quality that `ushape refine` takes by itself."""
    preset = quality_settings(model, "standard")
    usual = RefineConfig()
    solver, steps = (
        preset.get(f"refine.{name}", getattr(usual, name)) for name in ("solver", "steps")
    )
    # The last step of a schedule has no length.
    return int(SOLVERS[solver] * max(steps - 1, 1))


def _networks(context: Context, mode: MemoryMode) -> Networks:
    networks = random_networks(
        context.spec,
        vae_parts=("decoder",),
        home=context.device if mode in ("resident", "int8") else "cpu",
        drawn_on=context.device,
        dtype=context.half,
        seed=context.settings.seed,
    )
    assert networks.vae is not None
    steer(networks.vae)
    for network in networks:
        assert network is not None
        network.requires_grad_(False)
    if mode == "int8":
        assert networks.dit is not None
        # Codes are made fastest where they will be used; they wait on the host.
        quantise_dit(networks.dit)
        for network in networks:
            assert network is not None
            network.to("cpu")
    empty_cache(context.device)
    return networks


@torch.inference_mode()
def _measure(context: Context, refiner: Refiner, tokens: int, evaluation: float) -> dict[str, Any]:
    seed = context.settings.seed
    side = context.spec.image_size
    rgba = np.random.default_rng(seed).integers(0, 256, (side, side, 4), np.uint8)
    rgba[..., 3] = 255  # all of the image is foreground, as the plan has it
    voxels = sphere_voxels(context.spec.vae.voxel_resolution, tokens, seed)
    # Kernels are chosen and pinned memory is filled before anything is timed or weighed.
    _run(context, refiner, voxels[:, :WARM_TOKENS], rgba)
    stages, stamps, queries = _run(context, refiner, voxels, rgba)
    seconds = {name: values["seconds"] for name, values in stages.items()}
    each = stamps[-1] - stamps[-2]
    evaluations = standard_evaluations(context.settings.model)
    keys = seconds["sample"] - (stamps[-1] - stamps[0])
    figures: dict[str, Any] = {
        "seconds": seconds,
        "seconds_per_evaluation": each,
        "evaluation_tflops": evaluation / each / 1e12,
        "standard_evaluations": evaluations,
        "standard_sampling_seconds": keys + evaluations * each,
        "decoded_points": queries,
        "measured_bytes": None,
    }
    if context.cuda:
        peaks = {name: values["peak"] for name, values in stages.items()}
        figures |= {
            "measured_stages": peaks,
            "measured_bytes": max(peaks.values()),
            "reserved_bytes": max(values["reserved"] for values in stages.values()),
            "planned_context_bytes": CONTEXT_BYTES,
        }
    return figures


def _run(
    context: Context, refiner: Refiner, voxels: torch.Tensor, rgba: np.ndarray
) -> tuple[dict[str, dict[str, float]], list[float], int]:
    """Returns seconds and memory by stage, the times of the sampler's steps, and the queries."""
    stages: dict[str, dict[str, float]] = {}
    stamps: list[float] = []
    asked = 0

    def stamp(t: float, x: torch.Tensor) -> None:
        context.synchronise()
        stamps.append(time.perf_counter())

    def count(stage: str, done: int, total: int) -> None:
        nonlocal asked
        asked += total if stage.startswith("decode") and done == total else 0

    def timed(name: str, work: Any) -> Any:
        context.synchronise()
        if context.cuda:
            torch.cuda.reset_peak_memory_stats(context.device)
        started = time.perf_counter()
        result = work()
        context.synchronise()
        stages[name] = {"seconds": time.perf_counter() - started}
        if context.cuda:
            stages[name] |= {
                "peak": torch.cuda.max_memory_allocated(context.device),
                "reserved": torch.cuda.max_memory_reserved(context.device),
            }
        return result

    seen, lengths = timed("condition", lambda: refiner.condition(rgba))
    shape = (1, voxels.shape[1], context.spec.dit.in_channels)
    start = torch.randn(shape, device=context.device)
    latents = timed(
        "sample",
        lambda: refiner.sample(voxels, start, seen, lengths, lambda *a: None, on_step=stamp),
    )
    timed("decode", lambda: refiner.decode(latents, count))
    return stages, stamps, asked


def _tensors(plan: RefinePlan, context: Context) -> dict[str, int]:
    """Returns the bytes of the stages without the share that the allocator is assumed to lose."""
    share = 1 + FRAGMENTATION if context.cuda else 1
    return {stage: int(plan.stages[stage] / share) for stage in STAGES}


def _decode_flops(context: Context, tokens: int) -> float:
    points = decoded_points(context.sizes.coarse_cells)
    return vae_flops(context.spec.vae, 0, tokens, points)
