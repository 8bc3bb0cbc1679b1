"""What a run needs before anything is loaded: memory by part, time, cost and disk.

Bytes and work come from `footprint`, that is from the real modules. Estimated is only what no
module tells: the driver's context, fragmentation, and how much of a card's peaks is reached.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ultrashape_cli.config.profiles import HardwareProfile, host_memory_gib
from ultrashape_cli.config.schema import Config
from ultrashape_cli.devices import CONTEXT_BYTES, FRAGMENTATION
from ultrashape_cli.errors import ConfigError
from ultrashape_cli.models.registry import model_spec
from ultrashape_cli.training.memory.footprint import Footprint, measure_footprint
from ultrashape_cli.training.memory.step_time import StepTime, estimate_step
from ultrashape_cli.training.memory.strategies import STRATEGIES, Strategy, resolve_strategy
from ultrashape_cli.training.memory.zero import bucket_elements

HEADROOM = 0.1
"""Share of the card that `train.activation_checkpointing=auto` leaves free."""
HOST_PER_WORKER = int(0.6 * 2**30)
"""Host memory of a loader process: Python, torch and its prefetched items."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunPlan:
    """What one process of a run needs, and how long the run takes."""

    strategy: Strategy
    footprint: Footprint
    checkpoint_blocks: int
    """Blocks that the backward pass recomputes."""
    on_gpu: bool
    processes: int
    zero_stage: int
    """What deepspeed divides, or 0: optimizer from 1 on, gradients from 2, weights from 3."""
    checkpoint_bytes: int
    """Disk of one checkpoint."""
    kept_checkpoints: int
    host_bytes: int
    """Host memory of all processes of this machine, their loaders included."""
    step_time: StepTime
    """Estimate."""
    steps: int
    samples_per_process: int
    """Samples of one process in one step."""

    def rows(self) -> list[tuple[str, int]]:
        """Returns the parts of the device's memory in bytes."""
        found = self.footprint
        rows = [
            ("weights", found.weights // self._shares(3)),
            ("gradients", found.gradients // self._shares(2)),
            ("optimizer", found.optimizer // self._shares(1)),
            ("frozen encoders", found.frozen),
            ("activations", max(found.activation_peak, found.encode_peak)),
        ]
        if self.zero_stage == 2:
            rows.append(("stepped weights", 4 * found.trained // self.processes))
        if self.zero_stage:
            rows.append(("exchange buffer", 4 * bucket_elements(found.trained)))
        if self._shares(3) > 1:
            # One block computes while the next one is gathered.
            rows.append(("gathered blocks", 2 * found.largest_block))
        if self.on_gpu:
            margin = int(sum(size for _, size in rows) * FRAGMENTATION)
            rows += [("context (assumed)", CONTEXT_BYTES), ("fragmentation (assumed)", margin)]
        return rows

    @property
    def device_bytes(self) -> int:
        """Most bytes on the device."""
        return sum(size for _, size in self.rows())

    def _shares(self, stage: int) -> int:
        """Returns among how many processes a part is divided that ZeRO divides from a stage on."""
        return self.processes if self.strategy.sharded or self.zero_stage >= stage else 1

    @property
    def samples_per_step(self) -> int:
        """Samples of all processes in one step."""
        return self.processes * self.samples_per_process

    @property
    def seconds_per_step(self) -> float:
        """Estimated duration of a step."""
        return self.step_time.seconds

    @property
    def hours(self) -> float:
        """Estimated duration of the run."""
        return self.seconds_per_step * self.steps / 3600


def plan_run(config: Config, profile: HardwareProfile) -> RunPlan:
    """Returns the plan of a run on a profile's card.

    Raises:
        ConfigError: The strategy does not exist for these settings.
    """
    settings = config.train
    strategy = resolve_strategy(config)
    on_gpu = profile.memory_gib > 0
    blocks, footprint = _choose_checkpointing(config, strategy, profile)
    workers = settings.num_workers * config.launch.num_processes
    weights = 4 * footprint.trained if strategy.adapters else _saved_weights(footprint, strategy)
    ema = 4 * footprint.trained if settings.ema_decay else 0
    checkpoint = weights + footprint.moments + ema
    here = -(-config.launch.num_processes // config.launch.num_machines)
    # Copies in whole keep an average each, shards their share of one.
    averages = ema // config.launch.num_machines if strategy.sharded else here * ema
    host = here * footprint.host + averages + workers * HOST_PER_WORKER
    if settings.async_checkpoints and not strategy.offloaded:
        # What offload keeps on the host is copied only where there is room.
        host += checkpoint
    return RunPlan(
        strategy=strategy,
        footprint=footprint,
        checkpoint_blocks=blocks,
        on_gpu=on_gpu,
        processes=config.launch.num_processes,
        zero_stage=config.launch.zero_stage if config.launch.engine == "deepspeed" else 0,
        checkpoint_bytes=checkpoint,
        kept_checkpoints=settings.keep_checkpoints + 1,
        host_bytes=host,
        step_time=estimate_step(config, footprint, profile),
        steps=settings.steps,
        samples_per_process=settings.microbatch * settings.accumulation,
    )


def check_plan(plan: RunPlan, config: Config, profile: HardwareProfile) -> None:
    """Raises ConfigError where the plan does not fit the profile's card or this host."""
    needed, there = plan.device_bytes / 2**30, profile.memory_gib
    if plan.on_gpu and needed > there:
        raise ConfigError(
            f"profile `{profile.name}` has {there:g} GiB, this run needs about {needed:.1f} GiB",
            hint=lower_strategy(config) or "a lower train.num_latents, or a larger --profile",
        )
    host = config.launch.host_memory_gib or host_memory_gib()
    local = -(-plan.processes // config.launch.num_machines)
    if plan.on_gpu:
        needed = plan.footprint.host / 2**30 if plan.strategy.offloaded else 0.0
    if needed * local > host:
        raise ConfigError(
            f"this host has {host:.0f} GiB of memory, this run needs about {needed * local:.0f} "
            f"GiB of it (strategy `{config.train.strategy}`)",
            hint=lower_strategy(config) or "a host with more memory",
        )


def lower_strategy(config: Config) -> str | None:
    """Returns the option that needs less memory than the present one, or None."""
    if config.train.activation_checkpointing == "none" and config.train.stage == "dit":
        return "--set train.activation_checkpointing=all"
    if config.launch.engine == "deepspeed":
        return "more processes" if config.launch.zero_stage == 3 else "--set launch.zero_stage=3"
    order = [name for name in STRATEGIES if name != "sharded"]
    if config.train.strategy == "sharded":
        return "more processes, or --set train.strategy=lora"
    following = order[order.index(config.train.strategy) + 1 :]
    if config.train.stage == "vae":
        following = [name for name in following if name == "full-8bit"]
    return f"--set train.strategy={following[0]}" if following else None


def _saved_weights(footprint: Footprint, strategy: Strategy) -> int:
    return 4 * footprint.total if strategy.offloaded else footprint.weights


def _choose_checkpointing(
    config: Config, strategy: Strategy, profile: HardwareProfile
) -> tuple[int, Footprint]:
    """Returns how many blocks are recomputed: as asked, or as few as the memory allows."""

    def measure(blocks: int) -> Footprint:
        return measure_footprint(
            config, strategy, checkpoint_blocks=blocks, accelerator=profile.memory_gib > 0
        )

    wanted = config.train.activation_checkpointing
    depth = model_spec(config.train.model).dit.depth
    if wanted != "auto" or config.train.stage == "vae" or profile.memory_gib == 0:
        blocks = depth if wanted == "all" else 0
        return blocks, measure(blocks)
    budget = profile.memory_gib * 2**30 * (1 - HEADROOM) - CONTEXT_BYTES
    every = measure(depth)
    if every.peak >= budget:
        return depth, every
    none = measure(0)
    if none.peak <= budget:
        return 0, none
    per_block = (none.peak - every.peak) / depth
    blocks = depth - int((budget - every.peak) / per_block)
    found = measure(blocks)
    # Blocks differ: routed ones, the last, keep more than the mean.
    while found.peak > budget and blocks < depth:
        blocks += max(1, math.ceil((found.peak - budget) / per_block))
        found = measure(min(blocks, depth))
    return min(blocks, depth), found
