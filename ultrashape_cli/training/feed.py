"""What the steps of a run read: microbatches in the order of a sample counter."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch

from ultrashape_cli.config.schema import TrainConfig
from ultrashape_cli.data.dataset import Item
from ultrashape_cli.errors import LoaderError, TrainingError
from ultrashape_cli.training.agreement import Agreement

logger = logging.getLogger(__name__)


class Draw(NamedTuple):
    """What one step reads."""

    microbatches: list[Item]
    samples: int
    """Samples over all processes."""
    seconds: float
    """Time waited for them."""


class Feed:
    """Draws a step's microbatches and counts their samples.

    Args:
        config: Settings of the run.
        batches: Sample counter -> endless microbatches of this process.
        agree: Among the processes.
    """

    COUNTERS = ("samples", "bad_samples")
    """Attributes that a checkpoint keeps."""

    def __init__(
        self, config: TrainConfig, batches: Callable[[int], Iterator[Item]], agree: Agreement
    ) -> None:
        self.config = config
        self.samples = 0
        self.bad_samples = 0
        self._batches = batches
        self._agree = agree
        self._open: Iterator[Item] | None = None

    @property
    def samples_per_step(self) -> int:
        """Samples of all processes in one step."""
        return self.config.accumulation * self.config.microbatch * self._agree.world

    def draw(self) -> Draw:
        """Returns the microbatches of the next step.

        With `train.skip_bad` a draw that leaves a process without samples is passed over by all.

        Raises:
            AssetError: A sample is broken, without `train.skip_bad`.
            LoaderError: A loader process of any training process ended; nothing is counted.
            TrainingError: Too many draws in a row had no readable sample.
        """
        config = self.config
        started = time.perf_counter()
        for _ in range(config.max_bad_steps):
            drawn = self._next()
            self.samples += self.samples_per_step
            if not config.skip_bad:
                return Draw(drawn, self.samples_per_step, time.perf_counter() - started)
            for message in (text for batch in drawn for text in batch["bad"]):
                logger.warning("left out: %s", message)
            good = [batch for batch in drawn if batch["uid"]]
            readable = float(sum(len(batch["uid"]) for batch in good))
            count = round(self._agree.sum(torch.tensor(readable)))
            self.bad_samples += self.samples_per_step - count
            if not self._agree.any(not good):
                return Draw(good, count, time.perf_counter() - started)
        raise TrainingError(
            f"{config.max_bad_steps} draws in a row had no readable sample",
            hint=f"`ushape split {config.data} --check` names the broken assets",
        )

    def _next(self) -> list[Item]:
        if self._open is None:
            self._open = self._batches(self.samples)
        lost: LoaderError | None = None
        drawn: list[Item] = []
        try:
            drawn = [next(self._open) for _ in range(self.config.accumulation)]
        except LoaderError as error:
            lost = error
        # The others would wait in the middle of a step for one that takes none.
        if self._agree.any(lost is not None):
            raise lost or LoaderError("a loader of another training process ended; see its log")
        return drawn
