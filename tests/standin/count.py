"""Counts a training microbatch of the full model on the stand-in of a card: bytes and launches.

    python tests/standin/count.py LIBRARY PROFILE [SECTION.KEY=VALUE ...]

Prints what was planned and what was counted, as JSON.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import device

if __name__ == "__main__":
    device.load(sys.argv[1])

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from ultrashape_cli.config.resolve import resolve
from ultrashape_cli.devices import autocast, compute_dtype
from ultrashape_cli.models import attention
from ultrashape_cli.models.metering import Meter, Work, materialise, planning
from ultrashape_cli.models.registry import build, model_spec
from ultrashape_cli.models.voxels import voxel_centres
from ultrashape_cli.training.memory.plan import plan_run
from ultrashape_cli.training.memory.strategies import resolve_strategy, select_parameters

CUDA = torch.device("cuda")


class Counter(Meter):
    """Counts what happens on the card alone."""

    def counted(self, values: Any) -> list[Tensor]:
        """Returns the tensors on the card."""
        return [tensor for tensor in super().counted(values) if tensor.is_cuda]

    def track(self, tensor: Tensor) -> None:
        """Counts a tensor's storage on the card until it dies."""
        if tensor.is_cuda:
            super().track(tensor)


def use_flash() -> None:
    """Has attention take the kernel that a card takes for inputs in bf16 without a mask."""
    attention.BACKENDS["sdpa"] = _flash


def _flash(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.ops.aten._scaled_dot_product_flash_attention(q, k, v)[0]


def count_step(profile: str, overrides: list[str]) -> dict[str, Any]:
    """Returns the figures of one microbatch and what the plan says of it."""
    use_flash()
    resolved = resolve(flags={"profile": profile}, overrides=tuple(overrides), environ={})
    config, settings = resolved.config, resolved.config.train
    plan = plan_run(config, resolved.profile)
    strategy, spec = resolve_strategy(config), model_spec(settings.model)
    dit = build(spec, components=("dit",)).dit
    assert dit is not None
    dit.checkpoint_blocks = plan.checkpoint_blocks
    dit.train()
    select_parameters(dit, settings, strategy, seed=0)
    half = compute_dtype(settings.dtype)
    saved: list[Tensor] = []
    with FakeTensorMode(allow_non_fake_inputs=True), planning(accelerator=True), CUDA:
        materialise(dit, lambda parameter: strategy.weight_dtype(parameter, settings.dtype))
        trained = [p for p in dit.parameters() if p.requires_grad]
        for parameter in trained:
            if strategy.offloaded:
                # Gradients leave for the host as they come.
                parameter.register_post_accumulate_grad_hook(_forget)
            else:
                # From the second microbatch on there are some to add to.
                parameter.grad = torch.zeros_like(parameter)
        sums = [p.grad for p in trained if p.grad is not None]
        counter = Counter()
        with counter:
            for value in [*dit.parameters(), *dit.buffers(), *sums]:
                counter.track(value)
            static = counter.now
            loss = _loss(dit, settings, spec, half, saved)
            forward = counter.work.launches, counter.work.traffic
            dtypes = _bytes_by_dtype(saved)
            saved.clear()
            loss.backward()
            del loss
        activations = counter.peak - static
        work, launches = counter.work, (counter.work.launches, counter.work.traffic)
        encoders, encoding = _encode(settings, spec, half)
        work = work + encoding
    found = plan.footprint
    return {
        "profile": profile,
        "strategy": strategy.name,
        "checkpoint_blocks": plan.checkpoint_blocks,
        "card": int(resolved.profile.memory_gib * 2**30),
        "plan": plan.device_bytes,
        "plan_static": found.weights + (0 if strategy.offloaded else found.gradients),
        "plan_activations": found.activation_peak,
        "plan_encode": found.encode_peak,
        "static": static,
        "activations": activations,
        "encode": encoders,
        "saved": dtypes,
        "forward": forward,
        "both": launches,
        "flops": work.flops,
        "moved": work.moved,
        "plan_launches": found.work.launches,
        "plan_moved": found.work.moved,
        "plan_flops": found.work.flops,
    }


def _forget(parameter: Tensor) -> None:
    parameter.grad = None


def _loss(dit: nn.Module, settings: Any, spec: Any, half: torch.dtype, saved: list) -> Tensor:
    batch, tokens = settings.microbatch, settings.num_latents
    context = spec.conditioner.tokens_of(spec.conditioner.image_size)

    def keep(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with autocast(CUDA, settings.dtype), hooks:
        output = dit(
            torch.empty(batch, tokens, spec.dit.in_channels),
            torch.empty(batch),
            torch.empty(batch, context, spec.conditioner.width, dtype=half),
            torch.empty(batch, tokens, 3, dtype=torch.long),
        )
        return output.velocity.float().square().mean() + output.aux_losses.sum()


def _encode(settings: Any, spec: Any, half: torch.dtype) -> tuple[int, Work]:
    """Returns the most bytes that the frozen encoders hold beside their weights, and the work."""
    networks = build(spec, components=("vae", "conditioner"), vae_parts=("encoder",))
    vae, conditioner = networks.vae, networks.conditioner
    assert vae is not None
    assert conditioner is not None
    for module in (vae, conditioner):
        materialise(module, lambda parameter: half)
    counter = Counter()
    with torch.no_grad(), counter, autocast(CUDA, settings.dtype):
        surface = torch.empty(1, settings.surface_points, 7)
        indices = torch.empty(1, settings.num_latents, 3, dtype=torch.long)
        centres = voxel_centres(indices, vae.params.voxel_resolution)
        vae.encode(surface, centres, torch.Generator())
        side = spec.conditioner.image_size
        pixels = torch.empty(settings.microbatch, 3, side, side)
        conditioner.main_image_encoder.model(pixels.to(half))
    return counter.peak, counter.work


def _bytes_by_dtype(saved: list[Tensor]) -> dict[str, int]:
    """Returns the bytes kept for the backward by dtype, parameters left out."""
    found: dict[str, int] = {}
    seen = set()
    for tensor in saved:
        storage = tensor.untyped_storage()
        if storage._cdata not in seen and not isinstance(tensor, nn.Parameter):
            seen.add(storage._cdata)
            name = str(tensor.dtype).removeprefix("torch.")
            found[name] = found.get(name, 0) + storage.nbytes()
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(count_step(sys.argv[2], sys.argv[3:])) + "\n")
