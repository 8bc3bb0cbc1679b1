"""Signals become a flag that loops look at, so that work ends at a boundary and is saved."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import sys
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType

from ultrashape_cli.streams import send_nowhere


class SignalFlag:
    """Catches INT, TERM, HUP and USR1 inside a `with` block; a second INT exits at once.

    INT is heard also where it was ignored: a process started with `&` from a script inherits it
    so. The others stay ignored where they were: `nohup` means that HUP is to change nothing. What
    was blocked (`processes.supervise` starts its children so) is heard from here on.
    """

    SIGNALS = tuple(
        signal.Signals[name]
        for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
        if hasattr(signal, name)  # Windows has but two
    )

    def __init__(self, on_first: Callable[[], None]) -> None:
        self.received: signal.Signals | None = None
        self._on_first = on_first
        self._previous: dict[signal.Signals, object] = {}

    def __bool__(self) -> bool:
        return self.received is not None

    @property
    def exit_code(self) -> int:
        """130 after INT, 143 after the others; schedulers send USR1 before the time is up."""
        return 130 if self.received == signal.SIGINT else 143

    def __enter__(self) -> SignalFlag:
        for number in self.SIGNALS:
            if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN:
                self._previous[number] = signal.signal(number, self._handle)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self.SIGNALS)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            # None stands for a handler that was not installed from Python.
            signal.signal(number, handler or signal.SIG_DFL)  # type: ignore[arg-type]

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            os._exit(130)
        if self.received is None:
            self.received = signal.Signals(number)
            if self.received.name == "SIGHUP":
                _leave_terminal()
            # Saying so may fail where the signal means that the terminal is gone.
            with contextlib.suppress(Exception):
                self._on_first()


@contextlib.contextmanager
def exit_on_terminate() -> Iterator[None]:
    """Lets TERM unwind the block with exit code 143, as Ctrl-C does: temporary files go."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    previous = signal.signal(signal.SIGTERM, stop)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        # None stands for a handler that was not installed from Python.
        signal.signal(signal.SIGTERM, previous or signal.SIG_DFL)


def _leave_terminal() -> None:
    """Sends what goes to a closed terminal nowhere: an error there would stop the saving."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            if stat.S_ISCHR(os.fstat(stream.fileno()).st_mode):
                send_nowhere(stream)
