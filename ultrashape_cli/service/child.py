"""A process of ours that answers over a pipe: a worker with its model, or a guard that parses."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from ultrashape_cli.processes import end_with_parent, start_with_pipe

_GRACE_S = 2.0
_TAIL = 4096


PARENT = "_PARENT_OF_USHAPE"
"""Variable with the process that started this one, which may have ended before this began."""


def end_with_starter() -> None:
    """Lets this process be killed when the one that started it ends, or has ended already."""
    end_with_parent(signal.SIGKILL, int(os.environ[PARENT]))


class Child:
    """One child process, what it says, and why it ended."""

    def __init__(
        self, module: str, arguments: Sequence[str], environ: Mapping[str, str], log: Path
    ) -> None:
        """Starts `python -m module PIPE_FD *arguments`.

        Args:
            module: What it runs.
            arguments: After the number of its end of the pipe.
            environ: Variables beside those of this process.
            log: File that gets what it prints.
        """
        self.log = log
        self.log_from = log.stat().st_size if log.exists() else 0
        variables = {**environ, PARENT: str(os.getpid())}
        with log.open("ab") as output:
            self.process, self.pipe = start_with_pipe(module, arguments, variables, output)

    @property
    def alive(self) -> bool:
        """Says whether the process runs."""
        return self.process.poll() is None

    def send(self, message: Mapping[str, Any]) -> None:
        """Sends a message; where the process is gone, its end of the pipe says so later."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.pipe.send_bytes(json.dumps(message).encode())

    def receive(self, timeout_s: float) -> dict[str, Any] | None:
        """Returns the next message, None where none comes in time.

        Raises:
            EOFError: The process has ended.
        """
        try:
            if not self.pipe.poll(timeout_s):
                return None
            return json.loads(self.pipe.recv_bytes())
        except (ConnectionResetError, BrokenPipeError, ValueError) as error:
            raise EOFError from error

    def memory_bytes(self) -> int:
        """Returns the memory of the process, 0 where it is gone."""
        try:
            return psutil.Process(self.process.pid).memory_info().rss
        except psutil.Error:
            return 0

    def cpu_seconds(self) -> float:
        """Returns what the process has computed, 0 where it is gone."""
        try:
            times = psutil.Process(self.process.pid).cpu_times()
            return times.user + times.system
        except psutil.Error:
            return 0.0

    @property
    def was_killed(self) -> bool:
        """Says whether a process that has ended was killed."""
        return self.process.returncode == -signal.SIGKILL

    def death(self) -> str:
        """Returns how a process ended that ended by itself, with the last that it printed."""
        try:
            code = self.process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:  # native code closed its end of the pipe
            self.kill()
            code = self.process.wait()
        last = self.said().strip().splitlines()[-1:]
        said = f" ({last[0].strip()[:200]})" if last else ""
        if code == -signal.SIGKILL:
            return "was killed from outside, or for lack of memory"
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return f"ended with {name}{said}"

    def said(self) -> str:
        """Returns the end of what it printed."""
        with self.log.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(self.log_from, end - _TAIL))
            return file.read().decode(errors="replace")

    def kill(self) -> None:
        """Ends the process and its children, at once."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.pipe.close()

    def stop(self, grace_s: float) -> None:
        """Lets the process end by closing its pipe, and kills it where it does not."""
        self.pipe.close()
        until = time.monotonic() + grace_s
        while self.alive and time.monotonic() < until:
            time.sleep(0.02)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
