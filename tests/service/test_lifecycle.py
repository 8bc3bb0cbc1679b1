"""A service that starts, fails to, is stopped and goes on."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import fake_worker
import httpx
import psutil
import pytest
from serving import Served, files, served, wait_for


def post(url: str, seed: int = 1) -> str:
    answer = httpx.post(f"{url}/refine", files=files(), data={"options": f'{{"seed": {seed}}}'})
    assert answer.status_code == 202, answer.text
    return answer.json()["job_id"]


def state(url: str, job: str) -> dict[str, Any]:
    return httpx.get(f"{url}/jobs/{job}").json()


@pytest.mark.slow
def test_a_signal_puts_running_jobs_back_and_the_next_start_goes_on(tmp_path: Path) -> None:
    service = Served(tmp_path / "data").start()
    running, waiting = post(service.url, fake_worker.LONG), post(service.url, 1)
    wait_for(lambda: state(service.url, running)["percent"] > 0)
    assert service.stop(signal.SIGTERM) == 143
    found = {row["id"]: row for row in service.store.connection.execute("SELECT * FROM jobs")}
    assert found[running]["state"] == "queued"
    assert found[running]["attempts"] == 0  # its end was no crash
    with served(tmp_path / "data") as again:
        wait_for(lambda: state(again.url, running)["state"] == "running")
        httpx.delete(f"{again.url}/jobs/{running}")
        wait_for(lambda: state(again.url, waiting)["state"] == "done")
        assert state(again.url, running)["state"] == "cancelled"


@pytest.mark.slow
def test_a_worker_that_is_stuck_is_replaced(tmp_path: Path) -> None:
    with served(tmp_path / "data", stuck_s=2.0) as service:
        job = post(service.url, fake_worker.HANG)
        found = wait_for(lambda: (s := state(service.url, job))["state"] == "failed" and s, 60)
        assert found["error"]["code"] == "crashed"
        assert f"is stuck at {job}: killed" in service.log()


def test_a_folder_that_is_removed_ends_the_service(tmp_path: Path) -> None:
    service = Served(tmp_path / "data").start()
    assert service.process is not None
    wait_for(lambda: httpx.get(f"{service.url}/ready").status_code == 200)
    (tmp_path / "data").rename(tmp_path / "moved")
    assert service.process.wait(30) == 1
    assert "was removed or moved while the service ran" in service.errors.read_text()


@pytest.mark.slow
def test_a_service_killed_again_and_again_loses_no_job(tmp_path: Path) -> None:
    service = Served(tmp_path / "data").start()
    job = post(service.url, fake_worker.SLOW)
    for _ in range(4):
        wait_for(lambda: state(service.url, job)["state"] == "running")
        service.kill()
        service.start()
    wait_for(lambda: state(service.url, job)["state"] == "done")
    service.stop(signal.SIGTERM)


@pytest.mark.slow
def test_a_signal_gives_running_jobs_time_to_end(tmp_path: Path) -> None:
    service = Served(tmp_path / "data", grace_s=20.0).start()
    job = post(service.url, 900)
    wait_for(lambda: state(service.url, job)["state"] == "running")
    assert service.process is not None
    service.process.send_signal(signal.SIGINT)
    answer = wait_for(lambda: (a := httpx.post(f"{service.url}/refine", files=files()))
                      .status_code == 503 and a)  # fmt: skip
    assert answer.json()["code"] == "stopping"
    assert answer.headers["retry-after"]
    assert service.process.wait(30) == 130
    row = service.store.connection.execute("SELECT state FROM jobs").fetchone()
    assert row["state"] == "done"


@pytest.mark.slow
def test_nothing_of_a_killed_service_stays(tmp_path: Path) -> None:
    service = Served(tmp_path / "data").start()
    assert service.process is not None
    wait_for(lambda: httpx.get(f"{service.url}/ready").status_code == 200)
    children = psutil.Process(service.process.pid).children(recursive=True)
    assert len(children) >= 3  # web, worker, guard
    service.kill()
    assert psutil.wait_procs(children, 5)[1] == []


@pytest.mark.slow
def test_a_web_process_that_ends_is_replaced_at_the_same_address(tmp_path: Path) -> None:
    with served(tmp_path / "data") as service:
        job = post(service.url, 900)
        assert service.process is not None
        web = next(
            child
            for child in psutil.Process(service.process.pid).children()
            if "ultrashape_cli.service.web" in child.cmdline()
        )
        web.kill()
        # Who asks meanwhile waits for the next one.
        assert httpx.get(f"{service.url}/health", timeout=20).status_code == 200
        wait_for(lambda: state(service.url, job)["state"] == "done")
        assert state(service.url, job)["attempts"] == 1


@pytest.mark.slow
def test_a_worker_that_never_loads_says_why(tmp_path: Path) -> None:
    service = Served(tmp_path / "data").start(FAKE_WORKER_FAILS="1")
    try:
        job = post(service.url)
        answer = wait_for(lambda: (a := httpx.get(f"{service.url}/ready")).status_code == 503
                          and "no such weights" in a.text and a)  # fmt: skip
        assert answer.json()["hint"] == "find them"
        assert answer.headers["retry-after"]
        time.sleep(1.5)
        assert service.log().count("cannot load") < 6  # with growing pauses
        assert httpx.get(f"{service.url}/health").status_code == 200
        assert state(service.url, job)["state"] == "queued"
    finally:
        service.stop()


@pytest.mark.slow
def test_a_job_beyond_its_time_fails_with_a_hint(tmp_path: Path) -> None:
    with served(tmp_path / "data", job_timeout_s=1.0) as service:
        job = post(service.url, fake_worker.LONG)
        found = wait_for(lambda: (s := state(service.url, job))["state"] == "failed" and s)
        assert found["error"]["code"] == "timeout"
        assert found["error"]["hint"]


def test_rates_and_places_of_each_token(tmp_path: Path) -> None:
    limits = {"submits_per_minute": 4.0, "max_queued_per_token": 3}
    with served(tmp_path / "data", **limits) as service:
        post(service.url, fake_worker.LONG)
        codes = [httpx.post(f"{service.url}/refine", files=files()) for _ in range(5)]
        assert [answer.status_code for answer in codes] == [202, 202, 429, 429, 429]
        assert [answer.json().get("code") for answer in codes[2:]] == [
            "queue-full", "too-often", "too-often",
        ]  # fmt: skip
        assert all(int(answer.headers["retry-after"]) > 0 for answer in codes[2:])


def test_tokens_part_owners_and_roles(tmp_path: Path) -> None:
    from ultrashape_cli.service.auth import Tokens

    (tmp_path / "data").mkdir()
    tokens = Tokens(tmp_path / "data" / "tokens.json")
    anna, boss, node = (
        {"Authorization": f"Bearer {tokens.add(name, role)}"}
        for name, role in (("anna", "user"), ("boss", "admin"), ("node", "worker"))
    )
    assert (tmp_path / "data" / "tokens.json").stat().st_mode & 0o777 == 0o600
    assert anna["Authorization"].split()[1] not in (tmp_path / "data/tokens.json").read_text()
    with served(tmp_path / "data") as service, httpx.Client(base_url=service.url) as http:
        for headers in ({}, {"Authorization": "Bearer ushape_wrong"}, {"Authorization": "x"}):
            answer = http.get("/jobs", headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (401, "no-token")
            assert answer.headers["www-authenticate"] == "Bearer"
            assert http.post("/refine", files=files(), headers=headers).status_code == 401
        assert http.get("/health").status_code == http.get("/docs").status_code == 200
        assert http.get("/ready").status_code in (200, 503)
        job = http.post("/refine", files=files(), headers=anna).json()["job_id"]
        for path in ("", "/events", "/download", "/preview"):
            assert http.get(f"/jobs/{job}{path}", headers=node).status_code == 404
        assert http.delete(f"/jobs/{job}", headers=node).status_code == 404
        assert http.get("/jobs", headers=node).json()["jobs"] == []
        assert [j["job_id"] for j in http.get("/jobs", headers=boss).json()["jobs"]] == [job]
        assert http.get("/logs", headers=anna).status_code == 403
        assert http.get("/logs", headers=boss).status_code == 200
        ask = {"worker": "w", "models": ["tiny"]}
        assert http.post("/lease", json=ask, headers=anna).status_code == 403
        assert http.post("/lease", json=ask, headers=node).status_code in (200, 204)

        # For links and events a page keeps the token in a cookie.
        opened = http.post("/session", headers=anna)
        assert "HttpOnly" in opened.headers["set-cookie"]
        assert "SameSite=strict" in opened.headers["set-cookie"]
        assert http.get(f"/jobs/{job}").status_code == 200
        http.delete("/session")
        http.cookies.clear()

        for name in ("anna", "boss", "node"):
            Tokens(tokens.path).remove(name)
        # The last one gone opens nothing.
        for headers in (anna, boss, {}):
            assert http.get("/jobs", headers=headers).status_code == 401


def test_a_token_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    from ultrashape_cli.errors import DiskError
    from ultrashape_cli.service.auth import Tokens

    tokens = Tokens(tmp_path / "tokens.json")
    tokens.add("anna", "user")
    tokens.path.chmod(0o644)
    with pytest.raises(DiskError, match="others may read"):
        Tokens(tokens.path).all()
    tokens.path.chmod(0o600)
    tokens.path.write_text(json.dumps({"no": "list"}))
    with pytest.raises(DiskError, match="damaged"):
        Tokens(tokens.path).all()


def test_a_reader_that_was_killed_reads_again(tmp_path: Path) -> None:
    """Its end from outside is no fault of the file."""
    from serving import TETRAHEDRON, make_plan, png

    from ultrashape_cli.service.guard import Guard

    mesh, image = tmp_path / "mesh.off", tmp_path / "image.png"
    mesh.write_bytes(TETRAHEDRON)
    image.write_bytes(png())
    guard = Guard(make_plan().serve, tmp_path / "log.txt")
    guard.warm()
    assert guard._child is not None
    first = guard._child.process.pid
    guard._child.process.kill()
    guard._child.process.wait()
    guard.warm = lambda: None if guard._child else Guard.warm(guard)  # type: ignore[method-assign]
    assert guard.check(mesh, image) is None
    assert guard._child.process.pid != first
    guard.close()


def test_a_service_ends_soon_though_somebody_follows(tmp_path: Path) -> None:
    service = Served(tmp_path / "data").start()
    job = post(service.url, fake_worker.LONG)
    with (
        httpx.Client(base_url=service.url) as http,
        http.stream("GET", f"/jobs/{job}/events") as answer,
    ):
        next(answer.iter_lines())
        started = time.monotonic()
        assert service.stop(signal.SIGTERM) == 143
        assert time.monotonic() - started < 10
