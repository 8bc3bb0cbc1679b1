"""A student that takes fewer passes than its teacher, which is the network without its adapters or,
where all weights are trained, a copy of it as it was.

First the guidance goes into the weights (Meng et al., "On Distillation of Guided Diffusion Models",
2023): one pass then says what two did. Then steps go, in velocity space: one Euler step of the
student leads where several of the teacher do ("Shortcutting Pre-trained Flow Matching Models",
2025), each time with the student of before as the teacher.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ultrashape_cli.config.distill import DistillConfig
from ultrashape_cli.config.schema import TrainConfig
from ultrashape_cli.data.dataset import Item, sample_generator
from ultrashape_cli.devices import upload
from ultrashape_cli.diffusion.flow import interpolate
from ultrashape_cli.diffusion.sampler import VelocityFn, guided_velocity, schedule
from ultrashape_cli.errors import ConfigError
from ultrashape_cli.training.objectives.flow import Encoded, FlowObjective, Group
from ultrashape_cli.training.objectives.losses import GroupSums, Losses

_ROLLOUT_SEED = 1
"""Added to the run's seed for what only this objective draws."""


class DistillObjective(FlowObjective):
    """Error of the student's velocity against the teacher's mean velocity over the same stretch.

    Args:
        distill: Steps and guidance.
        inference_steps: Of the schedule that refinement will use, where the student learns at
            every t.
        teacher: The network as it was, frozen; None where the student trains adapters, without
            which it is its own teacher.
        given: What `FlowObjective` takes; without an image a distilled network is not asked, so
            that no condition is dropped.
    """

    def __init__(
        self,
        *given: Any,
        distill: DistillConfig,
        inference_steps: int,
        teacher: nn.Module | None = None,
        **named: Any,
    ) -> None:
        super().__init__(*given, **named)
        self.settings = replace(self.settings, condition_dropout=0.0)
        self.distill = distill
        self.teacher = teacher
        steps = distill.evaluations + 1 if distill.evaluations else inference_steps
        self.nodes = schedule(steps)[:-1]
        """Times from 0 to 1; the student steps, or the sampler asks, at all but the last."""

    def encode(self, batch: Item, *, noisy: bool) -> Encoded:
        """Returns what `FlowObjective.encode` does, and which samples the student walks to."""
        found = super().encode(batch, noisy=noisy)
        share = self.distill.rollout_share if noisy and self.distill.evaluations else 0.0
        draws = [
            torch.rand(1, generator=sample_generator(self.seed + _ROLLOUT_SEED, int(counter)))
            for counter in batch["counter"]
        ]
        return found._replace(walked=upload(torch.cat(draws) < share, found.t.device))

    def losses(self, net: nn.Module, encoded: Encoded, t: Tensor | None = None) -> Losses:
        """Returns the losses of what `encode` made.

        Args:
            net: The DiT with adapters, possibly wrapped for several processes.
            encoded: The microbatch.
            t: Timesteps [B] instead of those that were drawn; of a student that steps, the
                nearest ones before them at which it does.
        """
        t = encoded.t if t is None else upload(t, encoded.t.device)
        nodes = upload(self.nodes, t.device)
        starts = torch.bucketize(t, nodes, right=True).clamp(1, len(nodes) - 1) - 1
        if self.distill.evaluations:
            t = nodes[starts]
        per_sample, sums = t.new_zeros(len(t)), GroupSums(self.params, t)
        for group in encoded.groups:
            rows, inputs = group.rows, group.inputs
            x = interpolate(group.latents, group.start, t[rows])
            if encoded.walked is not None and bool(encoded.walked[rows].any()):
                reached = self._walk(net, group, starts[rows], nodes)
                x = torch.where(encoded.walked[rows][:, None, None], reached, x)
            target = self._target(net, x, t[rows], nodes[starts[rows] + 1], inputs)
            output = net(x, t[rows], *inputs)
            error = (output.velocity.float() - target).square().flatten(1).mean(1)
            limit = self.distill.huber
            # Grows with the square of small errors and with large ones themselves: one bad sample
            # does not decide a step.
            per_sample = per_sample.index_put((rows,), (error + limit**2).sqrt() - limit)
            sums.add(output, target, inputs[-1])
        # A pass of the teacher is half the work of one with gradients, none of them of weights.
        flops = int(sums.flops * (1 + self.distill.teacher_passes / 2))
        return Losses(per_sample.mean() + sums.aux, per_sample.detach(), sums.parts(), flops, t)

    def _draw_timestep(self, draw: torch.Generator) -> Tensor:
        free = super()._draw_timestep(draw)
        share = torch.rand(1, generator=draw)
        node = torch.randint(len(self.nodes) - 1, (1,), generator=draw)
        grid = 1.0 if self.distill.evaluations else self.distill.grid_share
        return torch.where(share < grid, self.nodes[node], free)

    @torch.no_grad()
    def _walk(self, net: nn.Module, group: Group, starts: Tensor, nodes: Tensor) -> Tensor:
        """Returns where the student's own steps have come at its node `starts` [G]."""
        x = group.start
        for index in range(int(starts.max())):
            here, there = (nodes[i].expand(len(starts)) for i in (index, index + 1))
            velocity = net(x, here, *group.inputs).velocity.float()
            further = x + (there - here)[:, None, None] * velocity
            x = torch.where((starts > index)[:, None, None], further, x)
        return x

    @torch.no_grad()
    def _target(
        self, net: nn.Module, x: Tensor, t: Tensor, end: Tensor, inputs: tuple[Any, ...]
    ) -> Tensor:  # [G, M, C] fp32
        """Returns the teacher's velocity at x [G, M, C], or its mean from t to `end` [G]."""
        context, voxels, lengths = inputs
        teacher = self.teacher or net

        def conditional(x: Tensor, t: Tensor) -> Tensor:
            return teacher(x, t, context, voxels, lengths).velocity

        def unconditional(x: Tensor, t: Tensor) -> Tensor:
            return teacher(x, t, None, voxels, None).velocity

        scale = self.distill.guidance_scale
        velocity = guided_velocity(conditional, unconditional, scale if scale > 0 else -1.0)
        with without_adapters(teacher):
            return _mean_velocity(velocity, x, t, end, self._teacher_steps)

    @property
    def _teacher_steps(self) -> int:
        return self.distill.teacher_steps if self.distill.evaluations else 1


