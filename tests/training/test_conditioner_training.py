"""The image conditioner trained along with the DiT."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from ultrashape_cli.config.resolve import resolve
from ultrashape_cli.models.sources import load_networks, resolve_weights
from ultrashape_cli.runs import complete_checkpoints
from ultrashape_cli.training.base import base_source
from ultrashape_cli.training.worker import train_run


def _train(run, **options) -> int:
    return train_run(run, resolve(file=run.config, environ={}).config, **options)


def _weights(run) -> dict[str, torch.Tensor]:
    return load_file(complete_checkpoints(run.checkpoints)[-1] / "model.safetensors")


def test_both_networks_learn_and_are_found_again(make_run) -> None:
    run, config = make_run(steps=3, learning_rate=1e-3)
    assert config.train.trained_networks == ["dit", "conditioner"]
    assert _train(run) == 0
    before = load_networks(base_source(run))
    after = load_networks(resolve_weights(run.root))
    for name in ("dit", "conditioner"):
        old, new = (getattr(networks, name).state_dict() for networks in (before, after))
        moved = [key for key in old if not torch.equal(old[key], new[key])]
        assert len(moved) > 0.8 * len(old), name
    old, new = (networks.vae.state_dict() for networks in (before, after))
    assert all(torch.equal(old[key], new[key]) for key in old)


def test_the_image_reaches_the_conditioner_only_where_it_was_not_dropped(make_run) -> None:
    run, _ = make_run(steps=2, condition_dropout=1.0, learning_rate=1e-3, weight_decay=0.0)
    _train(run)
    before = load_networks(base_source(run)).conditioner.state_dict()
    after = load_networks(resolve_weights(run.root)).conditioner.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize("settings", [{}, {"ema_decay": 0.9}, {"strategy": "full-8bit"}])
def test_a_stopped_run_resumes_bitwise(make_run, stop_after, settings) -> None:
    straight, _ = make_run("straight", steps=4, **settings)
    assert _train(straight) == 0
    broken, _ = make_run("broken", steps=4, **settings)
    assert _train(broken, on_step=stop_after(2)) == 143
    assert _train(broken) == 0
    a, b = _weights(straight), _weights(broken)
    assert any(key.startswith("conditioner.") for key in a)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_adapters_leave_the_conditioner_as_it_is(make_run) -> None:
    run, config = make_run(strategy="lora", steps=1)
    assert config.train.trained_networks == ["dit"]
    assert _train(run) == 0
