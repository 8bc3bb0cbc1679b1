"""The API for those who want meshes refined."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool

from ultrashape_cli.service import intake, jobs, previews, views
from ultrashape_cli.service.gate import Caller
from ultrashape_cli.service.intake import Desk
from ultrashape_cli.service.jobs import ENDED
from ultrashape_cli.service.problems import RETRY_S, Problem, no_job
from ultrashape_cli.service.retention import purge
from ultrashape_cli.service.ticker import Ticker

router = APIRouter(prefix="/v1", tags=["jobs"])
KEEP_ALIVE_S = 15
_SLOT_WAIT_S = 20.0
"""For a place among the uploads that are read at once."""
MEDIA = {
    "glb": "model/gltf-binary", "obj": "model/obj", "ply": "application/octet-stream",
    "stl": "model/stl", "off": "text/plain", "3mf": "model/3mf", "json": "application/json",
    "png": "image/png", "jpg": "image/jpeg", "webp": "image/webp", "tif": "image/tiff",
    "bmp": "image/bmp", "gif": "image/gif",
}  # fmt: skip
_FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["mesh_file", "image_file"],
                    "additionalProperties": False,
                    "properties": {
                        "mesh_file": {
                            "type": "string",
                            "format": "binary",
                            "description": "GLB, OBJ, PLY, STL, OFF or 3MF, one file",
                        },
                        "image_file": {
                            "type": "array",
                            "minItems": 1,
                            "items": {"type": "string", "format": "binary"},
                            "description": "PNG, JPEG, WebP, TIFF, BMP or GIF; each becomes a job",
                        },
                        "options": {
                            "type": "string",
                            "description": "JSON object; `GET /v1/options` lists what it takes",
                        },
                    },
                }
            }
        },
    }
}
"""Read by hand, so that limits hold before anything is spooled; told to the documentation."""


def desk_of(request: Request) -> Desk:
    """Returns what the service takes."""
    return request.app.state.desk


def caller_of(request: Request) -> Caller:
    """Returns who asks."""
    return request.scope["state"]["caller"]


def _row(request: Request, job: str) -> sqlite3.Row:
    row = views.find(desk_of(request).store, job, caller_of(request).sees)
    if row is None:
        raise no_job(job)
    return row


@router.post("/refine", status_code=202, openapi_extra=_FORM)
async def refine(
    request: Request,
    idempotency_key: Annotated[str | None, Header(max_length=200)] = None,
) -> Response:
    """Queue a mesh and an image, or several images, for refinement."""
    desk, caller = desk_of(request), caller_of(request)
    slots: asyncio.Semaphore = request.app.state.slots
    try:
        await asyncio.wait_for(slots.acquire(), _SLOT_WAIT_S)
    except TimeoutError:
        raise Problem(503, "busy", "as many uploads as are read at once are under way",
                      retry_s=RETRY_S) from None  # fmt: skip
    try:
        form = await intake.read_form(request, desk.config)
        try:
            ids, known = await intake.accept(desk, form, caller.name, idempotency_key)
        finally:
            await form.close()
    finally:
        slots.release()
    row = await run_in_threadpool(_row, request, ids[0])
    described = await run_in_threadpool(views.describe, desk.store, row)
    headers = {"Location": f"/v1/jobs/{ids[0]}"}
    if known:
        headers["Idempotent-Replayed"] = "true"
    return JSONResponse({**described, "job_ids": ids}, 202, headers=headers)


@router.get("/jobs")
def list_jobs(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=500)] = views.PAGE,
    before: Annotated[int | None, Query(ge=0, le=2**62)] = None,
    state: Literal["queued", "running", "done", "failed", "cancelled"] | None = None,
) -> dict[str, Any]:
    """List your jobs, newest first; `next` is the `before` of the next page."""
    store = desk_of(request).store
    rows, following = views.page(
        store, caller_of(request).sees, limit=limit, before=before, state=state
    )
    return {"jobs": [views.describe(store, row) for row in rows], "next": following}


@router.get("/jobs/{job}", response_class=JSONResponse)
async def show_job(request: Request, job: str) -> Response:
    """Show state, place in the queue, progress, figures or error of a job."""

    def show() -> dict[str, Any]:
        return views.describe(desk_of(request).store, _row(request, job))

    try:
        # Asked most of all, and read in a tenth of a millisecond: on busy cores a change of
        # threads takes longer. This thread's connection waits for no lock.
        return JSONResponse(show())
    except sqlite3.OperationalError:
        return JSONResponse(await run_in_threadpool(show))


@router.delete("/jobs/{job}")
def delete_job(request: Request, job: str) -> dict[str, Any]:
    """Cancel a job; of one that has ended, remove the files."""
    store, row = desk_of(request).store, _row(request, job)
    if row["state"] in ENDED:
        purge(store, row)
    else:
        jobs.cancel(store, job)
    return views.describe(store, _row(request, job))


@router.get("/jobs/{job}/download", response_class=FileResponse)
async def download(
    request: Request,
    job: str,
    file: Literal["mesh", "full", "record", "picture", "input", "image"] = "mesh",
    format: Literal["glb", "obj", "ply", "stl", "off", "3mf"] | None = None,
) -> Response:
    """Get a file of a job; `input` and `image` are what was sent. A mesh comes in any format."""
    row = await run_in_threadpool(_row, request, job)
    path, name = _file(desk_of(request).store.job_folder(job), row, file)
    if format is not None and file in ("mesh", "full"):
        path = await previews.convert(path, format, desk_of(request).config)
        name = f"{name.rpartition('.')[0]}.{format}"
    return FileResponse(path, media_type=MEDIA.get(path.suffix[1:]), filename=name)


@router.get("/jobs/{job}/preview", response_class=FileResponse)
async def preview(
    request: Request, job: str, of: Literal["result", "input"] = "result"
) -> Response:
    """Get a GLB of at most 200,000 faces for a viewer."""
    row = await run_in_threadpool(_row, request, job)
    folder = desk_of(request).store.job_folder(job)
    source, _ = _file(folder, row, "mesh" if of == "result" else "input")
    path = await previews.make(source, desk_of(request).config, own=of == "result")
    return FileResponse(path, media_type=MEDIA["glb"])


def _file(folder: Path, row: sqlite3.Row, file: str) -> tuple[Path, str]:
    """Returns the path of a file of a job, and how it is called to its owner."""
    inputs, made = json.loads(row["inputs"]), json.loads(row["files"] or "{}")
    stem = inputs["mesh"]["name"].rpartition(".")[0] or inputs["mesh"]["name"]
    if file in ("input", "image"):
        part = inputs["mesh" if file == "input" else "image"]
        path, name = folder / part["file"], part["name"]
    else:
        if row["state"] != "done":
            raise Problem(409, "not-done", f"the job is {row['state']}",
                          hint=f"GET /v1/jobs/{row['id']}")  # fmt: skip
        if file not in made:
            raise Problem(404, "no-file", f"the job made no file `{file}`",
                          hint=f"it made {', '.join(made)}")  # fmt: skip
        path = folder / made[file]
        name = f"{stem}_refined{path.name.removeprefix('refined')}"
    if row["purged"] or not path.is_file():
        raise Problem(404, "gone", "the files of this job were removed",
                      hint="results are kept for some days only")  # fmt: skip
    return path, name


@router.get("/jobs/{job}/events", response_class=EventSourceResponse)
async def events(
    request: Request,
    job: str,
    last_event_id: Annotated[str | None, Header(max_length=20)] = None,
) -> Response:
    """Follow a job; with `Last-Event-ID` from where a connection was lost."""
    row = await run_in_threadpool(_row, request, job)
    begin = int(last_event_id) if last_event_id and last_event_id.isdecimal() else 0
    if row["state"] in ENDED and not await run_in_threadpool(
        views.events_after, desk_of(request).store, row["seq"], begin
    ):
        # What tells a browser not to connect again.
        return Response(status_code=204)
    stream = _follow(desk_of(request), row, begin, request.app.state.ticker)
    return EventSourceResponse(stream, ping=KEEP_ALIVE_S)


async def _follow(
    desk: Desk, row: sqlite3.Row, n: int, ticker: Ticker
) -> AsyncIterator[ServerSentEvent]:
    while True:
        seen = ticker.count
        found = await run_in_threadpool(views.events_after, desk.store, row["seq"], n)
        for each in found:
            n = each.n
            yield ServerSentEvent(json.dumps(each.data), event=each.kind, id=str(n))
            if each.kind in ENDED:
                return
        await ticker.after(seen)


@router.get("/queue")
def queue(request: Request) -> dict[str, Any]:
    """Show how long the queue is, and what of it is yours."""
    store, caller = desk_of(request).store, caller_of(request)
    found = views.counts(store)
    rows = store.connection.execute(
        "SELECT * FROM jobs WHERE state IN ('queued', 'running') AND owner = ? ORDER BY "
        "state DESC, priority DESC, seq LIMIT 500",
        (caller.name,),
    ).fetchall()
    return {
        "queued": found["queued"],
        "running": found["running"],
        "workers": len([w for w in views.workers(store) if w["state"] in ("idle", "busy")]),
        "jobs": [
            {
                "job_id": row["id"],
                "state": row["state"],
                "place": views.place(store, row),
                "percent": row["percent"],
                "seconds_left": views.seconds_left(store, row),
            }
            for row in rows
        ],
    }
