"""What every request passes first: names, who asks, how often, how large; headers of answers.

All of it happens before a body is read: a request that is refused here has cost no space.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ultrashape_cli.config.serve import ServeConfig
from ultrashape_cli.service import jobs
from ultrashape_cli.service.auth import LOCAL_OWNER, Tokens, is_own
from ultrashape_cli.service.limits import Rate
from ultrashape_cli.service.problems import RETRY_S, Problem, disk_full, problem_of
from ultrashape_cli.service.store import Store

PREFIX = "/v1"
COOKIE = "ushape_session"
OPEN = frozenset({"/v1/health", "/v1/ready", "/", "/docs", "/openapi.json"})
"""Paths that tell nothing of anybody; so do those below `/assets/`."""
ALIASED = frozenset(
    {"refine", "jobs", "queue", "health", "ready", "status", "metrics", "logs", "options",
     "session", "lease"}
)  # fmt: skip
LARGEST_RESULT = 8 << 30
"""Bytes of a file that a worker of another machine may send."""
_SMALL_BODY = 1 << 16
_LEAST_RATE = 1024
"""Bytes per second that an upload must come at on average, once `upload_idle_s` are over."""
_DRAINED, _DRAIN_S, _SILENCE_S = 4 << 20, 5.0, 0.5
"""A refused body is read so far: a client that still sends would not see the answer."""
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self' blob: data:; worker-src 'self' blob:; style-src 'self' 'unsafe-inline'; "
    "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks."""

    name: str
    is_admin: bool
    may_lease: bool

    @property
    def sees(self) -> str | None:
        """Returns whose jobs the caller sees; None for all."""
        return None if self.is_admin else self.name


