"""A stand-in for the Hugging Face Hub: one process, 127.0.0.1, files in memory."""

import hashlib
import json
import re
import threading
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote

# Reads HF_ENDPOINT at its import, which must not be the address of one test's server.
import huggingface_hub.constants  # noqa: F401

COMMIT = "0" * 40


class HubServer(ThreadingHTTPServer):
    """Serves `files` ("owner/name/path" -> bytes) and keeps what is uploaded in the same dict."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.ranges: list[str | None] = []
        self.cut_after: int | None = None
        """body bytes after which a connection is dropped"""
        self.leave_after_cut = False
        """refuse everything after the first cut"""
        self.refuse = 0
        """status that downloads are answered with"""
        self.refuse_all = 0
        """the same for questions too"""
        self.etags: dict[str, str] = {}
        """announced instead of the true hash"""
        self.objects: dict[str, bytes] = {}
        self.created: list[dict] = []
        self.public: set[str] = set()
        """`owner/name` or `datasets/owner/name`; the others are private"""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request, client_address) -> None:
        """A cut connection is part of the test."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer

    def log_message(self, *_: object) -> None:
        pass

    def _json(self, value: object, status: int = 200) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        if status == 404:
            whole = re.fullmatch(r"/api/models/[^/]+/[^/?]+(\?.*)?", self.path)
            self.send_header("X-Error-Code", "RepoNotFound" if whole else "EntryNotFound")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _read(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _send_file(self, body: bool) -> None:
        match = re.fullmatch(r"/((?:datasets/)?[^/]+/[^/]+)/resolve/[^/]+/(.+)", self.path)
        name = f"{match[1]}/{match[2]}" if match else ""
        data = self.server.files.get(name)
        refusal = self.server.refuse_all or (body and self.server.refuse)
        if data is None or refusal:
            code = 404 if data is None else int(refusal)
            if body:
                self._json({"error": "no"}, code)
            else:
                # An answer to HEAD has no body, or the next one begins with it.
                self.send_response(code)
                self.send_header("Content-Length", "0")
                self.end_headers()
            return
        start = 0
        if body:
            wanted = self.headers.get("Range")
            self.server.ranges.append(wanted)
            if wanted:
                start = int(wanted.removeprefix("bytes=").split("-")[0])
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        etag = self.server.etags.get(name) or hashlib.sha256(data).hexdigest()
        self.send_header("X-Linked-Etag", f'"{etag}"')
        self.send_header("X-Linked-Size", str(len(data)))
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        if body:
            rest = data[start:]
            cut = self.server.cut_after
            self.wfile.write(rest if cut is None else rest[:cut])
            if cut is not None:
                self.wfile.flush()
                self.server.refuse = 503 if self.server.leave_after_cut else 0
                self.close_connection = True

    def do_HEAD(self) -> None:
        self._send_file(False)

    def do_GET(self) -> None:
        model = re.fullmatch(r"/api/models/([^/]+/[^/?]+)(?:\?.*)?", self.path)
        if model and any(name.startswith(f"{model[1]}/") for name in self.server.files):
            private = model[1] not in self.server.public
            self._json({"id": model[1], "sha": COMMIT, "private": private})
            return
        asked = re.fullmatch(
            r"/api/(datasets/[^/]+/[^/?]+)(?:(/tree/[^/?]+/?)([^?]*)\?.*)?", self.path
        )
        if not asked:
            self._send_file(True)
        elif not asked[2]:
            private = asked[1] not in self.server.public
            name = asked[1].removeprefix("datasets/")
            self._json({"id": name, "sha": COMMIT, "private": private})
        else:
            found = self._entries(asked[1], unquote(asked[3]))
            self._json(found or {"error": "no"}, 200 if found else 404)

    def _entries(self, repo: str, folder: str) -> list[dict]:
        begin = f"{repo}/{folder}/" if folder else f"{repo}/"
        return [self._entry(repo, name) for name in sorted(self.server.files)
                if name.startswith(begin) and "/" not in name.removeprefix(begin)]  # fmt: skip

    def _entry(self, repo: str, name: str) -> dict:
        data = self.server.files[name]
        oid = hashlib.sha1(data).hexdigest()
        path = name.removeprefix(f"{repo}/")
        return {"type": "file", "path": path, "size": len(data), "oid": oid}

    def do_PUT(self) -> None:
        data = self._read()
        self.server.objects[self.path.rsplit("/", 1)[1]] = data
        self._json({})

    def do_POST(self) -> None:
        body = self._read()
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            self.server.created.append(asked)
            self._json({"url": f"{self.server.url}/{asked['organization']}/{asked['name']}"})
        elif self.path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            modes = [
                {
                    "path": f["path"],
                    "uploadMode": "regular" if f["path"].endswith(".md") else "lfs",
                    "shouldIgnore": False,
                }
                for f in files
            ]
            self._json({"files": modes})
        elif self.path.endswith("/objects/batch"):
            objects = json.loads(body)["objects"]
            for item in objects:
                item["actions"] = {"upload": {"href": f"{self.server.url}/lfs/{item['oid']}"}}
            self._json({"transfer": "basic", "objects": objects})
        elif "/paths-info/" in self.path:
            repo = re.match(r"/api/(datasets/.+?)/paths-info/", self.path)
            assert repo is not None
            paths = parse_qs(body.decode())["paths"]
            names = [f"{repo[1]}/{path}" for path in paths]
            self._json([self._entry(repo[1], n) for n in names if n in self.server.files])
        elif "/commit/" in self.path:
            repo = re.match(r"/api/(?:models/)?(.+?)/commit/", self.path)
            assert repo is not None
            for line in body.splitlines():
                self._commit(repo[1], json.loads(line))
            address = f"{self.server.url}/{repo[1]}/commit/{COMMIT}"
            self._json({"commitUrl": address, "commitOid": COMMIT, "success": True})
        else:
            self._json({"error": "no"}, 404)

    def _commit(self, repo: str, entry: dict) -> None:
        value = entry["value"]
        if entry["key"] == "file":
            self.server.files[f"{repo}/{value['path']}"] = b64decode(value["content"])
        elif entry["key"] == "lfsFile":
            self.server.files[f"{repo}/{value['path']}"] = self.server.objects[value["oid"]]


@contextmanager
def running_hub() -> Iterator[HubServer]:
    server = HubServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
