"""Weights that wait on the host: whole networks, or blocks that follow each other on the device.

A streamed network keeps its blocks in pinned host memory and has two slots on the device. While
one block computes in one slot, the next is copied into the other on a stream of its own.
"""

from __future__ import annotations

import contextlib
import logging
import weakref
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ultrashape_cli.devices import empty_cache
from ultrashape_cli.models.quantised import quantise_linears
from ultrashape_cli.models.quantised_file import quantisable_layers
from ultrashape_cli.models.registry import Networks

logger = logging.getLogger(__name__)

SLOTS = 2
_ALIGNMENT = 256  # bytes; kernels want aligned weights
_PORTABLE = 1  # pinned for all contexts (`cudaHostRegisterPortable`)


class _Place(NamedTuple):
    """Where a parameter or buffer lies in its block's bytes."""

    owner: nn.Module
    name: str
    start: int
    shape: torch.Size
    dtype: torch.dtype


class BlockStream:
    """Runs blocks whose weights are on the host; results are those of resident weights.

    Args:
        blocks: In the order in which they run, on the host. Their weights move into one buffer
            of all blocks, and are views of a slot while the block runs.
        device: Where they compute.
    """

    # Weights outlive the inference mode in which a stream may be made.
    @torch.inference_mode(False)
    def __init__(self, blocks: nn.ModuleList, device: torch.device) -> None:
        self.blocks = blocks
        self.device = device
        self._cuda = device.type == "cuda"
        layouts = [_layout(block) for block in blocks]
        self._places = [places for places, _ in layouts]
        sizes = [size for _, size in layouts]
        # Ordinary memory gets its pages as they are filled, while each block frees what it had.
        # torch's own pinned memory is rounded up to powers of two: half as much again.
        memory = torch.empty(sum(sizes), dtype=torch.uint8)
        self._host = list(memory.split(sizes))
        for places, buffer in zip(self._places, self._host, strict=True):
            _gather(places, buffer)
        self._unpin = _pin(memory, self, device) if self._cuda else None
        largest = max(sizes)
        self._slots = [torch.empty(largest, dtype=torch.uint8, device=device) for _ in range(SLOTS)]
        self._holds: list[int | None] = [None] * SLOTS
        self._last = 0
        self._copied: list[Any] = [None] * SLOTS
        self._used: list[Any] = [None] * SLOTS
        self._stream: Any = torch.cuda.Stream(device) if self._cuda else None
        self._handles = [
            handle
            for index, block in enumerate(blocks)
            for handle in (
                block.register_forward_pre_hook(self._before(index)),
                block.register_forward_hook(self._after(index)),
            )
        ]

    @property
    def device_bytes(self) -> int:
        """Bytes of the slots."""
        return sum(slot.numel() for slot in self._slots)

    def each(self) -> Iterator[nn.Module]:
        """Yields every block while its weights are on the device."""
        for index, block in enumerate(self.blocks):
            self._enter(index)
            yield block
            self._leave(index)

    def close(self) -> None:
        """Takes the hooks off and gives the blocks their weights on the host back."""
        if self._cuda:
            torch.cuda.synchronize(self.device)
        for handle in self._handles:
            handle.remove()
        for places, buffer in zip(self._places, self._host, strict=True):
            _attach(places, buffer)
        self._slots.clear()
        if self._unpin is not None:
            self._unpin()

    def _before(self, index: int) -> Callable[..., None]:
        return lambda block, inputs: self._enter(index)

    def _after(self, index: int) -> Callable[..., None]:
        return lambda block, inputs, output: self._leave(index)

    def _enter(self, index: int) -> None:
        if index not in self._holds:
            self._fetch(index, 1 - self._last)
        slot = self._last = self._holds.index(index)
        if self._cuda:
            torch.cuda.current_stream(self.device).wait_event(self._copied[slot])
        _attach(self._places[index], self._slots[slot])
        following = (index + 1) % len(self.blocks)
        if following not in self._holds:
            self._fetch(following, 1 - slot)

    def _leave(self, index: int) -> None:
        if self._cuda:
            self._used[self._last] = torch.cuda.current_stream(self.device).record_event()

    def _fetch(self, index: int, slot: int) -> None:
        """Copies a block into a slot, after the block that was there has computed."""
        self._holds[slot] = index
        source = self._host[index]
        target = self._slots[slot][: source.numel()]
        if not self._cuda:
            target.copy_(source)
            return
        if self._used[slot] is not None:
            self._stream.wait_event(self._used[slot])
        with torch.cuda.stream(self._stream):
            target.copy_(source, non_blocking=True)
            self._copied[slot] = self._stream.record_event()


