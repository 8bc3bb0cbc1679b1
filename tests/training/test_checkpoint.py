"""Checkpoints written while training goes on."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch

from ultrashape_cli.errors import DiskError
from ultrashape_cli.runs import complete_checkpoints
from ultrashape_cli.training import checkpoint
from ultrashape_cli.training.checkpoint import (
    CheckpointWriter,
    Retention,
    Snapshot,
    load_state,
    load_weights,
)

KEY = "blocks.0.norm1.weight"


def _snapshot(step: int, weight: torch.Tensor) -> Snapshot:
    state = {"optimizer": {"state": {0: {"first": weight * 2, "step": step}}}}
    return Snapshot(step=step, component="dit", weights={KEY: weight}, state=state, metadata={})


def test_a_background_checkpoint_holds_what_was_there_when_it_began(
    tmp_path: Path, monkeypatch
) -> None:
    hold = threading.Event()
    write = checkpoint.save_checkpoint

    def slow(folder: Path, snapshot: Snapshot) -> Path:
        hold.wait(10)
        return write(folder, snapshot)

    monkeypatch.setattr(checkpoint, "save_checkpoint", slow)
    writer = CheckpointWriter(tmp_path, Retention(newest=3))
    weight = torch.ones(4)
    writer.write(_snapshot(1, weight))
    weight.zero_()  # training goes on
    assert complete_checkpoints(tmp_path) == []
    hold.set()
    writer.wait()
    (found,) = complete_checkpoints(tmp_path)
    assert load_weights(found, "dit")[KEY].tolist() == [1, 1, 1, 1]
    assert load_state(found)["optimizer"]["state"][0]["first"].tolist() == [2, 2, 2, 2]


def test_host_memory_is_used_again_without_mixing_steps(tmp_path: Path) -> None:
    writer = CheckpointWriter(tmp_path, Retention(newest=3))
    for step in (1, 2, 3):
        writer.write(_snapshot(step, torch.full((4,), float(step))))
    writer.wait()
    values = [float(load_weights(path, "dit")[KEY][0]) for path in complete_checkpoints(tmp_path)]
    assert values == [1, 2, 3]


def test_a_failure_in_the_background_is_not_swallowed(tmp_path: Path, monkeypatch) -> None:
    def fail(folder: Path, snapshot: Snapshot) -> Path:
        raise DiskError("no space left")

    monkeypatch.setattr(checkpoint, "save_checkpoint", fail)
    writer = CheckpointWriter(tmp_path, Retention(newest=3))
    writer.write(_snapshot(1, torch.ones(4)))
    with pytest.raises(DiskError, match="no space left"):
        writer.wait()


def test_a_full_disk_is_known_before_anything_is_written(tmp_path: Path, monkeypatch) -> None:
    class Usage:
        free = 8

    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda folder: Usage)
    writer = CheckpointWriter(tmp_path, Retention(newest=3))
    with pytest.raises(DiskError, match="a checkpoint needs"):
        writer.write(_snapshot(1, torch.ones(1000)))
    assert list(tmp_path.iterdir()) == []
