"""Policy gradients: that rewards rise, and that nothing else happens."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from process_pair import run_in_two
from safetensors.torch import load_file
from small_latents_judge import SmallLatents, train_in_process
from train_and_read import checkpoints, losses, make_trainer, same, train_run

from ultrashape_cli.config.resolve import resolve
from ultrashape_cli.config.schema import Config
from ultrashape_cli.data.layout import Dataset
from ultrashape_cli.errors import AssetError
from ultrashape_cli.runs import RunFolder
from ultrashape_cli.training.generations import check_objective
from ultrashape_cli.training.objectives.policy import PolicyObjective
from ultrashape_cli.training.setup import open_run

GRPO = {"objective": "grpo", "strategy": "lora", "lora_rank": 4, "learning_rate": 2e-3}
SHORT = {"group": 4, "rollout_steps": 6, "window": 2}


@pytest.fixture(autouse=True)
def _small_latents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ultrashape_cli.training.build.GroupJudge", SmallLatents)


@pytest.fixture
def make(make_run):
    """`make_run` with settings of the section `reward`."""

    def make(name: str = "run", reward: dict | None = None, **settings) -> tuple[RunFolder, Config]:
        run, config = make_run(name, **{**GRPO, **settings})
        config = replace(config, reward=replace(config.reward, **{**SHORT, **(reward or {})}))
        open_run(run, config, force=True, command=["test"])
        return run, config

    return make


def lines(run: RunFolder) -> list[dict]:
    return [json.loads(line) for line in run.metrics.read_text().splitlines()]


def adapters(run: RunFolder) -> dict[str, torch.Tensor]:
    return load_file(checkpoints(run)[-1] / "adapter_model.safetensors")


def mean(values: list[dict], name: str) -> float:
    return sum(line[name] for line in values) / len(values)


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "rate"), [("full", 1e-3), ("lora", 8e-3)])
def test_the_reward_rises_within_fifty_updates(make, strategy: str, rate: float) -> None:
    run, _ = make(steps=36, strategy=strategy, learning_rate=rate)
    assert train_run(run) == 0
    found = lines(run)
    first, last = (mean(part, "reward_small") for part in (found[:8], found[-8:]))
    # The square of the latents must fall from about 1.1.
    assert last > first * 0.8
    assert all(line["ratio_off"] == 0 for line in found)
    assert all(line["flat_groups"] == 0 == line["failed_meshes"] for line in found)


def test_the_ratio_is_one_before_the_first_update_only(make) -> None:
    run, config = make(steps=1, reward={"inner_steps": 1})
    trainer = make_trainer(config, run)
    objective, net = trainer.objective, trainer.trainee.net
    assert isinstance(objective, PolicyObjective)
    drawn, _, _ = trainer.feed.draw()
    pieces = objective.expand(net, drawn)
    # Groups of 4 in pieces of a microbatch of 2, two noisy steps each.
    assert len(pieces) == 2 * 2 * 2
    assert all(float(objective(net, piece).parts["ratio_off"]) == 0.0 for piece in pieces)
    more, _ = make("more", steps=2, reward={"inner_steps": 3})
    train_run(more)
    assert all(line["ratio_off"] > 0 for line in lines(more))


def test_the_gradient_makes_what_was_better_likelier(make) -> None:
    run, config = make(steps=1, microbatch=1)
    trainer = make_trainer(config, run)
    objective, net = trainer.objective, trainer.trainee.net
    pieces = objective.expand(net, trainer.feed.draw()[0])
    total = sum(objective(net, piece).total for piece in pieces)
    total.backward()
    with torch.no_grad():
        for parameter in trainer.trainee.gradients():
            parameter -= 1e-3 * parameter.grad
    for piece in pieces:
        assert float(objective(net, piece).parts["ratio_off"]) > 0
    assert sum(float(objective(net, p).total.detach()) for p in pieces) < float(total.detach())


def test_members_are_one_until_the_window_and_it_shifts(make) -> None:
    run, config = make(steps=1)
    trainer = make_trainer(config, run)
    objective = trainer.objective
    assert [objective.window_start(counter) for counter in range(6)] == [0, 1, 2, 3, 4, 0]
    draw = torch.Generator().manual_seed(0)
    start = torch.randn(16, 8, generator=draw)
    inputs = (torch.randn(1, 3, 16, generator=draw), torch.zeros(1, 16, 3, dtype=torch.long), [3])
    latents, pieces = objective.sample(trainer.trainee.net, start, inputs, counter=2)
    assert latents.shape == (4, 16, 8)
    assert {piece["step"].t for piece in pieces} == {objective.times[2], objective.times[3]}
    assert torch.equal(pieces[0]["x"][0], pieces[0]["x"][1])
    assert not torch.equal(latents[0], latents[1])
    again, _ = objective.sample(trainer.trainee.net, start, inputs, counter=2)
    assert torch.equal(latents, again)


def test_flat_groups_teach_nothing(make, monkeypatch) -> None:
    class Indifferent(SmallLatents):
        def __call__(self, latents, sample):
            return super().__call__(torch.zeros_like(latents), sample)

    monkeypatch.setattr("ultrashape_cli.training.build.GroupJudge", Indifferent)
    run, config = make(steps=1)
    trainer = make_trainer(config, run)
    pieces = trainer.objective.expand(trainer.trainee.net, trainer.feed.draw()[0])
    assert [len(piece["uid"]) for piece in pieces] == [1, 1]
    for piece in pieces:
        trainer.objective(trainer.trainee.net, piece).total.backward()
    assert all(not p.grad.any() for p in trainer.trainee.gradients() if p.grad is not None)


def test_no_rate_changes_nothing(make) -> None:
    run, config = make(steps=2, strategy="full", save_every_steps=1)
    config = replace(config, train=replace(config.train, learning_rate=0.0))
    trainer = make_trainer(config, run)
    before = {name: value.clone() for name, value in trainer.component.state_dict().items()}
    trainer.train(lambda: False)
    assert same(before, trainer.component.state_dict())


@pytest.mark.slow
def test_a_resumed_run_learns_the_same(make, stop_after) -> None:
    straight, _ = make("straight", steps=4)
    stopped, _ = make("stopped", steps=4)
    assert train_run(straight) == 0
    assert train_run(stopped, on_step=stop_after(2)) == 143
    assert train_run(stopped) == 0
    assert losses(stopped) == losses(straight)
    assert same(adapters(stopped), adapters(straight))


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(make_run, make) -> None:
    two, config = make("two", steps=3, processes=2)
    one, _ = make("one", steps=3, accumulation=2)
    assert config.launch.num_processes == 2
    run_in_two(train_in_process, two.root)
    train_run(one)
    assert losses(two) == pytest.approx(losses(one), abs=1e-6)
    # What is logged of groups is of those of all processes.
    rewards = [[line["reward_small"] for line in lines(run)] for run in (two, one)]
    assert rewards[0] == pytest.approx(rewards[1], rel=1e-3)
    for name, value in adapters(one).items():
        torch.testing.assert_close(adapters(two)[name], value, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_the_divergence_holds_it_back(make) -> None:
    free, _ = make("free", steps=8)
    held, _ = make("held", steps=8, reward={"kl": 100.0})
    train_run(free)
    train_run(held)
    assert lines(held)[0]["kl"] == 0
    assert 0 < lines(held)[-1]["kl"] < 1
    moved = [sum(float(v.square().sum()) for n, v in adapters(run).items() if "lora_B" in n)
             for run in (free, held)]  # fmt: skip
    assert moved[1] < moved[0]


def test_what_cannot_be_judged_is_refused(ushape, ball_data: Path) -> None:
    command = [
        *("train", "--data", ball_data, "--model", "small", "--objective", "grpo", "--dry-run"),
        *("--profile", "cpu", "--set", "train.num_latents=16"),
    ]
    said = {
        (): "no meshes for 4 of 4 assets",
        ("--set", "reward.window=13"): "does not fit in 12 steps",
        ("--strategy", "sharded"): "asks for the whole network",
        ("--set", "train.rewards=beauty:1"): "no reward `beauty`",
    }
    for more, text in said.items():
        refused = ushape(*command, *more)
        assert refused.code != 0
        assert text in refused.err, more


def test_meshes_are_judged_and_watched(
    make, ball_data: Path, ball_weights: Path, tmp_path: Path, monkeypatch
) -> None:
    from ultrashape_cli.training.judge import GroupJudge

    monkeypatch.setattr("ultrashape_cli.training.build.GroupJudge", GroupJudge)
    data = Dataset(tmp_path / "data")
    shutil.copytree(ball_data, data.root)
    for asset in data.read_split("train"):
        shutil.copy(data.mesh("ball-4"), data.mesh(asset))
    run, config = make(
        steps=1, data=str(data.root), init=str(ball_weights), microbatch=1,
        rewards=("chamfer:1", "components:0.5"), validate_every_steps=1, validate_meshes=1,
        mesh_resolution=24, reward={"resolution": 24, "group": 2},
    )  # fmt: skip
    check_objective(config)
    assert train_run(run) == 0
    (line,) = lines(run)
    assert -5 < line["reward_chamfer"] < 5
    assert line["reward_components"] <= 0
    assert line["val_held_normals"] == pytest.approx(line["val_base_held_normals"], abs=0.1)
    assert line["val_drift"] > 0
    assert {"rollout", "judge"} <= line.keys()


def test_an_asset_that_cannot_be_judged_ends_the_run_or_is_passed_over(make, monkeypatch) -> None:
    class Unreadable(SmallLatents):
        def __call__(self, latents, sample):
            raise AssetError(f"the mesh of {sample.asset} is cut short", hint="repair it")

    monkeypatch.setattr("ultrashape_cli.training.build.GroupJudge", Unreadable)
    with pytest.raises(AssetError, match="cut short"):
        train_run(make("ends", steps=1)[0])
    run, _ = make("passes", steps=2, skip_bad=True)
    assert train_run(run) == 0
    assert [line["flat_groups"] for line in lines(run)] == [1, 1]
    log = run.log(0).read_text()
    assert "no group of asset `ball-" in log
    # Said once: that a run learns nothing is nothing to be said of every step.
    assert log.count("nothing is learned") == 1


def test_sampling_decoding_and_the_reference_are_planned() -> None:
    from ultrashape_cli.config.profiles import get_profile
    from ultrashape_cli.training.memory.plan import plan_run

    def plan(**flags: object):
        given = {"train.model": "tiny", "profile": "cpu", "train.train_conditioner": False, **flags}
        return plan_run(resolve(flags=given, environ={}).config, get_profile("cpu")).footprint

    plain = plan(**{"train.strategy": "full"})
    policy = plan(**{"train.strategy": "full", "train.objective": "grpo"})
    # 4 steps of one member and 8 of eight, then four noisy ones of eight with gradients.
    assert policy.model_flops == pytest.approx(plain.model_flops / 3 * (68 + 3 * 32), rel=0.01)
    decoder = policy.frozen - plain.frozen
    assert 0 < decoder < plain.weights
    held = plan(**{"train.strategy": "full", "train.objective": "grpo", "reward.kl": 0.01})
    assert held.frozen - policy.frozen == plain.weights
