"""The web application, put together."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Security
from fastapi.responses import FileResponse
from fastapi.security import HTTPBearer
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from ultrashape_cli import __version__
from ultrashape_cli.service import problems, routes_jobs, routes_lease, routes_service
from ultrashape_cli.service.auth import TOKENS_FILE, Tokens
from ultrashape_cli.service.gate import Gate
from ultrashape_cli.service.intake import Desk
from ultrashape_cli.service.plan import Plan
from ultrashape_cli.service.store import Store
from ultrashape_cli.service.ticker import Ticker

SWAGGER = Path(__file__).parent / "swagger"
PAGE = Path(__file__).parent / "page"
"""Files of the page; all but `index.html` below `/assets/`."""


class _Assets(StaticFiles):
    """Files that a browser may keep, and asks whether they have changed."""

    def file_response(self, *values: Any, **named: Any) -> Response:
        response = super().file_response(*values, **named)
        response.headers["Cache-Control"] = "no-cache"
        return response


def make_app(plan: Plan, store: Store) -> ASGIApp:
    """Returns the application of a service.

    Args:
        plan: What it was started with.
        store: Its queue, which is open already.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        store.connection.execute("PRAGMA busy_timeout = 0")  # of the thread of all requests
        app.state.slots = asyncio.Semaphore(plan.serve.uploads_at_once)
        app.state.ticker = Ticker(store)
        looking = asyncio.create_task(app.state.ticker.run())
        yield
        looking.cancel()

    app = FastAPI(
        title="ushape",
        version=__version__,
        description="Coarse mesh and reference image to refined mesh. Every path also works "
        "without `/v1`.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        # No cookie of ours is for other sites, and slashes that redirect lose bodies.
        redirect_slashes=False,
    )
    app.state.plan = plan
    app.state.desk = Desk(store, plan.serve, plan.models, plan.resolve)
    problems.install(app)
    # The gate judges tokens; this tells the documentation how they are given.
    bearer = Security(HTTPBearer(auto_error=False, description="`ushape serve token add NAME`"))
    for module in (routes_jobs, routes_service, routes_lease):
        app.include_router(module.router, responses=problems.RESPONSES, dependencies=[bearer])
    _add_pages(app)
    return Gate(app, store, plan.serve, Tokens(store.folder / TOKENS_FILE))


def _add_pages(app: FastAPI) -> None:
    """Adds what people see; all of it comes with the package."""

    @app.get("/docs", include_in_schema=False)
    async def docs() -> FileResponse:
        return FileResponse(SWAGGER / "docs.html", media_type="text/html")

    policy = _page_policy((PAGE / "index.html").read_text())

    @app.get("/", include_in_schema=False)
    async def index() -> FileResponse:
        headers = {"Content-Security-Policy": policy}
        return FileResponse(PAGE / "index.html", media_type="text/html", headers=headers)

    app.mount("/assets/swagger", _Assets(directory=SWAGGER))
    app.mount("/assets", _Assets(directory=PAGE))


def _page_policy(html: str) -> str:
    """Returns what the page may load: its own files, and its import map, which must be inline."""
    maps = re.findall(r'<script type="importmap">(.*?)</script>', html, re.DOTALL)
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in maps]
    scripts = " ".join(["'self'", *(f"'sha256-{each}'" for each in hashes)])
    return (
        f"default-src 'self'; script-src {scripts}; "
        "img-src 'self' data: blob:; connect-src 'self' blob:; object-src 'none'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )
