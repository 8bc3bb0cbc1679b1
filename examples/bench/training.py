"""Measures the trainer: overhead over a bare loop, checkpoint stall, the planner's error.

    python examples/bench/training.py [--steps 40] [--gib 1.0]

Every table compares the product with the plainest way to do the same. Each measurement of the
planner runs in a process of its own, because peak memory is a process's.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import torch
from accelerate import Accelerator
from torch import nn

from ultrashape_cli.config.models import MODEL_SETTINGS
from ultrashape_cli.config.resolve import resolve
from ultrashape_cli.config.schema import Config
from ultrashape_cli.models.registry import MODELS, build
from ultrashape_cli.runs import RunFolder
from ultrashape_cli.training.checkpoint import CheckpointWriter, Retention, Snapshot
from ultrashape_cli.training.curriculum import Stage
from ultrashape_cli.training.memory.footprint import measure_footprint
from ultrashape_cli.training.memory.strategies import (
    ADAM_BETAS,
    ADAM_EPS,
    Strategy,
    make_optimizer,
    resolve_strategy,
    select_parameters,
)
from ultrashape_cli.training.objectives.losses import Losses
from ultrashape_cli.training.progress import Progress
from ultrashape_cli.training.trainer import Trainer

MID = dataclasses.replace(
    MODELS["tiny"],
    dit=dataclasses.replace(MODELS["tiny"].dit, width=768, num_heads=8, depth=9),
)
SIZES = {"tiny": MODELS["tiny"], "mid": MID}


class PlainObjective:
    """The DiT's loss without encoders, so that only the loop differs."""

    num_latents = 256

    def __call__(self, net: nn.Module, batch: dict[str, Any]) -> Losses:
        output = net(batch["x"], batch["t"], batch["context"], batch["voxels"])
        per_sample = (output.velocity - batch["x"]).square().flatten(1).mean(1)
        return Losses(per_sample.mean() + output.aux_losses.sum(), per_sample.detach(), {}, 0)


def make_batch(size: str, tokens: int) -> dict[str, Any]:
    params = SIZES[size].dit
    return {
        "uid": ["a"],
        "x": torch.randn(1, tokens, params.in_channels),
        "t": torch.rand(1),
        "context": torch.randn(1, 65, params.context_channels),
        "voxels": torch.randint(0, params.voxel_resolution, (1, tokens, 3)),
        "bad": [],
    }


def make_config(**settings: Any) -> Config:
    values = {
        **{"model": "tiny", "microbatch": 1, "accumulation": 1, "steps": 10**6},
        **{"train_conditioner": False, **settings},
    }
    flags = {f"train.{key}": value for key, value in values.items()}
    return resolve(flags={**flags, "profile": "cpu", "device": "cpu"}, environ={}).config


