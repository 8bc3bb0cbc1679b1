"""Memory and arithmetic of a training step, measured on the real modules without computing it.

See `models.metering` for how.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from ultrashape_cli.config.schema import Config
from ultrashape_cli.devices import autocast, compute_dtype
from ultrashape_cli.models.dit import RefineDiT
from ultrashape_cli.models.metering import Meter, Work, materialise, planning, replaced, size_of
from ultrashape_cli.models.registry import ModelSpec, Networks, build, model_spec
from ultrashape_cli.models.view_embedding import NUM_FEATURES
from ultrashape_cli.models.voxels import voxel_centres
from ultrashape_cli.training.memory.offload import OffloadedAdamW
from ultrashape_cli.training.memory.strategies import (
    Strategy,
    make_optimizer,
    select_parameters,
)
from ultrashape_cli.training.objectives.flow import ConditionedDiT
from ultrashape_cli.training.objectives.vae import VAETrainee


@dataclass(frozen=True, kw_only=True, slots=True)
class Footprint:
    """Bytes and FLOPs of one process."""

    trained: int
    """Trained weights."""
    total: int
    """Weights of the trained network."""
    weights: int
    trained_bytes: int
    """Bytes of the trained weights on the device."""
    gradients: int
    moments: int
    """Bytes of the optimizer's state, wherever it is."""
    offloaded: bool
    """Whether moments, master weights and gradient sums are in host memory."""
    frozen: int
    """Bytes of the frozen encoders."""
    encode_peak: int
    """Most bytes the encoders hold beside their weights."""
    activation_peak: int
    """Most bytes a microbatch holds beside weights, gradients and optimizer."""
    largest_block: int
    """Bytes of the weights of the largest block."""
    work: Work
    """Of a microbatch, recomputation and encoders included."""
    model_flops: int
    """FLOPs of a microbatch that the model itself needs."""

    @property
    def optimizer(self) -> int:
        """Bytes of the optimizer's state on the device."""
        return 0 if self.offloaded else self.moments

    @property
    def host(self) -> int:
        """Bytes of fp32 masters, gradient sums and moments in host memory."""
        return self.moments + 2 * 4 * self.trained if self.offloaded else 0

    @property
    def peak(self) -> int:
        """Most bytes at once on the device."""
        static = self.weights + self.gradients + self.optimizer + self.frozen
        return static + max(self.activation_peak, self.encode_peak)


class _Encoders(NamedTuple):
    weights: int
    peak: int
    work: Work


@functools.lru_cache(maxsize=64)
def measure_footprint(
    config: Config, strategy: Strategy, *, checkpoint_blocks: int, accelerator: bool
) -> Footprint:
    """Returns what a step of a run takes, from its real modules on fake tensors.

    Routing is taken as even and every image as all foreground. It takes seconds at full size, and a
    run plans in preflight and again when its networks are built.

    Args:
        config: Settings of the run.
        strategy: From `resolve_strategy`.
        checkpoint_blocks: As in `RefineDiT`.
        accelerator: Count the kernels of a GPU, where they differ from those of a CPU.
    """
    settings = config.train
    spec = model_spec(settings.model)
    net = _build_net(config, spec, strategy, checkpoint_blocks)
    frozen = {"vae", "conditioner"} - set(config.train.trained_networks)
    parts = tuple(frozen) if settings.stage == "dit" else ()
    encoders = build(spec, components=parts, vae_parts=settings.frozen_vae_parts)
    with FakeTensorMode(allow_non_fake_inputs=True), planning(accelerator):
        for module in encoders:
            if module is not None:
                materialise(module, lambda parameter: compute_dtype(settings.dtype))
        materialise(net, lambda parameter: strategy.weight_dtype(parameter, settings.dtype))
        measured = _measure_encoders(config, encoders)
        copied = settings.objective in ("distill", "dpo")
        if (copied or _needs_copy(config)) and not strategy.adapters:
            # The teacher or the reference waits beside it, in the dtype of the frozen networks.
            size = compute_dtype(settings.dtype).itemsize * sum(p.numel() for p in net.parameters())
            measured = measured._replace(weights=measured.weights + size)
        return _measure_step(config, strategy, net, spec, measured)


def _measure_step(
    config: Config,
    strategy: Strategy,
    net: nn.Module,
    spec: ModelSpec,
    encoders: _Encoders,
) -> Footprint:
    settings = config.train
    trained = [p for p in net.parameters() if p.requires_grad]
    masters = {p: p.detach().float() for p in trained}
    optimizer = make_optimizer(net, settings, strategy, seed=0, masters=masters, compiled=False)
    weights = sum(size_of(value) for value in [*net.parameters(), *net.buffers()])
    # From the second microbatch on there are gradients to add to.
    summed = optimizer.masters if isinstance(optimizer, OffloadedAdamW) else trained
    for parameter in summed:
        parameter.grad = torch.zeros_like(parameter)
    sums = [parameter.grad for parameter in trained if parameter.grad is not None]
    meter = Meter()
    # What the host adds is neither memory nor work of the device.
    with meter, replaced(OffloadedAdamW, "_add", lambda *given: None):
        for value in [*net.parameters(), *net.buffers(), *sums]:
            meter.track(value)
        static = meter.now
        passes, learning = _passes(config)
        with torch.no_grad():
            # One stands for all of them: measuring takes seconds.
            if passes:
                _loss(config, spec, net)
        teaching = meter.work.times(1)
        loss = _loss(config, spec, net)
        forward_flops = meter.work.flops - teaching.flops
        loss.backward()
        del loss
    learned = meter.work + teaching.times(-1)
    gradients = sum(size_of(p.grad) for p in trained if p.grad is not None)
    peak = meter.peak - static
    optimizer.step()
    moments = sum(
        size_of(value)
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, Tensor) and value.ndim
    )
    return Footprint(
        trained=sum(p.numel() for p in trained),
        total=sum(p.numel() for name, p in net.named_parameters() if "lora_" not in name),
        weights=weights,
        trained_bytes=sum(size_of(p) for p in trained),
        gradients=gradients,
        moments=moments,
        offloaded=strategy.offloaded,
        activation_peak=peak,
        largest_block=max(_module_size(block) for block in _blocks(net)),
        work=learned.times(learning) + teaching.times(passes) + encoders.work,
        model_flops=(2 if strategy.adapters else 3) * forward_flops * learning
        + passes * teaching.flops,
        frozen=encoders.weights,
        encode_peak=encoders.peak,
    )


