"""What a run goes on from: whole checkpoints, none that are damaged, and the last whole step."""

from __future__ import annotations

import json
import multiprocessing
from itertools import islice
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from train_and_read import checkpoints, losses, make_trainer, same, train_run, weights

from ultrashape_cli.data.dataset import SampleOrder, ShapeDataset, make_loader
from ultrashape_cli.data.layout import Dataset
from ultrashape_cli.errors import CheckpointError, LoaderError
from ultrashape_cli.files import file_hash
from ultrashape_cli.models.sources import resolve_weights
from ultrashape_cli.runs import complete_checkpoints


def test_a_half_written_checkpoint_is_not_resumed(make_run) -> None:
    run, _ = make_run(steps=4, save_every_steps=2)
    train_run(run)
    newest = complete_checkpoints(run.checkpoints)[-1]
    (newest / "trainer.pt").write_bytes(b"short")
    assert complete_checkpoints(run.checkpoints)[-1].name == "step-00000002"
    assert train_run(run) == 0
    assert complete_checkpoints(run.checkpoints)[-1].name == "step-00000004"


def _damage(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.write_bytes(data)


def test_a_damaged_checkpoint_is_passed_over_with_a_word(make_run) -> None:
    run, _ = make_run(steps=4, save_every_steps=2)
    train_run(run)
    good = weights(run)
    _damage(checkpoints(run)[-1] / "trainer.pt")
    assert train_run(run) == 0
    assert "trainer.pt` differs from its manifest" in run.log().read_text()
    assert same(weights(run), good)


def test_the_good_checkpoint_outlives_a_damaged_newer_one(make_run, stop_after) -> None:
    run, _ = make_run(steps=9, save_every_steps=2, keep_checkpoints=2)
    assert train_run(run, on_step=stop_after(4)) == 143
    make_run(steps=9, save_every_steps=1, keep_checkpoints=1)
    _damage(checkpoints(run)[-1] / "trainer.pt")
    assert train_run(run, on_step=stop_after(3)) == 143
    assert [path.name for path in checkpoints(run)] == ["step-00000003", "step-00000004"]
    # As after kill -9: what was saved last is whole, so the run is not lost.
    assert train_run(run) == 0
    assert [path.name for path in checkpoints(run)] == ["step-00000009"]


def test_a_lost_loader_ends_the_run_with_its_last_whole_step(make_run) -> None:
    straight, _ = make_run("straight", steps=4)
    train_run(straight)
    run, config = make_run(steps=4)
    trainer = make_trainer(config, run)
    draw, left = trainer.feed._next, [1, 1]

    def lose():
        if not left:
            raise LoaderError("a loader process ended")
        left.pop()
        return draw()

    trainer.feed._next = lose
    with pytest.raises(LoaderError):
        trainer.train(lambda: False)
    assert [path.name for path in checkpoints(run)] == ["step-00000002"]
    assert train_run(run) == 0
    assert losses(run) == losses(straight)


def test_a_killed_loader_process_is_noticed(ball_data: Path) -> None:
    items = ShapeDataset(Dataset(ball_data), ["ball-0"], seed=0, surface_points=64)
    order = SampleOrder(1, seed=0, start=0, microbatch=1, rank=0, world=1)
    batches = make_loader(items, order, num_workers=1, pin_memory=False)
    next(batches)
    for child in multiprocessing.active_children():
        child.kill()
    with pytest.raises(LoaderError, match="killed, out of memory") as error:
        list(islice(batches, 20))
    assert "train.num_workers=0" in str(error.value.hint)


@pytest.mark.parametrize("fault", ["counter", "optimizer", "integers", "no state"])
def test_a_checkpoint_that_does_not_fit_is_named(make_run, fault: str) -> None:
    run, _ = make_run(steps=2)
    train_run(run)
    (newest,) = checkpoints(run)
    state = torch.load(newest / "trainer.pt", weights_only=True)
    if fault == "counter":
        del state["samples"]
    elif fault == "optimizer":
        state["optimizer"]["param_groups"] = []
    elif fault == "integers":
        weights = load_file(newest / "model.safetensors")
        first = next(iter(weights))
        weights[first] = weights[first].to(torch.int8)
        save_file(weights, newest / "model.safetensors")
    torch.save([] if fault == "no state" else state, newest / "trainer.pt")
    manifest = json.loads((newest / "manifest.json").read_text())
    for name in manifest["files"]:
        file = newest / name
        manifest["files"][name] = {"bytes": file.stat().st_size, "sha256": file_hash(file)}
    (newest / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match=r"trainer\.pt|step-00000002"):
        train_run(run)


def test_a_run_without_a_good_checkpoint_says_so(make_run) -> None:
    run, _ = make_run(steps=2)
    train_run(run)
    _damage(checkpoints(run)[-1] / "model.safetensors")
    with pytest.raises(CheckpointError, match="every checkpoint"):
        train_run(run)


def test_a_damaged_base_is_named(make_run) -> None:
    run, _ = make_run(steps=1)
    train_run(run)
    file = run.root / "base.safetensors"
    _damage(file)
    with pytest.raises(CheckpointError, match=r"base\.safetensors` is damaged"):
        train_run(run)
    with pytest.raises(CheckpointError, match=r"base\.safetensors` is damaged"):
        resolve_weights(run.root)
