"""Where a step's time and memory go, and what share of the card's peak it reaches."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import psutil
import torch


class Stopwatch:
    """Seconds of the named parts of a step.

    On a GPU the parts are bracketed by events of its stream, so that measuring waits for nothing;
    reading them does, and belongs behind the step's own synchronisation.

    Args:
        device: Where the parts run.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._seconds: dict[str, float] = {}
        self._events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Adds the time of the block to a part."""
        if self._cuda:
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            yield
            end.record()
            self._events.append((name, start, end))
            return
        started = time.perf_counter()
        yield
        self._add(name, time.perf_counter() - started)

    def read(self) -> dict[str, float]:
        """Returns the seconds by part since the last call; waits for the last part to end."""
        if self._events:
            self._events[-1][2].synchronize()
        for name, start, end in self._events:
            self._add(name, start.elapsed_time(end) / 1000)
        self._events.clear()
        found, self._seconds = self._seconds, {}
        return found

    def _add(self, name: str, seconds: float) -> None:
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds


def memory_readings(device: torch.device) -> dict[str, float]:
    """Returns peaks of the device since the start and this process's host memory, in GiB."""
    found = {"host_memory_gib": psutil.Process().memory_info().rss / 2**30}
    if device.type == "cuda":
        found["memory_gib"] = torch.cuda.max_memory_allocated(device) / 2**30
        found["memory_reserved_gib"] = torch.cuda.max_memory_reserved(device) / 2**30
    return found


def utilisation(
    forward_flops: int,
    seconds: float,
    *,
    peak_tflops: float,
    backward: float,
    recomputed: float,
) -> dict[str, float]:
    """Returns `mfu` and `hfu`, shares of the peak; nothing where the peak is unknown.

    Args:
        forward_flops: Of all forward passes of the step on this process, from real token counts.
        seconds: Of the step.
        peak_tflops: Dense bf16 peak of the card; 0 where it is not known.
        backward: FLOPs of the backward pass over those of the forward one: 2, or 1 where most
            weights are frozen.
        recomputed: Share of the forward pass that is computed again.
    """
    if not peak_tflops or seconds <= 0:
        return {}
    unit = forward_flops / (seconds * peak_tflops * 1e12)
    return {"mfu": unit * (1 + backward), "hfu": unit * (1 + backward + recomputed)}


class TimestepBins:
    """Mean loss by timestep, in equal bins of [0, 1], over the samples since the last reading.

    Sums stay on the device until they are read.
    """

    NUM_BINS = 10

    def __init__(self, device: torch.device) -> None:
        self._sums = torch.zeros(2, self.NUM_BINS, device=device)

    def add(self, t: torch.Tensor, losses: torch.Tensor) -> None:  # [B], [B]
        """Counts a microbatch."""
        index = (t * self.NUM_BINS).long().clamp(0, self.NUM_BINS - 1)
        self._sums[0].index_add_(0, index, losses.float())
        self._sums[1].index_add_(0, index, torch.ones_like(losses, dtype=torch.float32))

    def read(self, reduce: Callable[..., torch.Tensor]) -> dict[str, float]:
        """Returns `loss_t0` to `loss_t9`, not a number where no sample fell, and starts anew.

        Args:
            reduce: Sums a tensor over all processes, each of which must call this.
        """
        sums, counts = reduce(self._sums, reduction="sum").tolist()
        self._sums.zero_()
        return {
            f"loss_t{i}": total / count if count else float("nan")
            for i, (total, count) in enumerate(zip(sums, counts, strict=True))
        }
