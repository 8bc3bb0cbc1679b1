"""Nothing accepted is lost or delivered twice, whoever is killed."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import time
from pathlib import Path

import psutil
import pytest
from serving import TETRAHEDRON, Served, png, served, wait_for

from ultrashape_cli.service import jobs, views
from ultrashape_cli.service.jobs import NewJob
from ultrashape_cli.service.store import Store, prepare


def queue_jobs(store: Store, count: int, seed: int = 20) -> list[str]:
    """Queues jobs with their files, of three priorities in turn."""
    new = []
    for n in range(count):
        folder = store.job_folder(f"job{n:05d}")
        folder.mkdir()
        (folder / "mesh.off").write_bytes(TETRAHEDRON)
        (folder / "image.png").write_bytes(png())
        inputs = {
            part: {"name": file, "file": file, "type": file[-3:], "bytes": 1, "sha256": ""}
            for part, file in (("mesh", "mesh.off"), ("image", "image.png"))
        }
        options = {"seed": seed, "refine": {}, "format": "glb"}
        new.append(NewJob(folder.name, "tiny", options, inputs, priority=n % 3))
    return jobs.submit(store, "local", new)[0]


def kill_at_random(service: Served, rng: random.Random, kills: int, longest_s: float) -> int:
    """Kills workers, the parent, or both, so many times; returns how many parents."""
    parents = 0
    for _ in range(kills):
        time.sleep(rng.uniform(0.1, longest_s))
        what = rng.choice(("worker", "parent", "both"))
        assert service.process is not None
        children = psutil.Process(service.process.pid).children()
        if what != "parent":
            for child in children:
                with contextlib.suppress(psutil.Error):  # it ended by itself
                    if "fake_worker" in " ".join(child.cmdline()):
                        child.kill()
        if what != "worker":
            service.kill()
            parents += 1
            service.start()
    return parents


def check_all_done_once(store: Store, ids: list[str]) -> None:
    rows = store.connection.execute("SELECT * FROM jobs").fetchall()
    assert {row["id"] for row in rows} == set(ids)
    assert {row["state"] for row in rows} == {"done"}
    delivered = store.connection.execute(
        "SELECT job, count(*) AS n FROM events WHERE kind = 'done' GROUP BY job"
    ).fetchall()
    assert [row["n"] for row in delivered] == [1] * len(ids)
    for row in rows:
        files = json.loads(row["files"])
        assert (store.job_folder(row["id"]) / files["mesh"]).read_bytes() == TETRAHEDRON


def check_priorities_kept(store: Store) -> None:
    """Those that waited first began first, but for what a kill had put back."""
    rows = store.connection.execute(
        "SELECT jobs.seq, priority, events.time FROM jobs JOIN events ON events.job = jobs.seq "
        "WHERE events.kind = 'running' AND events.n = 2 ORDER BY events.time"
    ).fetchall()
    order = [(-row["priority"], row["seq"]) for row in rows]
    assert order == sorted(order)


def run_kill_test(folder: Path, count: int, kills: int, longest_s: float) -> None:
    store = prepare(folder)
    ids = queue_jobs(store, count)
    # A few jobs may meet three kills, which is for another test.
    service = Served(folder, attempts=20).start()
    rng = random.Random(1)
    try:
        kill_at_random(service, rng, kills, longest_s)
        wait_for(lambda: views.counts(store)["done"] == count, 300)
    finally:
        service.stop()
    check_all_done_once(store, ids)
    check_priorities_kept(store)
    # Also who was just being started when its parent was killed has ended.
    left = [p for p in psutil.process_iter(["cmdline"]) if str(folder) in (p.info["cmdline"] or ())]
    assert psutil.wait_procs(left, 5)[1] == []


@pytest.mark.slow
def test_60_jobs_survive_6_kills(tmp_path: Path) -> None:
    run_kill_test(tmp_path / "data", 60, 6, 0.6)


@pytest.mark.slow
def test_1000_jobs_survive_40_kills(tmp_path: Path) -> None:
    run_kill_test(tmp_path / "data", 1000, 40, 1.5)


@pytest.mark.slow
def test_a_copy_of_the_files_at_any_moment_goes_on(tmp_path: Path) -> None:
    """A power cut: what is on the disk at one moment is all that is left."""
    store = prepare(tmp_path / "data")
    ids = queue_jobs(store, 30)
    service = Served(tmp_path / "data").start()
    wait_for(lambda: views.counts(store)["done"] > 5)
    assert service.process is not None
    tree = list(psutil.Process(service.process.pid).children(recursive=True))
    for process in (psutil.Process(service.process.pid), *tree):
        process.suspend()
    shutil.copytree(tmp_path / "data", tmp_path / "copy")
    service.kill()
    for process in tree:  # one that had only begun does not end with its parent yet
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    with served(tmp_path / "copy") as again:
        wait_for(lambda: views.counts(again.store)["done"] == 30)
    check_all_done_once(again.store, ids)
