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
