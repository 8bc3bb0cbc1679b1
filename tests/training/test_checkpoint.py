"""Checkpoints written while training goes on."""

from __future__ import annotations

import math
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ultrashape_cli.errors import DiskError
from ultrashape_cli.runs import best_checkpoint, complete_checkpoints, verified_checkpoints
from ultrashape_cli.training import checkpoint
from ultrashape_cli.training.checkpoint import (
    CheckpointWriter,
    Retention,
    Snapshot,
    load_state,
    load_weights,
    save_checkpoint,
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


def _save(folder: Path, *steps: int, score: float | None = None) -> list[Path]:
    weight = torch.arange(64.0)
    shots = [replace(_snapshot(step, weight), score=score) for step in steps]
    return [save_checkpoint(folder, shot) for shot in shots]


def _flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.write_bytes(data)


def test_a_damaged_checkpoint_is_none_that_is_kept(tmp_path: Path) -> None:
    first, second, third = _save(tmp_path, 1, 2, 3)
    _flip(third / "model.safetensors")
    Retention(newest=1).prune(tmp_path, last_step=4)
    assert [path for path in (first, second, third) if path.exists()] == [second]


def test_checkpoints_of_later_steps_are_left_alone(tmp_path: Path) -> None:
    # A run that went back to step 2 has not yet replaced what it left behind.
    paths = _save(tmp_path, 1, 2, 3)
    Retention(newest=1).prune(tmp_path, last_step=2)
    assert [path.name for path in paths if path.exists()] == ["step-00000002", "step-00000003"]


def test_a_damaged_best_one_gives_its_place_to_the_next(tmp_path: Path) -> None:
    (worse,) = _save(tmp_path, 1, score=0.5)
    (best,) = _save(tmp_path, 2, score=0.25)
    assert best_checkpoint(tmp_path) == best
    _flip(best / "trainer.pt")
    assert best_checkpoint(tmp_path) == worse
    assert best_checkpoint(tmp_path, names=("model.safetensors",)) == best


def test_damage_is_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    good, bad = _save(tmp_path, 1, 2)
    _flip(bad / "model.safetensors")
    for _ in range(3):
        assert list(verified_checkpoints(tmp_path)) == [good]
    assert caplog.text.count("differs from its manifest") == 1


def test_nothing_is_pruned_while_nothing_is_whole(tmp_path: Path) -> None:
    paths = _save(tmp_path, 1, 2)
    for path in paths:
        _flip(path / "trainer.pt")
    Retention(newest=1).prune(tmp_path, last_step=2)
    assert all(path.exists() for path in paths)


def test_surplus_checkpoints_go_before_a_disk_is_called_full(tmp_path: Path, monkeypatch) -> None:
    _save(tmp_path, 1, 2, 3)
    room = {"step-00000001", "step-00000002"}
    monkeypatch.setattr(
        checkpoint,
        "free_space",
        lambda folder: 8 if room & {path.name for path in folder.iterdir()} else 1 << 30,
    )
    CheckpointWriter(tmp_path, Retention(newest=1), background=False).write(
        _snapshot(4, torch.ones(4))
    )
    assert [path.name for path in complete_checkpoints(tmp_path)] == ["step-00000004"]


def test_a_full_disk_keeps_the_last_checkpoint(tmp_path: Path, monkeypatch) -> None:
    (path,) = _save(tmp_path, 1)
    monkeypatch.setattr(checkpoint, "free_space", lambda folder: 8)
    writer = CheckpointWriter(tmp_path, Retention(newest=1), background=False)
    with pytest.raises(DiskError, match="a checkpoint needs") as error:
        writer.write(_snapshot(2, torch.ones(1000)))
    # Followed already: advice that was taken is not given again.
    assert "keep_checkpoints" not in str(error.value.hint)
    assert complete_checkpoints(tmp_path) == [path]


def test_a_score_that_is_no_number_is_none(tmp_path: Path) -> None:
    (path,) = _save(tmp_path, 1, score=math.nan)
    assert best_checkpoint(tmp_path) is None
    assert list(verified_checkpoints(tmp_path)) == [path]
