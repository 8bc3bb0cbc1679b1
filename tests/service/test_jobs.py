"""Leases, fences, attempts, priorities, keys: the queue without processes."""

from __future__ import annotations

import sqlite3
import threading
import time
from pathlib import Path

import pytest

from ultrashape_cli.config.serve import ServeConfig
from ultrashape_cli.errors import DiskError, UsageError
from ultrashape_cli.service import jobs, retention, store, views
from ultrashape_cli.service.jobs import KeyConflict, NewJob, Outcome, QueueFull
from ultrashape_cli.service.store import Store, hold, prepare

DONE = Outcome("done", {"seconds": {"sample": 2.0}}, {"mesh": "attempt-1/refined.glb"})


@pytest.fixture
def queue(tmp_path: Path) -> Store:
    return prepare(tmp_path / "data")


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic clock, set by hand."""
    value = [1000.0]
    for module in (store, jobs, views):
        monkeypatch.setattr(module, "clock", lambda: value[0])
    return value


def new(name: str, priority: int = 0, size: int = 0, **more: object) -> NewJob:
    inputs = {
        part: {"name": part, "file": part, "type": "off", "bytes": 1, "sha256": "0"}
        for part in ("mesh", "image")
    }
    return NewJob(name, "tiny", {"seed": 0}, inputs, priority, None, size, **more)  # type: ignore[arg-type]


def claim(queue: Store, worker: str = "local:a") -> jobs.Lease:
    lease = jobs.claim(queue, worker, ["tiny"], 30.0)
    assert lease is not None
    return lease


def state(queue: Store, job: str) -> str:
    row = views.find(queue, job, None)
    assert row is not None
    return row["state"]


def test_jobs_go_out_by_priority_then_by_order(queue: Store) -> None:
    jobs.submit(queue, "anna", [new("a"), new("b", 5), new("c"), new("d", 5), new("e", -1)])
    places = [views.describe(queue, views.find(queue, n, None))["place"] for n in "abcde"]  # type: ignore[arg-type]
    assert places == [3, 1, 4, 2, 5]
    assert [claim(queue).job for _ in range(5)] == ["b", "d", "a", "c", "e"]
    assert jobs.claim(queue, "local:a", ["tiny"], 30.0) is None


def test_a_worker_gets_only_jobs_of_its_models(queue: Store) -> None:
    jobs.submit(queue, "anna", [new("a")])
    assert jobs.claim(queue, "x", ["other"], 30.0) is None
    assert jobs.claim(queue, "x", ["other", "tiny"], 30.0) is not None


def test_twenty_threads_never_get_one_job_twice(queue: Store) -> None:
    jobs.submit(queue, "anna", [new(f"j{n}") for n in range(60)])
    got: list[str] = []

    def work() -> None:
        while (lease := jobs.claim(queue, "w", ["tiny"], 30.0)) is not None:
            got.append(lease.job)
        queue.close()

    threads = [threading.Thread(target=work) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == sorted(f"j{n}" for n in range(60))


def test_only_the_last_fence_counts(queue: Store, now: list[float]) -> None:
    jobs.submit(queue, "anna", [new("a")])
    first = claim(queue)
    now[0] += 31
    assert jobs.expire(queue, 3) == ["a"]
    second = claim(queue, "local:b")
    assert second.fence > first.fence
    assert jobs.beat(queue, "a", first.fence, 30.0) == "lost"
    assert not jobs.finish(queue, "a", first.fence, DONE, 3)
    assert jobs.beat(queue, "a", second.fence, 30.0) == "go"
    assert jobs.finish(queue, "a", second.fence, DONE, 3)
    assert not jobs.finish(queue, "a", second.fence, DONE, 3)
    assert state(queue, "a") == "done"


def test_a_beat_keeps_a_lease(queue: Store, now: list[float]) -> None:
    jobs.submit(queue, "anna", [new("a")])
    lease = claim(queue)
    for _ in range(5):
        now[0] += 29
        assert jobs.beat(queue, "a", lease.fence, 30.0) == "go"
        assert jobs.expire(queue, 3) == []


@pytest.mark.parametrize("jump", [-3e8, 3e8])
def test_the_time_of_day_decides_nothing(
    queue: Store, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    jobs.submit(queue, "anna", [new("a"), new("b")])
    lease = claim(queue)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + jump)
    jobs.submit(queue, "anna", [new("c", 0)])
    assert jobs.expire(queue, 3) == []
    assert jobs.beat(queue, "a", lease.fence, 30.0) == "go"
    assert [claim(queue).job, claim(queue).job] == ["b", "c"]
    assert jobs.finish(queue, "a", lease.fence, DONE, 3)
    described = views.describe(queue, views.find(queue, "a", None))  # type: ignore[arg-type]
    assert described["state"] == "done"


def test_a_machine_that_started_anew_has_another_clock(queue: Store, now: list[float]) -> None:
    """Its monotonic clock begins again: leases must end neither at once nor in a month."""
    jobs.submit(queue, "anna", [new("a"), new("b")])
    remote = claim(queue, "node/1")
    claim(queue, "local:b")
    now[0] = 5.0
    assert jobs.recover(queue, 3, 30.0) == 1
    assert [state(queue, "a"), state(queue, "b")] == ["running", "queued"]
    assert jobs.beat(queue, "a", remote.fence, 30.0) == "go"
    now[0] += 31
    assert jobs.expire(queue, 3) == ["a"]


def test_the_third_crash_ends_a_job(queue: Store) -> None:
    jobs.submit(queue, "anna", [new("a")])
    error = {"code": "crashed", "message": "the worker ended with SIGSEGV", "hint": None}
    for attempt in (1, 2, 3):
        lease = claim(queue)
        assert lease.attempt == attempt
        jobs.finish(queue, "a", lease.fence, Outcome("crashed", error=error), 3)
    row = views.find(queue, "a", None)
    assert row is not None
    found = views.describe(queue, row)
    assert found["state"] == "failed"
    assert found["error"]["code"] == "crashed"
    assert found["error"]["message"].startswith("crashed 3 times")
    assert found["error"]["hint"]


def test_a_job_that_was_given_back_has_lost_no_attempt(queue: Store) -> None:
    jobs.submit(queue, "anna", [new("a")])
    for _ in range(5):
        lease = claim(queue)
        assert lease.attempt == 1
        jobs.finish(queue, "a", lease.fence, Outcome("released"), 3)


def test_a_key_stands_for_one_request_of_one_owner(queue: Store) -> None:
    one = jobs.submit(queue, "anna", [new("a")], key="k", body="1")
    again = jobs.submit(queue, "anna", [new("b")], key="k", body="1")
    assert (one, again) == ((["a"], False), (["a"], True))
    assert jobs.submit(queue, "ben", [new("c")], key="k", body="2") == (["c"], False)
    with pytest.raises(KeyConflict):
        jobs.submit(queue, "anna", [new("d")], key="k", body="2")
    assert views.counts(queue)["queued"] == 2


def test_a_key_that_is_sent_twice_at_once_makes_one_job(queue: Store) -> None:
    found: list[list[str]] = []

    def send(n: int) -> None:
        found.append(jobs.submit(queue, "anna", [new(f"j{n}")], key="k", body="1")[0])
        queue.close()

    threads = [threading.Thread(target=send, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({ids[0] for ids in found}) == 1
    assert views.counts(queue)["queued"] == 1


def test_the_queue_has_an_end_for_all_and_for_each(queue: Store) -> None:
    jobs.submit(queue, "anna", [new("a"), new("b")], most=4, most_of_owner=2)
    with pytest.raises(QueueFull, match="`anna` has 2"):
        jobs.submit(queue, "anna", [new("c")], most=4, most_of_owner=2)
    jobs.submit(queue, "ben", [new("d")], most=4, most_of_owner=2)
    with pytest.raises(QueueFull, match="the queue is full"):
        jobs.submit(queue, "cy", [new("e"), new("f")], most=4, most_of_owner=2)
    assert views.counts(queue)["queued"] == 3


def test_cancel_ends_what_waits_and_tells_what_runs(queue: Store) -> None:
    jobs.submit(queue, "anna", [new("a"), new("b")])
    lease = claim(queue)
    assert jobs.cancel(queue, "b") == "queued"
    assert state(queue, "b") == "cancelled"
    assert jobs.cancel(queue, "a") == "running"
    assert jobs.beat(queue, "a", lease.fence, 30.0) == "cancel"
    # Whose worker vanishes now is not tried again.
    jobs.finish(queue, "a", lease.fence, Outcome("crashed"), 3)
    assert state(queue, "a") == "cancelled"
    assert jobs.cancel(queue, "nope") is None


def test_events_are_numbered_for_each_job(queue: Store) -> None:
    jobs.submit(queue, "anna", [new("a")])
    lease = claim(queue)
    jobs.beat(queue, "a", lease.fence, 30.0, "sample", 10)
    jobs.beat(queue, "a", lease.fence, 30.0, "sample", 10)
    jobs.beat(queue, "a", lease.fence, 30.0, "sample", 20, ["mind"])
    jobs.finish(queue, "a", lease.fence, DONE, 3)
    row = views.find(queue, "a", None)
    assert row is not None
    found = views.events_after(queue, row["seq"], 0)
    assert [each.n for each in found] == list(range(1, len(found) + 1))
    kinds = ["queued", "running", "progress", "warning", "progress", "done"]
    assert [each.kind for each in found] == kinds
    assert [each.n for each in views.events_after(queue, row["seq"], 4)] == [5, 6]


def _done(queue: Store, name: str, size: int) -> None:
    jobs.submit(queue, "anna", [new(name)])
    queue.job_folder(name).mkdir()
    lease = claim(queue)
    jobs.finish(queue, lease.job, lease.fence, Outcome("done", files={"mesh": "m"}, size=size), 3)


def _left(queue: Store) -> list[str]:
    rows = queue.connection.execute("SELECT id FROM jobs WHERE purged = 0 ORDER BY seq")
    return [row["id"] for row in rows]


def test_results_go_after_some_days(queue: Store) -> None:
    _done(queue, "a", 10)
    jobs.submit(queue, "anna", [new("waits")])
    config = ServeConfig(keep_days=2.0, max_disk_gb=0)
    assert retention.tidy(queue, config, time.time() + 86_400) == 0
    assert retention.tidy(queue, config, time.time() + 3 * 86_400) == 1
    assert not queue.job_folder("a").exists()
    assert _left(queue) == ["waits"]
    assert state(queue, "a") == "done"  # what became of it stays known


def test_the_oldest_results_go_where_there_is_no_space(queue: Store) -> None:
    for name in "abcd":
        _done(queue, name, 400)
    jobs.submit(queue, "anna", [new("waits", size=400)])
    config = ServeConfig(keep_days=0, max_disk_gb=1.3e-6)
    retention.tidy(queue, config, time.time())
    assert _left(queue) == ["c", "d", "waits"]


def test_a_start_sets_folders_of_no_job_aside_and_removes_attempts_that_did_not_count(
    queue: Store,
) -> None:
    _done(queue, "a", 1)
    jobs.submit(queue, "anna", [new("runs")])
    fence = claim(queue, "node/1").fence
    for path in (queue.job_folder("runs"), queue.jobs_folder / "stray"):
        path.mkdir()
    for name in (f"attempt-{fence}", "attempt-7"):
        (queue.job_folder("runs") / name).mkdir()
    (queue.job_folder("a") / "attempt-9").mkdir()
    assert retention.set_strays_aside(queue) == 1
    assert (queue.folder / "lost/stray").is_dir()
    left = sorted(p.relative_to(queue.jobs_folder).as_posix() for p in
                  queue.jobs_folder.rglob("*"))  # fmt: skip
    assert left == ["a", "runs", f"runs/attempt-{fence}"]


@pytest.mark.parametrize("at", [0, 100, 4096])
def test_a_damaged_database_is_refused_with_a_way_out(queue: Store, at: int) -> None:
    jobs.submit(queue, "anna", [new(f"j{n}") for n in range(50)])
    queue.close()
    data = bytearray(queue.path.read_bytes())
    data[at : at + 20_000] = b"\xff" * 20_000
    queue.path.write_bytes(data)
    with pytest.raises(DiskError, match="damaged") as found:
        prepare(queue.folder)
    assert f"mv {queue.jobs_folder} {queue.jobs_folder}-before" in (found.value.hint or "")


def test_a_service_that_ends_takes_no_attempt_from_a_job(queue: Store) -> None:
    jobs.submit(queue, "anna", [new("a")])
    for _ in range(9):
        assert claim(queue, "local:x").attempt == 1
        assert jobs.recover(queue, 3, 30.0) == 1
        assert state(queue, "a") == "queued"
    # What takes the machine down each time is given up in the end.
    for _ in range(3):
        claim(queue, "local:x")
        jobs.recover(queue, 3, 30.0)
    assert state(queue, "a") == "failed"


def test_a_locked_database_is_refused_with_a_way_out(
    queue: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_OPEN_WAIT_S", 0.1)
    other = sqlite3.connect(queue.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(DiskError, match="another program holds") as found:
        prepare(queue.folder)
    assert "fuser" in (found.value.hint or "")
    other.close()


def test_another_format_is_refused(queue: Store) -> None:
    queue.set_meta("format", "99")
    with pytest.raises(DiskError, match="format 99"):
        prepare(queue.folder)


def test_a_full_disk_is_an_error_that_loses_nothing(queue: Store) -> None:
    jobs.submit(queue, "anna", [new("a")])
    pages = queue.connection.execute("PRAGMA page_count").fetchone()[0]
    queue.connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(DiskError, match="no space"):
        jobs.submit(queue, "anna", [new(f"more{n}") for n in range(1000)])
    queue.connection.execute("PRAGMA max_page_count = 100000")
    assert state(queue, "a") == "queued"
    assert claim(queue).job == "a"


def test_a_folder_has_one_service(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = f"""
from pathlib import Path
from ultrashape_cli.service.store import hold
hold(Path({str(tmp_path)!r}))
print("held", flush=True)
input()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(UsageError, match=f"process {other.pid}"):
            hold(tmp_path)
        other.kill()
    hold(tmp_path)


def test_a_full_disk_is_made_room_on(queue: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deleting a job's files works though the database has no page left to say so."""
    _done(queue, "a", 10)
    monkeypatch.setattr(store, "BALLAST_BYTES", 1 << 20)
    queue.take_ballast()
    assert queue.ballast.stat().st_size == 1 << 20
    notes = []

    def no_space(of: Store, row: sqlite3.Row) -> None:
        notes.append(queue.job_folder("a").exists())
        if len(notes) == 1:
            raise store.no_space(of.path)

    monkeypatch.setattr(retention, "_note", no_space)
    row = views.find(queue, "a", None)
    assert row is not None
    retention.purge(queue, row)
    assert notes == [True, False]
    queue.connection.execute("PRAGMA max_page_count = 1")
    with pytest.raises(DiskError, match="no space"):
        jobs.submit(queue, "anna", [new(f"more{n}") for n in range(1000)])
    assert not queue.ballast.exists()
