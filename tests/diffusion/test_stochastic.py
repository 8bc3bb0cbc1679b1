"""Noisy steps: they keep the distribution of the path, and their densities are right."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from ultrashape_cli.diffusion.sampler import schedule
from ultrashape_cli.diffusion.stochastic import NoisyStep

SPREAD = 0.5


def velocity(x: Tensor, t: float) -> Tensor:
    """The flow from unit noise to normal data of spread 0.5: E[data - noise | x] is linear in x."""
    variance = (t * SPREAD) ** 2 + (1 - t) ** 2
    return x * (t * SPREAD**2 - (1 - t)) / variance


def spread_at_end(noise: float, steps: int) -> float:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(40_000, 1, 1, generator=draw)
    times = schedule(steps + 1)[:-1].tolist()
    for t, end in pairwise(times):
        if noise:
            step = NoisyStep(t, end - t, noise, True)
            x = step.mean(x, velocity(x, t))
            x = x + step.std * torch.randn(x.shape, generator=draw)
        else:
            x = x + (end - t) * velocity(x, t)
    return float(x.std())


def test_noise_along_the_way_keeps_what_is_reached() -> None:
    assert spread_at_end(0.0, 200) == pytest.approx(SPREAD, rel=0.02)
    # The last of 200 steps leaves its own noise: 0.7 * sqrt(1 / 199) / sqrt(200) is 0.4 % of it.
    assert spread_at_end(0.7, 200) == pytest.approx(SPREAD, rel=0.02)


@pytest.mark.parametrize("from_noise", [True, False])
def test_without_noise_it_is_a_step_of_euler(from_noise: bool) -> None:
    x, v = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    step = NoisyStep(0.4, 0.1, 1e-6, from_noise)
    assert torch.allclose(step.mean(x, v), x + 0.1 * v, atol=1e-6)
    assert step.std < 1e-6


def test_from_the_coarse_mesh_noise_surrounds_the_step() -> None:
    x, v = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    step = NoisyStep(0.25, 0.25, 0.2, False)
    assert torch.equal(step.mean(x, v), x + 0.25 * v)
    assert step.std == pytest.approx(0.2 * math.sqrt(0.75 * 0.25))


def test_the_density_is_that_of_a_normal_variable() -> None:
    step = NoisyStep(0.5, 0.1, 0.7, True)
    mean, reached = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    normal = torch.distributions.Normal(mean, step.std)
    expected = normal.log_prob(reached).flatten(1).mean(1)
    assert torch.allclose(step.log_likelihood(reached, mean), expected, atol=1e-4)
    other = torch.distributions.Normal(reached, step.std)
    divergence = torch.distributions.kl_divergence(normal, other).flatten(1).mean(1)
    assert torch.allclose(step.divergence(mean, reached), divergence, atol=1e-4)


def test_the_first_step_from_noise_is_bounded() -> None:
    step = NoisyStep(0.0, 1 / 12, 0.7, True)
    assert 0.6 < step.std < 0.7
    x = torch.randn(20_000, 1, 1)
    # What it takes from the noise is about what it adds.
    assert float(step.mean(x, torch.zeros_like(x)).var()) + step.std**2 == pytest.approx(
        1, abs=0.05
    )
