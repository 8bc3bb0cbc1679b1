from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from synthetic_run import VALIDATED, add_checkpoint, add_lines, make_run, set_config

from ultrashape_cli.monitoring.disk import DiskWatch, checkpoint_need
from ultrashape_cli.monitoring.run_state import DEAD_AFTER_S, RunReader, seconds_left
from ultrashape_cli.runs import STALE_AFTER_S, RunFolder, record_event


def _dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_running_run_tells_step_and_time_left(tmp_path: Path) -> None:
    state = RunReader(make_run(tmp_path / "run")).read()
    assert (state.state, state.step, state.steps, state.here) == ("running", 20, 100, True)
    assert state.seconds_left == pytest.approx(80.0)
    assert state.split["forward"] == pytest.approx(0.3)
    assert sum(state.split.values()) == pytest.approx(1.0)
    json.dumps(state.to_json(), allow_nan=False)


@pytest.mark.parametrize("state", ["finished", "failed", "stopped"])
def test_an_ended_run_has_no_time_left(tmp_path: Path, state: str) -> None:
    found = RunReader(make_run(tmp_path / "run", state=state)).read()
    assert (found.state, found.seconds_left) == (state, None)


def test_a_run_whose_process_is_gone_is_dead(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    run.status.write_text(json.dumps(run.read_status() | {"pid": _dead_pid()}))
    assert RunReader(run).read().state == "dead"


def test_a_process_that_took_over_the_number_is_not_the_run(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    run.status.write_text(json.dumps(run.read_status() | {"time": time.time() - 10**6}))
    assert RunReader(run).read().state == "dead"


def test_a_run_elsewhere_is_judged_by_its_heartbeat(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", host="elsewhere")
    beat = run.read_status()["time"]
    assert RunReader(run).read(beat + 5).state == "running"
    assert RunReader(run).read(beat + STALE_AFTER_S + 5).state == "stalled"
    assert RunReader(run).read(beat + DEAD_AFTER_S + 5).state == "dead"


def test_a_clock_that_jumps_does_not_stall_a_living_run(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", host="elsewhere")
    reader = RunReader(run)
    beat = run.read_status()["time"]
    reader.read(beat, clock=0.0)
    run.status.write_text(json.dumps(run.read_status() | {"time": beat + 5}))
    assert reader.read(beat + 50_000, clock=5.0).state == "running"
    assert reader.read(beat - 50_000, clock=10.0).state == "running"
    # Set back for good, its heartbeat never changes again: the other clock tells.
    assert reader.read(beat - 50_000, clock=10.0 + STALE_AFTER_S).state == "stalled"


def test_paid_time_is_counted_by_the_timeline(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    set_config(run, launch="price_per_hour = 3.6\n")
    now = time.time()
    record_event(run, "start", time=now - 10_000)
    record_event(run, "stop", time=now - 9_000)
    # The status says `running`, which makes this the start after a kill.
    run.status.write_text(json.dumps(run.read_status() | {"time": now - 7_500}))
    record_event(run, "start", time=now - 8_000)
    run.status.write_text(json.dumps(run.read_status() | {"time": now - 4_000}))
    record_event(run, "start", time=now - 3_000)
    run.write_status("running", step=20, steps=100)
    state = RunReader(run).read()
    assert state.seconds_active == pytest.approx(1_000 + 4_000 + 3_000, abs=5)
    assert state.cost == pytest.approx(8.0, abs=0.01)
    assert state.cost_at_end == pytest.approx(8.0 + 0.08, abs=0.01)


def test_a_run_without_a_timeline_counts_from_its_first_line(tmp_path: Path) -> None:
    assert RunReader(make_run(tmp_path / "run")).read().seconds_active == pytest.approx(20, abs=1)


def test_without_a_price_there_is_no_cost(tmp_path: Path) -> None:
    state = RunReader(make_run(tmp_path / "run")).read()
    assert (state.cost, state.cost_at_end) == (None, None)


def test_pauses_between_starts_do_not_count_as_pace() -> None:
    lines = [{"step": s, "time": s * 2.0 + (40_000 if s > 50 else 0)} for s in range(1, 101)]
    assert seconds_left(lines, 10) == pytest.approx(20.0)
    assert seconds_left([{"step": 1, "seconds": 3.0}], 10) == 30.0
    assert seconds_left([], 10) is None


def test_time_left_after_a_resume_is_that_of_the_present_process(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    now = time.time()
    run.metrics.unlink()
    for step in range(1, 61):  # ten a second, a night ago
        add_lines(run, [step], start=now - 40_000 - step + step / 10)
    record_event(run, "start", time=now - 100)
    run.write_status("running", step=60, steps=100)
    assert RunReader(run).read().seconds_left is None
    add_lines(run, [61], start=now - 100 + 3 - 61, seconds=3.0)
    run.write_status("running", step=61, steps=100)
    assert RunReader(run).read().seconds_left == pytest.approx(39 * 3.0)
    for step in (62, 63, 64):
        add_lines(run, [step], start=now - 100 + 3 * (step - 60) - step, seconds=3.0)
    run.write_status("running", step=64, steps=100)
    assert RunReader(run).read().seconds_left == pytest.approx(36 * 3.0)


def test_a_torn_event_costs_itself_only(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", state="stopped")
    record_event(run, "start", time=1.0)
    whole = run.events.read_text()
    run.events.write_text(whole + '{"event": "stop", "ti' + whole + '{"event": "fi')
    assert [event["event"] for event in RunReader(run).read().events] == ["start", "start"]


def test_whole_checkpoints_have_size_and_age(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    add_checkpoint(run, 10, size=2**20, age_s=60)
    broken = add_checkpoint(run, 20)
    (broken / "w").unlink()
    (found,) = RunReader(run).read().checkpoints
    assert (found.name, found.step, found.gib) == ("step-00000010", 10, 2**-10)
    assert found.age_s == pytest.approx(60, abs=5)


def test_the_log_is_free_of_what_terminals_obey(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    run.log().write_bytes(b"\xff\xfe[bold]\x1b[31mred\x1b[0m\x07\r\n" + b"x" * 50_000 + b"\nlast\n")
    log = RunReader(run).read().log
    assert log[-1] == "last"
    assert not any("\x1b" in line or "\x07" in line for line in log)


@pytest.mark.parametrize("name", ["metrics.jsonl", "status.json", "config.toml", "log.txt",
                                  "events.jsonl", "checkpoints"])  # fmt: skip
def test_files_deleted_while_watched_are_survived(tmp_path: Path, name: str) -> None:
    run = make_run(tmp_path / "run")
    record_event(run, "start")
    add_checkpoint(run, 10)
    reader = RunReader(run)
    reader.read()
    path = run.root / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert reader.read().step == 20


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"state": 3, "time": "x", "pid": "y"}',
                                  '{"state": "running", "step": null, "time": null}'])  # fmt: skip
def test_damaged_files_are_survived(tmp_path: Path, text: str) -> None:
    run = RunFolder(tmp_path)
    for path in (run.status, run.metrics, run.config, run.events, run.log()):
        path.write_text(text)
    json.dumps(RunReader(run).read().to_json(), allow_nan=False)


def test_a_vanished_folder_is_survived(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    reader = RunReader(run)
    reader.read()
    shutil.rmtree(run.root)
    assert reader.read().disk is None


def test_the_newest_validation_is_found(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    add_lines(run, [21], **VALIDATED)
    add_lines(run, [22])
    assert RunReader(run).read().validation["step"] == 21


def test_checkpoints_to_come_are_counted() -> None:
    settings = {"save_every_steps": 100, "keep_checkpoints": 3}
    assert checkpoint_need([], 1000, settings) is None
    # Three, the best, and one being written: three more than the two there are.
    assert checkpoint_need([2.0, 4.0], 1000, settings) == 12.0
    assert checkpoint_need([2.0, 4.0], 150, settings) == 8.0
    assert checkpoint_need([4.0] * 5, 1000, settings) == 0.0
    assert checkpoint_need([4.0] * 5, 1000, settings | {"keep_every_steps": 500}) == 8.0


def test_a_filling_disk_is_foretold_after_some_minutes() -> None:
    watch = DiskWatch()
    assert watch.add(0.0, 100.0) is None
    assert watch.add(60.0, 90.0) is None
    assert watch.add(600.0, 90.0) == pytest.approx(9 * 600.0)
    assert watch.add(900.0, 100.0) is None


def test_a_run_is_here_by_its_host(tmp_path: Path, monkeypatch) -> None:
    run = make_run(tmp_path / "run", host="elsewhere")
    assert not RunReader(run).read().here
    run.write_status("running", host=os.uname().nodename)
    assert RunReader(run).read().here
