"""A server of small files that fails as it is told to."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = tuple[int, bytes]


class FileServer(ThreadingHTTPServer):
    """`answer(path, number of requests for it so far)` says what is sent."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, answer: Callable[[str, int], Answer]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer = answer
        self.asked: Counter[str] = Counter()
        self.headers: dict[str, str] = {}
        self.length = True
        self.lock = threading.Lock()
        self.at_once = self.most_at_once = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request, client_address) -> None:
        """A cut connection is part of the test."""


class _Handler(BaseHTTPRequestHandler):
    server: FileServer

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        server = self.server
        with server.lock:
            server.asked[self.path] += 1
            server.at_once += 1
            server.most_at_once = max(server.most_at_once, server.at_once)
        try:
            status, body = server.answer(self.path, server.asked[self.path])
            self.send_response(abs(status))
            for name, value in server.headers.items():
                self.send_header(name, value)
            if server.length:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            # A negative status cuts the connection in the middle.
            self.wfile.write(body[: len(body) // 2] if status < 0 else body)
        finally:
            with server.lock:
                server.at_once -= 1


@contextmanager
def serving(answer: Callable[[str, int], Answer]) -> Iterator[FileServer]:
    server = FileServer(answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
