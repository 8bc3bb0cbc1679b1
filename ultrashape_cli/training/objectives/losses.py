"""What the loop gets of an objective."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

from torch import Tensor, nn

from ultrashape_cli.data.dataset import Item

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
