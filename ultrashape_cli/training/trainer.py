"""The training loop. One step reads top to bottom: draw, forward, backward, clip, step, log."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn

from ultrashape_cli.config.schema import Config
from ultrashape_cli.data.dataset import Item, to_device
from ultrashape_cli.devices import autocast
from ultrashape_cli.errors import LoaderError, TrainingError
from ultrashape_cli.models.weights import load_into
from ultrashape_cli.monitoring.events import MetricsWriter, truncate_after
from ultrashape_cli.monitoring.trackers import Trackers
from ultrashape_cli.runs import RunFolder
from ultrashape_cli.training.agreement import Agreement
from ultrashape_cli.training.base import checkpoint_metadata
from ultrashape_cli.training.checkpoint import (
    CheckpointWriter,
    Snapshot,
    checkpoint_writer,
    load_ema,
    load_state,
    load_weights,
    naming_checkpoint,
    newest_usable,
)
from ultrashape_cli.training.curriculum import Stage, stage_at
from ultrashape_cli.training.ema import start_average
from ultrashape_cli.training.feed import Feed
from ultrashape_cli.training.guards import StepGuard, fallen_reward, save_batch
from ultrashape_cli.training.memory.lora import adapter_config, load_adapters
from ultrashape_cli.training.memory.strategies import resolve_strategy
from ultrashape_cli.training.objectives.flow import FlowObjective
from ultrashape_cli.training.objectives.vae import VAEObjective
from ultrashape_cli.training.progress import Progress
from ultrashape_cli.training.schedule import learning_rate
from ultrashape_cli.training.throughput import (
    Stopwatch,
    TimestepBins,
    memory_readings,
    utilisation,
)
from ultrashape_cli.training.trainee import Trainee
from ultrashape_cli.training.validation import Validate, Validation, score_sign

logger = logging.getLogger(__name__)

HEARTBEAT_S = 5.0
COUNTERS = ("step", "smooth_loss", "best_score", "not_improved")
"""Attributes of the trainer that a checkpoint keeps."""


class Trainer:
    """Trains one network of a model; resumes from the newest whole checkpoint of its run."""

    def __init__(
        self,
        config: Config,
        *,
        run: RunFolder,
        net: nn.Module,
        component: nn.Module,
        objective: FlowObjective | VAEObjective,
        batches: Callable[[int], Iterator[Item]],
        accelerator: Accelerator,
        stages: list[Stage],
        validate: Validate | None = None,
        on_step: Callable[[Progress], None] = lambda progress: None,
        writer: CheckpointWriter | None = None,
        trackers: Callable[[int], Trackers] = lambda step: Trackers({}),
        peak_tflops: float = 0.0,
        recomputed: float = 0.0,
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
            stages: Token counts by step.
            validate: Validation of a network at a step; called in eval mode.
            on_step: Progress leaves through here.
            writer: Of checkpoints; that of the settings, without a mirror, if None.
            trackers: Last step that is done -> extra metrics sinks.
            peak_tflops: Dense bf16 peak of the card; 0 where it is not known.
            recomputed: Share of the forward pass that activation checkpointing computes again.
        """
        self.config = config.train
        self.run = run
        self.component = component
        self.objective = objective
        self.accelerator = accelerator
        self.stages = stages
        self.validate = validate
        self.on_step = on_step
        self.peak_tflops = peak_tflops
        self.recomputed = recomputed
        self.watch = objective.watch = Stopwatch(accelerator.device)
        self.bins = TimestepBins(accelerator.device)
        self.flops = 0
        self.step = 0
        self.agree = Agreement(accelerator)
        self.feed = Feed(config.train, batches, self.agree)
        self.smooth_loss = math.nan
        self.best_score = math.inf
        self.not_improved = 0
        settings = config.train
        trained = config.train.trained_networks
        self._component_name = trained[0] if len(trained) == 1 else ""
        self.guard = StepGuard(settings.max_bad_steps, settings.spike_factor)
        strategy = resolve_strategy(config)
        accelerator.wait_for_everyone()
        found = self._find_checkpoint()
        if found and not strategy.adapters:
            load_into(component, load_weights(found, self._component_name), found)
        self.trainee = Trainee(
            config, strategy, component=component, net=net, accelerator=accelerator
        )
        if found and strategy.adapters:
            load_adapters(component, load_weights(found, self._component_name), found)
        self.ema = start_average(config.train, self.trainee.trained(), accelerator.device)
        if found:
            self._restore(found)
        self._writer = writer or checkpoint_writer(settings, run)
        self._saved_step = self.step
        self._score: float | None = None
        self._fallen: TrainingError | None = None
        self._max_drop = config.reward.max_drop
        self._last_heartbeat = 0.0
        self.trackers = trackers(self.step)

    @property
    def is_main(self) -> bool:
        """Says whether this process writes files."""
        return self.accelerator.is_main_process

    def require_copied(self) -> None:
        """Raises StorageError where the newest checkpoint is not in `train.mirror`."""
        if self._writer.mirror:
            self._writer.mirror.require_sent()

    def train(self, should_stop: Callable[[], bool]) -> bool:
        """Trains to the last step or until asked to stop; returns whether it finished.

        Raises:
            LoaderError: A loader process ended; the last whole step is saved.
            TrainingError: Too many steps in a row, or all, had no finite loss and gradient; or a
                held-out reward fell, at a step that is saved.
        """
        config = self.config
        writer = MetricsWriter(self.run.metrics) if self.is_main else None
        self._heartbeat("running", force=True)
        mark = time.perf_counter()
        try:
            while self.step < config.steps and not self._out_of_patience:
                values = self.train_step()
                now = time.perf_counter()
                values["seconds"], mark = now - mark, now
                last = self.step == config.steps
                validated = self.validate and (last or self._due(config.validate_every_steps))
                if validated or last or self._due(config.log_every_steps):
                    values |= self._readings(values["seconds"])
                    if validated:
                        values |= self._validate(last)
                    if writer:
                        writer.write({"step": self.step, "time": time.time(), **values})
                        self.trackers.log(values, self.step)
                last = last or self._out_of_patience
                if last:
                    self.guard.check_end(self.step)
                if self.is_main:
                    self.on_step(Progress(self.step, config.steps, values))
                stopping = self.agree.any(should_stop())
                improved = self._score is not None and self._score == self.best_score
                ending = stopping or last or self._fallen is not None
                if ending or improved or self._due(config.save_every_steps):
                    self.save()
                self._score = None
                if self._fallen:
                    raise self._fallen
                self._heartbeat("running")
                if stopping and not last:
                    return False
        except LoaderError:
            # Nothing of the next step has begun, so that this one is whole.
            self.save()
            if not self.agree.any(should_stop()):
                raise
            return False
        finally:
            if writer:
                writer.close()
            self._writer.close()
        return True

    def train_step(self) -> dict[str, float]:
        """Takes a step on the mean loss over all its samples; some objectives update more often."""
        config, objective = self.config, self.objective
        objective.num_latents = stage_at(self.stages, self.step).num_latents
        drawn, count, waited = self.feed.draw()
        with autocast(self.accelerator.device, config.dtype):
            microbatches = objective.expand(self.trainee.net, drawn)
        self.flops = 0
        for _ in range(objective.inner_steps):
            taken, mean_loss, norm, parts = self._update(microbatches, count * objective.expansion)
        rate = self.learning_rate()
        self.step += 1
        if not taken:
            self._report_skipped(drawn, mean_loss, norm)
        return {
            "loss": mean_loss,
            "loss_smooth": self.smooth_loss,
            "learning_rate": rate,
            "grad_norm": norm,
            "grad_norm_clipped": min(norm, config.clip_norm),
            "samples": self.feed.samples,
            "skipped_steps": self.guard.skipped,
            "bad_samples": self.feed.bad_samples,
            "data_wait": waited,
            **self._split(),
            **self.agree.means(parts),
        }

    def _update(
        self, microbatches: Sequence[Item], count: int
    ) -> tuple[bool, float, float, dict[str, Tensor]]:
        """Updates the weights by microbatches with `count` samples over all processes.

        Returns whether it was taken, mean loss, norm of gradients, and further scalars to log.
        """
        device, watch, parts, losses = self.accelerator.device, self.watch, {}, []
        for index, batch in enumerate(microbatches):
            with watch("forward"), autocast(device, self.config.dtype):
                loss = self.objective(self.trainee.net, to_device(batch, device))
            # Processes average their gradients, so every sample weighs world / count.
            share = len(batch["uid"]) * self.accelerator.num_processes / count
            last = index == len(microbatches) - 1
            with watch("backward"):
                self.trainee.backward(loss.total * share, last=last)
            losses.append(loss.per_sample)
            parts = loss.parts
            self.flops += loss.flops
            if loss.t is not None:
                self.bins.add(loss.t, loss.per_sample)
        mean_loss = self.agree.sum(torch.cat(losses).sum()) / count
        with watch("offload"):
            self.trainee.wait()
        norm = self.trainee.clip(self.config.clip_norm)
        taken = self.guard.allows(mean_loss, norm)
        if taken:
            for group in self.trainee.optimizer.param_groups:
                group["lr"] = self.learning_rate()
            with watch("update"):
                if self.ema:
                    self.ema.wait()
                self.trainee.optimizer.step()
                if self.ema:
                    self.ema.update(self.trainee.trained())
            old = mean_loss if math.isnan(self.smooth_loss) else self.smooth_loss
            self.smooth_loss = old + (mean_loss - old) * 0.05
        self.trainee.optimizer.zero_grad(set_to_none=True)
        return taken, mean_loss, norm, parts

    def learning_rate(self) -> float:
        """Returns the rate of the present step: warm-up, cosine, scaled with the global batch."""
        return learning_rate(self.config, self.step, self.feed.samples_per_step)

    def save(self) -> None:
        """Writes a checkpoint of the present step, once; every process must call it."""
        if self._saved_step == self.step:
            return
        self._saved_step = self.step
        weights = self.trainee.weights()
        optimizer = self.trainee.optimizer_state()
        ema = self.trainee.whole(self.ema.shadow) if self.ema else None
        if self.is_main:
            state = {
                "optimizer": optimizer,
                "guard": self.guard.state_dict(),
                **{name: getattr(self, name) for name in COUNTERS},
                **{name: getattr(self.feed, name) for name in Feed.COUNTERS},
            }
            if self.ema:
                state["ema_updates"] = self.ema.num_updates
            self._writer.write(
                Snapshot(
                    step=self.step,
                    component=self._component_name,
                    weights=weights,
                    state=state,
                    metadata=checkpoint_metadata(self.run, self.config.model, self.step),
                    score=self._score,
                    ema=None if ema is None else {**weights, **ema},
                    adapter_config=adapter_config(self.component, self.config),
                )
            )
        self.accelerator.wait_for_everyone()

    @property
    def _out_of_patience(self) -> bool:
        return 0 < self.config.patience <= self.not_improved

    def _report_skipped(self, microbatches: list[Item], loss: float, norm: float) -> None:
        path = self.run.root / f"bad-batch-rank{self.accelerator.process_index}.safetensors"
        save_batch(path, microbatches, step=self.step)
        ids = ", ".join(uid for batch in microbatches for uid in batch["uid"])
        logger.warning(
            "step %d skipped: loss %g, gradient norm %g (%s)", self.step, loss, norm, ids
        )
        self.trackers.alert("step skipped", f"step {self.step}: loss {loss:g}, gradient {norm:g}")
        self.guard.check(self.step, loss, norm, path)

    def _find_checkpoint(self) -> Path | None:
        """Returns the checkpoint to go on from; one process reads it through, for all of them."""
        found = [newest_usable(self.run.checkpoints) if self.is_main else None]
        if self.agree.world > 1:
            broadcast_object_list(found)
        return found[0]

    def _restore(self, checkpoint: Path) -> None:
        state = load_state(checkpoint)
        with naming_checkpoint(checkpoint):
            for name in COUNTERS:
                setattr(self, name, state[name])
            for name in Feed.COUNTERS:
                setattr(self.feed, name, state[name])
            self.trainee.load_optimizer_state(state["optimizer"])
            self.guard.load_state_dict(state["guard"])
            if self.ema:
                saved = load_ema(checkpoint, self._component_name)
                self.ema.restore(self.trainee.share_of(saved), state["ema_updates"])
        if self.is_main:
            truncate_after(self.run.metrics, self.step)
        logger.info("resumed from %s", checkpoint)

    def _split(self) -> dict[str, float]:
        """Returns the seconds of the step's parts; the forward pass without the encoders."""
        found = self.watch.read()
        found["forward"] = max(found.get("forward", 0.0) - found.get("encode", 0.0), 0.0)
        return found

    def _readings(self, seconds: float) -> dict[str, float]:
        """Returns what is worth measuring on logged steps only."""
        device = self.accelerator.device
        return {
            "samples_per_second": self.feed.samples_per_step / seconds,
            **(self.bins.read(self.accelerator.reduce) if self.config.stage == "dit" else {}),
            **memory_readings(device),
            **utilisation(
                self.flops,
                seconds,
                peak_tflops=self.peak_tflops,
                backward=1 if self.trainee.strategy.adapters else 2,
                recomputed=self.recomputed,
            ),
        }

    def _validate(self, last: bool) -> dict[str, float]:
        assert self.validate is not None
        self.component.eval()
        try:
            averaged = partial(self.trainee.holding, self.ema.shadow) if self.ema else None
            found: Validation = self.validate(self.component, self.step, last, averaged)
        finally:
            self.component.train()
        value = found.values.get(self.config.best_metric)
        if value is not None:
            # Checkpoints are written together, so all processes go by the same score.
            sign = score_sign(self.config.best_metric) or 1.0
            self._score = self.agree.mean(torch.tensor(value)) * sign
            self.not_improved = 0 if self._score < self.best_score else self.not_improved + 1
            self.best_score = min(self.best_score, self._score)
        self._fallen = fallen_reward(found.values, self.step, self._max_drop)
        self.trackers.images(found.pictures, self.step)
        return found.values

    def _due(self, every: int) -> bool:
        return every > 0 and self.step % every == 0

    def _heartbeat(self, state: str, *, force: bool = False) -> None:
        now = time.monotonic()
        if self.is_main and (force or now - self._last_heartbeat > HEARTBEAT_S):
            self._last_heartbeat = now
            self.run.write_status(state, step=self.step, steps=self.config.steps)