def _passes(config: Config) -> tuple[int, int]:
    """Returns the passes without and with gradients of each microbatch that is drawn.

    Decoding what `grpo` samples is counted apart (`step_time`); judging it is not.
    """
    objective, reward = config.train.objective, config.reward
    if objective == "dpo":
        return 1, 1
    if objective == "grpo":
        # The steps before the window are those of one member, on the mean half of the others.
        alone = (reward.rollout_steps - reward.window) / 2
        sampled = alone + (reward.rollout_steps - alone) * reward.group
        learned = reward.group * reward.window
        return math.ceil(sampled) + (learned if reward.kl else 0), learned
    return math.ceil(config.distill.teacher_passes) if objective == "distill" else 0, 1


def _needs_copy(config: Config) -> bool:
    return config.train.objective == "grpo" and config.reward.kl > 0


def _build_net(
    config: Config, spec: ModelSpec, strategy: Strategy, checkpoint_blocks: int
) -> nn.Module:
    built = build(spec, components=config.train.trained_networks)
    net: nn.Module | None = built.dit or built.vae
    assert net is not None
    if built.dit:
        built.dit.checkpoint_blocks = checkpoint_blocks
        if config.train.views > 1:
            built.dit.add_view_embedder()
    if built.dit and built.conditioner:
        net = ConditionedDiT(built.dit, built.conditioner)
    net.train()
    select_parameters(net, config.train, strategy, seed=0)
    return net


def _loss(config: Config, spec: ModelSpec, net: nn.Module) -> Tensor:
    settings = config.train
    batch, tokens = settings.microbatch, settings.num_latents
    if settings.objective == "dpo":
        batch *= 2  # winners and losers
    with autocast(torch.device("cpu"), settings.dtype):
        if isinstance(net, RefineDiT | ConditionedDiT):
            channels = spec.dit.in_channels
            side = settings.image_size or spec.conditioner.image_size
            dit = net
            # Every sample as with the most views that it may show.
            views, size = settings.views, spec.conditioner.tokens_of(side)
            if isinstance(net, ConditionedDiT):
                dit = net.dit
                context = net.conditioner.main_image_encoder.model(
                    torch.randn(batch * views, 3, side, side)
                ).reshape(batch, views * size, -1)
            else:
                context = torch.randn(
                    *(batch, views * size, spec.conditioner.width),
                    dtype=compute_dtype(settings.dtype),
                )
            output = dit(
                torch.randn(batch, tokens, channels),
                torch.rand(batch),
                context,
                torch.zeros(batch, tokens, 3, dtype=torch.long),
                cameras=torch.randn(batch, views * size, NUM_FEATURES) if views > 1 else None,
            )
            return output.velocity.float().square().mean() + output.aux_losses.sum()
        points = torch.randn(batch, settings.surface_points, 7)
        field, kl = VAETrainee(net)(  # type: ignore[arg-type]
            points,
            torch.randn(batch, tokens, 3),
            torch.randn(batch, tokens, spec.vae.latent_channels),
            torch.randn(batch, 3 * settings.query_points, 3),
        )
        return field.float().square().mean() + kl.mean()


def _measure_encoders(config: Config, encoders: Networks) -> _Encoders:
    settings, vae, conditioner = config.train, encoders.vae, encoders.conditioner
    if vae is None:
        return _Encoders(0, 0, Work())
    present = [module for module in (vae, conditioner) if module is not None]
    weights = sum(size_of(p) for module in present for p in module.parameters())
    meter = Meter()
    with torch.no_grad(), meter, autocast(torch.device("cpu"), settings.dtype):
        surface = torch.randn(1, settings.surface_points, 7)
        indices = torch.zeros(1, settings.num_latents, 3, dtype=torch.long)
        centres = voxel_centres(indices, vae.params.voxel_resolution)
        # Samples are encoded one after another: the next ones take the same again.
        vae.encode(surface, centres, torch.Generator())
        again = meter.work.times(settings.microbatch - 1)
        if settings.objective == "grpo":
            latents = torch.randn(1, settings.num_latents, vae.params.latent_channels)
            points = torch.zeros(1, config.refine.chunk_size, 3)
            vae.query_field(vae.decode(latents), points)
        if conditioner is not None:
            side = settings.image_size or conditioner.params.image_size
            pixels = torch.randn(settings.microbatch * settings.views, 3, side, side)
            conditioner.main_image_encoder.model(pixels.to(compute_dtype(settings.dtype)))
    return _Encoders(weights, meter.peak, meter.work + again)


def _blocks(net: nn.Module) -> Sequence[nn.Module]:
    dit = net.dit if isinstance(net, ConditionedDiT) else net
    return list(dit.blocks) if isinstance(dit, RefineDiT) else [net]


def _module_size(module: nn.Module) -> int:
    return sum(size_of(p) for p in module.parameters())
