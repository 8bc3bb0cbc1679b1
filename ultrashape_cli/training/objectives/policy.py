"""Policy gradients on rewards of the network's own generations: group-relative, clipped (GRPO).

Of each asset a group is sampled: Euler steps, a few of them in a row with noise (Li et al.,
"MixGRPO", 2025), at places that shift from group to group. What was better than the mean of its
group becomes likelier in those steps. There is no guidance, so that a pass is a pass: distil it
into the weights first.

Legend: G members of a group, M latents, C channels, W noisy steps.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from ultrashape_cli.config.reward import RewardConfig
from ultrashape_cli.data.dataset import Item, sample_generator, to_device
from ultrashape_cli.devices import upload
from ultrashape_cli.diffusion.sampler import schedule
from ultrashape_cli.diffusion.stochastic import NoisyStep
from ultrashape_cli.errors import AssetError
from ultrashape_cli.models.flops import dit_flops
from ultrashape_cli.training.objectives.generated import ReferencedObjective
from ultrashape_cli.training.objectives.losses import Losses

logger = logging.getLogger(__name__)

_ROLLOUT_SEED = 2
"""Added to the run's seed for the noise of steps."""


class Worth(Protocol):
    """What the members of a group are worth (`rewards.group.GroupRewards`)."""

    @property
    def means(self) -> dict[str, float]:
        """Mean of each reward."""

    @property
    def failed(self) -> int:
        """Members without a mesh."""

    @property
    def flat(self) -> bool:
        """Says whether no member is better than another."""

    def advantages(self) -> Any:
        """By how much each member is better than the mean [G]."""


class Sample(NamedTuple):
    """What a group was made of."""

    asset: str
    view: int
    """Number of the view that is the condition."""


Judge = Callable[[Tensor, Sample], Worth]
"""Scaled latents [G, M, C] of a group -> what they are worth."""


