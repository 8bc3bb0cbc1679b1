"""Steps on synthetic data with random weights: what a run will cost, before it is paid for.

Shapes, dtypes, kernels, strategy and optimizer are those of the run; only values are made up. Every
image is all foreground and every shape fills its tokens, as in the plan.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import torch
from accelerate import Accelerator
from torch import nn

from ultrashape_cli.config.profiles import HardwareProfile
from ultrashape_cli.config.schema import Config
from ultrashape_cli.data.dataset import Item
from ultrashape_cli.data.samples import QUERY_SETS
from ultrashape_cli.devices import synchronise
from ultrashape_cli.models.random_weights import random_networks
from ultrashape_cli.models.registry import Networks, model_spec
from ultrashape_cli.runs import RunFolder
from ultrashape_cli.training.curriculum import Stage
from ultrashape_cli.training.memory.offload import OffloadedAdamW
from ultrashape_cli.training.memory.plan import RunPlan
from ultrashape_cli.training.networks import Load, build_networks
from ultrashape_cli.training.throughput import utilisation
from ultrashape_cli.training.trainer import Trainer

WARMUP_STEPS = 2
"""Steps that are not counted: allocators fill, kernels are chosen."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Benchmark:
    """Medians over the counted steps, and memory by part beside the plan."""

    steps: int
    seconds_per_step: float
    seconds_per_microbatch: float
    split: dict[str, float]
    """Seconds of the step's parts."""
    utilisation: dict[str, float]
    """`mfu` and `hfu`; empty where the peak is unknown."""
    memory: list[tuple[str, int, int | None]]
    """Part, planned bytes, measured bytes (None where only the total can be told)."""

    def hours(self, steps: int) -> float:
        """Returns the duration of a run."""
        return self.seconds_per_step * steps / 3600


def run_benchmark(
    config: Config,
    profile: HardwareProfile,
    plan: RunPlan,
    accelerator: Accelerator,
    steps: int,
    *,
    warmup: int = WARMUP_STEPS,
) -> Benchmark:
    """Times whole optimizer steps of a run.

    Args:
        config: Settings of the run; its dataset is not read.
        profile: Of the card.
        plan: To compare the memory with.
        accelerator: Device and processes.
        steps: Counted steps, after the warm-up.
        warmup: Steps before them.

    Raises:
        torch.OutOfMemoryError: The run does not fit.
    """
    device, settings = accelerator.device, config.train
    before = psutil.Process().memory_info().rss
    spec = model_spec(settings.model)
    torch.manual_seed(config.seed)

    component, net, objective = build_networks(config, random_load(config, device), device)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            replace(config, train=replace(settings, steps=warmup + steps, trackers=())),
            run=RunFolder(Path(folder)),
            net=net,
            component=component,
            objective=objective,
            batches=lambda start: synthetic_batches(config, device),
            accelerator=accelerator,
            stages=[Stage(0, settings.num_latents, settings.image_size)],
        )
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        lines: list[dict[str, float]] = []
        host_peak = before
        for number in range(warmup + steps):
            started = time.perf_counter()
            values = trainer.train_step()
            synchronise(device)
            values["seconds"] = time.perf_counter() - started
            host_peak = max(host_peak, psutil.Process().memory_info().rss)
            if number >= warmup:
                lines.append(values)
    medians: dict[str, float] = {
        name: statistics.median(line[name] for line in lines)
        for name in ("seconds", "data_wait", "encode", "forward", "backward", "offload", "update")
        if name in lines[0]
    }
    seconds = medians.pop("seconds")
    blocks = getattr(getattr(component, "dit", component), "checkpoint_blocks", 0)
    return Benchmark(
        steps=steps,
        seconds_per_step=seconds,
        seconds_per_microbatch=seconds / settings.accumulation,
        split=medians,
        utilisation=utilisation(
            trainer.flops,
            seconds,
            peak_tflops=profile.peak_bf16_tflops if device.type == "cuda" else 0.0,
            backward=1 if trainer.trainee.strategy.adapters else 2,
            recomputed=blocks / spec.dit.depth,
        ),
        memory=_memory(trainer, plan, device, host_peak - before),
    )


