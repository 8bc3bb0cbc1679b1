from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
import torch
from ball_networks import SMALL, ball_networks
from golden_data import TRAJECTORY, assert_near, dit_params, load_golden, load_strictly
from torch import Tensor

from ultrashape_cli.config.schema import RefineConfig
from ultrashape_cli.devices import autocast
from ultrashape_cli.diffusion.sampler import sample, schedule
from ultrashape_cli.inference.velocity import NetworkVelocity, with_zeros
from ultrashape_cli.models.compiling import compile_blocks
from ultrashape_cli.models.dit import ContextKeys, RefineDiT

CONFIG = RefineConfig(steps=5, guidance_scale=3.0)


@pytest.fixture(scope="module")
def dit() -> RefineDiT:
    net = ball_networks().dit
    assert net is not None
    return net


def inputs() -> tuple[Tensor, Tensor, Tensor, list[int]]:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1, 30, SMALL.dit.in_channels, generator=generator)
    context = torch.randn(1, 9, SMALL.dit.context_channels, generator=generator)
    voxels = torch.randint(SMALL.dit.voxel_resolution, (1, 30, 3), generator=generator)
    return noise, context, voxels, [7]


@torch.no_grad()
def latents(dit: RefineDiT, *, cached: bool, **changes) -> Tensor:
    noise, context, voxels, lengths = inputs()
    config = replace(CONFIG, **changes)
    cpu = torch.device("cpu")
    with autocast(cpu, config.dtype):
        seen = dit.context_keys(context) if cached else context
    velocity = NetworkVelocity(dit, seen, lengths, voxels, config, cpu)
    return sample(velocity.guided(), noise, schedule(config.steps), solver=config.solver)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_cached_keys_of_the_context_change_no_bit(dit: RefineDiT, dtype: str) -> None:
    plain = latents(dit, cached=False, dtype=dtype)
    assert torch.equal(plain, latents(dit, cached=True, dtype=dtype))


@pytest.mark.parametrize("cached", [False, True])
def test_one_pass_of_twice_the_batch_equals_two_passes(dit: RefineDiT, cached: bool) -> None:
    two = latents(dit, cached=cached)
    one = latents(dit, cached=cached, guidance_batch=True)
    assert torch.allclose(one, two, atol=1e-5)


def test_keys_of_a_zero_context_are_zero(dit: RefineDiT) -> None:
    _, context, _, _ = inputs()
    both = with_zeros(context)
    assert isinstance(both, Tensor)
    direct, padded = dit.context_keys(both), with_zeros(dit.context_keys(context))
    assert isinstance(padded, ContextKeys)
    for ours, theirs in zip(padded.blocks, direct.blocks, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert torch.allclose(a, b, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "passes"),
    [
        ({}, 8),
        ({"guidance_batch": True}, 8),
        ({"guidance_reuse": 2}, 6),
        ({"guidance_start": 0.3, "guidance_end": 0.6}, 5),
        ({"guidance_scale": 0.0}, 4),
        ({"solver": "heun"}, 16),
        ({"solver": "ab2"}, 8),
    ],
)
def test_every_option_costs_the_passes_it_says(dit: RefineDiT, changes: dict, passes: int) -> None:
    noise, context, voxels, lengths = inputs()
    config = replace(CONFIG, **changes)
    velocity = NetworkVelocity(dit, context, lengths, voxels, config, torch.device("cpu"))
    sample(velocity.guided(), noise, schedule(config.steps), solver=config.solver)
    assert velocity.evaluations == passes


def test_without_a_context_nothing_is_guided(dit: RefineDiT) -> None:
    noise, _, voxels, _ = inputs()
    velocity = NetworkVelocity(dit, None, None, voxels, CONFIG, torch.device("cpu"))
    sample(velocity.guided(), noise, schedule(CONFIG.steps))
    assert velocity.evaluations == 4


@pytest.mark.parametrize("changes", [{}, {"guidance_batch": True}])
def test_the_recorded_trajectory_is_followed_with_cached_keys(changes: dict) -> None:
    golden = load_golden("e2e_tiny")
    part = load_golden(golden.info["dit"])
    net = RefineDiT(dit_params(part.info["config"])).eval()
    load_strictly(net, part)
    config = RefineConfig(guidance_scale=golden.info["guidance"], **changes)
    with torch.no_grad():
        seen = net.context_keys(golden["cond_tokens"])
    voxels, cpu = golden["voxel_idx"], torch.device("cpu")
    velocity = NetworkVelocity(net, seen, None, voxels, config, cpu).guided()
    for num_steps in golden.info["steps"]:
        latents = golden[f"latents.{num_steps}"]
        final = sample(velocity, latents[0], schedule(num_steps))
        assert_near(final, latents[-1], TRAJECTORY)


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_compiled_blocks_give_the_same_latents() -> None:
    networks = ball_networks()
    assert networks.dit is not None
    plain = latents(networks.dit, cached=True)
    compile_blocks(networks.dit, torch.device("cpu"))
    assert torch.allclose(latents(networks.dit, cached=True), plain, atol=1e-4)