class PolicyObjective(ReferencedObjective):
    """Clipped policy gradient, and a share of the divergence from the reference.

    A microbatch is of assets; `expand` turns it into pieces of the groups' noisy steps, each at
    most a microbatch large, which `__call__` takes. Ratios are of densities of a mean dimension,
    in fp32: exactly 1 before the first update, as the pieces of the sampling are those of the loss.

    Args:
        judge: Rewards of a group.
        reward: Group, steps, window, noise, clip and weight of the divergence.
        given: What `FlowObjective` takes.
    """

    def __init__(self, *given: Any, judge: Judge, reward: RewardConfig, **named: Any) -> None:
        super().__init__(*given, **named)
        self.settings = replace(self.settings, condition_dropout=0.0)
        self.judge = judge
        self.reward = reward
        self.inner_steps = reward.inner_steps
        self.expansion = reward.group * reward.window
        self.times = schedule(reward.rollout_steps + 1)[:-1].tolist()
        self._seen: dict[str, Tensor] = {}
        self._told_flat = False

    def __call__(self, net: nn.Module, batch: Item, t: Tensor | None = None) -> Losses:
        """Returns the losses of a piece from `expand`, or the plain ones of a validation."""
        if "reached" not in batch:
            return super().__call__(net, batch, t)
        step: NoisyStep = batch["step"]
        found = self._mean(net, batch["x"], step, batch["inputs"])
        ratio = (step.log_likelihood(batch["reached"], found) - batch["before"]).exp()
        bounded = ratio.clamp(1 - self.reward.clip, 1 + self.reward.clip)
        advantage = batch["advantage"]
        per_sample = -torch.minimum(advantage * ratio, advantage * bounded)
        passes = 1.0
        parts = {
            **self._seen,
            "ratio_off": (ratio.detach() - 1).abs().max(),
            "clipped": (ratio.detach() != bounded.detach()).float().mean(),
        }
        if self.reward.kl:
            velocity = self.reference_velocity(net, batch["x"], batch["t"], batch["inputs"])
            divergence = step.divergence(found, step.mean(batch["x"], velocity))
            per_sample = per_sample + self.reward.kl * divergence
            parts["kl"] = divergence.detach().mean()
            passes += 0.5
        flops = sum(dit_flops(self.params, found.shape[1], n) for n in batch["inputs"][-1])
        return Losses(
            per_sample.mean(), per_sample.detach(), parts, int(passes * flops), batch["t"]
        )

    @torch.no_grad()
    def expand(self, net: nn.Module, drawn: Sequence[Item]) -> list[Item]:
        """Samples and judges a group of each drawn asset; returns the pieces to learn from.

        Groups whose members are worth the same are left out, but for one member without advantage:
        every process has at least a piece.
        """
        pieces: list[Item] = []
        seen: dict[str, list[float]] = {}
        for batch in drawn:
            batch = to_device(batch, self.vae.pre_kl.weight.device)
            encoded = self.encode(batch, noisy=False)
            # One asset after another, in the order of the draw: groups do not see each other.
            for group in encoded.groups:
                for place, row in enumerate(group.rows.tolist()):
                    inputs = _of_row(group.inputs, place)
                    sample = Sample(batch["uid"][row], int(batch["view"][row]))
                    counter = int(batch["counter"][row])
                    pieces += self._group(net, group.start[place], inputs, sample, counter, seen)
        self._seen = {
            name: torch.tensor(sum(values) / len(values)) for name, values in seen.items()
        }
        if min(seen["flat_groups"]) == 1 and not self._told_flat:
            self._told_flat = True
            logger.warning(
                "no member of a group is better than the others, and nothing is learned: other "
                "train.rewards, or a higher reward.noise, may tell them apart"
            )
        return pieces

    def _group(
        self,
        net: nn.Module,
        start: Tensor,  # [M, C]
        inputs: tuple[Any, ...],  # of one sample
        sample: Sample,
        counter: int,
        seen: dict[str, list[float]],
    ) -> list[Item]:
        with self.timed("rollout"):
            latents, steps = self.sample(net, start, inputs, counter)
        with self.timed("judge"):
            worth = self._judged(latents, sample)
        for name, value in (worth.means if worth else {}).items():
            seen.setdefault(f"reward_{name}", []).append(value)
        seen.setdefault("failed_meshes", []).append(worth.failed if worth else 0)
        flat = worth is None or worth.flat
        seen.setdefault("flat_groups", []).append(float(flat))
        found = worth.advantages() if worth else [0.0] * len(latents)
        advantages = upload(torch.as_tensor(found, dtype=torch.float32), start.device)
        if flat:
            steps = [{key: _first(value) for key, value in steps[0].items()}]
        for piece in steps:
            place = piece.pop("place")
            piece["advantage"] = advantages[place : place + len(piece["x"])]
            piece["uid"] = [sample.asset] * len(piece["x"])
        return steps

    def _judged(self, latents: Tensor, sample: Sample) -> Worth | None:
        """Returns what a group is worth; None where its asset is bad and bad ones are skipped."""
        try:
            return self.judge(latents, sample)
        except AssetError as error:
            if not self.settings.skip_bad:
                raise
            logger.warning("no group of asset `%s`: %s", sample.asset, error.message)
            return None

    def sample(
        self,
        net: nn.Module,
        start: Tensor,  # [M, C]
        inputs: tuple[Any, ...],
        counter: int,
    ) -> tuple[Tensor, list[Item]]:
        """Returns latents [G, M, C] of a group, and its noisy steps in pieces.

        Before the first noisy step all members are the same one; from noise too they start from the
        same, so that what they differ in is what the network can be taught.

        Args:
            net: The DiT, possibly wrapped for several processes.
            start: Where the flow starts.
            inputs: What the network takes after x and t, of one sample.
            counter: Of the sample: fixes noise and window.
        """
        reward = self.reward
        first = self.window_start(counter)
        draw = sample_generator(self.seed + _ROLLOUT_SEED, counter)
        x, pieces = start[None].float(), []
        for number, (t, end) in enumerate(pairwise(self.times)):
            if number == first:
                x = x.expand(reward.group, -1, -1)
            step = NoisyStep(t, end - t, reward.noise, self.start == "noise")
            is_noisy = first <= number < first + reward.window
            noise = None
            if is_noisy:
                noise = upload(torch.randn(x.shape, generator=draw), x.device)
            reached = []
            for place in range(0, len(x), self.settings.microbatch):
                part = x[place : place + self.settings.microbatch].contiguous()
                given = _repeated(inputs, len(part))
                if noise is None:
                    velocity = net(part, _times(part, t), *given).velocity.float()
                    reached.append(part + step.length * velocity)
                    continue
                mean = self._mean(net, part, step, given)
                reached.append(mean + step.std * noise[place : place + len(part)])
                before = step.log_likelihood(reached[-1], mean)
                pieces.append({"x": part, "reached": reached[-1], "before": before, "step": step,
                               "t": _times(part, t), "inputs": given, "place": place})  # fmt: skip
            x = torch.cat(reached)
        return x, pieces

    def window_start(self, counter: int) -> int:
        """Returns the number of the first noisy step: one further from group to group."""
        return counter % (self.reward.rollout_steps - self.reward.window + 1)

    def _mean(
        self, net: nn.Module, x: Tensor, step: NoisyStep, inputs: tuple[Any, ...]
    ) -> Tensor:  # [B, M, C] fp32
        velocity: Tensor = net(x, _times(x, step.t), *inputs).velocity
        return step.mean(x, velocity)


def _times(x: Tensor, t: float) -> Tensor:  # [B]
    return torch.full((len(x),), t, dtype=torch.float32, device=x.device)


def _of_row(inputs: tuple[Any, ...], row: int) -> tuple[Any, ...]:
    context, voxels, lengths = inputs
    return context[row : row + 1], voxels[row : row + 1], [lengths[row]]


def _repeated(inputs: tuple[Any, ...], count: int) -> tuple[Any, ...]:
    context, voxels, lengths = inputs
    return context.expand(count, -1, -1), voxels.expand(count, -1, -1), list(lengths) * count


def _first(value: Any) -> Any:
    """Returns the first member of a value of a piece."""
    if isinstance(value, Tensor):
        return value[:1]
    if isinstance(value, tuple) and not isinstance(value, NoisyStep):
        return tuple(part[:1] for part in value)
    return value
