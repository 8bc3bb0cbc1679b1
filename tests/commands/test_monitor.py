"""`ushape monitor` as a user and as cron calls it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from synthetic_run import make_run

QUIET = ("--set", "alerts.off=disk-low,disk-full")


def test_one_look_is_one_line(ushape, tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    result = ushape("monitor", tmp_path / "run", "--once", *QUIET)
    assert result == (0, "running  step 20/100  loss 0.05  1m20s left\n", "")


def test_json_is_one_object_per_line(ushape, tmp_path: Path) -> None:
    make_run(tmp_path / "run", state="finished")
    result = ushape("monitor", tmp_path / "run", "--json", *QUIET)
    (line,) = result.out.splitlines()
    assert json.loads(line)["state"] == "finished"


@pytest.mark.parametrize(("state", "code"), [("running", 0), ("finished", 0), ("failed", 1)])
def test_cron_learns_of_alerts_by_the_exit_code(ushape, tmp_path: Path, state: str, code) -> None:
    run = make_run(tmp_path / "run", state=state)
    result = ushape("monitor", run.root, "--once", "--check", *QUIET)
    assert result.code == code
    assert (run.root / "alerts.jsonl").exists() == bool(code)


def test_check_without_once_is_refused(ushape, tmp_path: Path) -> None:
    assert ushape("monitor", tmp_path, "--check").code == 2


def test_hooks_are_settings_and_their_failures_warnings(ushape, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", state="failed")
    command = f"alerts.command={sys.executable} -c 'raise SystemExit(7)'"
    result = ushape("monitor", run.root, "--once", *QUIET, "--set", command)
    assert result.code == 0
    assert "alert hook `command` failed" in result.err


def test_bad_limits_are_refused(ushape, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    assert ushape("monitor", run.root, "--once", "--set", "alerts.off=hot").code == 2
    assert ushape("monitor", run.root, "--once", "--set", "alerts.memory=95").code == 2


def test_a_path_with_nothing_to_watch_is_refused(ushape, tmp_path: Path) -> None:
    result = ushape("monitor", tmp_path, "--once")
    assert result.code == 2
    assert "neither a run" in result.err


def test_names_that_are_no_unicode_are_shown(ushape, tmp_path: Path) -> None:
    make_run(tmp_path / "caf\udce9 [red]")
    result = ushape("monitor", tmp_path, "--once", *QUIET)
    assert result.code == 0
    assert result.out.startswith("caf\\udce9 [red]  running")


def test_the_limits_of_the_alerts_are_listed_with_their_origin(ushape) -> None:
    result = ushape("monitor", "--set", "alerts.temperature=80", "--show-config", "--json")
    settings = json.loads(result.out)["settings"]
    assert settings["alerts.temperature"] == {"value": 80.0, "origin": "--set"}
    assert settings["alerts.data_wait"] == {"value": 0.1, "origin": "default"}
