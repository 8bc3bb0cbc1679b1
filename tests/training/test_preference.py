"""Preferences: what the loss is, and that it teaches which of two is better."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from ball_networks import SMALL, ball_networks
from generations import keep_balls
from process_pair import train_in_two
from safetensors.torch import load_file
from torch import Tensor, nn
from train_and_read import checkpoints, losses, same, train_run

from ultrashape_cli.config.resolve import resolve
from ultrashape_cli.config.reward import RewardConfig
from ultrashape_cli.config.schema import TrainConfig
from ultrashape_cli.errors import ConfigError
from ultrashape_cli.models.dit import DiTOutput
from ultrashape_cli.rewards.generations import Generation
from ultrashape_cli.runs import RunFolder
from ultrashape_cli.training.objectives.preference import PreferenceObjective

DPO = {"objective": "dpo", "strategy": "lora", "lora_rank": 4, "learning_rate": 3e-3}


class Constant(nn.Module):
    """A velocity that is the same everywhere; another one without its adapters."""

    def __init__(self, taught: float, before: float) -> None:
        super().__init__()
        self.taught = nn.Parameter(torch.tensor(taught))
        self.before, self.enabled = before, True

    def enable_adapters(self, enabled: bool) -> None:
        self.enabled = enabled

    def forward(self, x: Tensor, t: Tensor, *inputs) -> DiTOutput:
        velocity = self.taught if self.enabled else torch.tensor(self.before)
        return DiTOutput(velocity.expand_as(x), x.new_zeros(0), x.new_zeros((0, 4)))


def generation(value: float, tokens: int = 6) -> Generation:
    return Generation(torch.full((tokens, 8), value), torch.zeros(tokens, 3, dtype=torch.long))


def objective(pick) -> PreferenceObjective:
    networks = ball_networks()
    return PreferenceObjective(
        *(networks.vae, networks.conditioner, TrainConfig(num_latents=48)),
        params=SMALL.dit, seed=0, pick=pick, reward=RewardConfig(beta=2.0, winner_loss=0.1),
    )  # fmt: skip


def batch(*counters: int) -> dict:
    count = len(counters)
    uids = [f"a{counter}" for counter in counters]
    image, mask = torch.zeros(count, 3, 56, 56), torch.ones(count, 1, 56, 56)
    return {"uid": uids, "counter": torch.tensor(counters), "image": image, "mask": mask}


def test_the_loss_is_that_of_the_paper() -> None:
    made = objective(lambda asset, worst: generation(-1.0 if worst else 1.0))
    encoded = made.encode(batch(3, 4), noisy=True)
    found = made.losses(net := Constant(0.5, 0.0), encoded)
    (group,) = encoded.groups
    target = group.latents - group.start
    ours, before = ((v - target).square().mean((1, 2)) for v in (0.5, 0.0))
    gained = (ours - before)[:2] - (ours - before)[2:]
    expected = -torch.nn.functional.logsigmoid(-2.0 * gained)
    assert torch.allclose(found.per_sample, expected, atol=1e-6)
    assert torch.allclose(found.total, expected.mean() + 0.1 * ours[:2].mean(), atol=1e-6)
    assert float(found.parts["drift"]) == pytest.approx(0.25 / float(target.square().mean()))
    assert float(found.parts["preferred"]) == 1
    found.total.backward()
    # Further towards the winner is better.
    assert float(net.taught.grad) < 0


def test_both_of_a_pair_have_the_same_time_and_noise() -> None:
    made = objective(lambda asset, worst: generation(float(worst)))
    encoded = made.encode(batch(3, 4, 5), noisy=True)
    (group,) = encoded.groups
    assert torch.equal(encoded.t[:3], encoded.t[3:])
    assert torch.equal(group.start[:3], group.start[3:])
    assert not torch.equal(group.start[0], group.start[1])
    assert torch.equal(group.inputs[0][:3], group.inputs[0][3:])
    assert made.losses(Constant(0.0, 0.0), encoded).t.shape == (3,)


def test_pairs_of_unequal_tokens_are_compared_too() -> None:
    made = objective(lambda asset, worst: generation(float(worst), tokens=5 + worst))
    found = made.losses(Constant(0.0, 0.0), made.encode(batch(1, 2), noisy=True))
    # As the reference, it prefers neither.
    assert torch.allclose(found.per_sample, torch.full((2,), 0.6931), atol=1e-4)


@pytest.fixture
def pairs(tmp_path: Path) -> str:
    return str(keep_balls(tmp_path / "kept"))


def adapters(run: RunFolder) -> dict:
    return load_file(checkpoints(run)[-1] / "adapter_model.safetensors")


def lines(run: RunFolder) -> list[dict]:
    return [json.loads(line) for line in run.metrics.read_text().splitlines()]


@pytest.mark.slow
def test_preferences_are_learned_and_a_resumed_run_learns_the_same(
    make_run, pairs: str, stop_after
) -> None:
    straight, _ = make_run("straight", steps=20, pairs=pairs, **DPO)
    assert train_run(straight) == 0
    found = lines(straight)
    assert found[0]["logit"] == 0
    assert found[0]["drift"] == 0
    assert found[0]["loss"] == pytest.approx(0.6931, abs=1e-4)
    assert sum(line["loss"] for line in found[-5:]) < 0.9 * sum(line["loss"] for line in found[:5])
    assert sum(line["preferred"] for line in found[-5:]) / 5 > 0.7
    stopped, _ = make_run("stopped", steps=20, pairs=pairs, **DPO)
    assert train_run(stopped, on_step=stop_after(7)) == 143
    assert train_run(stopped) == 0
    assert losses(stopped) == losses(straight)
    assert same(adapters(stopped), adapters(straight))


def test_all_weights_are_held_against_what_they_were(make_run, pairs: str, stop_after) -> None:
    whole = {**DPO, "strategy": "full", "learning_rate": 1e-3}
    straight, _ = make_run("straight", steps=6, pairs=pairs, **whole)
    train_run(straight)
    stopped, _ = make_run("stopped", steps=6, pairs=pairs, **whole)
    assert train_run(stopped, on_step=stop_after(3)) == 143
    assert train_run(stopped) == 0
    assert losses(stopped) == losses(straight)
    assert lines(straight)[-1]["drift"] > 0


@pytest.mark.slow
def test_two_processes_prefer_what_one_prefers(make_run, pairs: str) -> None:
    common = {**DPO, "steps": 3, "pairs": pairs}
    two, _ = make_run("two", processes=2, **common)
    one, _ = make_run("one", accumulation=2, **common)
    train_in_two(two.root)
    train_run(one)
    assert losses(two) == pytest.approx(losses(one), rel=1e-5)
    for name, value in adapters(one).items():
        torch.testing.assert_close(adapters(two)[name], value, rtol=0, atol=1e-4)


def test_shards_have_no_reference(ushape, ball_data: Path, pairs: str) -> None:
    refused = ushape(
        *("train", "--data", ball_data, "--model", "small", "--objective", "dpo", "--dry-run"),
        *("--pairs", pairs, "--strategy", "sharded", "--profile", "cpu"),
    )
    assert (refused.code, "asks for the whole network" in refused.err) == (2, True)


def test_steps_are_small_unless_set() -> None:
    def rate(**flags: object) -> float:
        given = {"train.objective": "dpo", "train.model": "tiny", **flags}
        return resolve(flags=given, environ={}).config.train.learning_rate

    assert rate() == 1e-5
    assert rate(**{"train.strategy": "full"}) == 1e-6
    assert rate(**{"train.learning_rate": 0.1}) == 0.1
    with pytest.raises(ConfigError, match="must be above 0"):
        rate(**{"reward.beta": 0.0})


def test_the_reference_and_the_loser_are_planned() -> None:
    from ultrashape_cli.config.profiles import get_profile
    from ultrashape_cli.training.memory.plan import plan_run

    def plan(**flags: object):
        given = {"train.model": "tiny", "profile": "cpu", "train.train_conditioner": False, **flags}
        return plan_run(resolve(flags=given, environ={}).config, get_profile("cpu")).footprint

    plain = plan(**{"train.strategy": "full"})
    whole = plan(**{"train.strategy": "full", "train.objective": "dpo"})
    assert whole.frozen - plain.frozen == plain.weights
    assert whole.activation_peak > 1.5 * plain.activation_peak
    assert whole.model_flops == pytest.approx(plain.model_flops * 2 * 4 / 3, rel=0.01)
    adapted = plan(**{"train.objective": "dpo"})
    assert adapted.frozen == plain.frozen
