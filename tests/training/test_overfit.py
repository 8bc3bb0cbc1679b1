"""The overfit check: its verdict, and that a network of ours passes it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ultrashape_cli.errors import TrainingError
from ultrashape_cli.training.overfit import judge, overfit_settings


def _metrics(tmp_path: Path, losses: list[float]) -> Path:
    path = tmp_path / "metrics.jsonl"
    lines = [{"step": i, "loss": loss, "target_power": 2.0} for i, loss in enumerate(losses)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_the_last_tenth_decides(tmp_path: Path) -> None:
    assert judge(_metrics(tmp_path, [2.0] * 90 + [0.1] * 10)).passed
    verdict = judge(_metrics(tmp_path, [0.1] * 90 + [1.0] * 10))
    assert not verdict.passed
    assert "50.0% of predicting nothing" in verdict.text


def test_a_run_without_steps_is_no_verdict(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no steps to judge"):
        judge(_metrics(tmp_path, []))


def test_the_check_takes_fewer_tokens_and_no_dropout() -> None:
    assert "train.num_latents=32" in overfit_settings("tiny", 8)
    assert "train.num_latents=1024" in overfit_settings(None, 8)
    assert overfit_settings("tiny", None) == []


@pytest.mark.slow
def test_the_command_passes_its_own_check_on_two_assets(ushape, ball_data, tmp_path) -> None:
    run = ushape(
        *("train", "--model", "small", "--profile", "cpu", "--device", "cpu", "--data", ball_data),
        *("--out", tmp_path / "run", "--overfit", 2, "--steps", 160, "--no-progress"),
        *("--set", "train.num_latents=8", "--set", "train.learning_rate=4e-3"),
        *("--set", "train.surface_points=256", "--set", "train.save_every_steps=1000"),
        *("--set", "train.microbatch=8", "--set", "train.num_workers=0"),
        *("--set", "train.validate_meshes=0"),
    )
    assert "overfit check passed" in run.err


@pytest.mark.slow
def test_the_tiny_model_memorises_eight_figurines(ushape, tmp_path) -> None:
    from ultrashape_cli.meshfiles.save import save_mesh
    from ultrashape_cli.synthetic.figurines import make_figurine

    for seed in range(10):
        save_mesh(make_figurine(seed, resolution=48), tmp_path / "meshes" / f"{seed}.ply")
    config = Path(__file__).parents[2] / "examples" / "tiny" / "quickstart.toml"
    ushape("prepare", tmp_path / "meshes", "--out", tmp_path / "data", "--config", config)
    run = ushape(
        *("train", "--model", "tiny", "--profile", "cpu", "--data", tmp_path / "data"),
        *("--out", tmp_path / "run", "--overfit", 8, "--steps", 1500),
        *("--set", "train.microbatch=8", "--set", "train.learning_rate=3e-3"),
    )
    assert "overfit check passed" in run.err


def test_a_loss_that_is_no_number_fails(tmp_path: Path) -> None:
    path = _metrics(tmp_path, [None])
    verdict = judge(path)
    assert (verdict.passed, verdict.loss) == (False, None)
    assert "no finite number" in verdict.text


def test_a_failed_check_is_a_failed_command(ushape, ball_data, tmp_path) -> None:
    command = (
        *("train", "--model", "small", "--profile", "cpu", "--device", "cpu", "--data", ball_data),
        *("--out", tmp_path / "run", "--overfit", 2, "--steps", 1, "--json"),
        *("--set", "train.num_latents=8", "--set", "train.surface_points=256"),
        *("--set", "train.num_workers=0", "--set", "train.validate_meshes=0"),
    )
    for _ in range(2):  # the second time there is nothing left to train
        run = ushape(*command)
        found = json.loads(run.out)
        assert (run.code, found["status"]) == (1, "failed")
        assert found["overfit"]["passed"] is False
        assert found["overfit"]["loss"] > 0
