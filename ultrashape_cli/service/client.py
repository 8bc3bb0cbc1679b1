"""A refinement on a service, from the side of whoever wants it: standard library only."""

from __future__ import annotations

import http.client
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from ultrashape_cli.errors import DiskError, UsageError, UShapeError
from ultrashape_cli.files import disk_errors, temporary_path
from ultrashape_cli.service.jobs import ENDED
from ultrashape_cli.service.remote import Answered, Service

PATIENCE_S = 600.0
"""Time that a service which does not answer, or takes no more jobs, is asked again."""
LONGEST_PAUSE_S = 15.0
_PASSING = (408, 425, 429, 502, 503, 504, 507)
"""Refusals that pass by themselves."""
_PIECE = 1 << 16
_Result = TypeVar("_Result")
OnWait = Callable[[str, float], None]
"""Gets why, and for how many seconds, nothing is asked."""


@dataclass(frozen=True, slots=True)
class Happened:
    """Something that happened to a job: `progress`, `warning`, `done`; `""` that nothing did."""

    kind: str
    data: dict[str, Any]


class Form:
    """A multipart form that is read from its files while it is sent, so that none is in memory."""

    def __init__(self, files: dict[str, Path], fields: dict[str, str]) -> None:
        self._boundary = f"ushape-{secrets.token_hex(16)}"
        self._parts: list[bytes | Path] = []
        for name, path in files.items():
            # A name that would end the header early is not for others anyway.
            plain = "".join(
                letter for letter in path.name if letter.isprintable() and letter != '"'
            )
            self._add(f'name="{name}"; filename="{plain}"', path)
        for name, text in fields.items():
            self._add(f'name="{name}"', text.encode())
        self._parts.append(f"--{self._boundary}--\r\n".encode())

    def _add(self, what: str, content: bytes | Path) -> None:
        head = f"--{self._boundary}\r\nContent-Disposition: form-data; {what}\r\n\r\n"
        self._parts += [head.encode(), content, b"\r\n"]

    @property
    def headers(self) -> dict[str, str]:
        """Returns type and length."""
        sizes = [p.stat().st_size if isinstance(p, Path) else len(p) for p in self._parts]
        return {
            "Content-Type": f"multipart/form-data; boundary={self._boundary}",
            "Content-Length": str(sum(sizes)),
        }

    def __iter__(self) -> Iterator[bytes]:
        for part in self._parts:
            if isinstance(part, bytes):
                yield part
                continue
            with part.open("rb") as file:
                while piece := file.read(_PIECE):
                    yield piece


