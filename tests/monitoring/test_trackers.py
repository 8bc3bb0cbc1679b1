"""Trackers: what they are given, and that none of them stops a run."""

from __future__ import annotations

import logging
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from ultrashape_cli.errors import ConfigError, DependencyError
from ultrashape_cli.files import write_json
from ultrashape_cli.monitoring import trackers as module
from ultrashape_cli.monitoring.trackers import Trackers, make_trackers
from ultrashape_cli.rendering.output import save_png
from ultrashape_cli.runs import RunFolder


class _Recorder:
    def __init__(self) -> None:
        self.calls: list[tuple] = []

    def __getattr__(self, name: str):
        def call(*arguments, **options):
            self.calls.append((name, arguments, options))
            return self

        return call


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> _Recorder:
    """A stand-in for the package; `init` returns the recorder itself."""
    recorder = _Recorder()
    recorder.name = "shoes"
    fake = types.ModuleType("wandb")
    fake.__spec__ = types.SimpleNamespace(name="wandb")  # type: ignore[assignment]
    fake.init = recorder.init  # type: ignore[attr-defined]
    fake.Image = lambda path: f"image {Path(path).name}"  # type: ignore[attr-defined]
    fake.Artifact = recorder.artifact  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    return recorder


def test_an_unknown_tracker_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no tracker `tensorbord`") as caught:
        make_trackers(("wandb", "tensorbord"), RunFolder(tmp_path))
    assert "tensorboard" in (caught.value.hint or "")


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DependencyError, match="needs the package tensorboard"):
        make_trackers(("tensorboard",), RunFolder(tmp_path))


def _run(root: Path) -> RunFolder:
    write_json(RunFolder(root).identity, {"id": "0123"})
    return RunFolder(root)


def test_wandb_is_offline_without_a_key_and_gets_numbers_and_pictures(
    wandb: _Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = make_trackers(("wandb",), _run(tmp_path / "shoes"), alerts=True)
    assert module.os.environ["WANDB_MODE"] == "offline"
    monkeypatch.delenv("WANDB_MODE")
    found.log({"loss": 0.5, "note": None}, 3)
    found.images({"a-current": tmp_path / "a-current.png"}, 3)
    found.alert("failed", "at step 3")
    (tmp_path / "best").mkdir()
    found.finish("finished", tmp_path / "best")
    names = [name for name, _, _ in wandb.calls]
    expected = ["init", "log", "log", "alert", "artifact", "add_dir", "log_artifact", "finish"]
    assert names == expected
    assert (wandb.calls[0][2]["id"], wandb.calls[0][2]["resume"]) == ("0123", "allow")
    assert wandb.calls[1][1:] == (({"loss": 0.5},), {"step": 3})
    assert wandb.calls[2][1] == ({"a-current": "image a-current.png"},)
    assert wandb.calls[-1][2] == {"exit_code": 0}


def test_wandb_records_the_command_line_without_its_secrets(
    wandb: _Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed = ["ushape", "train", "--set", "alerts.webhook=https://hooks/T/secret1"]
    monkeypatch.setattr(sys, "argv", typed)
    seen: list[str] = []
    monkeypatch.setattr(sys.modules["wandb"], "init", lambda **values: seen.extend(sys.argv))
    make_trackers(("wandb",), _run(tmp_path))
    assert seen[-1] == "alerts.webhook=...ret1"
    assert sys.argv is typed


def test_alerts_and_artifacts_are_on_request(wandb: _Recorder, tmp_path: Path) -> None:
    found = make_trackers(("wandb",), _run(tmp_path / "shoes"))
    found.alert("failed", "at step 3")
    found.finish("failed")
    assert [name for name, _, _ in wandb.calls] == ["init", "finish"]
    assert wandb.calls[-1][2] == {"exit_code": 1}


def test_a_tracker_that_fails_is_dropped_with_a_word(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(_Recorder):
        def log(self, values, step) -> None:
            raise ConnectionError("no network")

    broken, whole = Broken(), _Recorder()
    both = Trackers({"broken": broken, "whole": whole})
    with caplog.at_level(logging.WARNING, "ultrashape_cli"):
        both.log({"loss": 1.0}, 1)
        both.log({"loss": 2.0}, 2)
    assert [name for name, _, _ in whole.calls] == ["log", "log"]
    assert caplog.text.count("tracker broken stopped: no network") == 1


def test_a_tracker_that_does_not_start_is_no_reason_to_stop(
    wandb: _Recorder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def init(**options):
        raise OSError("read-only")

    sys.modules["wandb"].init = init
    with caplog.at_level(logging.WARNING, "ultrashape_cli"):
        make_trackers(("wandb",), _run(tmp_path)).log({"loss": 1.0}, 1)
    assert "tracker wandb did not start: read-only" in caplog.text


def test_tensorboard_files_hold_scalars_and_pictures(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra [tensorboard]")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = _run(tmp_path / "shoes")
    save_png(np.zeros((8, 8, 4), np.uint8), tmp_path / "a.png")
    found = make_trackers(("tensorboard",), run)
    for step in (1, 2, 3):
        found.log({"loss": 1 / step, "val_loss": 0.5}, step)
    found.images({"a-current": tmp_path / "a.png"}, 3)
    found.finish("stopped")
    # Resumed from step 1: what came after is done again.
    again = make_trackers(("tensorboard",), run, step=1)
    again.log({"loss": 9.0}, 2)
    again.finish("finished")
    events = EventAccumulator(str(run.root / "tensorboard")).Reload()
    assert [(e.step, round(e.value, 3)) for e in events.Scalars("train/loss")] == [
        (1, 1.0),
        (2, 9.0),
    ]
    assert events.Images("a-current") == []
    assert [e.step for e in events.Scalars("validation/val_loss")] == [1]
