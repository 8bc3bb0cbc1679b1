from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from worker_processes import workers

from ultrashape_cli.config.schema import Config, EngineConfig, flatten
from ultrashape_cli.data.layout import Record, StepRecord
from ultrashape_cli.preparation.engine import Engine, StepEvent, Task, choose_workers

LIMITS = EngineConfig(workers=2, timeout_s=60.0, memory_gib=1.0)
STEPS = ("watertight", "render", "sample")


def _task(folder: Path, name: str, steps: Sequence[str] = STEPS) -> Task:
    source = {"path": str(folder / f"{name}.obj"), "sha256": name, "bytes": 1, "mtime_ns": 1}
    return Task(Record(name, source), tuple(steps))


def _engine(folder: Path, config: EngineConfig = LIMITS, num_workers: int = 2) -> Engine:
    settings = flatten(replace(Config(), engine=config))
    return Engine(config, num_workers, str(folder / "data"), settings, "stub_worker")


def _run(folder: Path, names: Sequence[str], config: EngineConfig = LIMITS) -> list[StepEvent]:
    tasks = [_task(folder, name) for name in names]
    return list(_engine(folder, config).run(tasks))


def _failures(events: list[StepEvent]) -> dict[str, StepRecord]:
    return {event.asset_id: event.result for event in events if event.result.status == "failed"}


def _finished(events: list[StepEvent]) -> set[str]:
    return {e.asset_id for e in events if (e.step, e.result.status) == ("sample", "done")}


@pytest.mark.parametrize(
    ("fault", "cause", "text"),
    [
        ("abort", "crash", "the watertight step crashed its worker: SIGABRT"),
        ("segfault", "crash", "the watertight step crashed its worker: SIGSEGV"),
        ("exit", "crash", "the watertight step crashed its worker: exit code 0"),
        ("kill", "memory", "the watertight step needs more than the 1 GiB"),
        ("allocate", "memory", "the watertight step needs more memory"),
        ("error", "error", "the file is bad"),
        ("raise", "error", "RuntimeError: two lines x"),
        ("disk", "disk", "no space left"),
    ],
)
def test_a_fault_costs_one_record(tmp_path: Path, fault: str, cause: str, text: str) -> None:
    names = ["a", "b", fault, "c", "d"]
    events = _run(tmp_path, names)
    failures = _failures(events)
    assert list(failures) == [fault]
    assert failures[fault].error["cause"] == cause
    assert text in failures[fault].error["message"]
    assert "\n" not in failures[fault].error["message"]
    assert len(failures[fault].error["message"]) < 500
    assert [e.step for e in events if e.asset_id == fault] == ["watertight"]
    assert _finished(events) == {"a", "b", "c", "d"}


def test_a_step_that_does_not_end_is_stopped_with_its_children(tmp_path: Path) -> None:
    events = _run(tmp_path, ["a", "hang", "spin", "b"], replace(LIMITS, timeout_s=4.0))
    failures = _failures(events)
    assert failures.keys() == {"hang", "spin"}
    for failure in failures.values():
        assert failure.error["cause"] == "timeout"
        assert "took longer than 4 s" in failure.error["message"]
        assert failure.error["hint"] == "--set engine.timeout_s=16"
    assert _finished(events) == {"a", "b"}
    worker, child = map(int, (tmp_path / "hang.pids").read_text().split())
    assert not _lives(worker)
    assert not _lives(child)
    assert not list((tmp_path / "data" / "meshes").glob(".*"))


def test_a_worker_that_lives_on_without_its_pipe_is_ended(tmp_path: Path) -> None:
    events = _run(tmp_path, ["a", "closed", "b"])
    assert _failures(events).keys() == {"closed"}
    assert _finished(events) == {"a", "b"}


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("fault", ["abort", "kill"])
def test_a_killed_step_leaves_no_partial_file(tmp_path: Path, fault: str) -> None:
    _run(tmp_path, [fault])
    left = [path for path in (tmp_path / "data").rglob("*") if path.is_file()]
    assert [path.name for path in left] == ["calls.txt"]


