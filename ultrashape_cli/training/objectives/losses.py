"""What the loop gets of an objective."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NamedTuple

from torch import Tensor

Watch = Callable[[str], AbstractContextManager[None]]
"""Times a named part of a step."""


class Losses(NamedTuple):
    """One microbatch's losses."""

    total: Tensor  # [], what is differentiated
    per_sample: Tensor  # [B], what is reported
    parts: dict[str, Tensor]  # further scalars to log
    flops: int  # of the trained network's forward pass
    t: Tensor | None = None  # [B] timesteps, of the DiT


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
