"""Which weights a command takes when none are named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ball_networks import ball_networks

from ultrashape_cli.errors import CheckpointError, ConfigError, UsageError
from ultrashape_cli.files import file_hash, write_json
from ultrashape_cli.models import sources
from ultrashape_cli.models.registry import model_spec
from ultrashape_cli.models.sources import find_weights, packaged_weights
from ultrashape_cli.models.weights import write_reference_bundle, write_safetensors
from ultrashape_cli.runs import MODEL_FILE, RunFolder, checkpoint_name


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sources, "PACKAGED", tmp_path / "packaged")
    return tmp_path


def make_weights(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    networks = ball_networks(model_spec("tiny"))._asdict()
    if path.suffix == ".pt":
        write_reference_bundle(path, networks)
    else:
        write_safetensors(path, networks, {"model": "tiny"})
    return path


def make_run(name: str, state: str, trained: str, age_s: int) -> Path:
    run = RunFolder(Path("runs") / name)
    checkpoint = run.checkpoints / checkpoint_name(5)
    checkpoint.mkdir(parents=True)
    (checkpoint / MODEL_FILE).write_bytes(b"weights")
    entry = {"bytes": 7, "sha256": file_hash(checkpoint / MODEL_FILE)}
    write_json(checkpoint / "manifest.json", {"files": {MODEL_FILE: entry}})
    components = dict.fromkeys(("vae", "dit", "conditioner"), "../../base.safetensors")
    make_weights(Path("base.safetensors"))
    write_json(run.base, {"model": "tiny", "trained": [trained], "components": components})
    run.config.write_text("")
    run.write_status(state)
    stamp = run.config.stat().st_mtime - age_s
    os.utime(run.config, (stamp, stamp))
    return run.root


def test_the_newest_finished_dit_run_comes_first() -> None:
    make_run("older", "finished", "dit", 100)
    best = make_run("best", "finished", "dit", 50)
    make_run("running", "running", "dit", 10)
    make_run("vae", "finished", "vae", 5)
    make_weights(Path("weights/ultrashape_v1.pt"))
    assert find_weights(None).files["dit"].is_relative_to(best)


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_run_whose_base_is_gone_is_told_before_anything_is_loaded(damage) -> None:
    run = make_run("best", "finished", "dit", 50)
    damage(Path("base.safetensors"))
    with pytest.raises(
        CheckpointError, match=r"which run `runs/best` started from, (cannot|is empty)"
    ):
        find_weights(None)
    with pytest.raises(CheckpointError, match=r"cannot|empty"):
        find_weights(run)


def test_a_folder_without_weights_is_told_before_anything_is_loaded(folder: Path) -> None:
    (folder / "mine").mkdir()
    with pytest.raises(CheckpointError, match="is a folder without weights"):
        find_weights(folder / "mine")
    (folder / "mine" / "config.toml").write_text("")
    with pytest.raises(CheckpointError, match="is a run that has no weights yet"):
        find_weights(folder / "mine")


def test_pulled_weights_come_next() -> None:
    make_run("running", "running", "dit", 10)
    path = Path("weights/ultrashape_v1.pt")
    make_weights(path)
    source = find_weights(None)
    assert (source.model, source.files["dit"]) == ("ultrashape-1.0", path)
    assert find_weights(None, "ultrashape-1.0") == source


def test_packaged_weights_are_named_but_never_taken_silently(folder: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        find_weights(None)
    assert "--model tiny" not in (caught.value.hint or "")
    path = make_weights(folder / "packaged" / "tiny.safetensors")
    assert packaged_weights("tiny") == path
    with pytest.raises(CheckpointError) as caught:
        find_weights(None)
    for part in ("--checkpoint", "ushape weights pull", "--model tiny"):
        assert part in (caught.value.hint or "")
    source = find_weights(None, "tiny")
    assert (source.model, source.files["dit"]) == ("tiny", path)
    assert find_weights(Path("tiny")) == source


def test_a_model_without_weights_says_how_to_get_them() -> None:
    with pytest.raises(CheckpointError) as caught:
        find_weights(None, "ultrashape-1.0")
    assert caught.value.hint == "ushape weights pull ultrashape-1.0"
    with pytest.raises(CheckpointError, match="tiny"):
        find_weights(None, "tiny")
    with pytest.raises(ConfigError):
        find_weights(None, "huge")


def test_a_checkpoint_and_a_model_at_once_are_bad_usage(folder: Path) -> None:
    with pytest.raises(UsageError):
        find_weights(folder, "tiny")
