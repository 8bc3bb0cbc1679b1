"""Counts a refinement of the full model on the stand-in of a card: bytes and launches by stage.

    python tests/standin/count_refine.py LIBRARY TOKENS MODE

Prints what was planned and what was counted, as JSON. A mode is `resident` or `int8`.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import device

if __name__ == "__main__":
    device.load(sys.argv[1])

import torch
from count import CUDA, Counter, use_flash
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from ultrashape_cli.config.resolve import resolve
from ultrashape_cli.devices import autocast
from ultrashape_cli.inference.memory import measure_refinement
from ultrashape_cli.inference.streaming import quantise_dit
from ultrashape_cli.inference.velocity import NetworkVelocity
from ultrashape_cli.models.metering import materialise, planning
from ultrashape_cli.models.registry import build, model_spec

QUERIES = 8192


@contextlib.contextmanager
def counting(network: nn.Module) -> Iterator[Counter]:
    """Counts what is made beside a network's weights."""
    with Counter() as counter:
        for value in (*network.parameters(), *network.buffers()):
            counter.track(value)
        counter.now = counter.peak = 0
        yield counter


def count_refinement(tokens: int, mode: str) -> dict[str, Any]:
    """Returns the bytes beside the weights by stage, and the kernels of a guided evaluation."""
    use_flash()
    config = resolve(flags={"profile": "a40"}, environ={}).config.refine
    spec = model_spec("ultrashape-1.0")
    plan = measure_refinement(spec, config, tokens, accelerator=True, int8=mode == "int8")
    networks = build(spec, vae_parts=("decoder",))
    conditioner, dit, vae = networks.conditioner, networks.dit, networks.vae
    assert conditioner is not None
    assert dit is not None
    assert vae is not None
    side = spec.conditioner.image_size
    places = spec.conditioner.tokens_of(side)
    found: dict[str, int] = {}
    with FakeTensorMode(allow_non_fake_inputs=True), planning(accelerator=True), CUDA:
        for module in networks:
            assert module is not None
            materialise(module, lambda parameter: torch.bfloat16)
        if mode == "int8":
            quantise_dit(dit)
        with torch.no_grad():
            with counting(conditioner) as counter, autocast(CUDA, config.dtype):
                conditioner.main_image_encoder.model(torch.empty(1, 3, side, side).bfloat16())
            found["condition"] = counter.peak
            with counting(dit) as counter:
                context = torch.empty(1, places, spec.conditioner.width, dtype=torch.bfloat16)
                with autocast(CUDA, config.dtype):
                    keys = dit.context_keys(context)
                always = replace(config, guidance_start=0.0, guidance_end=1.0)
                where = torch.empty(1, tokens, 3, dtype=torch.long)
                velocity = NetworkVelocity(dit, keys, None, where, always, CUDA)
                x = torch.empty(1, tokens, spec.dit.in_channels)
                kept = [torch.empty_like(x) for _ in range(3)]
                before = counter.work.launches, counter.work.traffic
                velocity.guided()(x, torch.empty(1))
                launches = counter.work.launches - before[0]
                traffic = counter.work.traffic - before[1]
            found["sample"] = counter.peak
            del context, keys, velocity, x, kept
            with counting(vae) as counter, autocast(CUDA, config.dtype):
                field = vae.field(vae.decode(torch.empty(1, tokens, spec.vae.latent_channels)))
                decoded, held = counter.peak, counter.now
                counter.peak = counter.now
                field(torch.empty(QUERIES, 3))
                per_query = (counter.peak - held) / QUERIES
            found["decode"] = decoded
    return {
        "counted": found,
        "planned": plan.activations,
        "per_query": per_query,
        "plan_per_query": plan.per_query,
        "launches": launches,
        "traffic": traffic,
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(count_refinement(int(sys.argv[2]), sys.argv[3])) + "\n")
