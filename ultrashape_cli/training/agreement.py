"""Numbers and decisions that all training processes share."""

from __future__ import annotations

import torch
from accelerate import Accelerator


class Agreement:
    """Reductions over the processes; every process must call each of them."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.world = accelerator.num_processes

    def sum(self, value: torch.Tensor) -> float:
        """Returns the sum over all processes."""
        value = value.float().to(self.accelerator.device)
        return float(self.accelerator.reduce(value, reduction="sum"))

    def mean(self, value: torch.Tensor) -> float:
        """Returns the mean over all processes."""
        return self.sum(value) / self.world

    def any(self, flag: bool) -> bool:
        """Says whether a flag is set in one of them."""
        return flag if self.world == 1 else self.sum(torch.tensor(flag)) > 0
