"""Averaged weights."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn


class Ema:
    """An exponential moving average of trainable parameters, kept in fp32.

    Update k (from 1) uses the decay min(decay, (1 + k) / (10 + k)), so early averages follow
    the weights.

    Args:
        named_parameters: What to average, e.g. `module.named_parameters()`; frozen ones are
            left out.
        decay: Final decay per update.
        device: Where the average lives; None keeps each parameter's device.
    """

    def __init__(
        self,
        named_parameters: Iterable[tuple[str, Tensor]],
        *,
        decay: float,
        device: str | torch.device | None = None,
    ) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be in [0, 1), got {decay}")
        self.decay = decay
        self.num_updates = 0
        self.shadow = {
            name: value.detach().to(device or value.device, torch.float32, copy=True)
            for name, value in named_parameters
            if value.requires_grad
        }

    @torch.no_grad()
    def update(self, named_parameters: Iterable[tuple[str, Tensor]]) -> None:
        """Move the average towards the parameters."""
        self.num_updates += 1
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        values = dict(named_parameters)
        for name, shadow in self.shadow.items():
            shadow.lerp_(values[name].detach().to(shadow.device, torch.float32), 1 - decay)

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        """Overwrite the parameters of a module with the average."""
        parameters = dict(module.named_parameters())
        for name, shadow in self.shadow.items():
            parameters[name].copy_(shadow)

    def state_dict(self) -> dict[str, object]:
        """Return the average and its update count."""
        return {"num_updates": self.num_updates, "shadow": dict(self.shadow)}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Restore what `state_dict` returned."""
        shadow, count = state["shadow"], state["num_updates"]
        if not isinstance(shadow, dict) or not isinstance(count, int):
            raise ValueError("not the state of an Ema")
        if shadow.keys() != self.shadow.keys():
            different = sorted(shadow.keys() ^ self.shadow.keys())
            raise ValueError(f"the averaged parameters differ, first: {different[0]}")
        self.num_updates = count
        for name, value in self.shadow.items():
            value.copy_(shadow[name])
