"""Machines that work for another one's service: processes here, over HTTP as everywhere."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_worker
import httpx
import pytest
from serving import ROOT, TETRAHEDRON, Served, files, served, wait_for

from ultrashape_cli.errors import UsageError, UShapeError
from ultrashape_cli.service import join
from ultrashape_cli.service.auth import Tokens
from ultrashape_cli.service.jobs import Outcome
from ultrashape_cli.service.remote import HttpLessor, Service, greet


class Studio:
    """A service whose own worker never loads, and tokens for those who join."""

    def __init__(self, folder: Path) -> None:
        (folder / "data").mkdir()
        tokens = Tokens(folder / "data" / "tokens.json")
        self.node, self.anna = tokens.add("node", "worker"), tokens.add("anna", "user")
        self.folder = folder
        self.service = Served(folder / "data", lease_s=2.0).start(FAKE_WORKER_FAILS="1")
        self.url = self.service.url
        self.nodes: list[subprocess.Popen[bytes]] = []
        headers = {"Authorization": f"Bearer {self.anna}"}
        self.http = httpx.Client(base_url=self.url, headers=headers)

    def join(self, name: str) -> subprocess.Popen[bytes]:
        environ = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "TOKEN": self.node}
        command = [sys.executable, "-m", "joining", str(self.folder / name), self.url]
        self.nodes.append(subprocess.Popen(command, env=os.environ | environ))
        return self.nodes[-1]

    def post(self, seed: int = 1) -> str:
        data = {"options": f'{{"seed": {seed}}}'}
        return self.http.post("/refine", files=files(), data=data).json()["job_id"]

    def job(self, job: str) -> dict[str, Any]:
        return self.http.get(f"/jobs/{job}").json()


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    found = Studio(tmp_path_factory.mktemp("studio"))
    yield found
    for node in found.nodes:
        node.kill()
        node.wait()
    found.http.close()
    found.service.stop()


def lessor(studio: Studio, folder: Path) -> HttpLessor:
    return HttpLessor(Service(studio.url, studio.node), "w", ["tiny"], folder, 0.1)


@pytest.mark.slow
def test_the_job_of_a_machine_that_vanishes_is_taken_over_once(studio: Studio) -> None:
    first = studio.join("one")
    job = studio.post(fake_worker.LONG)
    wait_for(lambda: studio.job(job)["percent"] > 0)
    first.kill()  # its children end with it
    second = studio.join("two")
    wait_for(lambda: studio.job(job)["attempts"] == 2, 20)
    done = studio.post(1)
    assert studio.http.delete(f"/jobs/{job}").json()["state"] == "running"
    wait_for(lambda: studio.job(job)["state"] == "cancelled")
    wait_for(lambda: studio.job(done)["state"] == "done")
    assert studio.http.get(f"/jobs/{done}/download").content == TETRAHEDRON
    second.send_signal(signal.SIGTERM)
    assert second.wait(20) == 143
    assert not list((studio.folder / "two").glob("join-*"))
    # Of both machines only what was done is left, and none is waited for.
    workers = {each["name"] for each in studio.http.get("/status").json()["workers"]}
    assert not any("two" in name for name in workers)


@pytest.mark.slow
def test_a_job_of_a_machine_that_stops_goes_back_at_once(studio: Studio) -> None:
    node = studio.join("one")
    job = studio.post(fake_worker.LONG)
    wait_for(lambda: studio.job(job)["percent"] > 0)
    node.send_signal(signal.SIGTERM)
    assert node.wait(20) == 143
    found = studio.job(job)
    assert (found["state"], found["attempts"]) == ("queued", 0)
    studio.http.delete(f"/jobs/{job}")


def test_a_late_result_counts_no_more(studio: Studio, tmp_path: Path) -> None:
    job = studio.post(1)
    slow, quick = lessor(studio, tmp_path / "slow"), lessor(studio, tmp_path / "quick")
    lease = slow.lease()
    assert lease is not None
    folder = slow.fetch(lease)
    assert (folder / "mesh.off").read_bytes() == TETRAHEDRON
    wait_for(lambda: studio.job(job)["state"] == "queued", 20)
    again = quick.lease()
    assert again is not None
    assert slow.beat(lease, "sample", 50, []) == "lost"
    for each, at, text in ((slow, lease, b"late"), (quick, again, b"right")):
        made = each.folder / f"{job}-{at.fence}" / f"attempt-{at.fence}"
        made.mkdir(parents=True)
        (made / "refined.glb").write_bytes(text)
    files_of = {"mesh": "attempt/refined.glb"}
    assert not slow.finish(lease, Outcome("done", {}, files_of))
    assert quick.finish(again, Outcome("done", {}, files_of))
    assert len(quick.service.call("GET", "/v1/jobs")["jobs"]) == 0  # a worker's own: none
    told = studio.service.store.connection.execute(
        "SELECT kind FROM events JOIN jobs ON jobs.seq = events.job WHERE jobs.id = ?", (job,)
    ).fetchall()
    assert [row["kind"] for row in told].count("done") == 1
    assert studio.http.get(f"/jobs/{job}/download").content == b"right"
    assert not (tmp_path / "slow" / f"{job}-{lease.fence}").exists()


NO_NAMES = ("../../evil.glb", ".hidden", "a/evil.glb", "x" * 60, "evil.tar.gz..", "")


def test_a_worker_writes_nothing_outside_of_its_attempt(studio: Studio, tmp_path: Path) -> None:
    job = studio.post(1)
    lease = lessor(studio, tmp_path).lease()
    assert lease is not None
    headers = {"Authorization": f"Bearer {studio.node}"}
    for name in NO_NAMES:
        answer = httpx.put(
            f"{studio.url}/lease/{lease.job}/file",
            params={"fence": lease.fence, "name": name, "sha256": "0" * 64},
            content=b"evil", headers=headers,
        )  # fmt: skip
        assert answer.status_code == 422, name
    assert not list(studio.folder.rglob("*evil*"))
    studio.http.delete(f"/jobs/{job}")


def test_a_damaged_transfer_is_refused(studio: Studio, tmp_path: Path) -> None:
    job = studio.post(1)
    lease = lessor(studio, tmp_path).lease()
    assert lease is not None
    assert lease.job == job
    answer = httpx.put(
        f"{studio.url}/lease/{lease.job}/file",
        params={"fence": lease.fence, "name": "refined.glb", "sha256": "0" * 64},
        content=b"half", headers={"Authorization": f"Bearer {studio.node}"},
    )  # fmt: skip
    assert answer.json()["code"] == "damaged"
    folder = studio.service.store.job_folder(lease.job)
    assert not [path for path in folder.rglob("*") if "refined" in path.name]
    studio.http.delete(f"/jobs/{job}")


def test_one_who_joins_is_told_what_is_wrong(studio: Studio) -> None:
    from serving import free_port, make_plan

    with pytest.raises(UShapeError, match="401"):
        greet(Service(studio.url, "ushape_wrong"))
    with pytest.raises(UShapeError, match="no service"):
        greet(Service(f"http://127.0.0.1:{free_port()}", ""))
    with pytest.raises(UsageError, match="no http"):
        Service("ftp://x", "")
    plan = make_plan()
    plan.checkpoints["mine"] = plan.checkpoints.pop("tiny")
    with pytest.raises(UsageError, match="this machine has mine, the service tiny"):
        join.check_models(plan, Service(studio.url, studio.node))


@pytest.mark.slow
def test_a_service_out_of_reach_is_waited_for(tmp_path: Path) -> None:
    from serving import free_port

    port = free_port()
    with served(tmp_path / "data", port=port) as studio:
        environ = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
        command = [sys.executable, "-m", "joining", str(tmp_path / "one"), studio.url]
        with subprocess.Popen(command, env=os.environ | environ) as node:
            try:
                names = lambda: httpx.get(f"{studio.url}/status").json()["workers"]  # noqa: E731
                wait_for(lambda: len([w for w in names() if w["state"] == "idle"]) == 2)
                studio.kill()
                wait_for(lambda: "gets no job" in (tmp_path / "one" / "log.txt").read_text())
                studio.start()
                wait_for(lambda: len([w for w in names() if w["state"] == "idle"]) == 2, 40)
            finally:
                node.kill()


@pytest.mark.parametrize("fence", [10**30, -1, True, "1", None])
def test_numbers_that_are_none_are_refused(studio: Studio, fence: object) -> None:
    headers = {"Authorization": f"Bearer {studio.node}"}
    for path, more in (("beat", {}), ("end", {"state": "released"})):
        answer = httpx.post(
            f"{studio.url}/lease/x/{path}", json={"fence": fence, **more}, headers=headers
        )
        assert answer.status_code == 422
