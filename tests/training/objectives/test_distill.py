"""Students and their teacher: what a step is held against, and where a sample is."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from ball_networks import SMALL, ball_networks
from torch import Tensor, nn

from ultrashape_cli.config.distill import DistillConfig
from ultrashape_cli.config.schema import TrainConfig
from ultrashape_cli.diffusion.sampler import sample, schedule
from ultrashape_cli.models.dit import DiTOutput
from ultrashape_cli.training.memory.lora import add_adapters
from ultrashape_cli.training.objectives.distill import DistillObjective, without_adapters
from ultrashape_cli.training.objectives.flow import Encoded, Group

WALK = DistillConfig(evaluations=6, guidance_scale=0.0, rollout_share=1.0)


class Field(nn.Module):
    """A flow that turns with t, other without a context; its student is off by a constant."""

    def __init__(self, off: float = 0.0) -> None:
        super().__init__()
        self.off, self.taught = off, False
        self.seen: list[Tensor] = []

    def enable_adapters(self, enabled: bool) -> None:
        self.taught = not enabled

    def forward(self, x: Tensor, t: Tensor, context, voxels, lengths) -> DiTOutput:
        bend = 1.0 if context is None else 3.0
        velocity = bend * t[:, None, None] - x / 2 + (0.0 if self.taught else self.off)
        if not self.taught:
            self.seen.append(x)
        return DiTOutput(velocity, x.new_zeros(0), x.new_zeros((0, 4)))


@pytest.fixture
def encoded() -> Encoded:
    draw = torch.Generator().manual_seed(0)
    latents, start = torch.randn(2, 2, 5, 8, generator=draw)
    inputs = (torch.ones(2, 3, 16), torch.zeros(2, 5, 3, dtype=torch.long), [3, 3])
    group = Group(torch.arange(2), latents, start, inputs, None)
    return Encoded(torch.tensor([0.3, 0.7]), [group], torch.tensor([True, False]))


def objective(distill: DistillConfig, **settings) -> DistillObjective:
    networks = ball_networks()
    return DistillObjective(
        *(networks.vae, networks.conditioner, TrainConfig(num_latents=48, **settings)),
        params=SMALL.dit, seed=0, distill=distill, inference_steps=11,
    )  # fmt: skip


def errors(squares: Tensor) -> Tensor:
    return (squares.flatten(1).mean(1) + 0.01**2).sqrt() - 0.01


def test_guidance_goes_into_the_weights(encoded: Encoded) -> None:
    made = objective(DistillConfig(guidance_scale=4.0))
    net = Field(off=0.5)
    found = made.losses(net, encoded)
    # Guided it is u + 4 (c - u) = c + 3 (c - u), and c - u is 2 t.
    expected = errors((0.5 - 6 * encoded.t.view(2, 1, 1)).square().expand(2, 5, 8))
    assert torch.allclose(found.per_sample, expected, atol=1e-5)
    assert torch.equal(found.t, encoded.t)
    plain = objective(DistillConfig(guidance_scale=0.0)).losses(Field(), encoded)
    assert plain.per_sample.abs().max() == 0


def test_one_step_leads_where_those_of_the_teacher_do(encoded: Encoded) -> None:
    encoded = encoded._replace(walked=None)
    config = DistillConfig(evaluations=5, teacher_steps=4, guidance_scale=2.0)
    made, net = objective(config), Field()
    found = made.losses(net, encoded)
    # Samples stand where the student steps from: 0.3 and 0.7 do so at 0.2 and 0.6.
    assert torch.allclose(found.t, torch.tensor([0.2, 0.6]))
    group = encoded.groups[0]
    for row, t in enumerate((0.2, 0.6)):
        times = torch.linspace(t, t + 0.2, 5)
        x = (t * group.latents + (1 - t) * group.start)[row : row + 1]
        assert torch.allclose(net.seen[0][row : row + 1], x)
        end = sample(lambda x, t: 5 * t[:, None, None] - x / 2, x, times)
        wrong = (end - x) / 0.2 - (3 * t - x / 2)
        assert torch.allclose(found.per_sample[row], errors(wrong.square())[0], atol=1e-4)


def test_students_walk_as_the_sampler_does(encoded: Encoded) -> None:
    made, net = objective(WALK), Field(off=0.1)
    made.losses(net, encoded)
    group, nodes = encoded.groups[0], schedule(7)[:-1]
    times = nodes[:2]  # 0.3 lies in the second step, 0.7 in the fifth
    walked = sample(lambda x, t: net(x, t, 1, None, None).velocity, group.start, times)
    asked = net.seen[4]
    assert torch.allclose(asked[0], walked[0], atol=1e-6)
    t = nodes[4]
    assert torch.allclose(asked[1], (t * group.latents + (1 - t) * group.start)[1])
    made.losses(net, encoded, torch.full((2,), 0.99))


def test_times_are_those_that_are_asked_for() -> None:
    draws = [torch.Generator().manual_seed(seed) for seed in range(400)]
    steps = objective(WALK)
    found = torch.cat([steps._draw_timestep(draw) for draw in draws])
    assert set(found.tolist()) == set(schedule(7)[:-2].tolist())
    free = objective(DistillConfig(grid_share=0.2))
    found = torch.cat([free._draw_timestep(draw) for draw in draws])
    grid = torch.isin(found, schedule(11)).float().mean()
    assert 0.12 < float(grid) < 0.28


def test_adapters_are_off_for_the_teacher_alone() -> None:
    net = ball_networks().dit
    assert net is not None
    x, voxels = torch.randn(1, 6, 8), torch.zeros(1, 6, 3, dtype=torch.long)
    ask = lambda: net(x, torch.tensor([0.5]), torch.ones(1, 3, 16), voxels, [3]).velocity  # noqa: E731
    before = ask()
    add_adapters(net, TrainConfig(lora_rank=4), seed=0)
    trained = [p for p in net.parameters() if p.requires_grad]
    with torch.no_grad():
        for parameter in trained:
            parameter += 0.1
    with without_adapters(net):
        assert torch.equal(ask(), before)
    changed = ask()
    assert not torch.allclose(changed, before)
    assert [p for p in net.parameters() if p.requires_grad] == trained
    changed.sum().backward()
    assert all(p.grad is not None for p in trained)


def test_nothing_is_dropped_of_what_a_student_sees() -> None:
    made = objective(WALK, condition_dropout=0.9)
    assert made.settings.condition_dropout == 0
    assert replace(WALK, evaluations=0).teacher_passes == 1
    assert DistillConfig(guidance_scale=5.0).teacher_passes == 2
    config = DistillConfig(evaluations=7, guidance_scale=5.0, rollout_share=0.5)
    assert config.teacher_passes == 2 * 2 + 0.5 * 3
