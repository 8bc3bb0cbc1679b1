"""The API for workers on other machines: they ask, so they may be behind any router."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from ultrashape_cli.service import jobs, views
from ultrashape_cli.service.jobs import LOCAL, Outcome
from ultrashape_cli.service.lessor import attempt_folder
from ultrashape_cli.service.problems import Problem, no_job
from ultrashape_cli.service.routes_jobs import caller_of, desk_of
from ultrashape_cli.service.store import clock, sync_tree

NAMES = {"mesh": "refined", "full": "refined_full", "record": "refined", "picture": "picture"}
"""What a worker may send, and how the files begin."""
LARGEST_FENCE = 2**53
Fence = Annotated[int, Query(ge=0, le=LARGEST_FENCE)]
FileName = Annotated[str, Query(pattern=r"^[a-z_]{1,20}(\.[a-z0-9]{1,5}){1,2}$")]
Digest = Annotated[str, Query(pattern="^[0-9a-f]{64}$")]


def _require_worker(request: Request) -> None:
    if not caller_of(request).may_lease:
        raise Problem(403, "no-worker", "this token may not work on jobs",
                      hint="ushape serve token add NAME --role worker")  # fmt: skip


router = APIRouter(prefix="/v1/lease", tags=["workers"], dependencies=[Depends(_require_worker)])


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class Ask(_Strict):
    """A worker that asks for a job."""

    worker: str = Field(min_length=1, max_length=100, pattern=r"^[\w.:@ -]+$")
    models: list[str] = Field(max_length=100)


class Beat(_Strict):
    """A sign of life."""

    fence: int = Field(ge=0, le=LARGEST_FENCE)
    stage: str = Field("", max_length=100)
    percent: int = Field(0, ge=0, le=100)
    notes: list[str] = Field(default_factory=list, max_length=100)


class End(_Strict):
    """How an attempt ended."""

    fence: int = Field(ge=0, le=LARGEST_FENCE)
    state: Literal["done", "failed", "cancelled", "crashed", "released"]
    result: dict[str, Any] = Field(default_factory=dict)
    files: dict[str, str] = Field(default_factory=dict)
    error: dict[str, Any] | None = None


class State(_Strict):
    """What a worker is doing."""

    worker: str = Field(min_length=1, max_length=100, pattern=r"^[\w.:@ -]+$")
    state: Literal["loading", "idle", "busy", "failing", "gone"]
    data: dict[str, Any] = Field(default_factory=dict)


@router.post("", responses={204: {"description": "No job waits"}})
def lease(request: Request, ask: Ask) -> Response:
    """Lease the next job; 204 where none waits."""
    desk = desk_of(request)
    name = _remote(request, ask.worker)
    models = [each for each in ask.models if each in desk.models]
    if desk.store.get_meta("state") == "stopping" or not models:
        return Response(status_code=204)
    found = jobs.claim(desk.store, name, models, desk.config.lease_s)
    if found is None:
        return Response(status_code=204)
    return JSONResponse(
        {
            "job": found.job,
            "fence": found.fence,
            "model": found.model,
            "options": found.options,
            "inputs": found.inputs,
            "attempt": found.attempt,
            "owner": found.owner,
            "lease_s": desk.config.lease_s,
        }
    )


@router.post("/worker", status_code=204)
def tell(request: Request, state: State) -> Response:
    """Say what a worker is doing."""
    name = _remote(request, state.worker)
    if state.state == "gone":
        views.drop_worker(desk_of(request).store, name)
    else:
        views.set_worker(desk_of(request).store, name, state.state, state.data)
    return Response(status_code=204)


@router.get("/{job}/input", response_class=FileResponse)
def get_input(
    request: Request, job: str, fence: Fence, file: Literal["mesh", "image"]
) -> FileResponse:
    """Get an input of a leased job."""
    folder = _leased(request, job, fence)
    row = views.find(desk_of(request).store, job, None)
    assert row is not None
    part = views.inputs_of(row)[file]
    return FileResponse(folder / part["file"])


@router.post("/{job}/beat")
def beat(request: Request, job: str, sign: Beat) -> dict[str, str]:
    """Keep a lease; the answer says whether to go on: `go`, `cancel` or `lost`."""
    desk = desk_of(request)
    args = (sign.stage, sign.percent, sign.notes)
    return {"state": jobs.beat(desk.store, job, sign.fence, desk.config.lease_s, *args)}


@router.put("/{job}/file", status_code=204)
async def put_file(
    request: Request, job: str, fence: Fence, name: FileName, sha256: Digest
) -> Response:
    """Send a file of the result."""
    folder = attempt_folder(await run_in_threadpool(_leased, request, job, fence), fence)
    folder.mkdir(exist_ok=True)
    digest, desk, told = hashlib.sha256(), desk_of(request), clock()
    temporary = folder / f".{name}.part"
    try:
        with temporary.open("wb") as file:
            async for piece in request.stream():
                digest.update(piece)
                await run_in_threadpool(file.write, piece)
                if clock() - told > desk.config.heartbeat_s:  # a slow line must not cost the lease
                    told = clock()
                    lease_s = desk.config.lease_s
                    await run_in_threadpool(jobs.beat, desk.store, job, fence, lease_s, "send", 99)
        if digest.hexdigest() != sha256:
            raise Problem(422, "damaged", "the file did not arrive whole", hint="send it again")
        temporary.replace(folder / name)
    finally:
        temporary.unlink(missing_ok=True)
    return Response(status_code=204)


@router.post("/{job}/end")
def end(request: Request, job: str, how: End) -> dict[str, bool]:
    """End an attempt; `counted` is false where the job went to another worker meanwhile."""
    desk = desk_of(request)
    folder = attempt_folder(desk.store.job_folder(job), how.fence)
    size = 0
    if how.state == "done":
        _leased(request, job, how.fence)
        for what, path in how.files.items():
            if what not in NAMES or not (folder / Path(path).name).is_file():
                raise Problem(422, "no-file", f"the file `{what[:40]}` was not sent")
        size = sync_tree(folder)
    files = {what: f"{folder.name}/{Path(path).name}" for what, path in how.files.items()}
    outcome = Outcome(how.state, how.result, files, how.error, size)
    counted = jobs.finish(desk.store, job, how.fence, outcome, desk.config.attempts)
    if not counted or how.state != "done":
        shutil.rmtree(folder, ignore_errors=True)
    return {"counted": counted}


def _remote(request: Request, worker: str) -> str:
    name = f"{caller_of(request).name}/{worker}"
    # Only workers of this machine end with the service.
    return name.replace(LOCAL, "")


def _leased(request: Request, job: str, fence: int) -> Path:
    """Returns the folder of a job that the caller has leased; raises Problem where it has not."""
    store = desk_of(request).store
    row = views.find(store, job, None)
    if row is None:
        raise no_job(job)
    if row["state"] != "running" or row["fence"] != fence:
        raise Problem(409, "lost", "the lease has ended, and the job went to another worker")
    return store.job_folder(job)