def random_load(config: Config, device: torch.device) -> Load:
    """Returns what `build_networks` asks for weights: random ones, drawn on a device."""

    def load(*, components: Any, **options: Any) -> Networks:
        return random_networks(
            model_spec(config.train.model),
            components=components,
            vae_parts=options.get("vae_parts", ("encoder", "decoder")),
            home=options.get("device", "cpu"),
            drawn_on=device,
            dtype=options.get("dtype"),
            seed=config.seed,
        )

    return load


def synthetic_batches(config: Config, device: torch.device) -> Iterator[Item]:
    """Yields the same microbatch, of the shapes that the run has, forever."""
    settings, spec = config.train, model_spec(config.train.model)
    batch, draw = settings.microbatch, torch.Generator().manual_seed(config.seed)
    # Uniform in the cube: more voxels are occupied than there are tokens.
    surface = torch.rand(batch, settings.surface_points, 7, generator=draw) * 2 - 1
    item: Item = {
        "uid": [f"synthetic-{index}" for index in range(batch)],
        "variant": torch.full((batch,), -1),
        "bad": [],
        "surface": surface,
    }
    if settings.stage == "dit":
        side = settings.image_size or spec.conditioner.image_size
        images = batch * settings.views
        item["image"] = torch.rand(images, 3, side, side, generator=draw) * 2 - 1
        item["mask"] = torch.ones(images, 1, side, side)
        if settings.views > 1:
            item["num_views"] = torch.full((batch,), settings.views)
            item["camera"] = torch.rand(images, 2, generator=draw) * 90
        if settings.voxel_coarse or spec.start == "coarse":
            item["coarse"] = surface.clone() if spec.start == "coarse" else surface[..., :3].clone()
    if settings.stage == "vae" or settings.field_loss:
        for name in QUERY_SETS:
            item[name] = torch.rand(batch, settings.query_points, 4, generator=draw) * 2 - 1
    counter = 0
    while True:
        item["counter"] = torch.arange(counter, counter + batch)
        counter += batch
        yield dict(item)


def _memory(
    trainer: Trainer, plan: RunPlan, device: torch.device, host_growth: int
) -> list[tuple[str, int, int | None]]:
    """Returns each part of the plan beside its tensors, and the peak beside the total.

    On a CPU the peak is what the process grew by, as far as readings after each step tell.
    """
    weights = [*trainer.component.parameters(), *trainer.component.buffers()]
    optimizer = trainer.trainee.optimizer
    moments = [
        v for s in optimizer.state.values() for v in s.values() if isinstance(v, torch.Tensor)
    ]
    frozen = [
        parameter
        for module in (getattr(trainer.objective, n, None) for n in ("vae", "conditioner"))
        if isinstance(module, nn.Module)
        for parameter in module.parameters()
    ]
    offloaded = isinstance(optimizer, OffloadedAdamW)
    measured = {
        "weights": _size(weights),
        "optimizer": 0 if offloaded else _size([v for v in moments if v.ndim]),
        "frozen encoders": _size(frozen),
    }
    rows = [(name, planned, measured.get(name)) for name, planned in plan.rows()]
    cuda = device.type == "cuda"
    peak = torch.cuda.max_memory_allocated(device) if cuda else host_growth
    # What the driver holds is in no allocator's count.
    planned = plan.footprint.peak if cuda else plan.device_bytes
    return [*rows, ("peak of the tensors" if cuda else "growth of the process", planned, peak)]


def _size(tensors: list[Any]) -> int:
    local = (
        t.to_local() if hasattr(t, "to_local") else getattr(t, "ds_tensor", t) for t in tensors
    )
    return sum(tensor.numel() * tensor.element_size() for tensor in local)
