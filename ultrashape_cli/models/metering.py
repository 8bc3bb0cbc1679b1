"""Memory and arithmetic of the real modules, measured without computing them.

Fake tensors have shapes and no storage, so a step of the full model takes seconds on a laptop.
What is counted is what it would allocate: every storage from its birth to its death.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
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


_FREE = ("empty", "empty_like", "empty_strided", "new_empty", "detach", "alias", "lift_fresh")
"""Operations that only make room, or a view of it."""


@dataclass(slots=True)
class Work:
    """What was computed."""

    products: int = 0
    """FLOPs of matrix products."""
    attention: int = 0
    """FLOPs of attention."""
    moved: int = 0
    """Bytes that all other kernels read and write."""
    traffic: int = 0
    """Bytes that all kernels read and write."""
    launches: int = 0
    """Kernels."""

    @property
    def flops(self) -> int:
        """FLOPs of products and attention."""
        return self.products + self.attention

    def __add__(self, other: Work) -> Work:
        return Work(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Work)))

    def times(self, count: int) -> Work:
        """Returns so many times the work."""
        return Work(*(getattr(self, f.name) * count for f in fields(Work)))


class Meter(TorchDispatchMode):
    """Counts the work, and the bytes of all storages that operations made and that still live."""

    def __init__(self) -> None:
        super().__init__()
        self.work = Work()
        self.now = 0
        self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        made = self.counted(result)
        if made:
            self._count(func, args, kwargs, result, made)
        for tensor in made:
            self.track(tensor)
        return result

    def counted(self, values: Any) -> list[Tensor]:
        """Returns the tensors of nested values that count."""
        return [value for value in tree_iter(values) if isinstance(value, Tensor)]

    def _count(self, func: Any, args: Any, kwargs: Any, result: Any, made: list[Tensor]) -> None:
        given = self.counted((args, kwargs))
        schema = func._schema
        storages = {tensor.untyped_storage()._cdata for tensor in given}
        writes = any(a.alias_info and a.alias_info.is_write for a in schema.arguments)
        is_view = not writes and all(t.untyped_storage()._cdata in storages for t in made)
        name = schema.name.split("::")[1]
        if is_view or name in _FREE:
            return
        size = sum(map(size_of, given)) + sum(map(size_of, made))
        self.work.launches += 1
        self.work.traffic += size
        if func in _CPU_ATTENTION:
            self.work.attention += _CPU_ATTENTION[func](*args)
        elif func._overloadpacket not in flop_registry:
            self.work.moved += size
        else:
            flops = flop_registry[func._overloadpacket](*args, **kwargs, out_val=result)
            kind = "attention" if "attention" in name else "products"
            setattr(self.work, kind, getattr(self.work, kind) + flops)

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
