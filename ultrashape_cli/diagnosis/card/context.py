"""What a case gets, and the ways it may end beside its figures."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ultrashape_cli.config.resolve import Resolved, resolve
from ultrashape_cli.devices import synchronise
from ultrashape_cli.diagnosis.card.parts import Settings, Sizes
from ultrashape_cli.models.registry import ModelSpec, model_spec

REACHED = 0.5
"""Share of the rate of large products that a network is assumed to reach, to tell its seconds."""


class NoTime(Exception):
    """A case would take longer than is left; `seconds` is about how long."""

    def __init__(self, seconds: float, left: float) -> None:
        super().__init__(f"it takes about {seconds:.1f} s, {max(left, 0):.1f} s were left")
        self.seconds = seconds


class NotHere(Exception):
    """A case that this machine, or this installation, has not the means for."""


class Failed(Exception):
    """A case that came out wrong, with the figures it has nevertheless."""

    def __init__(self, reason: str, figures: dict[str, Any]) -> None:
        super().__init__(reason)
        self.figures = figures


@dataclass(frozen=True, kw_only=True, slots=True)
class Context:
    """Where and how large a case runs, and how long it may."""

    settings: Settings
    device: torch.device
    tflops: float
    """Rate of large products here; an assumption where it was not measured."""
    deadline: float
    """On the clock of `time.monotonic`."""

    @property
    def sizes(self) -> Sizes:
        """Returns how large the cases are."""
        return self.settings.sizes

    @property
    def spec(self) -> ModelSpec:
        """Returns the model."""
        return model_spec(self.settings.model)

    @property
    def cuda(self) -> bool:
        """Says whether this is a card, whose memory can be measured and limited."""
        return self.device.type == "cuda"

    @property
    def half(self) -> torch.dtype:
        """Returns what networks compute in here."""
        return torch.bfloat16 if self.cuda else torch.float32

    @property
    def left(self) -> float:
        """Returns the seconds that are left."""
        return self.deadline - time.monotonic()

    def seconds_of(self, flops: float) -> float:
        """Returns about how long some arithmetic takes."""
        return flops / (self.tflops * 1e12 * REACHED)

    def need(self, seconds: float) -> None:
        """Raises NoTime where less is left."""
        if seconds > self.left:
            raise NoTime(seconds, self.left)

    def resolve(self, **flags: Any) -> Resolved:
        """Returns the settings of a run here; keys have `__` for the dot."""
        own = {name.replace("__", "."): value for name, value in flags.items()}
        base = {
            "profile": self.settings.profile,
            "device": self.settings.device,
            "seed": self.settings.seed,
            "train.model": self.settings.model,
        }
        return resolve(flags=base | own, environ={})

    def synchronise(self) -> None:
        """Waits until the device has done what it was told."""
        synchronise(self.device)

    def time(self, run: Callable[[], object], at_least: float = 0.3) -> float:
        """Returns the mean seconds of a call, over as many as take `at_least` together."""
        run()
        once = self._time(run, 1)
        return self._time(run, max(1, round(at_least / max(once, 1e-6))))

    def _time(self, run: Callable[[], object], count: int) -> float:
        self.synchronise()
        started = time.perf_counter()
        for _ in range(count):
            run()
        self.synchronise()
        return (time.perf_counter() - started) / count


def require_compiler(device: torch.device) -> None:
    """Raises NotHere where there is no compiler that torch would use for a device."""
    cuda = device.type == "cuda"
    variable, programs = ("CC", ("gcc", "clang")) if cuda else ("CXX", ("g++", "clang++"))
    if not os.environ.get(variable) and not any(map(shutil.which, programs)):
        raise NotHere(f"neither {' nor '.join(programs)}, which torch.compile needs")