class Client:
    """Jobs of one service.

    Args:
        service: Where it is.
        on_wait: Hears that the service is waited for.
    """

    def __init__(self, service: Service, on_wait: OnWait) -> None:
        self.service, self.on_wait = service, on_wait

    def status(self) -> dict[str, Any]:
        """Returns what the service says of itself.

        Raises:
            UShapeError: It is not there, or does not know the token.
        """
        try:
            return self.service.call("GET", "/v1/status")
        except Answered as error:
            raise refusal(error) from error
        except (OSError, ValueError) as error:
            raise UShapeError(
                f"no service at `{self.service.url}` ({error})",
                hint="check address and network; `ushape serve` starts one",
            ) from error

    def submit(self, mesh: Path, image: Path, options: dict[str, Any]) -> dict[str, Any]:
        """Queues a job and returns it; tried again, it is the same job.

        Raises:
            UShapeError: The service does not take it.
        """
        key = secrets.token_hex(16)

        def send() -> dict[str, Any]:
            form = Form({"mesh_file": mesh, "image_file": image}, {"options": json.dumps(options)})
            headers = {**form.headers, "Idempotency-Key": key}
            with self.service.request("POST", "/v1/refine", form, headers) as answer:
                return json.load(answer)

        return self._patiently(send)

    def show(self, job: str) -> dict[str, Any]:
        """Returns a job as it is now."""
        return self._patiently(lambda: self.service.call("GET", f"/v1/jobs/{quote(job)}"))

    def cancel(self, job: str) -> dict[str, Any]:
        """Cancels a job that has not ended.

        Raises:
            OSError: The service cannot be reached.
        """
        return self.service.call("DELETE", f"/v1/jobs/{quote(job)}")

    def follow(self, job: str) -> Iterator[Happened]:
        """Yields what happens to a job until it ends, over lost connections.

        Raises:
            UShapeError: The service has not answered for `PATIENCE_S`.
        """
        last, lost, pause = 0, time.monotonic(), 0.5
        while True:
            try:
                for number, event in self._events(job, last):
                    last, lost, pause = number or last, time.monotonic(), 0.5
                    yield event
                    if event.kind in ENDED:
                        return
                reason = "the connection was closed"
            except (OSError, http.client.HTTPException, ValueError) as error:
                if isinstance(error, Answered) and error.status not in _PASSING:
                    raise refusal(error) from error
                reason = str(error) or type(error).__name__
            if time.monotonic() > lost + PATIENCE_S:
                raise _out_of_reach(self.service, job, reason)
            self.on_wait(reason, pause)
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    def _events(self, job: str, last: int) -> Iterator[tuple[int, Happened]]:
        headers = {"Last-Event-ID": str(last)} if last else {}
        path = f"/v1/jobs/{quote(job)}/events"
        with self.service.request("GET", path, headers=headers) as answer:
            number, kind, data = 0, "", "{}"
            for line in answer:
                name, _, value = line.decode().rstrip("\r\n").partition(":")
                value = value.removeprefix(" ")
                if name == "id":
                    number = int(value)
                elif name == "event":
                    kind = value
                elif name == "data":
                    data = value
                elif kind:  # the empty line that ends one
                    yield number, Happened(kind, json.loads(data))
                    kind, data = "", "{}"
                else:  # a sign of life
                    yield 0, Happened("", {})

    def save(self, job: str, file: str, path: Path) -> None:
        """Writes a file of a job, whole or not at all.

        Raises:
            UShapeError: The service does not give it.
            DiskError: It cannot be written.
        """
        place = f"/v1/jobs/{quote(job)}/download?file={quote(file)}"

        def copy() -> None:
            with (
                self.service.request("GET", place) as answer,
                temporary_path(path) as temporary,
            ):
                with temporary.open("wb") as target:
                    shutil.copyfileobj(answer, target, _PIECE)
                    target.flush()
                    os.fsync(target.fileno())
                got, promised = temporary.stat().st_size, answer.headers.get("Content-Length")
                if promised is not None and got != int(promised):
                    raise http.client.IncompleteRead(b"", int(promised) - got)

        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        self._patiently(copy)

    def _patiently(self, act: Callable[[], _Result]) -> _Result:
        until, pause = time.monotonic() + PATIENCE_S, 0.5
        while True:
            wait = pause
            try:
                return act()
            except Answered as error:
                if error.status not in _PASSING or time.monotonic() > until:
                    raise refusal(error) from error
                wait, reason = error.retry_s or pause, error.detail
            except (DiskError, FileNotFoundError, PermissionError):
                raise  # of this side
            except (OSError, http.client.HTTPException, ValueError) as error:
                reason = str(error) or type(error).__name__
                if time.monotonic() > until:
                    raise _out_of_reach(self.service, None, reason) from error
            self.on_wait(reason, wait)
            time.sleep(wait)
            pause = min(2 * pause, LONGEST_PAUSE_S)


def refusal(error: Answered) -> UShapeError:
    """Returns the error of a command that a service has refused."""
    kind = UsageError if error.status in (400, 409, 422) else UShapeError
    hint = error.hint
    if error.status == 401:
        hint = "--token, or the variable USHAPE_SERVER_TOKEN; `ushape serve token add` makes one"
    return kind(f"the service refuses: {error.detail or error}", hint=hint)


def _out_of_reach(service: Service, job: str | None, reason: str) -> UShapeError:
    hint = f"the job goes on: {service.url}/#job={job}" if job else "check address and network"
    return UShapeError(
        f"`{service.url}` has not answered for {PATIENCE_S / 60:.0f} minutes ({reason})", hint=hint
    )
