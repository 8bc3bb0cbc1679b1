"""DeepSpeed's ZeRO: what it is refused for, what it divides, and that it trains the same."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ultrashape_cli.config.resolve import Resolved, resolve
from ultrashape_cli.errors import CheckpointError, ConfigError, DependencyError
from ultrashape_cli.runs import MODEL_FILE, RunFolder, complete_checkpoints
from ultrashape_cli.training.memory.plan import RunPlan, lower_strategy, plan_run
from ultrashape_cli.training.memory.strategies import resolve_strategy, whole_weights
from ultrashape_cli.training.memory.zero import check_layout, import_deepspeed

TINY = {
    "train.model": "tiny",
    "train.num_latents": 16,
    "train.surface_points": 256,
    "train.num_workers": 0,
    "train.warmup_steps": 0,
    "train.log_every_steps": 1,
    "train.validate_every_steps": 0,
}


def _resolved(**settings: object) -> Resolved:
    launch = {"launch.engine": "deepspeed", "launch.num_processes": 2}
    names = {key.replace("__", "."): value for key, value in settings.items()}
    return resolve(flags={**TINY, "profile": "cpu", **launch, **names}, environ={})


@pytest.mark.parametrize(
    ("settings", "message", "hint"),
    [
        ({"launch__num_processes": 1}, "needs several processes", "--num-processes N"),
        ({"train__strategy": "lora"}, "not `lora`", "--set train.strategy=full"),
        ({"train__strategy": "sharded"}, "not `sharded`", "--set train.strategy=full"),
        ({"train__optimizer": "adamw-8bit"}, "train.optimizer=adamw-8bit", "launch.engine=native"),
        (
            {"train__skip_bad": True, "train__accumulation": 2},
            "different numbers of microbatches",
            "--set train.accumulation=1",
        ),
        ({"train__stage": "vae"}, "the autoencoder fits one GPU", "launch.engine=native"),
        (
            {"launch__zero_stage": 3, "train__ema_decay": 0.9},
            "train.ema_decay needs whole weights",
            "--set launch.zero_stage=2",
        ),
        (
            {"launch__zero_stage": 3, "train__train_conditioner": True},
            "train.train_conditioner needs whole weights",
            "--set train.train_conditioner=false",
        ),
    ],
)
def test_what_zero_cannot_train_is_refused(
    settings: dict[str, object], message: str, hint: str
) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        resolve_strategy(_resolved(**settings).config)
    assert hint in (error.value.hint or "")


def test_only_stages_2_and_3_exist() -> None:
    with pytest.raises(ConfigError, match=r"launch\.zero_stage"):
        _resolved(launch__zero_stage=1)


def test_only_stage_3_divides_the_weights() -> None:
    assert whole_weights(_resolved(launch__zero_stage=2).config)
    assert not whole_weights(_resolved(launch__zero_stage=3).config)
    assert whole_weights(_resolved(launch__zero_stage=3, launch__engine="native").config)


def test_the_plan_divides_what_zero_divides() -> None:
    def plan(**settings: object) -> RunPlan:
        frozen = {"train__train_conditioner": False, "launch__num_processes": 4}
        resolved = _resolved(**frozen, **settings)
        return plan_run(resolved.config, resolved.profile)

    native = dict(plan(launch__engine="native").rows())
    second, third = (dict(plan(launch__zero_stage=stage).rows()) for stage in (2, 3))
    for row in ("optimizer", "gradients"):
        assert second[row] == third[row] == native[row] // 4
    assert (second["weights"], third["weights"]) == (native["weights"], native["weights"] // 4)
    # Only with whole weights does the optimizer step a copy of its share.
    assert second["stepped weights"] == pytest.approx(native["weights"] / 4, rel=0.01)
    assert "stepped weights" not in third
    assert third["gathered blocks"] > 0
    assert "gathered blocks" not in second
    assert "exchange buffer" not in native


def test_what_does_not_fit_is_divided_further() -> None:
    def following(stage: int) -> str | None:
        settings = {"train__activation_checkpointing": "all", "launch__zero_stage": stage}
        return lower_strategy(_resolved(**settings).config)

    assert following(2) == "--set launch.zero_stage=3"
    assert following(3) == "more processes"


def test_a_state_divided_otherwise_is_refused_with_the_way_back() -> None:
    two = {"stage": 2, "processes": 2}
    check_layout({"zero": two, "groups": []}, two)
    check_layout({"state": {}, "param_groups": []}, None)
    with pytest.raises(CheckpointError, match="ZeRO-2 among 2 processes") as error:
        check_layout({"zero": two, "groups": []}, {"stage": 2, "processes": 4})
    assert error.value.hint is not None
    assert error.value.hint.startswith("--num-processes 2")
    with pytest.raises(CheckpointError, match="ZeRO-2 among 2 processes"):
        check_layout({"zero": two, "groups": []}, None)
    with pytest.raises(CheckpointError, match="saved without deepspeed"):
        check_layout({"state": {}, "param_groups": []}, two)


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    with pytest.raises(DependencyError, match="needs deepspeed") as error:
        import_deepspeed(torch.device("cpu"))
    assert "'ultrashape-cli[deepspeed]'" in (error.value.hint or "")


def _require_deepspeed() -> None:
    pytest.importorskip("deepspeed", reason="needs pip install 'ultrashape-cli[deepspeed]'")


def _train(data: Path, out: Path, *overrides: str, processes: int = 2) -> str:
    """Trains as a user would; returns what was said."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = [f"{key}={value}" for key, value in TINY.items()]
    settings += [f"launch.main_process_port={port}", *overrides]
    command = [sys.executable, "-m", "ultrashape_cli", "train", "--data", str(data)]
    command += ["--out", str(out), "--device", "cpu", "--profile", "cpu"]
    command += ["--num-processes", str(processes)]
    command += [part for setting in settings for part in ("--set", setting)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=280, check=False
    )
    assert run.returncode == 0, run.stderr
    assert not run.stdout.strip() or str(out) in run.stdout
    return run.stderr


