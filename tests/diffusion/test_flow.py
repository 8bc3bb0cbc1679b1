import pytest
import torch

from ultrashape_cli.diffusion.flow import (
    draw_noise,
    draw_timesteps,
    flow_loss,
    interpolate,
    velocity_target,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_path_runs_from_noise_to_data():
    data, noise = draw_noise((2, 5, 3), generator(0)), draw_noise((2, 5, 3), generator(1))
    assert torch.equal(interpolate(data, noise, torch.zeros(2)), noise)
    assert torch.equal(interpolate(data, noise, torch.ones(2)), data)
    middle = interpolate(data, noise, torch.tensor([0.25, 0.25]))
    assert torch.allclose(middle + 0.75 * velocity_target(data, noise), data, atol=1e-6)


def test_the_loss_is_a_mean_per_sample():
    loss = flow_loss(torch.zeros(2, 3, 4), torch.tensor([1.0, 2.0]).view(2, 1, 1).expand(2, 3, 4))
    assert loss.tolist() == [1.0, 4.0]
    assert flow_loss(torch.zeros(1, 2, dtype=torch.bfloat16), torch.ones(1, 2)).dtype == torch.float


def test_uniform_times_fill_the_interval():
    t = draw_timesteps(10000, generator())
    assert t.min() >= 0
    assert t.max() <= 1
    counts = torch.histc(t, 10, 0, 1)
    assert (counts - 1000).abs().max() < 150


def test_logit_normal_times_follow_the_formula():
    t = draw_timesteps(1000, generator(), distribution="logit_normal", mean=0.3, std=0.5, shift=4.0)
    plain = torch.sigmoid(0.3 + 0.5 * torch.randn(1000, generator=generator()))
    assert torch.allclose(t, 2 * plain / (1 + plain))


def test_draws_repeat_with_the_generator():
    assert torch.equal(draw_timesteps(4, generator(5)), draw_timesteps(4, generator(5)))
    with pytest.raises(ValueError, match="logit_normal"):
        draw_timesteps(4, generator(), distribution="normal")
