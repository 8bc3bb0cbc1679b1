"""How a worker and its agent talk: JSON over a pipe."""

from __future__ import annotations

import json
from multiprocessing.connection import Connection
from typing import Any


class Cancelled(Exception):
    """The job is to end here."""


class Teller:
    """Says how far a job is, and hears that it is cancelled."""

    def __init__(self, pipe: Connection, job: str) -> None:
        self._pipe, self._job = pipe, job
        self._last: tuple[str, int] = ("", -1)

    def progress(self, stage: str, percent: int) -> None:
        """Tells stage and per cent; raises Cancelled where the job is to end."""
        if (stage, percent) != self._last:
            self._last = (stage, percent)
            send(self._pipe, {"stage": stage, "percent": percent})
        while self._pipe.poll():
            message = receive(self._pipe)
            if message["do"] == "cancel" and message["job"] == self._job:
                raise Cancelled

    def note(self, text: str) -> None:
        """Tells a warning."""
        send(self._pipe, {"note": text})


def receive(pipe: Connection) -> dict[str, Any]:
    """Returns the next message; raises EOFError where the other side has ended."""
    return json.loads(pipe.recv_bytes())


def send(pipe: Connection, message: dict[str, Any]) -> None:
    """Sends a message."""
    pipe.send_bytes(json.dumps(message).encode())
