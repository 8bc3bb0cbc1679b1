"""Trains runs in this process, and reads what they left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from ultrashape_cli.config.resolve import resolve
from ultrashape_cli.config.schema import Config
from ultrashape_cli.runs import RunFolder, complete_checkpoints
from ultrashape_cli.training import worker
from ultrashape_cli.training.build import build_trainer
from ultrashape_cli.training.trainer import Trainer


def train_run(run: RunFolder, **options: Any) -> int:
    return worker.train_run(run, resolve(file=run.config, environ={}).config, **options)


def weights(run: RunFolder) -> dict[str, torch.Tensor]:
    return load_file(complete_checkpoints(run.checkpoints)[-1] / "model.safetensors")


def checkpoints(run: RunFolder) -> list[Path]:
    return complete_checkpoints(run.checkpoints)


def losses(run: RunFolder) -> list[float]:
    return [json.loads(line)["loss"] for line in run.metrics.read_text().splitlines()]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def make_trainer(config: Config, run: RunFolder) -> Trainer:
    return build_trainer(config, run, Accelerator(cpu=True), lambda progress: None)
