"""The run folder: continue when the settings are the same, refuse when they differ."""

from __future__ import annotations

import pytest

from ultrashape_cli.config.resolve import resolve
from ultrashape_cli.config.schema import flatten
from ultrashape_cli.errors import ConfigError, UsageError
from ultrashape_cli.files import read_json
from ultrashape_cli.training.base import base_source
from ultrashape_cli.training.setup import open_run, record_origins


def test_the_recorded_config_repeats_the_run(make_run) -> None:
    run, config = make_run(steps=7)
    again = resolve(file=run.config, environ={}).config
    assert flatten(again)["train.steps"] == 7
    assert {k: v for k, v in flatten(again).items() if k.startswith("train.")} == {
        k: v for k, v in flatten(config).items() if k.startswith("train.")
    }


def test_other_settings_are_refused_with_the_keys(make_run) -> None:
    make_run("run", steps=4)
    with pytest.raises(UsageError, match=r"train\.learning_rate \(0\.001 -> 0\.1\)"):
        make_run("run", steps=4, learning_rate=0.1)


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


def test_released_weights_are_asked_for(make_run) -> None:
    run, config = make_run("run", model="ultrashape-1.0")
    with pytest.raises(ConfigError, match="starts from released weights"):
        base_source(run, config)


def test_the_base_is_fixed_by_the_first_call(make_run) -> None:
    run, config = make_run("run")
    first = base_source(run, config)
    mtime = first.files["dit"].stat().st_mtime_ns
    assert base_source(run, config) == first
    assert first.files["dit"].stat().st_mtime_ns == mtime
    assert read_json(run.base)["trained"] == ["dit", "conditioner"]


def test_origins_survive_a_resume_from_the_runs_own_config(make_run) -> None:
    run, _ = make_run(steps=4)
    record_origins(run, {"train.steps": "flag", "train.data": "`my.toml`", "render.size": "flag"})
    assert read_json(run.origins) == {"train.steps": "flag", "train.data": "`my.toml`"}
    record_origins(run, {"train.steps": f"`{run.config}`", "train.data": "--set"})
    assert read_json(run.origins) == {"train.steps": "flag", "train.data": "--set"}
