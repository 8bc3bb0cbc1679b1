"""A network under its strategy: wrapped, stepped, saved and restored in one place."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from ultrashape_cli.config.schema import Config
from ultrashape_cli.training.memory.lora import adapter_weights
from ultrashape_cli.training.memory.offload import OffloadedAdamW
from ultrashape_cli.training.memory.sharding import (
    full_optimizer_state,
    full_weights,
    gather_shares,
    load_optimizer_state,
    shard,
    split_shares,
)
from ultrashape_cli.training.memory.strategies import Strategy, make_optimizer, select_parameters
from ultrashape_cli.training.memory.zero import ZeroOptimizer, check_layout


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
        optimizer = make_optimizer(component, settings, strategy, seed=config.seed, masters=masters)
        net = net.to(device)
        self._host_group: Any = None
        self.optimizer: torch.optim.Optimizer | OffloadedAdamW | ZeroOptimizer
        if config.launch.engine == "deepspeed":
            assert isinstance(optimizer, torch.optim.Optimizer)
            self.optimizer = ZeroOptimizer(net, optimizer, config, accelerator)
            self.net = self.optimizer.net
            return
        self.optimizer = optimizer
        # Offloaded gradients leave the device before they could be exchanged there.
        alone = strategy.sharded or strategy.offloaded
        self.net = net if alone else accelerator.prepare_model(net)
        if strategy.offloaded and accelerator.num_processes > 1:
            self._host_group = torch.distributed.new_group(backend="gloo")

    def accumulating(self, last: bool) -> AbstractContextManager[None]:
        """Returns the context of a microbatch; gradients are exchanged in the last one only."""
        if self.strategy.sharded:
            self.component.set_requires_gradient_sync(last)  # type: ignore[operator]
            return contextlib.nullcontext()
        if isinstance(self.optimizer, ZeroOptimizer):
            self.optimizer.accumulate(last)
            return contextlib.nullcontext()
        if last or self.strategy.offloaded:
            return contextlib.nullcontext()
        return self._accelerator.no_sync(self.net)

    def backward(self, loss: Tensor) -> None:
        """Adds the gradients of a microbatch's loss to those of the step."""
        if isinstance(self.optimizer, ZeroOptimizer):
            self.optimizer.backward(loss)
        else:
            loss.backward()

    def wait(self) -> None:
        """Returns when the gradients are where the optimizer reads them, the mean of all processes.

        Only offloaded ones are not there already.
        """
        if not isinstance(self.optimizer, OffloadedAdamW):
            return
        self.optimizer.wait()
        if self._host_group is None:
            return
        for master in self.optimizer.masters:
            if master.grad is None:
                master.grad = torch.zeros_like(master)
            torch.distributed.all_reduce(master.grad, group=self._host_group)
            master.grad /= self._accelerator.num_processes

    def clip(self, limit: float) -> float:
        """Scales the gradients down to a global norm of `limit`; returns the norm before.

        Divided by deepspeed, they are scaled in the step.
        """
        if isinstance(self.optimizer, ZeroOptimizer):
            return self.optimizer.norm()
        norm = torch.nn.utils.clip_grad_norm_(self.gradients(), limit)
        return float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)

    def gradients(self) -> list[nn.Parameter]:
        """Returns the parameters whose `grad` the optimizer will use."""
        if isinstance(self.optimizer, OffloadedAdamW):
            return self.optimizer.masters
        return [p for p in self.component.parameters() if p.requires_grad]

    def trained(self) -> dict[str, Tensor]:
        """Returns the trained weights by the names of `weights`, as precise as they are kept.

        With weights in shards it is this process's share.
        """
        weights = self._on_device()
        if not isinstance(self.optimizer, OffloadedAdamW):
            return weights
        return {
            name: self.optimizer.master_of(parameter).detach()
            for name, parameter in self.component.named_parameters()
            if parameter.requires_grad
        }

    def whole(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns values like those of `trained`, gathered. Every process must call it."""
        if not self.strategy.sharded:
            return dict(values)
        return gather_shares(self.component, values)

    def share_of(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns this process's share of gathered values."""
        if not self.strategy.sharded:
            return dict(values)
        return split_shares(self.component, values)

    @contextlib.contextmanager
    def holding(self, values: Mapping[str, Tensor]) -> Iterator[None]:
        """Puts values like those of `trained` in the place of the weights while it is open."""
        weights = self._on_device()
        kept = {name: weight.clone() for name, weight in weights.items()}
        for name, weight in weights.items():
            weight.copy_(values[name])
        try:
            yield
        finally:
            for name, weight in weights.items():
                weight.copy_(kept[name])

    def weights(self) -> dict[str, Tensor]:
        """Returns what a checkpoint's weights file holds. Every process must call it."""
        if self.strategy.adapters:
            return self.trained()
        if self.strategy.sharded:
            return full_weights(self.component)
        if isinstance(self.optimizer, ZeroOptimizer):
            return self.optimizer.weights()
        return {**self.component.state_dict(), **self.trained()}

    def optimizer_state(self) -> dict[str, Any]:
        """Returns the optimizer's state. Every process must call it."""
        if self.strategy.sharded:
            return full_optimizer_state(self.component, self.optimizer)
        return self.optimizer.state_dict()

    def load_optimizer_state(self, state: dict[str, Any]) -> None:
        """Restores what `optimizer_state` returned.

        Raises:
            CheckpointError: Another engine saved it.
        """
        if not isinstance(self.optimizer, ZeroOptimizer):
            check_layout(state, None)
        if self.strategy.sharded:
            load_optimizer_state(self.component, self.optimizer, state)
        else:
            self.optimizer.load_state_dict(state)

    def _on_device(self) -> dict[str, Tensor]:
        if self.strategy.adapters:
            return adapter_weights(self.component)
        if self.strategy.sharded:
            # A forward pass without a backward pass leaves the outermost weights gathered.
            self.component.reshard()  # type: ignore[operator]
        found: dict[str, Any] = {
            name: parameter.detach()
            for name, parameter in self.component.named_parameters()
            if parameter.requires_grad
        }
        return {n: p.to_local() for n, p in found.items()} if self.strategy.sharded else found
