"""A service for tests: real processes, with a worker that has no model unless one is asked for.

`python -m serving FOLDER JSON` runs one; JSON has the settings, and `job`, the worker's module.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ultrashape_cli.config.resolve import resolve
from ultrashape_cli.service.options import Settings
from ultrashape_cli.service.plan import Checkpoint, Plan
from ultrashape_cli.service.store import Store

ROOT = Path(__file__).parent.parent
QUICK = {
    "serve.port": 0,
    "serve.lease_s": 3.0,
    "serve.heartbeat_s": 0.5,
    "serve.cancel_s": 1.0,
    "serve.grace_s": 0.5,
    "serve.upload_idle_s": 1.5,
    "serve.min_free_gb": 0.0,
    "serve.submits_per_minute": 100_000.0,
    "serve.requests_per_minute": 1_000_000.0,
    "serve.max_queued_per_token": 100_000,
    "serve.max_queued": 100_000,
}
"""Settings of tests: nothing waits long."""


def make_plan(job: str = "fake_worker", engine: str = "local", **settings: Any) -> Plan:
    """Returns the plan of a service with the packaged weights."""
    flags = {"profile": "cpu", "device": "cpu", "engine.kind": engine}
    given = {f"serve.{name}": value for name, value in settings.items()}
    config = resolve(flags={**flags, **QUICK, **given}, environ={}, model="tiny").config
    tiny = Checkpoint(None, "tiny", "tiny", "Apache-2.0", None, None, {"dit": "tiny.safetensors"})
    return Plan(config, {"tiny": tiny}, Settings(None, (), flags, True), [], job)


class Served:
    """A service that runs, its address, and the means to end it."""

    def __init__(self, folder: Path, job: str = "fake_worker", **settings: Any) -> None:
        self.folder = folder
        self.store = Store(folder)
        self.errors = folder.with_name(f"{folder.name}-errors.txt")
        self.settings = {"job": job, **settings}
        self.process: subprocess.Popen[bytes] | None = None
        self.url = ""

    def start(self, **environ: str) -> Served:
        """Starts the service and waits until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        said = self.folder.with_name(f"{self.folder.name}-said.txt")
        said.unlink(missing_ok=True)
        with self.errors.open("ab") as errors, said.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "serving", str(self.folder), json.dumps(self.settings)],
                stdout=output,
                stderr=errors,
                env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", **environ},
            )
        until = time.monotonic() + 60
        while not said.read_text().endswith("\n"):
            assert self.process.poll() is None, self.errors.read_text()
            assert time.monotonic() < until
            time.sleep(0.02)
        self.url = said.read_text().strip()
        return self

    def kill(self) -> None:
        """Ends the parent as a power cut would; all others end with it."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ends the service in good order and returns its exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(60)

    def log(self) -> str:
        """Returns what the service wrote down."""
        path = self.folder / "log.txt"
        return path.read_text() if path.exists() else ""


@contextlib.contextmanager
def served(folder: Path, job: str = "fake_worker", **settings: Any) -> Iterator[Served]:
    """Yields a running service and ends it."""
    service = Served(folder, job, **settings).start()
    try:
        yield service
    finally:
        if service.process is not None and service.process.poll() is None:
            service.stop()


def png(width: int = 16, height: int = 16) -> bytes:
    """Returns a small picture whose header says this size; its upper half is transparent."""
    rows = b"".join(b"\0" + (b"\0\0\0\0" if y < 8 else b"\xc0\x60\x30\xff") * 16 for y in range(16))
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )


TETRAHEDRON = b"OFF\n4 4 6\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n3 0 2 1\n3 0 1 3\n3 0 3 2\n3 1 2 3\n"


def files(mesh: bytes = TETRAHEDRON, image: bytes | None = None, name: str = "a.off") -> list[Any]:
    """Returns the parts of a submission, as httpx takes them."""
    image = png() if image is None else image
    return [("mesh_file", (name, mesh)), ("image_file", ("a.png", image))]


def free_port() -> int:
    """Returns a port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def wait_for(check: Any, seconds: float = 90.0, pause: float = 0.05) -> Any:
    """Returns what `check` returns once it is true."""
    until = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < until, "waited in vain"
        time.sleep(pause)
    return found


def main() -> None:
    """Runs a service until it gets a signal."""
    from ultrashape_cli.interrupts import SignalFlag
    from ultrashape_cli.service.supervisor import Supervisor

    folder, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
    logging.basicConfig(
        filename=folder / "log.txt", level=logging.INFO, format="%(asctime)s serve %(message)s"
    )
    supervisor = Supervisor(make_plan(**settings), folder)
    with SignalFlag(lambda: None) as flag:
        sys.stdout.write(f"http://127.0.0.1:{supervisor.port}\n")
        sys.stdout.flush()
        supervisor.run(flag)
    sys.exit(flag.exit_code)


if __name__ == "__main__":
    main()
