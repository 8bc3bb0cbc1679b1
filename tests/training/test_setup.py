"""The run folder: continue when the settings are the same, refuse when they differ."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from accelerate import Accelerator

from ultrashape_cli.config.resolve import resolve
from ultrashape_cli.config.schema import flatten
from ultrashape_cli.errors import CheckpointError, ConfigError, UsageError
from ultrashape_cli.files import read_json
from ultrashape_cli.models.sources import resolve_named
from ultrashape_cli.runs import RunFolder
from ultrashape_cli.training.base import base_source, deciding_base, find_start
from ultrashape_cli.training.setup import open_run, record_origins


def test_the_recorded_config_repeats_the_run(make_run) -> None:
    run, config = make_run(steps=7)
    again = resolve(file=run.config, environ={}).config
    assert flatten(again)["train.steps"] == 7
    assert {k: v for k, v in flatten(again).items() if k.startswith("train.")} == {
        k: v for k, v in flatten(config).items() if k.startswith("train.")
    }


def _begun(run: RunFolder) -> None:
    """As after a first step."""
    run.metrics.write_text("")


def test_other_settings_are_refused_with_the_keys(make_run) -> None:
    run, _ = make_run("run", steps=4)
    _begun(run)
    with pytest.raises(UsageError, match=r"train\.num_latents \(16 -> 32\)"):
        make_run("run", steps=4, num_latents=32)


def test_before_its_first_step_a_run_takes_other_settings(make_run) -> None:
    make_run("run", num_latents=16)
    run, _ = make_run("run", num_latents=32)
    assert resolve(file=run.config, environ={}).config.train.num_latents == 32


def test_a_run_goes_on_with_another_learning_rate_and_says_so(make_run) -> None:
    run, config = make_run("run", learning_rate=1e-3)
    _begun(run)
    lower = replace(config, train=replace(config.train, learning_rate=1e-4))
    told = open_run(run, lower, force=False, command=["test"])
    assert told == ["setting train.learning_rate (0.001 -> 0.0001)"]


def test_settings_that_do_not_change_learning_may_differ(make_run) -> None:
    make_run("run", steps=4)
    run, _ = make_run("run", steps=8, num_workers=1)
    assert resolve(file=run.config, environ={}).config.train.steps == 8


def test_a_foreign_folder_is_not_touched(make_run, tmp_path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="is not a run"):
        make_run("mine")
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_force_removes_only_what_training_made(make_run, tmp_path) -> None:
    run, config = make_run("run")
    (run.root / "notes.txt").write_text("keep me")
    run.metrics.write_text("{}\n")
    open_run(run, config, force=True, command=["test"])
    assert (run.root / "notes.txt").exists()
    assert not run.metrics.exists()


def test_what_was_typed_is_recorded_without_secrets(make_run, monkeypatch) -> None:
    run, config = make_run("run")
    typed = [
        "ushape",
        "train",
        "--set",
        "alerts.webhook=https://hooks/T/secret1",
        "--out",
        "my run",
    ]
    monkeypatch.setattr("sys.argv", typed)
    open_run(run, config, force=False, command=typed)
    line = (run.root / "command.txt").read_text().splitlines()[-1]
    assert line == "ushape train --set alerts.webhook=...ret1 --out 'my run'"
    assert "secret" not in (run.root / "environment.json").read_text()


def test_released_weights_are_asked_for(make_run) -> None:
    _, config = make_run("run", model="ultrashape-1.0")
    with pytest.raises(ConfigError, match="starts from released weights"):
        find_start(config)


def test_packaged_weights_are_the_start_unless_random_ones_are_named(make_run) -> None:
    _, config = make_run("run", model="tiny")
    assert find_start(config) == resolve_named(Path("tiny"))
    _, config = make_run("other", model="tiny", init="random")
    assert find_start(config) is None


@pytest.mark.parametrize("name", ["empty.pt", "empty.safetensors"])
def test_an_empty_start_is_named(make_run, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    _, config = make_run(model="tiny", init=str(tmp_path / name))
    with pytest.raises(CheckpointError, match="empty"):
        find_start(config)


def test_the_base_is_fixed_once_it_has_loaded(make_run) -> None:
    run, config = make_run("run")
    accelerator = Accelerator(cpu=True)

    class Broken(Exception):
        pass

    with pytest.raises(Broken), deciding_base(run, config, accelerator):
        raise Broken
    assert not run.base.exists()
    with deciding_base(run, config, accelerator) as first:
        mtime = first.files["dit"].stat().st_mtime_ns
    with deciding_base(run, config, accelerator) as again:
        assert again == base_source(run) == first
    assert first.files["dit"].stat().st_mtime_ns == mtime
    assert read_json(run.base)["trained"] == ["dit", "conditioner"]


def test_origins_survive_a_resume_from_the_runs_own_config(make_run) -> None:
    run, _ = make_run(steps=4)
    record_origins(run, {"train.steps": "flag", "train.data": "`my.toml`", "render.size": "flag"})
    assert read_json(run.origins) == {"train.steps": "flag", "train.data": "`my.toml`"}
    record_origins(run, {"train.steps": f"`{run.config}`", "train.data": "--set"})
    assert read_json(run.origins) == {"train.steps": "flag", "train.data": "--set"}


def test_force_does_not_touch_what_is_no_run(make_run, tmp_path: Path) -> None:
    theirs = tmp_path / "mine" / "checkpoints" / "theirs.ckpt"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("years of work")
    (tmp_path / "mine" / "config.toml").write_text("[train]\nsteps = 3\n")
    _, config = make_run("run")
    with pytest.raises(UsageError, match="is not a run of ushape"):
        open_run(RunFolder(tmp_path / "mine"), config, force=True, command=["test"])
    assert theirs.read_text() == "years of work"


def test_force_empties_checkpoints_that_live_on_another_disk(make_run, tmp_path: Path) -> None:
    run, config = make_run("run")
    disk = tmp_path / "disk"
    (disk / "step-00000001").mkdir(parents=True)
    run.checkpoints.symlink_to(disk)
    open_run(run, config, force=True, command=["test"])
    assert run.checkpoints.is_symlink()
    assert list(disk.iterdir()) == []


def test_force_gives_a_run_another_identity(make_run) -> None:
    run, config = make_run("run")
    first = read_json(run.identity)["id"]
    make_run("run")
    assert read_json(run.identity)["id"] == first
    open_run(run, config, force=True, command=["test"])
    assert read_json(run.identity)["id"] != first