def test_measurements_become_plain_values(tmp_path: Path) -> None:
    event = _run(tmp_path, ["a"])[0]
    assert event.result.measurements == {"n": 3, "ratio": None, "box": [0.0, 0.0], "rung": "stub"}
    assert event.result.outputs == {"meshes/a.ply": 5}


def test_a_crash_is_not_blamed_on_an_earlier_asset(tmp_path: Path) -> None:
    """The one worker has written the MemoryError of the first asset to its log."""
    tasks = [_task(tmp_path, name) for name in ("allocate", "abort")]
    events = list(_engine(tmp_path, num_workers=1).run(tasks))
    assert [e.result.error["cause"] for e in events] == ["memory", "crash"]


def test_a_worker_is_replaced_after_its_share(tmp_path: Path) -> None:
    events = _run(tmp_path, ["a", "b", "c", "d"], replace(LIMITS, recycle_after=1))
    assert _finished(events) == {"a", "b", "c", "d"}


def test_a_worker_that_died_while_idle_is_replaced(tmp_path: Path) -> None:
    def tasks():
        yield _task(tmp_path, "a")
        (worker,) = workers()
        worker.kill()
        worker.wait()
        yield _task(tmp_path, "b")

    events = list(_engine(tmp_path, num_workers=1).run(tasks()))
    assert _finished(events) == {"a", "b"}
    assert not _failures(events)


def test_a_missing_worker_module_fails_each_asset_with_the_reason(tmp_path: Path) -> None:
    engine = Engine(LIMITS, 1, str(tmp_path), flatten(Config()), "no_such_module")
    events = list(engine.run([_task(tmp_path, "a"), _task(tmp_path, "b")]))
    assert {e.asset_id for e in events} == {"a", "b"}
    assert all("no_such_module" in e.result.error["message"] for e in events)


def test_modules_in_the_current_folder_do_not_reach_a_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)
    assert _finished(_run(tmp_path, ["a"])) == {"a"}


def test_the_stop_flag_ends_the_run_and_its_workers(tmp_path: Path) -> None:
    events = []
    for event in _engine(tmp_path).run(
        (_task(tmp_path, f"slow-{n}") for n in range(1000)), lambda: len(events) >= 3
    ):
        events.append(event)
    assert 3 <= len(events) <= 5
    assert not workers()


def test_an_abandoned_run_ends_its_workers(tmp_path: Path) -> None:
    events = _engine(tmp_path).run(_task(tmp_path, f"slow-{n}") for n in range(1000))
    next(events)
    assert workers()
    events.close()
    assert not workers()


def test_the_pool_never_exceeds_its_size(tmp_path: Path) -> None:
    sizes = set()
    for _ in _engine(tmp_path, num_workers=2).run(_task(tmp_path, f"slow-{n}") for n in range(6)):
        sizes.add(len(workers()))
    assert max(sizes) == 2


def test_workers_are_one_per_core_as_far_as_memory_allows(monkeypatch) -> None:
    class Memory:
        available = 7 * 2**30

    monkeypatch.setattr(psutil, "virtual_memory", Memory)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(64), raising=False)
    assert choose_workers(EngineConfig(), 100) == 2
    assert choose_workers(EngineConfig(workers=5), 100) == 5
    assert choose_workers(EngineConfig(workers=5), 3) == 3
    assert choose_workers(EngineConfig(memory_gib=1.0), 100) == 7
    Memory.available = 0
    assert choose_workers(EngineConfig(), 100) == 1
    Memory.available = 2**40
    assert choose_workers(EngineConfig(), 100) == 64


def test_partial_files_of_a_living_worker_are_kept(tmp_path: Path) -> None:
    """Another process may be writing them; those older than the time limit are nobody's."""
    old, new = (tmp_path / "data" / "meshes" / f".a-{n}.ply" for n in "12")
    old.parent.mkdir(parents=True)
    old.touch()
    new.touch()
    os.utime(old, (time.time() - 61, time.time() - 61))
    _run(tmp_path, ["a"])
    assert not old.exists()
    assert new.exists()
