"""The API as clients meet it: a real server, and a worker without a model."""

from __future__ import annotations

import json
import re
from typing import Any

import fake_worker
import httpx
import pytest
from serving import TETRAHEDRON, Served, files, wait_for


def submit(http: httpx.Client, seed: int = 1, **more: Any) -> str:
    options = json.dumps({"seed": seed, **more.pop("options", {})})
    answer = http.post("/refine", files=files(), data={"options": options}, **more)
    assert answer.status_code == 202, answer.text
    return answer.json()["job_id"]


def ended(http: httpx.Client, job: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        found = http.get(f"/jobs/{job}").json()
        return found if found["state"] in ("done", "failed", "cancelled") else None

    return wait_for(look)


def events(http: httpx.Client, job: str, **headers: str) -> list[tuple[int, str, dict]]:
    """Returns id, kind and data of all events until the last."""
    found = []
    with http.stream("GET", f"/jobs/{job}/events", headers=headers) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        kind, number = "", 0
        for line in answer.iter_lines():
            name, _, value = line.partition(": ")
            if name == "id":
                number = int(value)
            elif name == "event":
                kind = value
            elif name == "data":
                found.append((number, kind, json.loads(value)))
    return found


def test_a_job_goes_from_upload_to_download(http: httpx.Client) -> None:
    answer = http.post("/refine", files=files(name="Große Figur.off"))
    assert answer.status_code == 202
    job = answer.json()["job_id"]
    assert answer.headers["location"] == f"/v1/jobs/{job}"
    done = ended(http, job)
    assert done["state"] == "done"
    assert (done["percent"], done["attempts"], done["files"]) == (100, 1, ["mesh", "record"])
    assert done["created"] <= done["started"] <= done["ended"]
    got = http.get(f"/jobs/{job}/download")
    assert got.content == TETRAHEDRON
    assert got.headers["content-type"] == "model/gltf-binary"
    assert "Gro%C3%9Fe%20Figur_refined.glb" in got.headers["content-disposition"]
    assert http.get(f"/jobs/{job}/download?file=record").json() == {}
    assert http.get(f"/v1/jobs/{job}/download?file=input").content == TETRAHEDRON
    assert http.get(f"/jobs/{job}/download?file=image").headers["content-type"] == "image/png"
    assert http.get(f"/jobs/{job}/download?file=full").status_code == 404


def test_a_preview_is_a_small_glb(http: httpx.Client) -> None:
    job = submit(http)
    ended(http, job)
    found = http.get(f"/jobs/{job}/preview?of=input")
    assert found.status_code == 200, found.text
    assert found.content[:4] == b"glTF"


def test_several_images_are_several_jobs(http: httpx.Client) -> None:
    parts = [*files(), ("image_file", ("b.png", files()[1][1][1]))]
    ids = http.post("/refine", files=parts).json()["job_ids"]
    assert len(set(ids)) == 2
    assert [ended(http, job)["state"] for job in ids] == ["done", "done"]
    assert [ended(http, job)["inputs"]["image"]["name"] for job in ids] == ["a.png", "b.png"]


def test_jobs_are_listed_in_pages_newest_first(http: httpx.Client) -> None:
    ids = [submit(http) for _ in range(5)]
    first = http.get("/jobs?limit=2").json()
    second = http.get(f"/jobs?limit=2&before={first['next']}").json()
    assert [j["job_id"] for j in first["jobs"] + second["jobs"]] == ids[:0:-1]
    for job in ids:
        ended(http, job)
    assert http.get("/jobs?state=queued").json() == {"jobs": [], "next": None}


def test_a_repetition_with_a_key_is_the_same_job(http: httpx.Client) -> None:
    headers = {"Idempotency-Key": "once"}
    one = http.post("/refine", files=files(), headers=headers)
    two = http.post("/refine", files=files(), headers=headers)
    assert one.json()["job_id"] == two.json()["job_id"]
    assert two.headers["idempotent-replayed"] == "true"
    other = http.post("/refine", files=files(), headers=headers, data={"options": '{"seed": 9}'})
    assert other.status_code == 409
    assert other.json()["code"] == "key-conflict"
    assert other.headers["content-type"] == "application/problem+json"


def test_events_tell_all_and_resume_where_they_were_lost(http: httpx.Client) -> None:
    job = submit(http, 900)
    found = events(http, job)
    numbers = [number for number, _, _ in found]
    assert numbers == list(range(1, len(found) + 1))
    assert found[0][1] == "queued"
    assert found[-1][1] == "done"
    percents = [data["percent"] for _, kind, data in found if kind == "progress"]
    assert percents == sorted(percents)
    rest = events(http, job, **{"Last-Event-ID": "2"})
    assert rest == found[2:]
    # What a browser asks again once the stream has ended: nothing comes any more.
    headers = {"Last-Event-ID": str(numbers[-1])}
    assert http.get(f"/jobs/{job}/events", headers=headers, timeout=5).status_code == 204


def test_head_is_get_without_a_body(http: httpx.Client) -> None:
    for path in ("/health", "/", "/status"):
        answer = http.head(path)
        assert (answer.status_code, answer.content) == (200, b"")
        assert int(answer.headers["content-length"]) > 0


def test_one_who_follows_and_leaves_cancels_nothing(http: httpx.Client) -> None:
    job = submit(http, 500)
    with http.stream("GET", f"/jobs/{job}/events") as answer:
        next(answer.iter_lines())
    assert ended(http, job)["state"] == "done"


def test_cancel_between_two_steps(http: httpx.Client, service: Served) -> None:
    job = submit(http, fake_worker.LONG)
    waiting = submit(http, 1)
    wait_for(lambda: http.get(f"/jobs/{job}").json()["percent"] > 0)
    assert http.get(f"/jobs/{waiting}").json()["place"] == 1
    assert http.delete(f"/jobs/{job}").json()["cancelling"]
    assert ended(http, job)["state"] == "cancelled"
    assert ended(http, waiting)["state"] == "done"
    assert "did not stop" not in service.log()


def test_a_worker_that_hears_nothing_is_killed(http: httpx.Client, service: Served) -> None:
    job = submit(http, fake_worker.HANG)
    wait_for(lambda: http.get(f"/jobs/{job}").json()["state"] == "running")
    http.delete(f"/jobs/{job}")
    assert ended(http, job)["state"] == "cancelled"
    assert f"did not stop at {job}: killed" in service.log()
    assert ended(http, submit(http))["state"] == "done"


def test_a_job_that_crashes_its_worker_three_times_fails(http: httpx.Client) -> None:
    found = ended(http, submit(http, fake_worker.CRASH))
    assert found["state"] == "failed"
    assert found["attempts"] == 3
    assert found["error"]["code"] == "crashed"
    assert "crashed 3 times" in found["error"]["message"]
    assert "SIGSEGV" in found["error"]["message"]
    assert ended(http, submit(http))["state"] == "done"


def test_a_failed_job_says_why(http: httpx.Client) -> None:
    job = submit(http, fake_worker.FAIL)
    assert ended(http, job)["error"] == {"code": "bad-mesh", "message": "no", "hint": "another"}
    answer = http.get(f"/jobs/{job}/download")
    assert (answer.status_code, answer.json()["code"]) == (409, "not-done")


def test_delete_of_a_finished_job_removes_its_files(http: httpx.Client, service: Served) -> None:
    job = submit(http)
    ended(http, job)
    assert service.store.job_folder(job).is_dir()
    assert http.delete(f"/jobs/{job}").json()["files"] == []
    assert not service.store.job_folder(job).exists()
    assert http.get(f"/jobs/{job}").json()["state"] == "done"
    assert http.get(f"/jobs/{job}/download").json()["code"] == "gone"


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ('{"region": "mask=/etc/passwd"}', "cannot be a mask here"),
        ('{"region": "ball=1"}', "`ball=1` is no region"),
        ('{"best_of": 65}', "refine.best_of"),
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        ('{"stepz": 3}', "did you mean `steps`"),
        ('{"steps": 1}', "refine.steps"),
        ('{"steps": "many"}', "refine.steps"),
        ('{"steps": NaN}', "not JSON"),
        ('{"quality": "best"}', "refine.quality"),
        ('{"model": "other"}', "there are tiny"),
        ('{"memory": "int8"}', "decided by the service"),
        ('{"format": "exe"}', "format"),
        ('{"priority": 99}', "priority"),
        ('{"seed": -1}', "seed"),
        ('{"seed": 1.5}', "seed"),
        ('{"webhook": "file:///etc/passwd"}', "webhook"),
        ("[" * 50_000, "not JSON"),
    ],
)
def test_bad_options_are_told_before_anything_is_queued(
    http: httpx.Client, options: str, problem: str
) -> None:
    before = http.get("/jobs?limit=1").json()
    answer = http.post("/refine", files=files(), data={"options": options})
    assert answer.status_code == 422
    assert problem in answer.json()["detail"]
    assert http.get("/jobs?limit=1").json() == before


