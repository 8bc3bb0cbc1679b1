"""TensorBoard for runs: their metrics as event files in a temporary folder, and its server.

The format of the event files is TensorFlow's record format around the `Event` message of
TensorBoard; both are written here, so that only the server needs a package.
"""

from __future__ import annotations

import getpass
import importlib.util
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ultrashape_cli.errors import DependencyError
from ultrashape_cli.monitoring.history import Line, MetricsHistory
from ultrashape_cli.runs import RunFolder

FIRST_PORT, NUM_PORTS = 6006, 100
MAX_BACKFILL = 800
"""Lines of the past that are written; a curve needs no more."""
_HEAD = struct.Struct("<Q")
_CRC = struct.Struct("<I")
_NOT_METRICS = frozenset({"step", "time"})


class Feed:
    """Keeps the event file of one run up to its metrics."""

    def __init__(self, run: RunFolder, folder: Path) -> None:
        """Writes the past.

        Args:
            run: To follow.
            folder: Of the event files, for this run alone.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._history = MetricsHistory(run.metrics)
        self._file: IO[bytes] = (folder / "events.out.tfevents.0.ushape").open("wb")
        self._file.write(_record(_version()))
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
        self._file.close()

    def _write(self, lines: Sequence[Line], more: Sequence[Line]) -> None:
        by_step = {line["step"]: line for line in (*lines, *more)}
        for step in sorted(by_step):
            self._file.write(_record(event(by_step[step])))
            self._last = max(self._last, step)
        self._file.flush()


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


def event(line: Line) -> bytes:
    """Returns the Event message of one line of metrics."""
    values = b"".join(
        _field(1, _field(1, name.encode()) + b"\x15" + struct.pack("<f", value))
        for name, value in line.items()
        if name not in _NOT_METRICS
    )
    moment = b"\x09" + struct.pack("<d", line.get("time", 0.0))
    return moment + b"\x10" + _varint(int(line["step"])) + _field(5, values)


def _version() -> bytes:
    return b"\x09" + struct.pack("<d", time.time()) + _field(3, b"brain.Event:2")


def _field(number: int, body: bytes) -> bytes:
    """Returns a field of bytes of a protocol buffer."""
    return bytes([number << 3 | 2]) + _varint(len(body)) + body


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _record(body: bytes) -> bytes:
    head = _HEAD.pack(len(body))
    return head + _CRC.pack(_masked_crc(head)) + body + _CRC.pack(_masked_crc(body))


def _masked_crc(data: bytes) -> int:
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def crc32c(data: bytes) -> int:
    """Returns the CRC-32C (Castagnoli) of data."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def _make_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_TABLE = _make_table()
