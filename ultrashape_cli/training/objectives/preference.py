"""Preferences between two generations of one asset: direct preference optimisation of a flow.

The network is to predict the velocity of the winner better, against its reference, than that of
the loser (Wallace et al., "Diffusion Model Alignment Using Direct Preference Optimization", 2024).
The reference is the network without its adapters or, where all weights are trained, a copy of it as
it was. t runs from 0, noise, to 1, the generation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from ultrashape_cli.config.reward import RewardConfig
from ultrashape_cli.data.dataset import Item
from ultrashape_cli.devices import upload
from ultrashape_cli.diffusion.flow import flow_loss, interpolate, velocity_target
from ultrashape_cli.training.objectives.flow import Encoded
from ultrashape_cli.training.objectives.generated import GeneratedObjective
from ultrashape_cli.training.objectives.losses import GroupSums, Losses


class _Errors(NamedTuple):
    """Of velocities of winners, then of losers, [2 B] each."""

    ours: Tensor
    reference: Tensor
    moved: Tensor
    """Mean square of what the network has moved away from its reference."""


class PreferenceObjective(GeneratedObjective):
    """-log sigmoid(-beta [(e_w - r_w) - (e_l - r_l)]), and a share of the winner's plain loss.

    e and r are the mean squared errors over all tokens and channels of the network's and the
    reference's velocity, for winner and loser at the same t and, where the flow starts from it, the
    same noise. No condition is dropped: both were made with theirs.

    Args:
        reward: beta and the share of the plain loss.
        given: What `GeneratedObjective` takes.
    """

    def __init__(
        self,
        *given: Any,
        reward: RewardConfig,
        **named: Any,
    ) -> None:
        super().__init__(*given, **named)
        self.settings = replace(self.settings, condition_dropout=0.0)
        self.reward = reward

    def encode(self, batch: Item, *, noisy: bool) -> Encoded:
        """Returns winners and, behind them, losers; of a validation, what the data say."""
        if not noisy:
            return super().encode(batch, noisy=False)
        count = len(batch["uid"])
        # A sample's draws follow its counter alone: both get the same t and the same noise.
        doubled = {key: _twice(value) for key, value in batch.items()}
        doubled["worst"] = [False] * count + [True] * count
        return super().encode(doubled, noisy=True)._replace(paired=True)

    def losses(self, net: nn.Module, encoded: Encoded, t: Tensor | None = None) -> Losses:
        """Returns the losses of what `encode` made; plain ones of a validation.

        Args:
            net: The DiT, possibly wrapped for several processes.
            encoded: The microbatch.
            t: Timesteps instead of those that were drawn.
        """
        if not encoded.paired:
            return super().losses(net, encoded, t)
        t = encoded.t if t is None else upload(t, encoded.t.device)
        found = _Errors(*(t.new_zeros(len(t)) for _ in _Errors._fields))
        sums = GroupSums(self.params, t)
        for group in encoded.groups:
            rows = group.rows
            x = interpolate(group.latents, group.start, t[rows])
            target = velocity_target(group.latents, group.start)
            before = self.reference_velocity(net, x, t[rows], group.inputs)
            output = net(x, t[rows], *group.inputs)
            errors = _Errors(
                flow_loss(output.velocity, target),
                flow_loss(before, target),
                flow_loss(output.velocity.detach(), before),
            )
            found = _Errors(*(f.index_put((rows,), e) for f, e in zip(found, errors, strict=True)))
            sums.add(output, target, group.inputs[-1])
        count = len(t) // 2
        gained = found.ours - found.reference
        logits = -self.reward.beta * (gained[:count] - gained[count:])
        preference, winner = -logsigmoid(logits), found.ours[:count]
        parts = {
            "preferred": (logits > 0).float().mean(),
            "logit": logits.detach().abs().mean(),
            "winner_loss": winner.detach().mean(),
            "loser_loss": found.ours.detach()[count:].mean(),
            "drift": found.moved.mean() / sums.power,
            **sums.parts(),
        }
        total = preference.mean() + self.reward.winner_loss * winner.mean() + sums.aux
        # The reference's pass is half the work of one with gradients, none of them of weights.
        return Losses(total, preference.detach(), parts, sums.flops + sums.flops // 2, t[:count])

    def _condition(
        self, batch: Item, dropped: Tensor | None
    ) -> Callable[[list[int], Tensor, Tensor], tuple[Any, ...]]:
        """Returns what winners and losers see: the same, which is encoded once."""
        if "worst" not in batch:
            return super()._condition(batch, dropped)
        count = len(batch["uid"]) // 2
        half = {key: value[:count] for key, value in batch.items()}
        see = super()._condition(half, None if dropped is None else dropped[:count])
        return lambda rows, index, voxels: see([r % count for r in rows], index % count, voxels)


def _twice(value: Any) -> Any:
    return torch.cat([value, value]) if isinstance(value, Tensor) else [*value, *value]