def test_what_is_unknown_is_404_and_405(http: httpx.Client) -> None:
    for path in ("/jobs/nope", "/jobs/nope/events", "/jobs/../plan.json", "/nothing"):
        answer = http.get(path)
        assert answer.status_code == 404, path
        assert answer.headers["content-type"] == "application/problem+json"
    assert http.post("/jobs").status_code == 405
    assert http.get("/jobs?limit=0").status_code == 422


def test_every_answer_has_headers_of_safety(http: httpx.Client) -> None:
    for path in ("/health", "/docs", "/jobs", "/jobs/nope", "/assets/swagger/docs.js"):
        headers = http.get(path).headers
        assert "default-src 'self'" in headers["content-security-policy"], path
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers
        assert "server" not in headers


def test_pages_of_other_sites_may_ask_nothing(http: httpx.Client) -> None:
    evil = {"Origin": "https://evil.example"}
    assert http.post("/refine", files=files(), headers=evil).status_code == 403
    assert http.get("/jobs", headers={"Host": "evil.example"}).json()["code"] == "bad-host"
    own = {"Origin": str(http.base_url).rstrip("/")}
    assert http.post("/refine", files=files(), headers=own).status_code == 202


def test_the_documentation_needs_no_other_site(http: httpx.Client) -> None:
    page = http.get("/docs").text
    assert "http://" not in page
    assert "https://" not in page
    assert http.get("/assets/swagger/swagger-ui-bundle.js").status_code == 200
    spec = http.get("/openapi.json").json()
    assert "/v1/refine" in spec["paths"]
    form = spec["paths"]["/v1/refine"]["post"]["requestBody"]["content"]["multipart/form-data"]
    assert "HTTPBearer" in spec["components"]["securitySchemes"]
    assert set(form["schema"]["properties"]) == {"mesh_file", "image_file", "options"}


