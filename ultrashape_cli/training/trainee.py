"""A network under its strategy: wrapped, stepped, saved and restored in one place."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from ultrashape_cli.config.schema import Config
from ultrashape_cli.training.lora import adapter_weights
from ultrashape_cli.training.offload import OffloadedAdamW
from ultrashape_cli.training.sharding import (
    full_optimizer_state,
    full_weights,
    load_optimizer_state,
    shard,
)
from ultrashape_cli.training.strategies import Strategy, make_optimizer, select_parameters


class Trainee:
    """The network that trains, its optimizer, and what a checkpoint holds of both.

    Args:
        config: Settings of the run.
        strategy: From `resolve_strategy`.
        component: The network whose weights are saved, in fp32; a resumed run has loaded them.
        net: What is called in the forward pass; wraps `component` where they differ.
        accelerator: Device and processes.
    """

    def __init__(
        self,
        config: Config,
        strategy: Strategy,
        *,
        component: nn.Module,
        net: nn.Module,
        accelerator: Accelerator,
    ) -> None:
        self.strategy = strategy
        self.component = component
        self._accelerator = accelerator
        settings, device = config.train, accelerator.device
        trained = select_parameters(component, settings, strategy, seed=config.seed)
        masters = {p: p.detach() for p in trained} if strategy.offloaded else None
        for parameter in component.parameters():
            # Weights read from a file start anywhere in memory, and CPU kernels round differently
            # by alignment: a resumed run would drift from an undisturbed one.
            dtype = strategy.weight_dtype(parameter, settings.dtype)
            parameter.data = parameter.data.to(device, dtype, copy=True)
        component.to(device).train()
        if strategy.sharded:
            shard(component, accelerator, half=settings.dtype == "bf16", launch=config.launch)
        self.optimizer = make_optimizer(
            component, settings, strategy, seed=config.seed, masters=masters
        )
        net = net.to(device)
        self.net = net if strategy.sharded else accelerator.prepare_model(net)

    def accumulating(self, last: bool) -> AbstractContextManager[None]:
        """Returns the context of a microbatch; gradients are exchanged in the last one only."""
        if self.strategy.sharded:
            self.component.set_requires_gradient_sync(last)  # type: ignore[operator]
            return contextlib.nullcontext()
        return contextlib.nullcontext() if last else self._accelerator.no_sync(self.net)

    def clip(self, limit: float) -> float:
        """Scales the gradients down to a global norm of `limit`; returns the norm before."""
        if isinstance(self.optimizer, OffloadedAdamW):
            self.optimizer.wait()
        norm = torch.nn.utils.clip_grad_norm_(self.gradients(), limit)
        return float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)

    def gradients(self) -> list[nn.Parameter]:
        """Returns the parameters whose `grad` the optimizer will use."""
        if isinstance(self.optimizer, OffloadedAdamW):
            return self.optimizer.masters
        return [p for p in self.component.parameters() if p.requires_grad]

    def trained(self) -> dict[str, Tensor]:
        """Returns the trained weights by the names of `weights`, as precise as they are kept."""
        if self.strategy.adapters:
            return adapter_weights(self.component)
        names = [name for name, p in self.component.named_parameters() if p.requires_grad]
        return dict(zip(names, self._precise(), strict=True))

    def weights(self) -> dict[str, Tensor]:
        """Returns what a checkpoint's weights file holds. Every process must call it."""
        if self.strategy.adapters:
            return self.trained()
        if self.strategy.sharded:
            return full_weights(self.component)
        return {**self.component.state_dict(), **self.trained()}

    def optimizer_state(self) -> dict[str, Any]:
        """Returns the optimizer's state. Every process must call it."""
        if self.strategy.sharded:
            return full_optimizer_state(self.component, self.optimizer)
        return self.optimizer.state_dict()

    def load_optimizer_state(self, state: dict[str, Any]) -> None:
        """Restores what `optimizer_state` returned."""
        if self.strategy.sharded:
            load_optimizer_state(self.component, self.optimizer, state)
        else:
            self.optimizer.load_state_dict(state)

    def _precise(self) -> list[Tensor]:
        if not isinstance(self.optimizer, OffloadedAdamW):
            return [p.detach() for p in self.component.parameters() if p.requires_grad]
        return [self.optimizer.master_of(p).detach() for p in self.component.parameters()]
