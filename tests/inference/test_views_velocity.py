"""The velocity of a network that sees several images."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from ball_networks import SMALL, ball_networks
from torch import Tensor

from ultrashape_cli.config.schema import RefineConfig
from ultrashape_cli.diffusion.sampler import sample, schedule
from ultrashape_cli.inference.course import course
from ultrashape_cli.inference.velocity import NetworkVelocity, Seen, ViewsVelocity
from ultrashape_cli.models.dit import RefineDiT

CONFIG = RefineConfig(steps=5, guidance_scale=3.0)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def dit() -> RefineDiT:
    net = ball_networks().dit
    assert net is not None
    return net


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


NOISE = drawn(1, 30, SMALL.dit.in_channels)
VIEWS = [
    Seen(drawn(1, 9, SMALL.dit.context_channels, seed=1), [7]),
    Seen(drawn(1, 6, SMALL.dit.context_channels, seed=2), None),
]
VOXELS = torch.randint(16, (1, 30, 3), generator=torch.Generator().manual_seed(3))


def several(dit: RefineDiT, shares: Tensor, stochastic: bool = False, **changes) -> ViewsVelocity:
    config = replace(CONFIG, **changes)
    return ViewsVelocity(dit, VIEWS, shares, stochastic, VOXELS, config, CPU)


def alone(dit: RefineDiT, number: int, **changes) -> NetworkVelocity:
    return NetworkVelocity(dit, *VIEWS[number], VOXELS, replace(CONFIG, **changes), CPU)


@torch.no_grad()
def test_a_token_follows_the_views_by_their_shares(dit: RefineDiT) -> None:
    shares = torch.rand(2, 30, generator=torch.Generator().manual_seed(4))
    shares[:, :10] = torch.tensor([[1.0], [0.0]])
    shares = shares / shares.sum(0)
    t = torch.full((1,), 0.3)
    both = [alone(dit, number).guided()(NOISE, t) for number in (0, 1)]
    made = several(dit, shares)
    found = made.guided()(NOISE, t)
    assert torch.allclose(found[:, :10], both[0][:, :10], atol=1e-5)
    wanted = shares[0][:, None] * both[0] + shares[1][:, None] * both[1]
    assert torch.allclose(found, wanted, atol=1e-5)
    # Two views and one pass without image for both of them.
    assert made.evaluations == 3


@torch.no_grad()
@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_stochastic_asks_one_view_at_a_time(dit: RefineDiT, solver: str) -> None:
    made = several(dit, torch.full((2, 30), 0.5), stochastic=True, solver=solver)
    velocity, t = made.conditional, torch.full((1,), 0.5)
    found = [velocity(NOISE, t) for _ in range(3)]
    assert torch.equal(found[0], alone(dit, 0).conditional(NOISE, t))
    assert torch.equal(found[1], alone(dit, 1).conditional(NOISE, t))
    assert torch.equal(found[2], found[0])
    assert made.evaluations == 3


@torch.no_grad()
def test_guidance_in_one_batch_is_no_other_result(dit: RefineDiT) -> None:
    shares = torch.full((2, 30), 0.5)
    t = torch.full((1,), 0.6)
    plain = several(dit, shares).guided()(NOISE, t)
    assert torch.equal(plain, several(dit, shares, guidance_batch=True).guided()(NOISE, t))


@torch.no_grad()
def test_what_is_held_ends_at_the_latents_of_the_input(dit: RefineDiT) -> None:
    latents = drawn(1, 30, SMALL.dit.in_channels, seed=5)
    weights = torch.linspace(-1, 2, 30).clamp(0, 1)
    velocity = alone(dit, 0).guided()
    for noise in (NOISE, None):
        start, hold = course(noise, latents, weights, 1.0)
        seen: list[Tensor] = []
        end = sample(
            velocity, start, schedule(4), hold=hold, callback=lambda n, all_, x, s=seen: s.append(x)
        )
        kept = weights == 0
        assert torch.allclose(end[:, kept], latents[:, kept], atol=1e-6)
        assert not torch.allclose(end[:, ~kept], latents[:, ~kept], atol=1e-2)
        if noise is not None:
            between = latents / 3 + NOISE * 2 / 3
            assert torch.allclose(seen[0][:, kept], between[:, kept], atol=1e-6)
    free = sample(velocity, NOISE, schedule(4))
    ones = course(NOISE, latents, torch.ones(30), 1.0)
    assert torch.allclose(sample(velocity, NOISE, schedule(4), hold=ones.hold), free, atol=1e-5)
