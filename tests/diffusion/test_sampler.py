import math

import pytest
import torch
from golden_data import (
    MODULE,
    TRAJECTORY,
    assert_near,
    conditioner_params,
    dit_params,
    golden_file,
    load_golden,
    load_strictly,
    vae_params,
)

from ultrashape_cli.data.images import load_rgba, preprocess_inference
from ultrashape_cli.diffusion.sampler import SOLVERS, guided_velocity, sample, schedule
from ultrashape_cli.models.conditioner import ImageConditioner
from ultrashape_cli.models.dit import RefineDiT
from ultrashape_cli.models.vae import ShapeVAE


def test_schedules_match_the_recording():
    golden = load_golden("scheduler")
    steps = [int(k.removeprefix("sigmas.")) for k in golden.tensors if k.startswith("sigmas.")]
    assert steps
    scale = golden.info["num_train_timesteps"]
    for num_steps in steps:
        times = schedule(num_steps)
        assert_near(times, golden[f"sigmas.{num_steps}"], 1e-6)
        assert_near(times[:-1] * scale, golden[f"timesteps.{num_steps}"], 1e-6)


def test_guided_euler_matches_the_recorded_trajectory():
    golden = load_golden("scheduler")
    matrix = golden["ode.A"]
    expected = golden["ode.trajectory20"]
    velocity = guided_velocity(
        lambda x, t: x @ matrix + torch.sin(3 * t)[:, None, None],
        lambda x, t: x @ matrix.T - t[:, None, None],
        5.0,
    )
    states = [golden["ode.x0"]]
    times = schedule(len(expected) - 1)
    sample(velocity, golden["ode.x0"], times, callback=lambda _i, _n, x: states.append(x))
    # The recording holds the last, empty step too.
    assert torch.equal(expected[-1], expected[-2])
    assert_near(torch.stack(states), expected[:-1], MODULE)


def golden_networks():
    golden = load_golden("e2e_tiny")
    parts = {name: load_golden(golden.info[name]) for name in ("vae", "dit", "conditioner")}
    vae = ShapeVAE(vae_params(parts["vae"].info["config"]))
    dit = RefineDiT(dit_params(parts["dit"].info["config"])).eval()
    conditioner = ImageConditioner(conditioner_params(parts["conditioner"].info))
    for module, name in ((vae, "vae"), (dit, "dit"), (conditioner, "conditioner")):
        load_strictly(module, parts[name])
    return golden, vae, dit, conditioner


def test_an_image_becomes_the_recorded_tokens():
    golden, _, _, conditioner = golden_networks()
    tokens, _ = conditioner.encode(golden["proc_image"], golden["proc_mask"])
    assert_near(tokens, golden["cond_tokens"])
    rgba = load_rgba(golden_file(golden.info["png"]))
    image, mask = preprocess_inference(rgba, golden.info["processor_size"])
    own, _ = conditioner.encode(image[None], mask[None])
    # Pixels may differ by two grey levels, which the transformer passes on.
    assert_near(own, golden["cond_tokens"], 5e-2)


@pytest.mark.parametrize("twin", [False, True], ids=["no context", "zero context"])
def test_sampling_follows_the_recorded_trajectory(twin):
    golden, vae, dit, _ = golden_networks()
    context, voxels = golden["cond_tokens"], golden["voxel_idx"]
    empty = torch.zeros_like(context) if twin else None
    velocity = guided_velocity(
        lambda x, t: dit(x, t, context, voxels).velocity,
        lambda x, t: dit(x, t, empty, voxels).velocity,
        golden.info["guidance"],
    )
    for num_steps in golden.info["steps"]:
        latents = golden[f"latents.{num_steps}"]
        states = [latents[0]]
        times = schedule(num_steps)
        final = sample(velocity, latents[0], times, callback=lambda *a: states.append(a[2]))  # noqa: B023
        assert_near(torch.stack(states), latents[: len(states)], TRAJECTORY)
        assert_near(final, latents[-1], TRAJECTORY)
        with torch.no_grad():
            for x, t, expected in zip(
                latents, times[:-1], golden[f"velocity.{num_steps}"], strict=False
            ):
                assert_near(velocity(x, t[None]), expected, TRAJECTORY)
            features = vae.decode(final / golden.info["scale_factor"])
            logits = vae.query_field(features, golden["query_points"])
        assert_near(logits, golden[f"decoded_logits.{num_steps}"], TRAJECTORY)


@pytest.mark.parametrize(
    ("solver", "error"),
    [("euler", 0.05), ("heun", 1e-3), ("midpoint", 1e-3), ("ab2", 2e-3), ("dpm", 5e-3)],
)
def test_exponential_growth_is_integrated(solver, error):
    end = sample(lambda x, t: x, torch.ones(1, 1, 1), schedule(31), solver=solver)
    assert end.item() == pytest.approx(math.e, rel=error)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_straight_path_is_exact_in_one_step_of_any_solver(solver):
    noise, data = torch.randn(2, 1, 5, 3, generator=torch.Generator().manual_seed(0))
    calls = []

    def velocity(x, t):
        calls.append(t.item())
        return data - noise

    end = sample(velocity, noise, schedule(4), solver=solver)
    assert torch.allclose(end, data, atol=1e-6)
    assert len(calls) == 3 * SOLVERS[solver]


@pytest.mark.parametrize("solver", ["heun", "midpoint", "ab2", "dpm"])
def test_better_solvers_have_second_order(solver):
    def velocity(x, t):
        return torch.cos(3 * t)[:, None, None] * x

    exact = math.exp(math.sin(3) / 3)
    errors = [
        abs(sample(velocity, torch.ones(1, 1, 1), schedule(n), solver=solver).item() - exact)
        for n in (17, 33)
    ]
    assert errors[1] < errors[0] / 2.8


def test_guidance_outside_its_interval_asks_the_condition_only():
    calls = []
    velocity = guided_velocity(
        lambda x, t: calls.append(("c", t.item())) or x,
        lambda x, t: calls.append(("u", t.item())) or 0 * x,
        3.0,
        interval=(0.25, 0.5),
    )
    sample(velocity, torch.ones(1, 1, 1), schedule(5))
    assert [t for kind, t in calls if kind == "c"] == [0.0, 0.25, 0.5, 0.75]
    assert [t for kind, t in calls if kind == "u"] == [0.25, 0.5]


def test_the_difference_of_the_guidance_is_reused():
    calls = []
    velocity = guided_velocity(
        lambda x, t: 2 * x,
        lambda x, t: calls.append(t.item()) or x,
        3.0,
        reuse=2,
    )
    results = [velocity(torch.full((1, 1, 1), k), torch.zeros(1)).item() for k in (1.0, 5.0, 2.0)]
    # u + 3 (c - u); then c + 2 times the difference before; then anew.
    assert results == [4.0, 12.0, 8.0]
    assert len(calls) == 2


def test_steps_of_zero_length_are_not_evaluated():
    calls = []

    def velocity(x, t):
        calls.append(t.item())
        return x

    sample(velocity, torch.ones(1, 1, 1), schedule(5))
    assert calls == [0.0, 0.25, 0.5, 0.75]


@pytest.mark.parametrize("scale", [-1.0, 1.0])
def test_void_guidance_never_asks_without_condition(scale):
    def fail(x, t):
        raise AssertionError

    velocity = guided_velocity(lambda x, t: 2 * x, fail, scale)
    assert velocity(torch.ones(1), torch.zeros(1)).item() == 2.0


def test_unknown_solvers_are_named():
    with pytest.raises(ValueError, match="heun"):
        sample(lambda x, t: x, torch.ones(1), schedule(2), solver="rk4")
