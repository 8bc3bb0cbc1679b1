"""Standard streams whose reader may go: what nobody reads must not stop the work."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Any, TextIO


class LastingStream:
    """A text stream that goes to nowhere once its pipe or terminal is gone."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes as long as somebody reads."""
        try:
            return self._stream.write(text)
        except OSError:
            send_nowhere(self._stream)
            return len(text)

    def flush(self) -> None:
        """Flushes as long as somebody reads."""
        try:
            self._stream.flush()
        except OSError:
            send_nowhere(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def send_nowhere(stream: TextIO) -> None:
    """Redirects the file below a stream, for native code and child processes too."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    with suppress(OSError, ValueError):
        os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def keep_talking() -> None:
    """Lets this process go on when nobody reads its standard error any more."""
    if sys.stderr is not None and not isinstance(sys.stderr, LastingStream):
        sys.stderr = LastingStream(sys.stderr)
