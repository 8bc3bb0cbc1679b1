"""The flow loss on what a network made itself, and the network as it was beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ultrashape_cli.data.dataset import Item
from ultrashape_cli.diffusion.flow import interpolate
from ultrashape_cli.training.objectives.distill import has_adapters, without_adapters
from ultrashape_cli.training.objectives.flow import Encoded, FlowObjective
from ultrashape_cli.training.objectives.latents import Moments


class Generation(Protocol):
    """What a network made of one seed (`rewards.generations.Generation`)."""

    @property
    def latents(self) -> Tensor:
        """Scaled latents [M, C]."""

    @property
    def voxels(self) -> Tensor:
        """Their voxels [M, 3]."""

    @property
    def start(self) -> Tensor | None:
        """Where the flow starts [M, C]; None where that is noise."""


Pick = Callable[[str, bool], Generation]
"""Asset, and whether its worst is asked for and not its best -> the generation."""


class ReferencedObjective(FlowObjective):
    """The plain objective with the network as it was beside it.

    Args:
        reference: That network, frozen; None where adapters are trained, without which it is its
            own, or where there is no copy.
        given: What `FlowObjective` takes.
    """

    def __init__(self, *given: Any, reference: nn.Module | None = None, **named: Any) -> None:
        super().__init__(*given, **named)
        self.reference = reference

    @torch.no_grad()
    def drift(self, net: nn.Module, encoded: Encoded, t: Tensor) -> float | None:
        """Returns how far the velocity has moved from the reference's, as a share of its power.

        Mean squares over all tokens and channels: half of it over the variance of a step is the
        KL divergence from the reference of a sampler that adds noise. None without a reference.

        Args:
            net: The DiT.
            encoded: Of a validation, so that it is the same at every step.
            t: Timesteps [B].
        """
        if self.reference is None and not has_adapters(net):
            return None
        moved, power = t.new_zeros(()), t.new_zeros(())
        for rows, latents, start, inputs, _ in encoded.groups:
            x = interpolate(latents, start, t[rows])
            ours = net(x, t[rows], *inputs).velocity.float()
            before = self.reference_velocity(net, x, t[rows], inputs)
            moved = moved + (ours - before).square().mean() * len(rows)
            power = power + before.square().mean() * len(rows)
        return float(moved / power)

    @torch.no_grad()
    def reference_velocity(
        self, net: nn.Module, x: Tensor, t: Tensor, inputs: tuple[Any, ...]
    ) -> Tensor:  # [G, M, C] fp32
        """Returns what the network said when the run began, at x [G, M, C] and t [G]."""
        reference = self.reference or net
        with without_adapters(reference):
            velocity: Tensor = reference(x, t, *inputs).velocity
        return velocity.float()


class GeneratedObjective(ReferencedObjective):
    """Rectified-flow loss on the best of each asset's kept generations: rejection fine-tuning.

    Training items are images alone; what they lead to is read here. Validation is that of the plain
    objective, on assets of the dataset.

    Args:
        pick: The generations.
        given: What `ReferencedObjective` takes.
    """

    def __init__(self, *given: Any, pick: Pick, **named: Any) -> None:
        super().__init__(*given, **named)
        self.pick = pick

    def _moments(self, batch: Item, index: int, draw: torch.Generator, *, noisy: bool) -> Moments:
        """Returns a generation in the place of a posterior: one that leaves nothing open."""
        if not noisy:
            return super()._moments(batch, index, draw, noisy=noisy)
        worst = bool(batch["worst"][index]) if "worst" in batch else False
        found = self.pick(batch["uid"][index], worst)
        nothing = found.latents.new_empty(0)
        moments = Moments(found.latents, nothing, found.voxels, found.start)
        return moments.on(self.vae.pre_kl.weight.device)

    def _latents(
        self, entries: list[Moments], draws: list[torch.Generator]
    ) -> tuple[Tensor, Tensor]:
        """Returns the latents and what their flow starts from, [B, M, C] each."""
        if entries[0].logvar.numel():
            return super()._latents(entries, draws)
        latents = torch.stack([entry.mean for entry in entries])
        if self.start == "coarse":
            starts = [entry.start for entry in entries if entry.start is not None]
            return latents, torch.stack(starts)
        return latents, self._noise(latents.shape[1:], draws, latents)
