"""Averaged weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from ultrashape_cli.config.schema import TrainConfig

_PIECE = 2**24
"""Elements on their way to the host at once."""


class Ema:
    """An exponential moving average of weights, fp32 in host memory.

    Update k (from 1) uses the decay min(decay, (1 + k) / (10 + k)), so early averages follow
    the weights. With `every` above 1 the average moves at each such update only, by the decays of
    all since the last.

    Args:
        weights: What to average, by name.
        decay: Final decay per update.
        every: Updates between those that read the weights.
        background: Average while the caller goes on; it calls `wait` before it changes the weights.
    """

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        decay: float,
        *,
        every: int = 1,
        background: bool = False,
    ) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be in [0, 1), got {decay}")
        self.decay = decay
        self.every = every
        self.num_updates = 0
        self._shadow = {
            name: value.detach().to("cpu", torch.float32, copy=True)
            for name, value in weights.items()
        }
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ema") if background else None
        self._running: Future[None] | None = None

    @property
    def shadow(self) -> dict[str, Tensor]:
        """The average, by name."""
        self.wait()
        return self._shadow

    def update(self, weights: Mapping[str, Tensor]) -> None:
        """Moves the average towards the weights."""
        self.wait()
        self.num_updates += 1
        if self.num_updates % self.every:
            return
        first = self.num_updates - self.every + 1
        decays = (min(self.decay, (1 + k) / (10 + k)) for k in range(first, self.num_updates + 1))
        share = 1 - math.prod(decays)
        # Captured here: in another thread the current stream is not that of the training.
        ready = _event() if any(value.is_cuda for value in weights.values()) else None
        if self._thread is None:
            self._move(dict(weights), share, ready)
        else:
            self._running = self._thread.submit(self._move, dict(weights), share, ready)

    def wait(self) -> None:
        """Returns when the weights are no longer read.

        Raises:
            RuntimeError: Reading them failed.
        """
        running, self._running = self._running, None
        if running is not None:
            running.result()

    @torch.no_grad()
    def restore(self, shadow: Mapping[str, Tensor], num_updates: int) -> None:
        """Continues from a saved average."""
        self.wait()
        self.num_updates = num_updates
        for name, value in self._shadow.items():
            value.copy_(shadow[name])

    @torch.no_grad()
    def _move(
        self, weights: Mapping[str, Tensor], share: float, ready: torch.cuda.Event | None
    ) -> None:
        if ready is None:
            for name, shadow in self._shadow.items():
                shadow.lerp_(weights[name].detach().to("cpu", torch.float32), share)
            return
        pairs = [
            (self._shadow[name].view(-1), w.detach().reshape(-1)) for name, w in weights.items()
        ]
        pieces = [
            pair
            for shadow, weight in pairs
            for pair in zip(shadow.split(_PIECE), weight.split(_PIECE), strict=True)
        ]
        for shadow, values in _fetched(pieces, ready):
            shadow.lerp_(values, share)


def _event() -> torch.cuda.Event:
    event = torch.cuda.Event()
    event.record()
    return event


def _fetched(
    pieces: list[tuple[Tensor, Tensor]], ready: torch.cuda.Event
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields pieces with their second tensor on the host; one is used, one is on its way."""
    device = pieces[0][1].device
    stream = torch.cuda.Stream(device)
    stream.wait_event(ready)
    buffers = [torch.empty(_PIECE, pin_memory=True) for _ in range(2)]
    arrived = [torch.cuda.Event() for _ in range(2)]

    def fetch(index: int) -> None:
        with torch.cuda.stream(stream):
            source = pieces[index][1]
            buffers[index % 2][: len(source)].copy_(source, non_blocking=True)
            arrived[index % 2].record()

    fetch(0)
    for index, (shadow, values) in enumerate(pieces):
        if index + 1 < len(pieces):
            fetch(index + 1)
        arrived[index % 2].synchronize()
        yield shadow, buffers[index % 2][: len(values)]


def start_average(
    config: TrainConfig, weights: Mapping[str, Tensor], device: torch.device
) -> Ema | None:
    """Returns the average of a run's weights; None where it keeps none."""
    if not config.ema_decay:
        return None
    return Ema(
        weights,
        config.ema_decay,
        every=config.ema_every,
        # On a CPU it would take the cores from the training.
        background=device.type != "cpu",
    )
