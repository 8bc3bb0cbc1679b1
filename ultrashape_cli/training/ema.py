"""Averaged weights."""

from collections.abc import Mapping

import torch
from torch import Tensor


class Ema:
    """An exponential moving average of weights, fp32 in host memory.

    Update k (from 1) uses the decay min(decay, (1 + k) / (10 + k)), so early averages follow
    the weights.

    Args:
        weights: What to average, by name.
        decay: Final decay per update.
    """

    def __init__(self, weights: Mapping[str, Tensor], decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be in [0, 1), got {decay}")
        self.decay = decay
        self.num_updates = 0
        self.shadow = {
            name: value.detach().to("cpu", torch.float32, copy=True)
            for name, value in weights.items()
        }

    @torch.no_grad()
    def update(self, weights: Mapping[str, Tensor]) -> None:
        """Move the average towards the weights."""
        self.num_updates += 1
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        for name, shadow in self.shadow.items():
            shadow.lerp_(weights[name].detach().to("cpu", torch.float32), 1 - decay)

    @torch.no_grad()
    def restore(self, shadow: Mapping[str, Tensor], num_updates: int) -> None:
        """Continue from a saved average."""
        self.num_updates = num_updates
        for name, value in self.shadow.items():
            value.copy_(shadow[name])
