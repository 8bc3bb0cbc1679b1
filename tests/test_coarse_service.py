"""`examples/coarse/hosted.sh` against a service of one process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "examples" / "coarse" / "hosted.sh"
pytestmark = pytest.mark.skipif(
    not (shutil.which("curl") and shutil.which("python3")), reason="the script needs curl, python3"
)


class Service(ThreadingHTTPServer):
    """Takes an image, says twice that it works, then where the mesh is."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[tuple[str, str, str | None]] = []
        self.body = b""
        self.states = ["waiting", "working", "done"]

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Service

    def do_POST(self) -> None:
        self.server.body = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer({"id": "j1"})

    def do_GET(self) -> None:
        if self.path == "/files/mesh.glb":
            self._answer(b"glTF, say")
        else:
            url = f"{self.server.address}/files/mesh.glb"
            self._answer({"state": self.server.states.pop(0), "url": url})

    def _answer(self, content: object) -> None:
        self.server.asked.append((self.command, self.path, self.headers["Authorization"]))
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *given: object) -> None:
        pass


@pytest.fixture
def service() -> Iterator[Service]:
    with Service() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def fetched(service: Service, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    (tmp_path / "an image.png").write_bytes(b"pixels")
    own = {"COARSE_API": f"{service.address}/shapes", "COARSE_API_KEY": "key-1",
           "COARSE_API_PAUSE": "0", "no_proxy": "127.0.0.1"}  # fmt: skip
    command = ["sh", SCRIPT, tmp_path / "an image.png", tmp_path / "out.glb", "7"]
    return subprocess.run(  # noqa: PLW1510
        command, env={**os.environ, **own}, capture_output=True, text=True, timeout=60
    )


def test_a_service_is_asked_until_it_is_ready(service: Service, tmp_path: Path) -> None:
    result = fetched(service, tmp_path)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "out.glb").read_bytes() == b"glTF, say"
    assert b"pixels" in service.body
    assert b"7" in service.body
    key = "Bearer key-1"
    asked = [("GET", "/shapes/j1", key)] * 3
    # Whoever keeps the file is not shown the key.
    assert service.asked == [("POST", "/shapes", key), *asked, ("GET", "/files/mesh.glb", None)]


def test_a_service_that_fails_is_told(service: Service, tmp_path: Path) -> None:
    service.states = ["waiting", "failed"]
    result = fetched(service, tmp_path)
    assert result.returncode == 1
    assert "the service failed" in result.stderr
    assert not (tmp_path / "out.glb").exists()
