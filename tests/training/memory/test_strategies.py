"""The strategies on a real run: against plain fp32, resumed bitwise, refused where they lose."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ultrashape_cli.config.resolve import resolve
from ultrashape_cli.errors import ConfigError
from ultrashape_cli.models.sources import load_networks, resolve_weights
from ultrashape_cli.runs import RunFolder, complete_checkpoints
from ultrashape_cli.training.checkpoint import MODEL_FILE
from ultrashape_cli.training.memory.strategies import resolve_strategy
from ultrashape_cli.training.worker import train_run

SEVERAL = {"launch.num_processes": "2"}
HALF = {"dtype": "bf16"}
CASES = {
    "full-8bit": {"strategy": "full-8bit"},
    "full-offload": {"strategy": "full-offload", **HALF},
    "experts-frozen": {"strategy": "experts-frozen", **HALF},
    "lora": {"strategy": "lora", "lora_rank": 4},
    "lora-int8": {"strategy": "lora", "lora_rank": 4, "lora_base": "int8", **HALF},
    "ema": {"ema_decay": 0.9},
    "variants": {"latent_variants": 2},
    "accumulation": {"accumulation": 3, "microbatch": 1},
}


def _train(run: RunFolder, **options) -> int:
    return train_run(run, resolve(file=run.config, environ={}).config, **options)


def _losses(run: RunFolder) -> list[float]:
    return [json.loads(line)["loss"] for line in run.metrics.read_text().splitlines()]


def _assert_same_files(first: RunFolder, second: RunFolder) -> None:
    a, b = (complete_checkpoints(run.checkpoints)[-1] for run in (first, second))
    names = sorted(path.name for path in a.glob("*.safetensors"))
    assert names
    assert names == sorted(path.name for path in b.glob("*.safetensors"))
    for name in names:
        ours, theirs = load_file(a / name), load_file(b / name)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours), name


@pytest.mark.parametrize("case", CASES)
def test_every_strategy_resumes_bitwise(make_run, case: str, stop_after) -> None:
    straight, _ = make_run("straight", steps=4, **CASES[case])
    assert _train(straight) == 0
    broken, _ = make_run("broken", steps=4, **CASES[case])
    assert _train(broken, on_step=stop_after(2)) == 143
    assert _train(broken) == 0
    assert _losses(straight) == _losses(broken)
    _assert_same_files(straight, broken)
    states = [
        torch.load(
            complete_checkpoints(run.checkpoints)[-1] / "trainer.pt", weights_only=True
        )["optimizer"]["state"]
        for run in (straight, broken)
    ]  # fmt: skip
    for ours, theirs in zip(*(state.values() for state in states), strict=True):
        for name, value in ours.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(theirs[name])), name


@pytest.mark.parametrize(
    ("case", "tolerance"),
    [("full-8bit", 0.02), ("full-offload", 0.05), ("experts-frozen", 0.05)],
)
def test_a_strategy_learns_what_plain_fp32_learns(make_run, case: str, tolerance: float) -> None:
    plain, _ = make_run("plain", steps=20)
    _train(plain)
    run, _ = make_run("run", steps=20, **CASES[case])
    _train(run)
    assert sum(_losses(run)) == pytest.approx(sum(_losses(plain)), rel=tolerance)
    assert sum(_losses(run)[-5:]) < sum(_losses(run)[:5])


def test_offload_in_fp32_is_plain_adamw_bit_for_bit(make_run) -> None:
    plain, _ = make_run("plain", steps=5, accumulation=2, microbatch=1)
    _train(plain)
    run, _ = make_run("run", steps=5, accumulation=2, microbatch=1, strategy="full-offload")
    _train(run)
    # The norm is summed over parameters in another order, so only clipped steps may differ.
    a, b = (load_file(complete_checkpoints(r.checkpoints)[-1] / MODEL_FILE) for r in (plain, run))
    for key in a:
        torch.testing.assert_close(a[key], b[key], rtol=1e-6, atol=1e-7)


def test_offload_keeps_half_precision_weights_and_saves_full_ones(make_run) -> None:
    run, _ = make_run(steps=2, strategy="full-offload", **HALF)
    _train(run)
    saved = load_file(complete_checkpoints(run.checkpoints)[-1] / MODEL_FILE)
    trained = [value for key, value in saved.items() if not key.endswith("mask_token")]
    assert {value.dtype for value in trained} == {torch.float32}
    assert any(not torch.equal(v, v.bfloat16().float()) for v in saved.values())


def test_frozen_experts_stay_as_they_were(make_run) -> None:
    run, _ = make_run(steps=2, strategy="experts-frozen")
    _train(run)
    after = load_file(complete_checkpoints(run.checkpoints)[-1] / MODEL_FILE)
    before = load_file(run.root / "base.safetensors")
    experts = [key for key in after if ".moe.experts." in key]
    others = [key for key in after if ".moe.experts." not in key]
    assert experts
    assert all(torch.equal(after[key], before[key]) for key in experts)
    assert not any(torch.equal(after[key], before[key]) for key in others if key.endswith("weight"))


@pytest.mark.parametrize("base", ["auto", "int8", "nf4"])
def test_adapters_learn_over_every_base(make_run, base: str) -> None:
    run, _ = make_run(
        steps=12, strategy="lora", lora_rank=8, lora_base=base, learning_rate=1e-2, **HALF
    )
    _train(run)
    assert sum(_losses(run)[-4:]) < sum(_losses(run)[:4])
    newest = complete_checkpoints(run.checkpoints)[-1]
    assert not (newest / MODEL_FILE).exists()
    config = json.loads((newest / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"]) == ("LORA", 8)


def test_adapters_merge_into_the_weights_that_others_load(make_run, ushape, tmp_path) -> None:
    from ultrashape_cli.training.memory.lora import add_adapters, load_adapters

    run, config = make_run(
        model="tiny", init="random", steps=3, strategy="lora", lora_rank=4, learning_rate=1e-2
    )
    _train(run)
    newest = complete_checkpoints(run.checkpoints)[-1]
    file = tmp_path / "merged.safetensors"
    ushape("weights", "convert", run.root, file)
    merged = load_networks(resolve_weights(file), components=("dit",)).dit
    adapted = load_networks(resolve_weights(run.root / "base.safetensors"), components=("dit",)).dit
    add_adapters(adapted, config.train, seed=0)
    load_adapters(adapted, load_file(newest / "adapter_model.safetensors"), newest)
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(1, 5, 32, generator=draw)
    inputs = (torch.tensor([0.5]), torch.randn(1, 3, 64, generator=draw))
    voxels = torch.arange(15).view(1, 5, 3)
    with torch.no_grad():
        a, b = (net(x, *inputs, voxels).velocity for net in (merged, adapted.eval()))
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_adapters_of_another_rank_are_refused(make_run, tmp_path: Path) -> None:
    from ultrashape_cli.errors import CheckpointError
    from ultrashape_cli.models.registry import build, model_spec
    from ultrashape_cli.training.memory.lora import adapter_weights, add_adapters, load_adapters

    _, config = make_run(strategy="lora", lora_rank=4)
    _, other = make_run("other", strategy="lora", lora_rank=2)
    nets = [build(model_spec("tiny"), device="cpu", components=("dit",)).dit for _ in range(2)]
    for net, each in zip(nets, (config, other), strict=True):
        add_adapters(net, each.train, seed=0)
    with pytest.raises(CheckpointError, match="another network or rank"):
        load_adapters(nets[0], adapter_weights(nets[1]), tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strategy": "full", "weights": "bf16", **HALF}, "lose about 90 %"),
        (
            {"strategy": "experts-frozen", "optimizer": "adamw", "weights": "bf16", **HALF},
            "lose about 90 %",
        ),
        ({"strategy": "full", "weights": "bf16"}, "needs train.dtype=bf16"),
        ({"strategy": "lora", "optimizer": "adamw-8bit"}, "its own optimizer state"),
        ({"strategy": "sharded"}, "needs several processes"),
        (
            {"strategy": "sharded", "skip_bad": "true", "accumulation": "2", **SEVERAL},
            "would wait forever",
        ),
    ],
)
def test_a_combination_that_loses_is_refused(settings: dict[str, str], message: str) -> None:
    flags = {k if "." in k else f"train.{k}": value for k, value in settings.items()}
    flags["profile"] = "cpu"
    with pytest.raises(ConfigError, match=message):
        resolve_strategy(resolve(flags=flags, environ={}).config)


def test_bf16_weights_with_stochastic_rounding_are_allowed() -> None:
    flags = {"train.weights": "bf16", "train.optimizer": "adamw-8bit", "train.dtype": "bf16"}
    strategy = resolve_strategy(resolve(flags={**flags, "profile": "cpu"}, environ={}).config)
    assert (strategy.half_weights, strategy.eight_bits) == (True, True)
