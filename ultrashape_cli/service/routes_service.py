"""The API for those who run the service, and for what watches it."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from ultrashape_cli import __version__
from ultrashape_cli.config.bounds import POSITIVE, RANGES
from ultrashape_cli.config.refine import RefineConfig
from ultrashape_cli.config.resolve import plain_types
from ultrashape_cli.dotenv import masked_text
from ultrashape_cli.service import content, metrics, options, views
from ultrashape_cli.service.auth import PREFIX as TOKEN_PREFIX
from ultrashape_cli.service.gate import COOKIE
from ultrashape_cli.service.plan import Plan
from ultrashape_cli.service.problems import RETRY_S, Problem
from ultrashape_cli.service.routes_jobs import caller_of, desk_of

router = APIRouter(prefix="/v1", tags=["service"])
LOG_FILE = "log.txt"
_LOG_TAIL = 1 << 20
_TOKEN = re.compile(rf"{TOKEN_PREFIX}[\w-]{{16,}}")


@router.get("/health")
async def health() -> dict[str, str]:
    """Say that the service is up; waits for nothing."""
    return {"status": "ok", "version": __version__}


@router.get("/ready")
def ready(request: Request) -> Response:
    """Say whether a worker has its model loaded, and where none has, why."""
    found = views.workers(desk_of(request).store)
    good = [each for each in found if each["state"] in ("idle", "busy")]
    if good:
        return JSONResponse({"status": "ready", "workers": len(good)})
    reasons = [f"{w['name']}: {w.get('note') or w['state']}" for w in found] or ["no worker yet"]
    hint = next((each["hint"] for each in found if each.get("hint")), None)
    if request.scope["state"]["caller"] is None:  # names of files are not for everybody
        reasons, hint = ["no worker has a model loaded"], "with a token the answer says why"
    problem = Problem(503, "not-ready", "; ".join(reasons)[:1000], hint=hint, retry_s=RETRY_S)
    return problem.response()


@router.get("/status")
def status(request: Request) -> dict[str, Any]:
    """Show versions, cards, memory, workers, models and their licences, disk and limits."""
    store, plan = desk_of(request).store, _plan(request)
    serve = plan.serve
    return {
        "version": __version__,
        "python": platform.python_version(),
        "packages": {name: version(name) for name in ("torch", "fastapi", "uvicorn")},
        "caller": {
            "name": caller_of(request).name,
            "admin": caller_of(request).is_admin,
            "works": caller_of(request).may_lease,
        },
        "state": store.get_meta("state") or "running",
        "jobs": views.counts(store),
        "workers": views.workers(store),
        "models": {
            name: {
                "model": each.family,
                "licence": each.licence,
                "licence_url": each.licence_url,
                "limits": each.limits,
                "files": each.files,
            }
            for name, each in plan.checkpoints.items()
        },
        "default_model": desk_of(request).default,
        "disk": {
            "free_gb": round(store.free_bytes() / 1e9, 2),
            "used_gb": round(_used(request) / 1e9, 3),
            "max_gb": serve.max_disk_gb,
        },
        "limits": {
            "mesh_mb": serve.max_mesh_mb,
            "image_mb": serve.max_image_mb,
            "images": serve.max_images,
            "megapixels": serve.max_megapixels,
            "faces": serve.max_faces,
            "mesh_types": content.MESH_TYPES,
            "image_types": sorted(content.IMAGE_TYPES.values()),
            "keep_days": serve.keep_days,
        },
    }


@router.get("/options")
def list_options(request: Request) -> dict[str, Any]:
    """List what `options` of a job takes: type, default, bounds and meaning."""
    desk = desk_of(request)
    values = desk.resolve(desk.default, {}).config.refine
    kinds = plain_types(RefineConfig)
    found: dict[str, Any] = {}
    for item in fields(RefineConfig):
        if item.name in options.REFINE:
            key = f"refine.{item.name}"
            found[item.name] = {**kinds[item.name], "default": getattr(values, item.name)}
            if key in RANGES:
                found[item.name] |= dict(zip(("minimum", "maximum"), RANGES[key], strict=True))
            elif key in POSITIVE:
                found[item.name]["exclusiveMinimum"] = 0
    low, high = options.PRIORITIES
    found |= {
        "model": {"type": "string", "enum": list(desk.models), "default": desk.default},
        "seed": {"type": "integer", "minimum": 0, "maximum": 2**63 - 1, "default": 0},
        "format": {"type": "string", "enum": list(options.FORMATS), "default": "glb"},
        "priority": {"type": "integer", "minimum": low, "maximum": high, "default": 0},
        "keep_full": {"type": "boolean", "default": False},
        "metrics": {"type": "boolean", "default": False},
        "picture": {"type": "boolean", "default": False},
        "webhook": {"type": "string", "format": "uri"},
    }
    return {"type": "object", "properties": found, "additionalProperties": False}


@router.get("/metrics", response_class=PlainTextResponse)
def show_metrics(request: Request) -> Response:
    """Tell Prometheus of jobs, the queue, stages, memory and errors."""
    text, kind = metrics.render(desk_of(request).store, _used(request))
    return Response(text, media_type=kind)


@router.get("/logs", response_class=PlainTextResponse)
def logs(
    request: Request, lines: Annotated[int, Query(ge=1, le=10_000)] = 100
) -> PlainTextResponse:
    """Show the last lines of the log, to those who may see all."""
    if not caller_of(request).is_admin:
        raise Problem(403, "not-admin", "the log is for a token of the role `admin`",
                      hint="ushape serve token add NAME --role admin")  # fmt: skip
    text = tail(desk_of(request).store.folder / LOG_FILE, lines)
    return PlainTextResponse(text)


def tail(path: Path, lines: int) -> str:
    """Returns the last lines of a log without its secrets."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _LOG_TAIL))
        text = file.read().decode(errors="replace")
    text = _TOKEN.sub(TOKEN_PREFIX + "...", masked_text(text))
    return "".join(line + "\n" for line in text.splitlines()[-lines:])


@router.post("/session", status_code=204)
async def open_session(request: Request) -> Response:
    """Keep the token in a cookie, which scripts of a page cannot read, for links and events."""
    response = Response(status_code=204)
    secret = request.headers.get("authorization", "").partition(" ")[2].strip()
    if secret:
        response.set_cookie(COOKIE, secret, max_age=30 * 86_400, httponly=True,
                            samesite="strict", secure=request.url.scheme == "https")  # fmt: skip
    return response


@router.delete("/session", status_code=204)
async def close_session() -> Response:
    """Forget the cookie."""
    response = Response(status_code=204)
    response.delete_cookie(COOKIE)
    return response


def _plan(request: Request) -> Plan:
    return request.app.state.plan


def _used(request: Request) -> int:
    db = desk_of(request).store.connection
    return db.execute("SELECT coalesce(sum(bytes), 0) FROM jobs").fetchone()[0]
