"""Choices between kernels: attention, experts in turn or grouped, blocks compiled or not."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import torch

from ultrashape_cli.devices import autocast
from ultrashape_cli.diagnosis.card.context import Context, Failed, require_compiler
from ultrashape_cli.diagnosis.card.steered import sphere_voxels
from ultrashape_cli.models.attention_choice import AttentionShape, is_native, time_backends
from ultrashape_cli.models.compiling import compile_blocks, compile_regions
from ultrashape_cli.models.dit import MLP_RATIO, RefineDiT
from ultrashape_cli.models.moe import MoEFeedForward, set_expert_dispatch
from ultrashape_cli.models.random_weights import random_networks

COMPILE_S = {"cuda": 60.0, "cpu": 25.0}
"""Seconds that compiling three kinds of blocks takes, or half as many again."""


def measure_attention(context: Context, tokens: int) -> dict[str, Any]:
    """Returns the seconds of each backend, forward alone and with the backward."""
    params = context.spec.dit
    heads = params.num_heads
    shape = AttentionShape(1, heads, tokens, tokens, params.width // heads)
    flops = 4 * tokens**2 * params.width
    # Three ways, four runs each, of one pass and of three and a half.
    context.need(3 * 4 * 4.5 * context.seconds_of(flops))
    usable = [
        name for name in ("sdpa", "cudnn", "flash") if is_native(name, context.device, context.half)
    ]
    found: dict[str, Any] = {}
    for name, backward in (("forward", False), ("both", True)):
        found[name] = time_backends(
            [shape],
            device=context.device,
            dtype=context.half,
            backward=backward,
            candidates=usable,
        )
    if any("sdpa" not in seconds for seconds in found.values()):
        raise Failed("torch's own attention does not run", {"seconds": found})
    best = min(found["both"], key=found["both"].__getitem__)
    return {
        "seconds": found,
        "fastest": best,
        "gain": found["both"]["sdpa"] / found["both"][best],
        # Two products forward and five backward, as `train` counts them.
        "tflops": {
            way: {name: count * flops / value / 1e12 for name, value in found[way].items()}
            for way, count in (("forward", 1.0), ("both", 3.5))
        },
    }


def measure_experts(context: Context) -> dict[str, Any]:
    """Returns the seconds of a routed layer, forward and backward, in turn and grouped."""
    params, tokens = context.spec.dit, context.sizes.train_tokens
    width = params.width
    with torch.device(context.device):
        layer = MoEFeedForward(width, MLP_RATIO * width, params.num_experts, params.moe_top_k)
    layer.to(context.half)
    x = torch.randn(1, tokens, width, device=context.device, dtype=context.half)
    upstream = torch.randn_like(x)
    x.requires_grad_()
    found: dict[str, float] = {}
    for dispatch in ("loop", "grouped"):
        used = set_expert_dispatch(layer, dispatch, device=context.device, dtype=context.half)
        if used == dispatch:
            found[dispatch] = context.time(lambda: _pass(layer, x, upstream))
    gain = found["loop"] / found["grouped"] if "grouped" in found else None
    return {"seconds": found, "gain": gain, "load": _load(layer, x)}


def _pass(layer: MoEFeedForward, x: torch.Tensor, upstream: torch.Tensor) -> None:
    layer.zero_grad(set_to_none=True)
    layer(x).hidden.backward(upstream)


@torch.no_grad()
def _load(layer: MoEFeedForward, x: torch.Tensor) -> list[int]:
    load: list[int] = layer(x).load.tolist()
    return load


def measure_compile(context: Context, *, training: bool) -> dict[str, Any]:
    """Returns the seconds of five blocks, all kinds among them, plain and compiled.

    Args:
        context: Where.
        training: Forward and backward of fp32 weights, compiled as `train` does, instead of the
            forward as `refine` does it.
    """
    require_compiler(context.device)
    context.need(COMPILE_S[context.settings.device])
    # Three plain blocks, one with a skip input, one with experts too.
    params = replace(context.spec.dit, depth=5, num_moe_layers=1)
    dit = random_networks(
        replace(context.spec, dit=params),
        components=("dit",),
        home=context.device,
        drawn_on=context.device,
        dtype=torch.float32 if training else context.half,
    ).dit
    assert dit is not None
    tokens = context.sizes.train_tokens if training else context.sizes.refine_tokens[0]
    inputs = _inputs(context, dit, tokens)
    policy = "bf16" if context.cuda else "fp32"
    with torch.inference_mode(not training), autocast(context.device, policy):
        if not training:
            inputs[2] = dit.context_keys(inputs[2])

        def run() -> torch.Tensor:
            velocity: torch.Tensor = dit(*inputs).velocity.float()
            if training:
                dit.zero_grad(set_to_none=True)
                velocity.square().mean().backward()
            return velocity.detach()

        plain, expected = context.time(run), run()
        if training:
            compile_regions(dit, context.device)
        else:
            compile_blocks(dit, context.device)
        started = time.perf_counter()
        run()
        context.synchronise()
        first = time.perf_counter() - started
        compiled, found = context.time(run), run()
    error = float((found - expected).abs().max() / expected.abs().max())
    return {
        "seconds": {"plain": plain, "compiled": compiled},
        "seconds_to_compile": first - compiled,
        "gain": plain / compiled,
        "error": error,
    }


def _inputs(context: Context, dit: RefineDiT, tokens: int) -> list[Any]:
    """Returns latents, t, image tokens and voxels of one sample."""
    params, device = dit.params, context.device
    count = context.spec.conditioner.num_tokens
    return [
        torch.randn(1, tokens, params.in_channels, device=device),
        torch.full((1,), 0.5, device=device),
        torch.randn(1, count, params.context_channels, device=device, dtype=context.half),
        sphere_voxels(params.voxel_resolution, tokens, 0).to(device),
    ]