def _mean_velocity(
    velocity: VelocityFn, x: Tensor, t: Tensor, end: Tensor, steps: int
) -> Tensor:  # [G, M, C], [G], [G] -> [G, M, C]
    """Returns the mean velocity of some Euler steps of equal length."""
    length = (end - t) / steps
    total = torch.zeros_like(x, dtype=torch.float32)
    for index in range(steps):
        here = velocity(x, t + index * length).float()
        total += here
        x = x + length[:, None, None] * here
    return total / steps


def has_adapters(net: nn.Module) -> bool:
    """Says whether a network computes with adapters that can be switched off."""
    return any(hasattr(layer, "enable_adapters") for layer in net.modules())


@contextmanager
def without_adapters(net: nn.Module) -> Iterator[None]:
    """Has a network compute as it did before it got adapters while it is open."""
    layers = [layer for layer in net.modules() if hasattr(layer, "enable_adapters")]
    for layer in layers:
        layer.enable_adapters(False)  # type: ignore[operator]
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)  # type: ignore[operator]


def check_distillation(settings: TrainConfig) -> None:
    """Raises ConfigError where a run cannot distil."""
    if settings.objective != "distill":
        return
    if settings.stage != "dit":
        raise ConfigError("only the DiT is distilled", hint="--stage dit")
    if settings.strategy == "sharded":
        raise ConfigError(
            "a student whose weights are in shards has no whole teacher beside it",
            hint="leave train.strategy out: adapters need no second network",
        )
    if settings.field_loss:
        raise ConfigError(
            "distilling has no loss of the field: it follows the teacher, not the truth",
            hint="--set train.field_loss=0",
        )
