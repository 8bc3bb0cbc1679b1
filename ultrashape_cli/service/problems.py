"""Errors as RFC 9457 says: what is wrong, and a hint that helps, as for every command."""

from __future__ import annotations

import errno
import logging
import sqlite3
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from ultrashape_cli.errors import ConfigError, DiskError, UShapeError
from ultrashape_cli.service.content import BadFile
from ultrashape_cli.service.jobs import KeyConflict, QueueFull

logger = logging.getLogger(__name__)

RETRY_S = 15
"""Seconds after which a full queue or a full disk is worth another try."""


class Problem(Exception):
    """An answer that is an error.

    Args:
        status: Of HTTP.
        code: One word for programs, such as `too-large`.
        detail: What is wrong, for people.
        hint: What helps.
        retry_s: Seconds after which to try again.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        hint: str | None = None,
        retry_s: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail = status, code, detail
        self.hint, self.retry_s = hint, retry_s

    def response(self) -> JSONResponse:
        """Returns the answer."""
        body: dict[str, Any] = {
            "type": f"urn:ushape:problem:{self.code}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
        }
        if self.hint:
            body["hint"] = self.hint
        headers = {}
        if self.retry_s is not None:
            headers["Retry-After"] = str(max(1, round(self.retry_s + 0.5)))
        if self.status == 408:
            headers["Connection"] = "close"
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse(
            body, self.status, headers=headers, media_type="application/problem+json"
        )


RESPONSES: dict[int | str, dict[str, Any]] = {
    code: {
        "description": HTTPStatus(code).phrase,
        "content": {
            "application/problem+json": {
                "schema": {
                    "type": "object",
                    "required": ["type", "title", "status", "code", "detail"],
                    "properties": {
                        "type": {"type": "string"},
                        "title": {"type": "string"},
                        "status": {"type": "integer"},
                        "code": {"type": "string"},
                        "detail": {"type": "string"},
                        "hint": {"type": "string"},
                    },
                }
            }
        },
    }
    for code in (400, 401, 403, 404, 405, 408, 409, 413, 415, 422, 429, 503, 507)
}
"""What any path may answer, for the documentation."""


def no_job(job: str) -> Problem:
    """Returns the error of a job that is not there, or not for this token."""
    return Problem(404, "no-job", f"there is no job `{job[:80]}`", hint="GET /jobs lists yours")


def problem_of(error: Exception) -> Problem:
    """Returns what a client is told of an error."""
    match error:
        case Problem():
            return error
        case KeyConflict():
            return Problem(409, "key-conflict", error.message, hint=error.hint)
        case QueueFull():
            return Problem(429, "queue-full", error.message, hint=error.hint, retry_s=RETRY_S)
        case ClientDisconnect():
            return Problem(400, "gone", "the client left before all was sent")
        case BadFile():
            return Problem(error.status, error.code, error.message, hint=error.hint)
        case ConfigError():
            return Problem(422, "bad-options", error.message, hint=error.hint)
        case DiskError() if "no space" in error.message or "quota" in error.message:
            return disk_full()
        case DiskError():
            logger.error("%s (%s)", error.message, error.hint)
            return Problem(503, "storage", "the service cannot use its storage",
                           hint="its log says what helps", retry_s=RETRY_S)  # fmt: skip
        case UShapeError():
            return Problem(422, "bad-request", error.message, hint=error.hint)
        case sqlite3.OperationalError() if "locked" in str(error) or "busy" in str(error):
            return Problem(503, "busy", "the queue is busy", retry_s=2)
        case OSError() if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return disk_full()
    logger.error("a bug in a request", exc_info=error)
    return Problem(500, "bug", "a bug in ushape", hint="the service's log has the details")


def disk_full() -> Problem:
    """Returns the error of a disk without room."""
    return Problem(507, "disk-full", "the disk of the service is full", retry_s=60)


def install(app: FastAPI) -> None:
    """Lets every error of an app be a problem."""

    async def known(request: Request, error: Exception) -> JSONResponse:
        return problem_of(error).response()

    async def invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        found = [
            f"{'.'.join(str(part) for part in each['loc'])}: {each['msg']}"
            for each in error.errors()
        ]
        return Problem(422, "bad-request", "; ".join(found)[:1000]).response()

    async def http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        words = {404: "not-found", 405: "bad-method", 413: "too-large", 400: "bad-request"}
        code = words.get(error.status_code, "error")
        response = Problem(error.status_code, code, str(error.detail)).response()
        response.headers.update(error.headers or {})
        return response

    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    for kind in (Problem, UShapeError, sqlite3.OperationalError, OSError):
        app.add_exception_handler(kind, known)
    app.add_exception_handler(Exception, known)
