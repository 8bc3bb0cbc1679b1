"""TensorBoard for runs: their metrics as event files in a temporary folder, and its server.

Runs need no tracker for this; what metrics.jsonl holds is written as it grows.
"""

from __future__ import annotations

import getpass
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from ultrashape_cli.errors import DependencyError
from ultrashape_cli.monitoring.history import Line, MetricsHistory
from ultrashape_cli.runs import RunFolder

FIRST_PORT, NUM_PORTS = 6006, 100
MAX_BACKFILL = 800
"""Lines of the past that are written; a curve needs no more."""
_NOT_METRICS = frozenset({"step", "time"})


class Feed:
    """Keeps the event file of one run up to its metrics."""

    def __init__(self, run: RunFolder, folder: Path) -> None:
        """Writes the past.

        Args:
            run: To follow.
            folder: Of the event files, for this run alone.
        """
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._history = MetricsHistory(run.metrics)
        self._writer = EventFileWriter(str(folder))
        self._last = -1.0
        self._history.update()
        lines = self._history.lines
        stride = -(-len(lines) // MAX_BACKFILL) or 1
        self._write([*lines[:-1:stride], *lines[-1:]], self._history.validations)

    def update(self) -> None:
        """Writes what is new."""
        self._history.update()
        new = [line for line in self._history.recent(1000) if line["step"] > self._last]
        self._write(new, ())

    def close(self) -> None:
        """Closes the file."""
        self._writer.close()

    def _write(self, lines: Sequence[Line], more: Sequence[Line]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        by_step = {line["step"]: line for line in (*lines, *more)}
        for step in sorted(by_step):
            line = by_step[step]
            values = [
                Summary.Value(tag=name, simple_value=value)
                for name, value in line.items()
                if name not in _NOT_METRICS
            ]
            moment = {"wall_time": line.get("time", 0.0), "step": int(step)}
            self._writer.add_event(Event(**moment, summary=Summary(value=values)))
            self._last = max(self._last, step)
        self._writer.flush()


@contextmanager
def serve(runs: Sequence[RunFolder]) -> Iterator[tuple[int, list[Feed]]]:
    """Runs a TensorBoard on this machine's loopback; yields its port and the feeds to update.

    Raises:
        DependencyError: It is not installed.
    """
    if importlib.util.find_spec("tensorboard") is None:
        hint = "pip install 'ultrashape-cli[tensorboard]'"
        raise DependencyError("TensorBoard is not installed", hint=hint)
    folder = Path(tempfile.mkdtemp(prefix="ushape-tensorboard-"))
    feeds = [Feed(run, folder / run.root.absolute().name) for run in runs]
    port = free_port()
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder)]
    command += ["--host", "localhost", "--port", str(port), "--reload_interval", "5"]
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    # By default these end this process at once, and the server would stay.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, frame: sys.exit(128 + number))
    try:
        yield port, feeds
    finally:
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        server.terminate()
        server.wait()
        for feed in feeds:
            feed.close()
        shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    """Returns the first free port from 6006 on; 6006 itself where none is."""
    for port in range(FIRST_PORT, FIRST_PORT + NUM_PORTS):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    return FIRST_PORT


def tunnel_command(port: int, environ: Mapping[str, str] | None = None) -> str:
    """Returns what to type on one's own computer to see a port of this machine.

    The address is the one that the ssh session of this shell came in by.
    """
    connection = (os.environ if environ is None else environ).get("SSH_CONNECTION", "").split()
    host, option = socket.gethostname(), ""
    if len(connection) == 4:
        host = connection[2]
        option = "" if connection[3] == "22" else f"-p {connection[3]} "
    return f"ssh -N -L {port}:localhost:{port} {option}{getpass.getuser()}@{host}"
