"""Memory and arithmetic of the real modules, measured without computing them.

Fake tensors have shapes and no storage, so a step of the full model takes seconds on a laptop.
What is counted is what it would allocate: every storage from its birth to its death.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from ultrashape_cli.models.dit import RefineDiT
from ultrashape_cli.models.moe import MoEFeedForward
from ultrashape_cli.models.norms import RMSNorm

_CPU_ATTENTION: dict[Any, Callable[..., int]] = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default: (
        lambda q, k, v, *rest: sdpa_flop_count(q.shape, k.shape, v.shape)
    ),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default: (
        lambda grad, q, k, v, *rest: sdpa_backward_flop_count(grad.shape, q.shape, k.shape, v.shape)
    ),
}
"""What torch's own registry lacks."""


class Meter(TorchDispatchMode):
    """Counts FLOPs, and the bytes of all storages that operations made and that still live."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0
        self.now = 0
        self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func in _CPU_ATTENTION:
            self.flops += _CPU_ATTENTION[func](*args)
        elif func._overloadpacket in flop_registry:
            self.flops += flop_registry[func._overloadpacket](*args, **kwargs, out_val=result)
        for value in tree_iter(result):
            if isinstance(value, Tensor):
                self.track(value)
        return result

    def track(self, tensor: Tensor) -> None:
        """Counts a tensor's storage until it dies."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        self._known.add(key)
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def materialise(net: nn.Module, dtype: Callable[[nn.Parameter], torch.dtype]) -> None:
    """Gives parameters and buffers of the meta device fake storage, parameters in a dtype."""
    for module in net.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                values = torch.empty(parameter.shape, dtype=dtype(parameter))
                module._parameters[name] = nn.Parameter(values, parameter.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)


def size_of(tensor: Tensor) -> int:
    """Returns the bytes of a tensor's elements."""
    return tensor.numel() * tensor.element_size()


@contextlib.contextmanager
def planning(accelerator: bool) -> Iterator[None]:
    """Replaces what reads values, which fake tensors have not, by what is typical."""

    def split_evenly(layer: MoEFeedForward, rows: Tensor, load: Tensor) -> Sequence[Tensor]:
        return rows.tensor_split(len(layer.experts))

    def fused_norm(layer: RMSNorm, x: Tensor) -> Tensor:
        # On the CPU it is many operations; this one keeps what the GPU's single kernel keeps.
        with torch.autocast(x.device.type, enabled=False):
            return F.layer_norm(x, layer.weight.shape, layer.weight.to(x.dtype))

    with contextlib.ExitStack() as stack:
        stack.enter_context(replaced(MoEFeedForward, "split", split_evenly))
        stack.enter_context(replaced(RefineDiT, "_check", lambda *inputs: None))
        if accelerator:
            stack.enter_context(replaced(RMSNorm, "forward", fused_norm))
        yield


@contextlib.contextmanager
def replaced(owner: type, name: str, value: Any) -> Iterator[None]:
    """Gives a class another attribute inside the block."""
    original = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)
