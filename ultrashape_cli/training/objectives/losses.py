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


def field_errors(field: Tensor, distances: Tensor, truncation: float) -> Tensor:
    """Returns the error of a field at its queries, [B, Q] each -> [B] (spec section 9).

    Args:
        field: Positive inside.
        distances: Signed distances, positive outside.
        truncation: Distance at which the field is clipped to 1.
    """
    target = (-distances / truncation).clamp(-1.0, 1.0)
    error = (field.float() - target).flatten(1)
    return error.square().mean(1) + error.abs().mean(1)