def _lines(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def _weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(complete_checkpoints(run / "checkpoints")[-1] / MODEL_FILE)


COMMON = (
    *("train.condition_dropout=0.5", "train.learning_rate=0.001", "train.clip_norm=0.5"),
    "train.train_conditioner=false",
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "extra"),
    [
        (2, ()),
        (2, ("train.ema_decay=0.9",)),
        (2, ("train.train_conditioner=true",)),
        (3, ()),
        (3, ("train.activation_checkpointing=all",)),
    ],
)
def test_two_processes_train_what_one_native_process_trains(
    ball_data: Path, tmp_path: Path, stage: int, extra: tuple[str, ...]
) -> None:
    _require_deepspeed()
    # Routing is balanced per microbatch, so both sides have the same ones.
    common = (*COMMON, "train.steps=4", "train.microbatch=2", *extra)
    # The last step refines a held-out mesh, in stage 3 with both processes.
    common += (
        "train.validate_every_steps=9",
        "train.validate_meshes=1",
        "train.mesh_resolution=32",
    )
    engine = ("launch.engine=deepspeed", f"launch.zero_stage={stage}", "train.accumulation=2")
    _train(ball_data, tmp_path / "two", *common, *engine)
    _train(ball_data, tmp_path / "one", *common, "train.accumulation=4", processes=1)
    two, one = _lines(tmp_path / "two"), _lines(tmp_path / "one")
    for name in ("loss", "grad_norm", "learning_rate"):
        ours, twin = ([line[name] for line in lines] for lines in (two, one))
        assert ours == pytest.approx(twin, rel=1e-5 if name == "loss" else 1e-4), name
    # The norm is the one before clipping.
    assert max(line["grad_norm"] for line in two) > 0.5
    assert two[-1]["val_loss"] == pytest.approx(one[-1]["val_loss"], rel=1e-5)
    assert "val_surface" in two[-1]
    ours, twin = _weights(tmp_path / "two"), _weights(tmp_path / "one")
    assert ours.keys() == twin.keys()
    for key, value in twin.items():
        torch.testing.assert_close(ours[key], value, rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("stage", [2, 3])
def test_two_processes_resume_bitwise(ball_data: Path, tmp_path: Path, stage: int) -> None:
    _require_deepspeed()
    out = tmp_path / "run"
    engine = ("launch.engine=deepspeed", f"launch.zero_stage={stage}", "train.accumulation=2")
    settings = (*COMMON, *engine, "train.steps=4", "train.save_every_steps=2", "train.dtype=bf16")

    _train(ball_data, out, *settings)
    newest = complete_checkpoints(out / "checkpoints")[-1]
    state = torch.load(newest / "trainer.pt", weights_only=True)["optimizer"]
    assert state["zero"] == {"stage": stage, "processes": 2}
    straight, losses = _weights(out), [line["loss"] for line in _lines(out)]
    shutil.rmtree(newest)
    said = _train(ball_data, out, *settings)
    assert "resumes from" in said
    assert [line["loss"] for line in _lines(out)] == losses
    resumed = _weights(out)
    assert all(torch.equal(value, resumed[key]) for key, value in straight.items())
    again = torch.load(newest / "trainer.pt", weights_only=True)["optimizer"]
    for ours, theirs in zip(state["groups"], again["groups"], strict=True):
        for name, values in ours.items():
            assert all(map(torch.equal, values, theirs[name])), name


@pytest.mark.slow
@pytest.mark.parametrize("stage", [2, 3])
def test_a_skipped_step_leaves_nothing_behind(ball_data: Path, tmp_path: Path, stage: int) -> None:
    """Every step is a spike but the first 20, so the rest must not change the weights."""
    _require_deepspeed()
    engine = ("launch.engine=deepspeed", f"launch.zero_stage={stage}")
    settings = (*COMMON, *engine, "train.accumulation=1", "train.save_every_steps=1")
    settings += ("train.keep_checkpoints=9", "train.steps=23", "train.spike_factor=0.001")
    _train(ball_data, tmp_path / "run", *settings)
    lines = _lines(tmp_path / "run")
    assert [line["skipped_steps"] for line in lines[-4:]] == [0, 1, 2, 3]
    run = RunFolder(tmp_path / "run")
    taken, *_, last = complete_checkpoints(run.checkpoints)[-4:]
    before, after = (load_file(path / MODEL_FILE) for path in (taken, last))
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert all(line["loss"] > 0 for line in lines)
