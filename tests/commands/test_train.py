"""`ushape train`: preflight, settings and bad input."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import small_model  # noqa: F401

from ultrashape_cli.config.models import MODEL_SETTINGS
from ultrashape_cli.data.layout import Dataset
from ultrashape_cli.files import write_json
from ultrashape_cli.models.registry import MODELS


def _dataset(root: Path, ids: list[str]) -> Path:
    dataset = Dataset(root)
    (root / "records").mkdir(parents=True)
    write_json(dataset.list_path("train"), ids)
    write_json(dataset.list_path("val"), [])
    return root


def test_show_config_names_the_origin_of_every_value(ushape) -> None:
    result = ushape(
        *("train", "--profile", "a40", "--model", "tiny", "--set", "train.steps=7"),
        *("--show-config", "--json"),
    )
    settings = json.loads(result.out)["settings"]
    assert result.code == 0
    assert settings["train.dtype"] == {"value": "bf16", "origin": "profile a40"}
    assert settings["train.microbatch"] == {"value": 4, "origin": "model tiny"}
    assert settings["train.steps"] == {"value": 7, "origin": "--set"}
    assert settings["train.clip_norm"]["origin"] == "default"


def test_a_folder_that_is_no_dataset_is_refused(ushape, tmp_path: Path) -> None:
    result = ushape("train", "--data", tmp_path, "--model", "tiny")
    assert result.code == 2
    assert "ushape prepare" in result.err


def test_an_empty_training_list_is_refused(ushape, tmp_path: Path) -> None:
    result = ushape("train", "--data", _dataset(tmp_path / "data", []), "--model", "tiny")
    assert result.code == 1
    assert "no training assets" in result.err


def test_missing_samples_are_counted(ushape, tmp_path: Path) -> None:
    data = _dataset(tmp_path / "data", ["a", "b"])
    result = ushape("train", "--data", data, "--model", "tiny")
    assert result.code == 1
    assert "no samples for 2 of 2 assets" in result.err
    assert f"ushape sample {data}" in result.err


def test_an_unknown_key_offers_the_right_one(ushape) -> None:
    result = ushape("train", "--set", "train.learning_rte=1")
    assert result.code == 2
    assert "did you mean `train.learning_rate`?" in result.err


def test_a_missing_init_is_refused_before_anything_is_written(
    ushape, ball_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    result = ushape(
        "train", "--data", ball_folder, "--model", "tiny", "--init", "none", "--out", out
    )
    assert result.code == 1
    assert "no weights at `none`" in result.err
    assert not out.exists()


def test_a_dry_run_prints_the_memory_plan_and_writes_nothing(
    ushape, ball_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    result = ushape("train", "--data", ball_folder, "--model", "tiny", "--out", out, "--dry-run")
    assert result.code == 0
    assert "optimizer" in result.err
    assert not out.exists()


def test_a_dry_run_gives_its_plan_as_json(ushape, ball_folder: Path, tmp_path: Path) -> None:
    result = ushape(
        *("train", "--data", ball_folder, "--model", "tiny", "--profile", "cpu", "--dry-run"),
        *("--epochs", 24, "--batch", 2, "--accumulation", 3, "--price-per-hour", 2, "--json"),
    )
    plan = json.loads(result.out)["plan"]
    assert (plan["steps"], plan["epochs"]) == (4, 24)
    assert sum(plan["memory_bytes"].values()) == plan["device_bytes"]
    assert plan["cost"] == 2 * plan["hours"]
    assert plan["starts_from"] == "the weights of `tiny` that come with the package"


def test_a_plan_needs_no_weights_but_checks_those_named(
    ushape, ball_folder, tmp_path, monkeypatch
) -> None:
    released = replace(MODELS["small"], name="released", repo_id="nobody/released")
    monkeypatch.setitem(MODELS, "released", released)
    monkeypatch.setitem(MODEL_SETTINGS, "released", MODEL_SETTINGS["small"])
    command = ("train", "--data", ball_folder, "--model", "released", "--profile", "cpu")
    assert ushape(*command, "--out", tmp_path / "run").code == 2
    command += ("--dry-run",)
    result = ushape(*command)
    assert result.code == 0
    assert "starts from weights that --init will name" in result.err
    (tmp_path / "empty.safetensors").write_bytes(b"")
    result = ushape(*command, "--init", tmp_path / "empty.safetensors")
    assert result.code == 1
    assert "empty" in result.err


@pytest.mark.slow
def test_several_profiles_make_one_table(ushape, ball_folder: Path, tmp_path: Path) -> None:
    command = ("train", "--data", ball_folder, "--model", "small", "--profile", "a5000,h100")
    result = ushape(*command, "--dry-run", "--price-per-hour", "0.3,2.5", "--json")
    found = json.loads(result.out)["profiles"]
    assert list(found) == ["a5000", "h100"]
    assert found["h100"]["cost"] == 2.5 * found["h100"]["hours"]
    assert "a5000" in result.err
    assert ushape(*command).code == 2
    assert ushape(*command, "--dry-run", "--price-per-hour", "1,2,3").code == 2


@pytest.mark.slow
def test_the_plan_says_when_the_host_decided(ushape, ball_folder: Path) -> None:
    command = (
        "train",
        "--data",
        ball_folder,
        "--model",
        "small",
        "--profile",
        "a5000",
        "--dry-run",
    )
    result = ushape(*command, "--host-memory-gib", 23)
    assert "experts-frozen (the host's memory decides: 23 GiB < 60 GiB" in result.err
    assert "full-offload" in ushape(*command, "--host-memory-gib", 128).err


def test_many_epochs_are_warned_of(ushape, ball_folder: Path) -> None:
    command = ("train", "--data", ball_folder, "--model", "small", "--profile", "cpu", "--dry-run")
    assert "passes over these assets" in ushape(*command, "--epochs", 301).err
    assert "passes over these assets" not in ushape(*command, "--epochs", 299).err
    assert ushape(*command, "--epochs", 2, "--steps", 5).code == 2


def test_an_unavailable_device_is_refused(ushape, ball_folder: Path, tmp_path: Path) -> None:
    arguments = ("--model", "tiny", "--profile", "cpu", "--out", tmp_path / "run")
    result = ushape("train", "--data", ball_folder, *arguments, "--device", "mps")
    assert result.code == 2
    assert "`mps` is not available" in result.err
    assert not (tmp_path / "run").exists()


@pytest.fixture
def trained(ball_folder: Path, tmp_path: Path) -> tuple[Path, tuple[object, ...]]:
    """A run of one step, and the command that made it."""
    command = (
        *("train", "--data", ball_folder, "--model", "small", "--profile", "cpu", "--steps", 1),
        *(
            "--out",
            tmp_path / "run",
            "--set",
            "train.num_latents=8",
            "--set",
            "train.num_workers=0",
        ),
        *("--set", "train.surface_points=64", "--stage", "vae", "--set", "train.query_points=16"),
    )
    return tmp_path / "run", command


def _files(folder: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != "owner.json"}


def test_force_removes_nothing_before_the_new_run_can_start(
    ushape, trained, monkeypatch, tmp_path: Path
) -> None:
    run, command = trained
    assert ushape(*command).code == 1  # balls have no distances; what matters is the folder
    (run / "checkpoints" / "step-00000001").mkdir(parents=True)
    (run / "checkpoints" / "step-00000001" / "model.safetensors").write_text("hours of work")
    (tmp_path / "link").symlink_to(run)
    before = _files(run)
    for init in ("nosuch.pt", run, tmp_path / "link", run / "base.safetensors"):
        result = ushape(*command, "--force", "--init", init)
        assert result.code in (1, 2), result.err
        assert _files(run) == before, init


@pytest.mark.slow
def test_a_large_batch_is_planned_as_fast_as_a_small_one(ushape, ball_folder: Path) -> None:
    result = ushape(
        *("train", "--data", ball_folder, "--model", "small", "--profile", "a40", "--dry-run"),
        *("--batch", 1_000_000),
    )
    assert result.code == 2
    assert "this run needs about" in result.err