class Placement:
    """Brings each network to the device when it is needed.

    Args:
        networks: On the device (`resident`), else on the host.
        device: Where they compute.
        mode: `resident`, `sequential`, `streamed` or `int8`.
    """

    def __init__(self, networks: Networks, device: torch.device, mode: str) -> None:
        self.networks = networks
        self.device = device
        self.mode = mode
        # Kept from one mesh to the next: filling pinned memory takes seconds.
        self._stream: BlockStream | None = None

    @contextlib.contextmanager
    def using(self, name: str) -> Iterator[BlockStream | None]:
        """Has a network on the device inside the block; yields its stream where it has one."""
        network: nn.Module | None = getattr(self.networks, name)
        if network is None or self.mode == "resident":
            yield None
            return
        streamed = self.mode == "streamed" and name == "dit"
        if streamed and self._stream is None:
            assert isinstance(network.blocks, nn.ModuleList)
            self._stream = BlockStream(network.blocks, self.device)
        parts = [network]
        if streamed:
            parts = [child for child in network.children() if child is not network.blocks]
        try:
            for part in parts:
                part.to(self.device)
            yield self._stream if streamed else None
        finally:
            for part in parts:
                part.to("cpu")
            empty_cache(self.device)

    def close(self) -> None:
        """Gives streamed blocks their weights on the host back."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None


def quantise_dit(dit: nn.Module, device: torch.device | None = None) -> None:
    """Replaces the linear layers of the DiT's blocks, but for the routers, by int8 ones.

    Args:
        dit: The network; its weights stay where they are.
        device: Where to compute the codes; None for there.
    """
    quantise_linears(dit, quantisable_layers(dit, "int8"), "int8", device=device)


def _layout(block: nn.Module) -> tuple[list[_Place], int]:
    """Returns where each tensor of a block goes, and the bytes of all."""
    places, start = [], 0
    for owner in block.modules():
        for name, tensor in [*owner._parameters.items(), *owner._buffers.items()]:
            if tensor is None:
                continue
            places.append(_Place(owner, name, start, tensor.shape, tensor.dtype))
            size = tensor.numel() * tensor.element_size()
            start += -(-size // _ALIGNMENT) * _ALIGNMENT
    return places, start


def _gather(places: list[_Place], buffer: Tensor) -> None:
    """Copies the tensors of a block into its bytes, and lets them be views of these."""
    for place in places:
        _view(buffer, place).copy_(_tensor(place))
    _attach(places, buffer)


def _tensor(place: _Place) -> Tensor:
    found = getattr(place.owner, place.name)
    assert isinstance(found, Tensor)
    return found


def _view(buffer: Tensor, place: _Place) -> Tensor:
    size = place.shape.numel() * place.dtype.itemsize
    return buffer[place.start : place.start + size].view(place.dtype).view(place.shape)


def _attach(places: list[_Place], buffer: Tensor) -> None:
    for place in places:
        _tensor(place).data = _view(buffer, place)


def _pin(memory: Tensor, owner: object, device: torch.device) -> Callable[[], object] | None:
    """Pins host memory where it lies, so that it is copied while the host goes on.

    Returns:
        What unpins it, called for the owner where it is gone without that; None where the driver
        refuses, as under a limit of a container: the host then waits for each copy.
    """
    size = memory.numel()
    with torch.cuda.device(device):
        failure = int(torch.cuda.cudart().cudaHostRegister(memory.data_ptr(), size, _PORTABLE))
        if failure:
            logger.warning(
                "%.1f GiB of host memory cannot be pinned (CUDA error %d): weights stream slower",
                *(size / 2**30, failure),
            )
            # The error would else be told of the next kernel, which has no part in it.
            with contextlib.suppress(RuntimeError):
                torch.zeros(1, device=device)
            return None
    # It holds the memory, which must not be freed before. At the end of the process the driver
    # unpins.
    unpin = weakref.finalize(owner, _unpin, memory, device)
    unpin.atexit = False
    return unpin


def _unpin(memory: Tensor, device: torch.device) -> None:
    torch.cuda.synchronize(device)
    torch.cuda.cudart().cudaHostUnregister(memory.data_ptr())