def test_what_is_vendored_is_what_its_table_says() -> None:
    from ultrashape_cli.files import file_hash
    from ultrashape_cli.service.app import SWAGGER

    rows = re.findall(r"\| (\S+) \| ([0-9a-f]{64}) \|", (SWAGGER / "SOURCES.md").read_text())
    assert len(rows) == 2
    assert [file_hash(SWAGGER / name) for name, _ in rows] == [digest for _, digest in rows]
    assert (SWAGGER / "LICENSE").read_text().lstrip().startswith("Apache License")


def test_status_ready_queue_metrics_and_options(http: httpx.Client) -> None:
    ended(http, submit(http))
    assert http.get("/ready").json()["workers"] == 1
    status = http.get("/status").json()
    assert status["models"]["tiny"]["licence"] == "Apache-2.0"
    assert status["workers"][0]["state"] in ("idle", "busy")
    assert http.get("/queue").json()["queued"] == 0
    text = http.get("/metrics").text
    assert 'ushape_jobs{state="done"}' in text
    assert 'ushape_stage_seconds_count{stage="sample"}' in text
    known = http.get("/options").json()["properties"]
    assert known["steps"]["minimum"] == 2
    assert known["model"]["enum"] == ["tiny"]
    assert "memory" not in known


def test_the_log_hides_secrets(http: httpx.Client, service: Served) -> None:
    with (service.folder / "log.txt").open("a") as log:
        log.write("asked with ushape_abcdefghijklmnopqrstuvwxyz by https://x:y@host/secret/path\n")
    text = http.get("/logs?lines=3").text
    assert "asked with ushape_... by " in text
    assert "abcdefghijk" not in text
    assert "secret/path" not in text


def test_the_web_process_holds_no_model(service: Served) -> None:
    import psutil

    assert service.process is not None
    (web,) = [
        child
        for child in psutil.Process(service.process.pid).children()
        if "ultrashape_cli.service.web" in child.cmdline()
    ]
    for process in (web, psutil.Process(service.process.pid)):
        maps = {mapping.path for mapping in process.memory_maps()}
        assert not [path for path in maps if "/torch/" in path]


def test_a_program_that_holds_the_database_keeps_no_look_waiting(
    http: httpx.Client, service: Served
) -> None:
    import sqlite3
    import time

    job = submit(http)
    ended(http, job)
    with sqlite3.connect(service.store.path, isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        started = time.monotonic()
        for path in ("/health", f"/jobs/{job}", "/jobs", "/queue", "/ready", f"/jobs/{job}/events"):
            assert http.get(path).status_code == 200
        assert time.monotonic() - started < 2
        other.execute("ROLLBACK")
    other.close()
    assert ended(http, submit(http))["state"] == "done"
