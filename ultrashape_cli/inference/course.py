"""The way of one refinement through the flow: its times, its start, and what holds it.

t runs from 0 to 1. Legend: M latents, C channels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ultrashape_cli.config.schema import RefineConfig
from ultrashape_cli.diffusion.sampler import schedule
from ultrashape_cli.models.registry import ModelSpec

Hold = Callable[[float, Tensor], Tensor]
"""t and x [1, M, C] after a step -> x, put back where nothing may change."""


class Course(NamedTuple):
    """Where a flow starts, and what holds it."""

    start: Tensor  # [1, M, C]
    hold: Hold | None


def times_of(spec: ModelSpec, config: RefineConfig) -> Tensor:  # [N + 1]
    """Returns the times of a sampler.

    A flow that starts from the coarse mesh goes the share `strength` of its way; one that starts
    from noise leaves the share before 1 - `strength` out, with the steps that lie there.
    """
    times = schedule(config.steps)
    if spec.start == "coarse":
        return times * config.strength
    begin = 1 - config.strength
    if begin == 0:
        return times
    return torch.cat([torch.tensor([begin]), times[times > begin]])


def course(
    noise: Tensor | None,  # [1, M, C]
    latents: Tensor,  # [1, M, C]
    weights: Tensor | None,  # [M]
    strength: float,
) -> Course:
    """Returns the start of a flow and what holds it.

    Args:
        noise: That it starts from; None where it starts from the latents.
        latents: Of the coarse mesh; not read at strength 1 without weights.
        weights: How much each latent may change; None lets all.
        strength: Share of the way from noise that is gone.
    """
    start = latents if noise is None else noise
    if noise is not None and strength < 1:
        begin = 1 - strength
        start = begin * latents + (1 - begin) * noise
    if weights is None:
        return Course(start, None)
    free = weights[:, None]

    def hold(t: float, x: Tensor) -> Tensor:
        kept = latents if noise is None else t * latents + (1 - t) * noise
        return free * x + (1 - free) * kept

    return Course(start, hold)
