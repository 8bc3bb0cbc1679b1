"""A network under its strategy: wrapped, stepped, saved and restored in one place."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from ultrashape_cli.config.schema import Config
from ultrashape_cli.training.memory.adamw8bit import AdamW8bit
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

_CLIP_EPS = 1e-6
"""As in `torch.nn.utils.clip_grad_norm_`."""


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
        self.optimizer, self.net = optimizer, net
        if accelerator.num_processes > 1 and not strategy.sharded:
            self._share_weights()

    def backward(self, loss: Tensor, *, last: bool = True) -> None:
        """Adds the gradients of a microbatch's loss to those of the step; `last` ends it.

        Gradients in shards are exchanged in every microbatch: those that wait are whole.
        """
        if isinstance(self.optimizer, ZeroOptimizer):
            self.optimizer.accumulate(last)
            self.optimizer.backward(loss)
        else:
            loss.backward()

    def wait(self) -> None:
        """Returns when the gradients are where the optimizer reads them, the mean of all processes.

        Shards are there already. Whole copies are summed in place: the buckets of
        `DistributedDataParallel` would be a second copy of them.
        """
        if isinstance(self.optimizer, OffloadedAdamW):
            self.optimizer.wait()
        world = self._accelerator.num_processes
        if world == 1 or self.strategy.sharded or isinstance(self.optimizer, ZeroOptimizer):
            return
        work = []
        for parameter in self.gradients():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            parameter.grad /= world
            group, gradient = self._host_group, parameter.grad
            work.append(torch.distributed.all_reduce(gradient, group=group, async_op=True))
        for one in work:
            one.wait()

    def _share_weights(self) -> None:
        """Gives all processes the weights of the first: files may differ between machines."""
        if isinstance(self.optimizer, OffloadedAdamW):
            # Offloaded gradients leave the device before they could be exchanged there.
            self._host_group = torch.distributed.new_group(backend="gloo")
            for master in self.optimizer.masters:
                torch.distributed.broadcast(master.detach(), 0, group=self._host_group)
        for value in (*self.component.parameters(), *self.component.buffers()):
            torch.distributed.broadcast(value.detach(), 0)

    def clip(self, limit: float) -> float:
        """Has the gradients scaled down to a global norm of `limit`; returns the norm before.

        Where the optimizer can scale as it reads them, they are scaled in the step.
        """
        if isinstance(self.optimizer, ZeroOptimizer):
            return self.optimizer.norm()
        if isinstance(self.optimizer, AdamW8bit | OffloadedAdamW):
            found = [p.grad for p in self.gradients() if p.grad is not None]
            norm = float(torch.nn.utils.get_total_norm(found))
            self.optimizer.gradient_scale = min(limit / (norm + _CLIP_EPS), 1.0)
            return norm
        total = torch.nn.utils.clip_grad_norm_(self.gradients(), limit)
        return float(total.full_tensor() if hasattr(total, "full_tensor") else total)

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
            return
        self.optimizer.load_state_dict(state)
        if isinstance(self.optimizer, ZeroOptimizer | AdamW8bit):
            return
        for values in self.optimizer.state.values():
            for name, value in values.items():
                if isinstance(value, Tensor) and not value.is_cuda:
                    # torch keeps what fits as it is, and this is memory of the file.
                    values[name] = value.clone()

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
