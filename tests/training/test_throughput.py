"""Time, FLOPs and loss by timestep of a step."""

from __future__ import annotations

import math
import time

import pytest
import torch

from ultrashape_cli.config.resolve import resolve
from ultrashape_cli.models.flops import dit_flops, vae_flops
from ultrashape_cli.models.registry import model_spec
from ultrashape_cli.training.memory.footprint import measure_footprint
from ultrashape_cli.training.memory.strategies import resolve_strategy
from ultrashape_cli.training.throughput import Stopwatch, TimestepBins, utilisation


def _alone(sums: torch.Tensor, reduction: str) -> torch.Tensor:
    return sums


def test_parts_are_summed_until_they_are_read() -> None:
    watch = Stopwatch(torch.device("cpu"))
    for _ in range(2):
        with watch("forward"):
            time.sleep(0.01)
    with watch("backward"):
        pass
    found = watch.read()
    assert 0.02 <= found["forward"] < 1
    assert found.keys() == {"forward", "backward"}
    assert watch.read() == {}


def test_losses_are_averaged_by_timestep() -> None:
    bins = TimestepBins(torch.device("cpu"))
    bins.add(torch.tensor([0.05, 0.01, 1.0]), torch.tensor([1.0, 3.0, 5.0]))
    bins.add(torch.tensor([0.95]), torch.tensor([7.0]))
    found = bins.read(_alone)
    assert found["loss_t0"] == 2
    assert found["loss_t9"] == 6
    assert math.isnan(found["loss_t4"])
    assert math.isnan(bins.read(_alone)["loss_t0"])


def test_utilisation_is_flops_over_time_and_peak() -> None:
    # 48.2 TFLOP forward, twice that backward, in half a second on a card of 989 TFLOP/s.
    found = utilisation(int(48.2e12), 0.5, peak_tflops=989, backward=2, recomputed=6 / 21)
    assert found["mfu"] == pytest.approx(3 * 48.2 / 0.5 / 989)
    assert found["hfu"] == pytest.approx((3 + 6 / 21) * 48.2 / 0.5 / 989)
    assert utilisation(1, 0.5, peak_tflops=0, backward=2, recomputed=0) == {}


@pytest.mark.parametrize("stage", ["dit", "vae"])
def test_counted_flops_are_those_of_the_modules(stage: str) -> None:
    flags = {
        "profile": "cpu",
        "train.model": "tiny",
        "train.stage": stage,
        "train.train_conditioner": False,
    }
    config = resolve(flags=flags, environ={}).config
    found = measure_footprint(
        config, resolve_strategy(config), checkpoint_blocks=0, accelerator=False
    )
    spec, train = model_spec("tiny"), config.train
    if stage == "dit":
        own = dit_flops(spec.dit, train.num_latents, spec.conditioner.num_tokens)
    else:
        points, queries = train.surface_points, 3 * train.query_points
        own = vae_flops(spec.vae, points, train.num_latents, queries)
    assert 3 * train.microbatch * own == found.model_flops


def test_the_full_model_has_the_flops_of_the_specification() -> None:
    params = model_spec("ultrashape-1.0").dit
    assert dit_flops(params, 8192, 5330) / 1e12 == pytest.approx(48.2, abs=0.05)
    assert dit_flops(params, 32768, 5330) / 1e12 == pytest.approx(328.4, abs=0.1)
    # Without an image only its own attention is left out.
    assert dit_flops(params, 8192, 0) < 0.85 * dit_flops(params, 8192, 5330)
