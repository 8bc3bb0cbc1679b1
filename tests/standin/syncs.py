"""Counts on the CPU where a card would make the host wait for it.

Tensors are followed: those said to lie on the card, what is computed of them, and what is made on,
or moved to, a device that is named. What a card would refuse, tensors of both places in one
operation, is an error here too.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

import ultrashape_cli

_PACKAGE = Path(ultrashape_cli.__file__).parent
# Their results have the shape, or are the values, that the host must read.
_READS = ("_local_scalar_dense", "_unique", "_unique2", "unique_dim", "unique_consecutive")
_READS += ("nonzero", "masked_select", "repeat_interleave", "equal", "bincount")
_INDEXING = ("index", "index_put", "index_put_", "_index_put_impl_")
_TO_HOST = ("cpu", "numpy", "tolist")
_FROM_PYTHON = ("tensor", "as_tensor", "new_tensor")


def count_syncs(work: Callable[[], object], on_card: Iterable[Tensor]) -> Counter[str]:
    """Returns how often each place of the package would wait for the card, by what it does.

    Args:
        work: What to run.
        on_card: What lies on the card before.
    """
    card = _Card()
    for tensor in on_card:
        card.add(tensor)
    # Else nothing would be seen of what a backward pass computes again: calls made by a call
    # that is seen are not.
    unseen = patch.object(torch.autograd, "has_torch_function", lambda tensors: False)
    with unseen, _Operations(card), _Calls(card):
        work()
    return card.waits


class _Card:
    """What lies on the card, and where the host waited for it."""

    def __init__(self) -> None:
        self.waits: Counter[str] = Counter()
        # The tensors themselves, so that no later one gets the same address.
        self._storages: dict[int, Tensor] = {}

    def add(self, values: Any) -> None:
        for tensor in _tensors(values):
            self._storages[tensor.untyped_storage()._cdata] = tensor

    def remove(self, tensor: Tensor) -> None:
        self._storages.pop(tensor.untyped_storage()._cdata, None)

    def holds(self, tensor: Tensor) -> bool:
        return tensor.untyped_storage()._cdata in self._storages

    def wait(self, what: str) -> None:
        frames = [f for f in traceback.extract_stack() if _PACKAGE in Path(f.filename).parents]
        place = f"{Path(frames[-1].filename).stem}.{frames[-1].name}" if frames else "the test"
        self.waits[f"{what} in {place}"] += 1


class _Operations(TorchDispatchMode):
    """Follows what is computed."""

    def __init__(self, card: _Card) -> None:
        super().__init__()
        self.card = card

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.split("::")[1]
        given = _tensors((args, kwargs))
        here = [tensor for tensor in given if self.card.holds(tensor)]
        # Those without dimensions are numbers to a kernel.
        apart = [tensor for tensor in given if tensor.ndim and not self.card.holds(tensor)]
        result = func(*args, **kwargs)
        if not here:
            return result
        if name in _READS:
            self.card.wait(name)
        elif name in _INDEXING:
            if any(tensor.dtype == torch.bool for tensor in _tensors(args[1])):
                self.card.wait("a mask as index")
            if apart:
                self.card.wait("an index of the host")
        elif name == "copy_":
            if apart and not (len(args) > 2 and args[2]):
                self.card.wait("copy_")
            return result
        elif apart:
            raise AssertionError(f"{name} has {[*apart[0].shape]} on the host, others on the card")
        self.card.add(result)
        return result


class _Calls(TorchFunctionMode):
    """Sees which device a call names: on the CPU there is but one."""

    def __init__(self, card: _Card) -> None:
        super().__init__()
        self.card = card

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in _TO_HOST and self.card.holds(args[0]):
            self.card.wait(name)
        result = func(*args, **kwargs)
        if name == "cpu":
            result = result.clone()
            self.card.remove(result)
        elif name == "to" and _names_device((*args[1:], *kwargs.values())):
            if not self.card.holds(args[0]):
                if not kwargs.get("non_blocking"):
                    self.card.wait("to")
                # On the CPU it made no copy, and the host may go on with its own.
                result = result.clone()
            self.card.add(result)
        elif kwargs.get("device") is not None or name == "new_tensor":
            if name in _FROM_PYTHON:
                self.card.wait(name)
            self.card.add(result)
        return result


def _names_device(values: Iterable[Any]) -> bool:
    return any(isinstance(value, str | torch.device | Tensor) for value in values)


def _tensors(values: Any) -> list[Tensor]:
    return [value for value in tree_iter(values) if isinstance(value, Tensor)]
