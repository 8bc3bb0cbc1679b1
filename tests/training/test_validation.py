"""Validation, and what it decides: the best checkpoint, the end of a run."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from ultrashape_cli.config.resolve import resolve
from ultrashape_cli.data.layout import Dataset
from ultrashape_cli.devices import autocast
from ultrashape_cli.errors import ConfigError
from ultrashape_cli.runs import RunFolder, complete_checkpoints
from ultrashape_cli.training.build import VALIDATION_COUNTER, _items
from ultrashape_cli.training.curriculum import ImageSizes, Stage
from ultrashape_cli.training.validation import NUM_TIMES, Validation, check_best_metric
from ultrashape_cli.training.worker import build_trainer


def _trainer(config, run):
    return build_trainer(config, run, Accelerator(cpu=True), lambda progress: None)


def _checkpoints(run: RunFolder) -> list[Path]:
    return complete_checkpoints(run.checkpoints)


def test_validation_is_the_same_for_the_same_weights(make_run) -> None:
    run, config = make_run(steps=4, validate_every_steps=1)
    trainer = build_trainer(config, run, Accelerator(cpu=True), lambda progress: None)
    assert trainer.validate is not None
    first, second = (trainer.validate(trainer.component, 1, False) for _ in range(2))
    assert first == second
    assert {f"val_loss_t{index}" for index in range(8)} <= first.values.keys()


def test_an_item_is_encoded_once_for_all_times_with_the_losses_of_each_alone(
    make_run, monkeypatch
) -> None:
    from ultrashape_cli.models.conditioner import ImageConditioner
    from ultrashape_cli.models.vae import ShapeVAE

    settings = {"voxel_drop": 0.3, "dtype": "bf16", "train_conditioner": False}
    run, config = make_run(steps=4, validate_every_steps=1, **settings)
    trainer = _trainer(config, run)
    encoded = []
    for network in (ShapeVAE, ImageConditioner):
        encode = network.encode

        def count(self, *inputs, encode=encode):
            encoded.append(type(self))
            return encode(self, *inputs)

        monkeypatch.setattr(network, "encode", count)
    assert trainer.validate is not None
    found = trainer.validate(trainer.component, 1, False).values
    # One held-out asset.
    assert encoded == [ShapeVAE, ImageConditioner]

    sizes = ImageSizes([Stage(0, 16, 56)], 1)
    items = _items(config, Dataset(Path(config.train.data)), ["ball-4"], sizes)
    batch = torch.utils.data.default_collate([items[VALIDATION_COUNTER, 0]])
    for index in range(NUM_TIMES):
        t = torch.tensor([(index + 0.5) / NUM_TIMES])
        with torch.no_grad(), autocast(torch.device("cpu"), "bf16"):
            alone = trainer.objective(trainer.component, batch, t)
        assert found[f"val_loss_t{index}"] == float(alone.per_sample.mean())


def _validates(trainer, name: str, values: list[float]) -> None:
    """Makes every step's validation return the next value of a metric."""
    rest = iter(values)
    trainer.validate = lambda *arguments: Validation({name: next(rest)}, {})
    trainer.config = dataclasses.replace(trainer.config, validate_every_steps=1, best_metric=name)


def test_a_named_metric_decides_the_best_checkpoint(make_run) -> None:
    run, config = make_run(steps=4, save_every_steps=1)
    trainer = _trainer(config, run)
    # Higher is better, unlike a loss.
    _validates(trainer, "val_f_score@0.01", [0.2, 0.7, 0.4, 0.1])
    trainer.train(lambda: False)
    assert (run.checkpoints / "best").read_text() == "step-00000002\n"


def test_a_run_without_progress_ends_early_and_stays_ended(make_run) -> None:
    run, config = make_run(steps=9)
    trainer = _trainer(config, run)
    _validates(trainer, "val_loss", [0.5, 0.4, 0.6, 0.7, 0.1])
    trainer.config = dataclasses.replace(trainer.config, patience=2)
    assert trainer.train(lambda: False)
    assert trainer.step == 4
    again = _trainer(config, run)
    again.config = trainer.config
    assert again.train(lambda: False)
    assert again.step == 4


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("val_chamfer", {}, "no metric `val_chamfer`"),
        ("val_chamfer_l1", {"train.validate_meshes": 0}, "needs refined meshes"),
        ("val_ema_chamfer_l1", {}, "needs averaged weights"),
    ],
)
def test_a_metric_that_will_not_be_there_is_refused(name, settings, message) -> None:
    flags = {"train.model": "tiny", "train.best_metric": name, **settings}
    with pytest.raises(ConfigError, match=re.escape(message)):
        check_best_metric(resolve(flags=flags, environ={}).config.train)


def test_the_best_checkpoint_and_round_numbers_outlive_the_newest(make_run) -> None:
    run, config = make_run(steps=6, save_every_steps=1, keep_checkpoints=1, keep_every_steps=4)
    trainer = _trainer(config, run)
    _validates(trainer, "val_loss", [0.9, 0.1, 0.8, 0.7, 0.6, 0.5])
    trainer.train(lambda: False)
    assert [path.name[-1] for path in _checkpoints(run)] == ["2", "4", "6"]
    assert (run.checkpoints / "best").read_text() == "step-00000002\n"
    assert (run.checkpoints / "latest").read_text() == "step-00000006\n"
