"""Numbers and decisions that all training processes share."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object


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

    def means(self, values: Mapping[str, torch.Tensor]) -> dict[str, float]:
        """Returns by name the mean over the processes that have it."""
        here = {name: float(value) for name, value in values.items()}
        if self.world == 1:
            return here
        everywhere = gather_object([here])
        by_name: dict[str, list[float]] = {}
        for found in everywhere:
            for name, value in found.items():
                by_name.setdefault(name, []).append(value)
        return {name: sum(found) / len(found) for name, found in by_name.items()}

    def any(self, flag: bool) -> bool:
        """Says whether a flag is set in one of them."""
        return flag if self.world == 1 else self.sum(torch.tensor(flag)) > 0
