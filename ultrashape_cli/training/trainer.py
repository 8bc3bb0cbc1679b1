"""The training loop. One step reads top to bottom: draw, forward, backward, clip, step, log."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from ultrashape_cli.config.schema import TrainConfig
from ultrashape_cli.data.dataset import Item, to_device
from ultrashape_cli.devices import autocast
from ultrashape_cli.errors import TrainingError
from ultrashape_cli.monitoring.events import MetricsWriter, truncate_after
from ultrashape_cli.runs import RunFolder, complete_checkpoints
from ultrashape_cli.training.checkpoint import load_checkpoint, save_checkpoint
from ultrashape_cli.training.objectives import (
    FlowObjective,
    VAEObjective,
    parameter_groups,
    trainable_parameters,
)
from ultrashape_cli.training.schedule import warmup_cosine

logger = logging.getLogger(__name__)

ADAM_BETAS = (0.9, 0.99)
ADAM_EPS = 1e-6
HEARTBEAT_S = 5.0


@dataclass(frozen=True, slots=True)
class Progress:
    """What a display needs after a step."""

    step: int
    steps: int
    values: dict[str, float]


class Trainer:
    """Trains one network of a model; resumes from the newest whole checkpoint of its run."""

    def __init__(
        self,
        config: TrainConfig,
        *,
        run: RunFolder,
        net: nn.Module,
        component: nn.Module,
        objective: FlowObjective | VAEObjective,
        batches: Callable[[int], Iterator[Item]],
        accelerator: Accelerator,
        validate: Callable[[nn.Module], dict[str, float]] | None = None,
        on_step: Callable[[Progress], None] = lambda progress: None,
        tracker: Callable[[dict[str, Any], int], None] = lambda values, step: None,
    ) -> None:
        """Resumes if the run has a checkpoint, then builds the optimizer.

        Args:
            config: The run's settings.
            run: Its folder.
            net: What is called in the forward pass; wraps `component` where they differ.
            component: The network whose weights are saved.
            objective: Its loss.
            batches: Sample counter -> endless microbatches of this process.
            accelerator: Device and processes.
            validate: Returns the validation metrics; called in eval mode.
            on_step: Progress leaves through here.
            tracker: Extra metrics sink.
        """
        self.config = config
        self.run = run
        self.component = component
        self.objective = objective
        self.batches = batches
        self.accelerator = accelerator
        self.validate = validate
        self.on_step = on_step
        self.tracker = tracker
        self.step = 0
        self.samples = 0
        self.smooth_loss = math.nan
        state = self._resume()
        component.to(accelerator.device).train()
        for parameter in component.parameters():
            # Weights read from a file start anywhere in memory, and CPU kernels round differently
            # by alignment: a resumed run would drift from an undisturbed one.
            parameter.data = parameter.data.clone()
        self.parameters = trainable_parameters(net, config.strategy)
        self.optimizer = torch.optim.AdamW(
            parameter_groups(net, config.weight_decay),
            lr=config.learning_rate,
            betas=ADAM_BETAS,
            eps=ADAM_EPS,
            # The foreach path makes temporaries as large as the parameters.
            fused=accelerator.device.type in {"cuda", "cpu"},
        )
        if state is not None:
            self.optimizer.load_state_dict(state["optimizer"])
        self.net = accelerator.prepare_model(net.to(accelerator.device))
        self._last_heartbeat = 0.0

    @property
    def is_main(self) -> bool:
        """Says whether this process writes files."""
        return self.accelerator.is_main_process

    def train(self, should_stop: Callable[[], bool]) -> bool:
        """Trains to the last step or until asked to stop; returns whether it finished.

        Raises:
            TrainingError: The loss or the gradient is not finite; no step was taken with it.
        """
        config = self.config
        writer = MetricsWriter(self.run.metrics) if self.is_main else None
        batches = self.batches(self.samples)
        self._heartbeat("running", force=True)
        mark = time.perf_counter()
        try:
            while self.step < config.steps:
                values = self.train_step(batches)
                now = time.perf_counter()
                values["seconds"], mark = now - mark, now
                last = self.step == config.steps
                if self.validate and (last or self._due(config.validate_every_steps)):
                    values |= self._validate(self.validate)
                if writer and (self._due(config.log_every_steps) or "val_loss" in values or last):
                    line = {"step": self.step, "time": time.time(), **values}
                    writer.write(line)
                    self.tracker(values, self.step)
                if self.is_main:
                    self.on_step(Progress(self.step, config.steps, values))
                stopping = self._any(should_stop())
                if stopping or last or self._due(config.save_every_steps):
                    self.save()
                self._heartbeat("running")
                if stopping and not last:
                    return False
        finally:
            if writer:
                writer.close()
        return True

    def train_step(self, batches: Iterator[Item]) -> dict[str, float]:
        """Takes one optimizer step on the mean loss over all samples of the step."""
        config, device = self.config, self.accelerator.device
        waited = 0.0
        losses, extras = [], {}
        for index in range(config.accumulation):
            started = time.perf_counter()
            batch = to_device(next(batches), device)
            waited += time.perf_counter() - started
            last = index == config.accumulation - 1
            sync = contextlib.nullcontext() if last else self.accelerator.no_sync(self.net)
            with sync:
                with autocast(device, config.dtype):
                    loss = self.objective(self.net, batch)
                (loss.total / config.accumulation).backward()
            losses.append(loss.per_sample)
            extras = loss.parts
        mean_loss = self._mean(torch.cat(losses).mean())
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, config.clip_norm)
        if not (math.isfinite(mean_loss) and bool(torch.isfinite(norm))):
            raise TrainingError(
                f"loss {mean_loss:g}, gradient norm {float(norm):g} at step {self.step + 1}; "
                "no step was taken",
                hint="resume with a lower train.learning_rate, or check the newest data",
            )
        rate = config.learning_rate * warmup_cosine(
            self.step,
            warmup_steps=min(config.warmup_steps, config.steps // 10),
            max_steps=config.steps,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.samples += config.accumulation * config.microbatch * self.accelerator.num_processes
        old = mean_loss if math.isnan(self.smooth_loss) else self.smooth_loss
        self.smooth_loss = old + (mean_loss - old) * 0.05
        return {
            "loss": mean_loss,
            "loss_smooth": self.smooth_loss,
            "learning_rate": rate,
            "grad_norm": float(norm),
            "data_wait": waited,
            "samples": self.samples,
            **{name: float(value) for name, value in extras.items()},
        }

    def save(self) -> None:
        """Writes a checkpoint of the present step, once."""
        if self.is_main:
            checkpoint = save_checkpoint(
                self.run.checkpoints,
                self.step,
                component=self.config.stage,
                net=self.component,
                state={
                    "optimizer": self.optimizer.state_dict(),
                    "step": self.step,
                    "samples": self.samples,
                    "smooth_loss": self.smooth_loss,
                },
                metadata={"model": self.config.model, "step": str(self.step)},
                keep=self.config.keep_checkpoints,
            )
            logger.info("saved %s", checkpoint)
        self.accelerator.wait_for_everyone()

    def _resume(self) -> dict[str, Any] | None:
        found = complete_checkpoints(self.run.checkpoints)
        if not found:
            return None
        state = load_checkpoint(found[-1], component=self.config.stage, net=self.component)
        self.step, self.samples = state["step"], state["samples"]
        self.smooth_loss = state["smooth_loss"]
        if self.is_main:
            truncate_after(self.run.metrics, self.step)
        return state

    def _validate(self, validate: Callable[[nn.Module], dict[str, float]]) -> dict[str, float]:
        self.component.eval()
        try:
            return validate(self.component)
        finally:
            self.component.train()

    def _due(self, every: int) -> bool:
        return every > 0 and self.step % every == 0

    def _mean(self, value: torch.Tensor) -> float:
        return float(self.accelerator.reduce(value.float(), reduction="mean"))

    def _any(self, flag: bool) -> bool:
        if self.accelerator.num_processes == 1:
            return flag
        ours = torch.tensor(int(flag), device=self.accelerator.device)
        return bool(self.accelerator.reduce(ours, reduction="sum") > 0)

    def _heartbeat(self, state: str, *, force: bool = False) -> None:
        now = time.monotonic()
        if self.is_main and (force or now - self._last_heartbeat > HEARTBEAT_S):
            self._last_heartbeat = now
            self.run.write_status(state, step=self.step, steps=self.config.steps)