class Gate:
    """Wraps the app; each request is aliased, judged and limited before the app sees it."""

    def __init__(self, app: ASGIApp, store: Store, config: ServeConfig, tokens: Tokens) -> None:
        self.app, self.store, self.config, self.tokens = app, store, config, tokens
        self.submits = Rate(config.submits_per_minute)
        self.requests = Rate(config.requests_per_minute)
        largest = 1e6 * (config.max_mesh_mb + config.max_images * config.max_image_mb + 1)
        self._limited = {
            limit: RequestBodyLimitMiddleware(app, max_body_size=limit)
            for limit in (_SMALL_BODY, int(largest), LARGEST_RESULT)
        }
        self._largest = int(largest)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or passes it on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        scope = _aliased(scope)
        send = _with_headers(send)
        if scope["method"] == "HEAD":
            scope["method"], send = "GET", _without_body(send)
        headers = Headers(scope=scope)
        try:
            caller = await self._judge(scope, headers)
            limit = self._limit(scope)
            length = headers.get("content-length", "0")
            if not length.isdecimal():
                raise Problem(400, "bad-length", "the Content-Length is no number")
            if int(length) > limit:
                raise Problem(413, "too-large", f"the body is larger than {limit:,} bytes")
        except Exception as error:
            await _drain(receive, headers)
            await problem_of(error).response()(scope, receive, send)
            return
        scope.setdefault("state", {})["caller"] = caller
        await self._limited[limit](scope, self._impatient(receive), send)

    async def _judge(self, scope: Scope, headers: Headers) -> Caller | None:
        """Returns who asks; raises Problem where it is not allowed."""
        path, method = scope["path"], scope["method"]
        closed = self.tokens.required or not is_own(self.config.host)
        self._check_names(method, headers, closed=closed)
        if path in OPEN or path.startswith("/assets/"):
            with suppress(Problem):
                return self._caller(headers, closed=closed)
            return None
        caller = self._caller(headers, closed=closed)
        is_submit = (method, path) == ("POST", "/v1/refine")
        wait = (self.submits if is_submit else self.requests).take(caller.name)
        if wait:
            raise Problem(429, "too-often", f"`{caller.name}` asks too often", retry_s=wait)
        if is_submit:
            await run_in_threadpool(self._check_open, caller, headers.get("idempotency-key"))
        return caller

    def _check_names(self, method: str, headers: Headers, *, closed: bool) -> None:
        """Refuses what pages of other sites let a browser send."""
        host = headers.get("host", "")
        name = (urlsplit(f"//{host}").hostname or "") if "@" not in host else ""
        if not closed and name not in ("localhost", "127.0.0.1", "::1", self.config.host):
            # A site whose name is made to lead here has that name in the request.
            raise Problem(403, "bad-host", f"this service is not `{host[:80]}`",
                          hint=f"http://127.0.0.1:{self.config.port}")  # fmt: skip
        origin = headers.get("origin")
        if method not in ("GET", "HEAD", "OPTIONS") and origin is not None:
            with suppress(ValueError):
                if urlsplit(origin).netloc == host:
                    return
            raise Problem(403, "bad-origin", "a page of another site may not ask this")

    def _caller(self, headers: Headers, *, closed: bool) -> Caller:
        if not closed:
            return Caller(LOCAL_OWNER, is_admin=True, may_lease=True)
        kind, _, secret = headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer":
            secret = cookie_parser(headers.get("cookie", "")).get(COOKIE, "")
        token = self.tokens.find(secret.strip())
        if token is None:
            raise Problem(401, "no-token", "a valid token is needed",
                          hint="Authorization: Bearer TOKEN")  # fmt: skip
        return Caller(token.name, token.is_admin, token.may_lease)

    def _check_open(self, caller: Caller, key: str | None) -> None:
        """Refuses a submission for which there is no place, before its body is read."""
        db, config = self.store.connection, self.config
        if key is not None and not 0 < len(key) <= 200:
            raise Problem(400, "bad-key", "an Idempotency-Key has 1 to 200 characters")
        if self.store.get_meta("state") == "stopping":
            raise Problem(503, "stopping", "the service is being stopped", retry_s=RETRY_S)
        if self.store.free_bytes() < config.min_free_gb * 1e9:
            raise disk_full()
        query = "SELECT 1 FROM requests WHERE owner = ? AND key = ?"
        if key and db.execute(query, (caller.name, key)).fetchone():
            return
        jobs.check_room(db, caller.name, 1, config.max_queued, config.max_queued_per_token)

    def _limit(self, scope: Scope) -> int:
        if (scope["method"], scope["path"]) == ("POST", "/v1/refine"):
            return self._largest
        if scope["method"] == "PUT" and scope["path"].startswith("/v1/lease/"):
            return LARGEST_RESULT
        return _SMALL_BODY

    def _impatient(self, receive: Receive) -> Receive:
        """Gives up a body that stays silent, such as one shorter than was promised."""
        whole, read_bytes, began = False, 0, time.monotonic()

        async def read() -> Message:
            nonlocal whole, read_bytes
            if whole:  # what follows is the client's leave, which has time
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), self.config.upload_idle_s)
            except TimeoutError:
                seconds = self.config.upload_idle_s
                raise Problem(408, "too-slow", f"nothing came for {seconds:g} s") from None
            whole = not message.get("more_body", False)
            read_bytes += len(message.get("body", b""))
            late = time.monotonic() - began - self.config.upload_idle_s
            if not whole and late > read_bytes / _LEAST_RATE:
                raise Problem(408, "too-slow", "the upload is slower than 1 KiB/s")
            return message

        return read


def _aliased(scope: Scope) -> Scope:
    """Lets `/jobs/...` mean `/v1/jobs/...`."""
    path = scope["path"]
    if path.split("/")[1:2] and path.split("/")[1] in ALIASED:
        raw = scope.get("raw_path") or path.encode()
        return {**scope, "path": PREFIX + path, "raw_path": PREFIX.encode() + raw}
    return dict(scope)


def _with_headers(send: Send) -> Send:
    async def answer(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(raw=message["headers"])
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
            headers.setdefault("Cache-Control", "no-store")
        await send(message)

    return answer


def _without_body(send: Send) -> Send:
    async def answer(message: Message) -> None:
        body = message["type"] == "http.response.body"
        await send({**message, "body": b""} if body else message)

    return answer


async def _drain(receive: Receive, headers: Headers) -> None:
    length = headers.get("content-length", "0")
    # One that expects to be asked sends nothing before.
    if (length == "0" and "transfer-encoding" not in headers) or "expect" in headers:
        return
    read, until = 0, time.monotonic() + _DRAIN_S
    with suppress(TimeoutError):
        while read < _DRAINED and time.monotonic() < until:
            message = await asyncio.wait_for(receive(), _SILENCE_S)
            read += len(message.get("body", b""))
            if not message.get("more_body", False):
                return