def measure_overhead(steps: int) -> None:
    """Whole steps of `Trainer.train`, logging on, against forward, backward, clip and step.

    Both alternate step by step, so that a busy machine disturbs both.
    """
    batch, objective = make_batch("tiny", 256), PlainObjective()
    twin = build(MODELS["tiny"], device="cpu", components=("dit",)).dit
    dit = build(MODELS["tiny"], device="cpu", components=("dit",)).dit
    assert twin is not None
    assert dit is not None
    optimizer = torch.optim.AdamW(twin.parameters(), betas=ADAM_BETAS, eps=ADAM_EPS, fused=True)
    times: dict[str, list[float]] = {"bare loop": [], "Trainer": []}
    mark = 0.0

    def alternate(progress: Progress) -> None:
        nonlocal mark
        ended = time.perf_counter()
        objective(twin, batch).total.backward()
        torch.nn.utils.clip_grad_norm_(twin.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if progress.step > 3:
            times["Trainer"].append(ended - mark)
            times["bare loop"].append(time.perf_counter() - ended)
        mark = time.perf_counter()

    with tempfile.TemporaryDirectory() as folder:
        Trainer(
            make_config(steps=steps, save_every_steps=10**6),
            run=RunFolder(Path(folder)),
            net=dit,
            component=dit,
            objective=objective,  # type: ignore[arg-type]
            batches=lambda start: itertools.repeat(batch),
            accelerator=Accelerator(cpu=True),
            stages=[Stage(0, 256, 112)],
            on_step=alternate,
        ).train(lambda: False)
    print(f"\n{steps} steps of the tiny model, 256 tokens, a third into the sorted times\n")
    print(f"{'loop':<12}{'ms per step':>12}{'overhead':>10}")
    third = {name: sorted(values)[len(values) // 3] for name, values in times.items()}
    for name, value in third.items():
        print(f"{name:<12}{1e3 * value:>12.2f}{value / third['bare loop'] - 1:>10.1%}")


def measure_stall(gib: float) -> None:
    """Seconds training waits for a checkpoint: written at once, and in the background."""
    count = int(gib * 2**30 / 4 / 8)
    weights = {f"blocks.{i}.norm1.weight": torch.randn(count) for i in range(8)}
    print(f"\ncheckpoint of {gib:g} GiB\n")
    print(f"{'way':<20}{'stall s':>9}{'whole s':>9}{'stall s per 36 GB':>20}")
    for name, background in (("at once", False), ("background", True)):
        with tempfile.TemporaryDirectory() as folder:
            writer = CheckpointWriter(Path(folder), Retention(newest=1), background)
            snapshot = Snapshot(step=1, component="dit", weights=weights, state={}, metadata={})
            for number in range(2):
                started = time.perf_counter()
                writer.write(dataclasses.replace(snapshot, step=number))
                stall = time.perf_counter() - started
                writer.wait()
                whole = time.perf_counter() - started
                label = name if number else f"{name}, first"
                print(f"{label:<20}{stall:>9.2f}{whole:>9.2f}{stall * 36e9 / (gib * 2**30):>20.1f}")


def measure_planner() -> None:
    """Planned bytes against what a process really grew by."""
    print("\nplanner against the process's own peak\n")
    print(f"{'case':<50}{'planned MiB':>12}{'measured MiB':>14}{'error':>8}")
    cases = [
        *(("tiny", 2048, "full", "none"), ("tiny", 2048, "full", "all")),
        *(("mid", 1024, "full", "none"), ("mid", 1024, "full", "all")),
        *(("mid", 2048, "full-8bit", "all"), ("mid", 1024, "experts-frozen", "none")),
    ]
    for case in cases:
        run = subprocess.run(
            [sys.executable, __file__, "--case", json.dumps(case)],
            capture_output=True,
            text=True,
            check=True,
            # Freed blocks go back to the system, so that the process is as large as its tensors.
            env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"},
        )
        measured = int(run.stdout)
        config, strategy, blocks = describe_case(*case)
        plan = measure_footprint(config, strategy, checkpoint_blocks=blocks, accelerator=False)
        planned = plan.weights + plan.gradients + plan.optimizer + plan.activation_peak
        name = "{}, {} tokens, {}, checkpoint {}".format(*case)
        error = planned / measured - 1
        print(f"{name:<50}{planned / 2**20:>12.0f}{measured / 2**20:>14.0f}{error:>8.1%}")


def describe_case(
    size: str, tokens: int, strategy: str, checkpointing: str
) -> tuple[Config, Strategy, int]:
    MODELS["mid"], MODEL_SETTINGS["mid"] = MID, MODEL_SETTINGS["tiny"]
    config = make_config(
        model=size,
        num_latents=tokens,
        strategy=strategy,
        activation_checkpointing=checkpointing,
        image_size=112,
    )
    blocks = SIZES[size].dit.depth if checkpointing == "all" else 0
    return config, resolve_strategy(config), blocks


def run_case(size: str, tokens: int, strategy: str, checkpointing: str) -> None:
    """Prints by how many bytes this process grew in two steps of two microbatches."""
    config, chosen, blocks = describe_case(size, tokens, strategy, checkpointing)
    objective = PlainObjective()
    # Libraries keep memory of their first use: that is not the step's.
    warm = build(MODELS["tiny"], device="cpu", components=("dit",)).dit
    objective(warm, make_batch("tiny", 16)).total.backward()  # type: ignore[arg-type]
    batch = make_batch(size, tokens)
    dit = build(SIZES[size], device="meta", components=("dit",)).dit
    assert dit is not None
    gc.collect()
    before = psutil.Process().memory_info().rss
    dit.to_empty(device="cpu")
    for parameter in dit.parameters():
        nn.init.normal_(parameter, std=0.02)
    dit.checkpoint_blocks = blocks
    select_parameters(dit, config.train, chosen, seed=0)
    optimizer = make_optimizer(dit, config.train, chosen, seed=0)
    for _ in range(2):
        for _ in range(2):
            objective(dit, batch).total.backward()
        optimizer.step()
        optimizer.zero_grad()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--gib", type=float, default=1.0)
    parser.add_argument("--only", nargs="*", choices=("overhead", "stall", "planner"))
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        run_case(*json.loads(options.case))
        return
    for name in options.only or ("overhead", "stall", "planner"):
        {
            "overhead": lambda: measure_overhead(options.steps),
            "stall": lambda: measure_stall(options.gib),
            "planner": measure_planner,
        }[name]()


if __name__ == "__main__":
    main()
