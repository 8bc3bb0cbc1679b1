from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from ball_networks import SMALL, ball_networks

from ultrashape_cli.config.schema import RefineConfig
from ultrashape_cli.inference.refiner import Refiner
from ultrashape_cli.inference.speed import Path, compare_speed, variants
from ultrashape_cli.synthetic.figurines import make_figurine

CONFIG = RefineConfig(
    steps=6, solver="dpm", guidance_scale=2.0, tokens=60, grid_resolution=16, surface_points=2000
)


def test_every_way_is_measured_against_the_plain_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ultrashape_cli.inference.speed.METRIC_POINTS", 500)
    refiner = Refiner(ball_networks(), SMALL, CONFIG, torch.device("cpu"))
    prepared = refiner.prepare(make_figurine(0, resolution=16), 0)
    rgba = np.full((20, 20, 4), 255, np.uint8)
    rgba[:4] = 0
    ways = list(variants(CONFIG, 12))
    trials = {t.name: t for t in compare_speed(refiner, prepared, rgba, iter(ways))}
    assert list(trials) == [name for name, _ in ways]
    plain = trials["plain"]
    assert plain.passes == 22
    assert max(plain.velocity_errors) < 1e-6
    assert trials["cached context"].latent_error == 0.0
    assert trials["both halves in one"].latent_error < 1e-4
    assert trials["guidance reused"].passes < plain.passes
    assert 0 < trials["dpm, half"].latent_error < 1
    # The plain surface against itself has the distance of two sets of samples.
    assert plain.chamfer_l1 > 0
    assert refiner.config == CONFIG


def test_the_last_way_is_the_users_and_the_first_is_plain() -> None:
    own = replace(CONFIG, guidance_reuse=3, cache_context=True)
    ways = list(variants(own, 50))
    assert ways[-1][1] == own
    assert (ways[0][1].solver, ways[0][1].steps, ways[0][1].guidance_reuse) == ("euler", 50, 1)


def test_a_path_is_straight_between_its_steps() -> None:
    path, coarse = Path(), Path()
    for t in (0.0, 0.5, 1.0):
        path.times.append(t)
        path.states.append(torch.tensor([t * t]))
    coarse.times, coarse.states = [0.0, 1.0], [torch.tensor([0.0]), torch.tensor([1.2])]
    assert path.at(0.75).item() == pytest.approx(0.625)
    assert path.step_errors(path) == [0.0, 0.0]
    assert coarse.step_errors(path) == [pytest.approx(0.2)]
