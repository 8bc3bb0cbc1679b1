from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from worker_processes import workers

from ultrashape_cli.config.schema import Config, EngineConfig, flatten
from ultrashape_cli.data.layout import Record, StepRecord
from ultrashape_cli.errors import ConfigError
from ultrashape_cli.preparation.engine import Engine
from ultrashape_cli.preparation.guard import StepEvent, Task

LIMITS = EngineConfig(workers=2, timeout_s=60.0, memory_gib=1.0, retries=0)
STEPS = ("watertight", "render", "sample")


def _task(folder: Path, name: str, steps: Sequence[str] = STEPS) -> Task:
    source = {"path": str(folder / f"{name}.obj"), "sha256": name, "bytes": 1, "mtime_ns": 1}
    return Task(Record(name, source), tuple(steps))


def _engine(folder: Path, config: EngineConfig = LIMITS, num_workers: int = 2) -> Engine:
    settings = flatten(replace(Config(), engine=config))
    return Engine(config, num_workers, str(folder / "data"), settings, "stub_worker")


def _run(folder: Path, names: Sequence[str], config: EngineConfig = LIMITS) -> list[StepEvent]:
    return _events(_engine(folder, config), [_task(folder, name) for name in names])


def _events(engine: Engine, tasks: Iterable[Task | None]) -> list[StepEvent]:
    with closing(engine):
        return list(engine.run(tasks))


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
        ("kill", "killed", "the watertight step was killed from outside"),
        ("allocate", "memory", "the watertight step needs more memory than the 1 GiB"),
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


@pytest.mark.slow
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


@pytest.mark.slow
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
    events = _events(_engine(tmp_path, num_workers=1), tasks)
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

    events = _events(_engine(tmp_path, num_workers=1), tasks())
    assert _finished(events) == {"a", "b"}
    assert not _failures(events)


def test_a_missing_worker_module_fails_each_asset_with_the_reason(tmp_path: Path) -> None:
    engine = Engine(LIMITS, 1, str(tmp_path), flatten(Config()), "no_such_module")
    events = _events(engine, [_task(tmp_path, "a"), _task(tmp_path, "b")])
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
    with closing(_engine(tmp_path, num_workers=2)) as engine:
        for _ in engine.run(_task(tmp_path, f"slow-{n}") for n in range(6)):
            sizes.add(len(workers()))
    assert max(sizes) == 2


def test_idle_workers_serve_the_next_run(tmp_path: Path) -> None:
    with closing(_engine(tmp_path, num_workers=1)) as engine:
        list(engine.run([_task(tmp_path, "a")]))
        (first,) = workers()
        list(engine.run([_task(tmp_path, "b")]))
        assert [worker.pid for worker in workers()] == [first.pid]
    assert not workers()


def test_nothing_at_the_moment_is_asked_again(tmp_path: Path) -> None:
    events = _events(_engine(tmp_path), iter([None, _task(tmp_path, "a"), None, None]))
    assert _finished(events) == {"a"}


def test_a_crash_is_tried_again(tmp_path: Path) -> None:
    events = _run(tmp_path, ["a", "flaky"], replace(LIMITS, retries=1))
    assert _finished(events) == {"a", "flaky"}
    attempts = {(e.asset_id, e.step): e.result.attempts for e in events}
    assert attempts.pop(("flaky", "watertight")) == 2
    assert set(attempts.values()) == {1}


@pytest.mark.parametrize(
    ("fault", "causes", "attempts"),
    [
        ("abort", ("crash", "timeout"), 3),
        ("allocate", ("crash", "timeout"), 1),
        ("error", ("crash", "timeout"), 1),
        ("error", ("error",), 3),
        ("abort", (), 1),
    ],
)
def test_attempts_end_and_only_the_named_causes_get_any(
    tmp_path: Path, fault: str, causes: tuple[str, ...], attempts: int
) -> None:
    events = _run(tmp_path, [fault], replace(LIMITS, retries=2, retry_causes=causes))
    assert [event.result.attempts for event in events] == [attempts]
    calls = (tmp_path / "data" / "calls.txt").read_text().splitlines()
    assert len(calls) == attempts


def test_a_kill_from_outside_uses_up_no_attempt(tmp_path: Path) -> None:
    def kill_first(task: Task):
        yield task
        while not (pids := workers()):
            yield None
        yield None  # the task has been sent
        for worker in pids:
            worker.kill()

    events = _events(_engine(tmp_path, num_workers=1), kill_first(_task(tmp_path, "pause")))
    assert _finished(events) == {"pause"}
    assert {event.result.attempts for event in events} == {1}


def test_an_unknown_cause_to_retry_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="crush"):
        _engine(tmp_path, replace(LIMITS, retry_causes=("crush",)))


def test_the_last_event_of_an_asset_says_so(tmp_path: Path) -> None:
    events = _run(tmp_path, ["a", "error"])
    last = [(e.asset_id, e.step) for e in events if e.last]
    assert sorted(last) == [("a", "sample"), ("error", "watertight")]
