from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ultrashape_cli.runs import (
    CHECKPOINT_MANIFEST,
    STALE_AFTER_S,
    RunFolder,
    checkpoint_name,
    complete_checkpoints,
    describe_state,
    find_runs,
    record_event,
)


def _checkpoint(folder: Path, step: int) -> Path:
    path = folder / checkpoint_name(step)
    path.mkdir(parents=True)
    (path / "model.safetensors").write_bytes(b"12345")
    manifest = {"step": step, "files": {"model.safetensors": {"bytes": 5}}}
    (path / CHECKPOINT_MANIFEST).write_text(json.dumps(manifest))
    return path


def _dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_the_status_comes_back_with_pid_and_time(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    assert run.read_status() == {}
    run.write_status("running", step=3, steps=9)
    status = run.read_status()
    assert (status["state"], status["step"], status["pid"]) == ("running", 3, os.getpid())
    assert describe_state(status) == "running"


@pytest.mark.parametrize("text", ["", "{", "[1]", "null"])
def test_a_torn_status_reads_as_empty(tmp_path: Path, text: str) -> None:
    (tmp_path / "status.json").write_text(text)
    assert RunFolder(tmp_path).read_status() == {}


def test_a_run_whose_process_is_gone_is_dead() -> None:
    status = {"state": "running", "pid": _dead_pid(), "time": time.time()}
    assert describe_state({**status, "host": os.uname().nodename}) == "dead"
    assert describe_state(status) == "dead"


def test_a_run_whose_process_is_a_zombie_is_dead() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    try:
        status = {"state": "running", "pid": process.pid, "time": time.time()}
        assert describe_state(status) == "dead"
    finally:
        process.wait()


def test_a_run_on_another_host_is_judged_by_its_age() -> None:
    status = {"state": "running", "pid": _dead_pid(), "host": "elsewhere", "time": 1000.0}
    assert describe_state(status, now=1000.0 + STALE_AFTER_S) == "running"
    assert describe_state(status, now=1001.0 + STALE_AFTER_S) == "stalled"


def test_a_living_process_without_a_heartbeat_is_stalled() -> None:
    status = {"state": "running", "pid": os.getpid(), "time": time.time() - STALE_AFTER_S - 1}
    assert describe_state(status) == "stalled"


@pytest.mark.parametrize("state", ["finished", "failed", "stopped"])
def test_an_ended_run_keeps_its_state(state: str) -> None:
    assert describe_state({"state": state, "pid": _dead_pid(), "time": 0.0}) == state


def test_a_status_without_values_has_a_state() -> None:
    assert describe_state({}) == "unknown"
    assert describe_state({"state": "running", "pid": None, "time": None}) == "dead"


def test_runs_are_found_newest_first(tmp_path: Path) -> None:
    for age, name in enumerate(("old", "new", "none")):
        (tmp_path / name).mkdir()
        if name != "none":
            (tmp_path / name / "config.toml").touch()
            os.utime(tmp_path / name / "config.toml", (1000 + age, 1000 + age))
    assert [run.root.name for run in find_runs(tmp_path)] == ["new", "old"]
    assert find_runs(tmp_path / "absent") == []


def test_log_files_are_named_by_rank(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert [run.log().name, run.log(3).name] == ["log.txt", "log-rank3.txt"]


def test_whole_checkpoints_are_listed_oldest_first(tmp_path: Path) -> None:
    paths = [_checkpoint(tmp_path, step) for step in (1200, 20, 300)]
    assert complete_checkpoints(tmp_path) == sorted(paths)
    assert complete_checkpoints(tmp_path / "absent") == []


def _without_file(path: Path) -> None:
    (path / "model.safetensors").unlink()


def _truncated(path: Path) -> None:
    (path / "model.safetensors").write_bytes(b"123")


def _without_manifest(path: Path) -> None:
    (path / CHECKPOINT_MANIFEST).unlink()


def _temporary(path: Path) -> None:
    path.rename(path.with_name(f".{path.name}.tmp"))


def _manifest(text: str):
    return lambda path: (path / CHECKPOINT_MANIFEST).write_text(text)


@pytest.mark.parametrize(
    "damage",
    [
        _without_file,
        _truncated,
        _without_manifest,
        _temporary,
        _manifest(""),
        _manifest("[]"),
        _manifest("{}"),
        _manifest('{"files": {}}'),
        _manifest('{"files": ["model.safetensors"]}'),
        _manifest('{"files": {"model.safetensors": {}}}'),
    ],
)
def test_a_half_written_checkpoint_is_not_taken_for_a_whole_one(tmp_path: Path, damage) -> None:
    whole = _checkpoint(tmp_path, 1)
    damage(_checkpoint(tmp_path, 2))
    assert complete_checkpoints(tmp_path) == [whole]


def _events(run: RunFolder) -> list[dict]:
    return [json.loads(line) for line in run.events.read_text().splitlines()]


def test_starts_and_ends_of_a_run_are_a_timeline(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    record_event(run, "start", step=0, time=10.0)
    record_event(run, "fail", step=7, message="loss is [nan]")
    start, fail = _events(run)
    assert (start["event"], start["time"], start["step"]) == ("start", 10.0, 0)
    assert (fail["message"], fail["pid"], fail["host"]) == (
        "loss is [nan]",
        os.getpid(),
        os.uname().nodename,
    )


def test_a_start_after_a_kill_records_the_last_sign_of_life(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    status = {"state": "running", "pid": 7, "time": 5.0, "host": "there", "step": 40, "steps": 90}
    run.status.write_text(json.dumps(status))
    record_event(run, "start", step=30)
    died, start = _events(run)
    assert died == {"event": "died", "time": 5.0, "step": 40, "pid": 7, "host": "there"}
    assert start["step"] == 30
    run.write_status("stopped")
    record_event(run, "start", step=30)
    assert [event["event"] for event in _events(run)] == ["died", "start", "start"]


def test_an_event_after_a_torn_one_is_not_swallowed(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    record_event(run, "start", step=1)
    with run.events.open("a") as file:
        file.write('{"event": "fin')
    record_event(run, "start", step=2)
    lines = run.events.read_text().splitlines()
    assert [json.loads(lines[i])["step"] for i in (0, -1)] == [1, 2]
