"""What the loop gets of an objective."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ultrashape_cli.data.dataset import Item
from ultrashape_cli.models.dit import DiTOutput, DiTParams
from ultrashape_cli.models.flops import dit_flops

Watch = Callable[[str], AbstractContextManager[None]]
"""Times a named part of a step."""


class Losses(NamedTuple):
    """One microbatch's losses."""

    total: Tensor  # [], what is differentiated
    per_sample: Tensor  # [B], what is reported
    parts: dict[str, Tensor]  # further scalars to log
    flops: int  # of the trained network's forward pass
    t: Tensor | None = None  # [B] timesteps, of the DiT


class Objective:
    """What all objectives have in common."""

    expansion = 1
    """Samples that `expand` makes of each that was drawn."""
    inner_steps = 1
    """Updates of the optimizer on one draw."""
    watch: Watch | None = None
    """Told how long the parts of a step take that an objective knows."""

    def expand(self, net: nn.Module, drawn: Sequence[Item]) -> Sequence[Item]:
        """Returns the microbatches that a step learns from: of most objectives, what was drawn."""
        return drawn

    def timed(self, part: str) -> AbstractContextManager[None]:
        """Returns what times a block as a part of the step."""
        return self.watch(part) if self.watch else nullcontext()


class GroupSums:
    """What the groups of a microbatch, each of samples of equal length, add up to.

    Args:
        params: Sizes of the DiT.
        t: Timesteps of all samples [B].
    """

    def __init__(self, params: DiTParams, t: Tensor) -> None:
        self.params = params
        self.count = len(t)
        self.aux = t.new_zeros(())
        """Mean loss of the routing."""
        self.power = t.new_zeros(())
        """Mean square of the targets: a network that predicts nothing has it as its loss."""
        self.flops = 0
        self._loads: list[Tensor] = []

    def add(self, output: DiTOutput, target: Tensor, lengths: Iterable[int]) -> None:
        """Adds a group.

        Args:
            output: Of the network.
            target: Velocities that it was to predict [G, M, C].
            lengths: Image tokens of each sample.
        """
        share = len(target) / self.count
        self.aux = self.aux + output.aux_losses.sum() * share
        self.power = self.power + target.detach().square().mean() * share
        self.flops += sum(dit_flops(self.params, target.shape[1], length) for length in lengths)
        self._loads.append(output.expert_load)

    def parts(self) -> dict[str, Tensor]:
        """Returns what is logged of all groups."""
        return {
            "aux_loss": self.aux.detach(),
            "target_power": self.power,
            **expert_load(torch.stack(self._loads).sum(0)),
        }


def expert_load(load: Tensor) -> dict[str, Tensor]:  # [R, E] tokens
    """Returns how even the routing is.

    Entropy of the worst layer (1 is even), idle experts, and the largest load over an even one.
    """
    if not load.numel():
        return {}
    share = load.float() / load.sum(1, keepdim=True)
    entropy = -torch.xlogy(share, share).sum(1) / math.log(load.shape[1])
    return {
        "expert_entropy": entropy.min(),
        "experts_idle": (load == 0).sum(),
        "expert_load_max": share.max() * load.shape[1],
    }


def field_target(distances: Tensor, truncation: float) -> Tensor:
    """Returns the field, positive inside, of signed distances, positive outside (spec section 9).

    Args:
        distances: Of any shape.
        truncation: Distance at which the field is clipped to 1.
    """
    return (-distances / truncation).clamp(-1.0, 1.0)


def field_errors(field: Tensor, target: Tensor) -> Tensor:
    """Returns the errors of fields at their queries, [B, Q] each -> [B] (spec section 9)."""
    error = (field.float() - target).flatten(1)
    return error.square().mean(1) + error.abs().mean(1)
