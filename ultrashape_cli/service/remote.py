"""A service on another machine, for workers here: every call is a request that this side makes."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import ssl
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, urlencode, urlsplit

from ultrashape_cli import __version__
from ultrashape_cli.errors import UsageError, UShapeError
from ultrashape_cli.files import file_hash
from ultrashape_cli.service.jobs import Lease, Outcome
from ultrashape_cli.service.lessor import Answer, attempt_folder

TIMEOUT_S = 60.0
_PIECE = 1 << 16
_TELL_S = 5.0
_ROOM_BYTES = 100 << 20


class Answered(OSError):
    """A service that answered with an error; most pass, so it counts as one out of reach."""

    def __init__(self, status: int, told: dict[str, Any], retry_s: float = 0.0) -> None:
        self.detail, self.hint = str(told.get("detail", "")), told.get("hint")
        help_ = f" (hint: {self.hint})" if self.hint else ""
        super().__init__(f"{status}: {self.detail}{help_}")
        self.status, self.retry_s = status, retry_s


class Service:
    """Requests to a service.

    Args:
        url: Where it listens.
        token: Its bearer token, empty for none.
    """

    def __init__(self, url: str, token: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(f"`{url}` is no http or https address",
                             hint="such as http://127.0.0.1:8000")  # fmt: skip
        self.url, self._token = url.rstrip("/"), token
        self._secure, self._path = parts.scheme == "https", parts.path.rstrip("/")
        self._host = parts.hostname
        self._port = parts.port or (443 if self._secure else 80)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Sends JSON and returns the JSON of the answer, None where it has none.

        Raises:
            Answered: The service refused.
            OSError: It cannot be reached.
        """
        data = None if body is None else json.dumps(body).encode()
        with self.request(method, path, data, {"Content-Type": "application/json"}) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def request(
        self,
        method: str,
        path: str,
        body: bytes | IO[bytes] | Iterable[bytes] | None = None,
        headers: dict[str, str] | None = None,
    ) -> http.client.HTTPResponse:
        """Returns an answer to read and close.

        Raises:
            Answered: The service refused.
            OSError: It cannot be reached.
        """
        if self._secure:
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                self._host, self._port, timeout=TIMEOUT_S, context=ssl.create_default_context()
            )
        else:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT_S)
        sent = {"User-Agent": f"ushape/{__version__}", "Connection": "close", **(headers or {})}
        if self._token:
            sent["Authorization"] = f"Bearer {self._token}"
        try:
            # One that refuses may close before all is sent; it has said why.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.request(method, f"{self._path}{path}", body, sent)
            answer = connection.getresponse()
        except http.client.HTTPException as error:
            raise OSError(f"no answer of {self.url}: {type(error).__name__}") from error
        if answer.status >= 400:
            with answer:
                retry = answer.headers.get("Retry-After", "0")
                seconds = float(retry) if retry.isdecimal() else 0.0
                raise Answered(answer.status, _told(answer.read(1 << 16)), seconds)
        return answer


def _told(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"detail": body[:200].decode(errors="replace")}


@dataclass(slots=True)
class HttpLessor:
    """Leases of a service on another machine."""

    service: Service
    worker: str
    models: Sequence[str]
    folder: Path
    """Where files of jobs wait; they go when the lease ends."""
    poll_s: float = 1.0

    def lease(self) -> Lease | None:
        """Returns a job to work on, None where none waits."""
        ask = {"worker": self.worker, "models": list(self.models)}
        found = self.service.call("POST", "/v1/lease", ask)
        if found is None:
            return None
        found.pop("lease_s")
        return Lease(**found)

    def fetch(self, lease: Lease) -> Path:
        """Returns a folder with the inputs, whole."""
        folder = self.folder / f"{lease.job}-{lease.fence}"
        folder.mkdir(parents=True, exist_ok=True)
        for name, part in lease.inputs.items():
            path = folder / Path(part["file"]).name
            query = urlencode({"fence": lease.fence, "file": name})
            place = f"/v1/lease/{quote(lease.job)}/input?{query}"
            with self.service.request("GET", place) as answer, path.open("wb") as file:
                self._copy(lease, answer, file)
            if file_hash(path) != part["sha256"]:
                raise OSError(f"the {name} of {lease.job} did not arrive whole")
        return folder

    def beat(self, lease: Lease, stage: str, percent: int, notes: Sequence[str]) -> Answer:
        """Keeps the lease; says whether to go on."""
        sign = {"fence": lease.fence, "stage": stage, "percent": percent, "notes": list(notes)}
        return self.service.call("POST", f"/v1/lease/{quote(lease.job)}/beat", sign)["state"]

    def finish(self, lease: Lease, outcome: Outcome) -> bool:
        """Sends what was made, then ends the lease; False where it counts no more."""
        made = attempt_folder(self.folder / f"{lease.job}-{lease.fence}", lease.fence)
        try:
            for path in outcome.files.values():
                self._put(lease, made / Path(path).name)
            end = {
                "fence": lease.fence, "state": outcome.state, "result": outcome.result,
                "files": outcome.files, "error": outcome.error,
            }  # fmt: skip
            counted = self.service.call("POST", f"/v1/lease/{quote(lease.job)}/end", end)["counted"]
        except Answered as error:
            if error.status not in (404, 409):
                raise
            counted = False
        self.drop(lease)
        return counted

    def drop(self, lease: Lease) -> None:
        """Removes what was made under a lease that counts no more."""
        shutil.rmtree(self.folder / f"{lease.job}-{lease.fence}", ignore_errors=True)

    def has_room(self) -> bool:
        """Says whether the disk has room for what a job makes."""
        return shutil.disk_usage(self.folder.parent).free > _ROOM_BYTES

    def tell(self, state: str, data: dict[str, Any]) -> None:
        """Says what the worker is doing."""
        data = {"host": os.uname().nodename, **data}
        self.service.call(
            "POST", "/v1/lease/worker", {"worker": self.worker, "state": state, "data": data}
        )

    def _copy(self, lease: Lease, answer: IO[bytes], file: IO[bytes]) -> None:
        """Receives a file; a slow line must not cost the lease."""
        told = time.monotonic()
        while piece := answer.read(_PIECE):
            file.write(piece)
            if time.monotonic() - told > _TELL_S:
                told = time.monotonic()
                self.beat(lease, "fetch", 0, [])

    def _put(self, lease: Lease, path: Path) -> None:
        query = urlencode({"fence": lease.fence, "name": path.name, "sha256": file_hash(path)})
        headers = {"Content-Length": str(path.stat().st_size),
                   "Content-Type": "application/octet-stream"}  # fmt: skip
        with path.open("rb") as file:
            place = f"/v1/lease/{quote(lease.job)}/file?{query}"
            self.service.request("PUT", place, file, headers).close()


def greet(service: Service) -> dict[str, Any]:
    """Returns the status of a service.

    Raises:
        UShapeError: It is not there, is of another version, or does not know the token.
    """
    try:
        found = service.call("GET", "/v1/status")
    except Answered as error:
        hint = "--token, as `ushape serve token add NAME --role worker` prints it"
        raise UShapeError(f"`{service.url}` refuses: {error}",
                          hint=hint if error.status == 401 else None) from error  # fmt: skip
    except (OSError, ValueError) as error:
        raise UShapeError(
            f"no service at `{service.url}` ({error})",
            hint="start one there: ushape serve --host 0.0.0.0",
        ) from error
    return found
