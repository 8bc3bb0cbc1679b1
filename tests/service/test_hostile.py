"""Uploads that want to do harm: each gets an error with a hint, and the service stays as it was."""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import struct
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from serving import TETRAHEDRON, Served, files, png, served, wait_for

CUBE_OBJ = b"v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "secret.bin").write_bytes(b"\0" * 36)
    limits = {"max_mesh_mb": 4.0, "max_image_mb": 1.0, "max_megapixels": 1.0,
              "max_faces": 10_000, "parse_timeout_s": 10.0}  # fmt: skip
    with served(folder / "data", **limits) as found:
        yield found


def glb(table: dict[str, Any] | bytes, binary: bytes = b"", total: int | None = None) -> bytes:
    text = table if isinstance(table, bytes) else json.dumps(table).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text
    if binary:
        chunks += struct.pack("<I4s", len(binary), b"BIN\0") + binary
    return b"glTF" + struct.pack("<II", 2, total or 12 + len(chunks)) + chunks


def scene(buffer: dict[str, Any], count: int = 3, **more: Any) -> dict[str, Any]:
    accessor = {"bufferView": 0, "componentType": 5126, "count": count, "type": "VEC3"}
    return {
        "asset": {"version": "2.0"}, "scene": 0, "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}], "meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}],
        "accessors": [accessor], "bufferViews": [{"buffer": 0, "byteLength": 36}],
        "buffers": [buffer], **more,
    }  # fmt: skip


def archive(entries: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", method) as found:
        for name, content in entries.items():
            found.writestr(name, content)
    return data.getvalue()


def bomb_3mf() -> bytes:
    return archive({"3D/3dmodel.model": b" " * (60 << 20)})


def many_entries_3mf() -> bytes:
    return archive({f"3D/{n}.model": b"" for n in range(3000)})


def entities_3mf() -> bytes:
    rows = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 10))
    text = f'<?xml version="1.0"?><!DOCTYPE m [<!ENTITY a0 "aaaaaaaaaa">{rows}]><model>&a9;</model>'
    return archive({"3D/3dmodel.model": text.encode()})


def external_entity_3mf() -> bytes:
    text = (
        '<?xml version="1.0"?><!DOCTYPE m [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
        "<model>&x;</model>"
    )
    return archive({"3D/3dmodel.model": text.encode()})


def lying_3mf() -> bytes:
    """Its table says that what unpacks to 60 MB has ten bytes."""
    data = bytearray(bomb_3mf())
    data[data.rfind(b"PK\1\2") + 24 :][:4] = b""
    at = data.rfind(b"PK\1\2") + 24
    data[at : at + 4] = struct.pack("<I", 10)
    return bytes(data)


def ply(vertices: int, faces: int, body: bytes = b"") -> bytes:
    head = f"ply\nformat binary_little_endian 1.0\nelement vertex {vertices}\n"
    head += "property float x\nproperty float y\nproperty float z\n"
    head += f"element face {faces}\nproperty list uchar int vertex_indices\nend_header\n"
    return head.encode() + body


def binary_stl(count: int, real: int) -> bytes:
    return b"\0" * 80 + struct.pack("<I", count) + b"\0" * 50 * real


MESHES: dict[str, tuple[bytes | Callable[[], bytes], str]] = {
    "empty": (b"", "422 empty"),
    "zeros": (b"\0" * 4000, "422 empty"),
    "noise": (os.urandom(5000), "415 bad-type"),
    "picture": (png(), "415 bad-type"),
    "page": (b"<!DOCTYPE html><html>v 0 0 0</html>", "415 bad-type"),
    "program": (b"\x7fELF" + b"\0" * 100, "415 bad-type"),
    "gzip": (b"\x1f\x8b" + b"\0" * 100, "415 bad-type"),
    "fbx": (b"Kaydara FBX Binary  \0\x1a\0" + b"\0" * 100, "415 bad-type"),
    "gltf-as-text": (json.dumps(scene({"uri": "a.bin"})).encode(), "415 bad-type"),
    "zip-of-something": (archive({"a.txt": b"x"}), "415 bad-type"),
    "zip-cut": (bomb_3mf()[:1000], "422 damaged"),
    "glb-cut": (glb(scene({"byteLength": 36}), b"\0" * 36)[:-10], "422 damaged"),
    "glb-cut-in-head": (b"glTF\2\0\0\0", "422 damaged"),
    "glb-lying-length": (glb(scene({}), total=2**31), "422 damaged"),
    "glb-table-of-4-GB": (b"glTF\2\0\0\0" + struct.pack("<II4s", 20, 2**32 - 1, b"JSON"),
                          "422 damaged"),
    "glb-deep": (glb(b"[" * 200_000), "422 damaged"),
    "glb-no-json": (glb(b"{broken"), "422 damaged"),
    "glb-file-uri": (glb(scene({"uri": "file:///etc/passwd", "byteLength": 36})),
                     "422 external-file"),
    "glb-traversal": (glb(scene({"uri": "../../../secret.bin", "byteLength": 36})),
                      "422 external-file"),
    "glb-ssrf": (glb(scene({"uri": "http://169.254.169.254/latest", "byteLength": 36})),
                 "422 external-file"),
    "glb-image-uri": (glb(scene({}, images=[{"uri": "/etc/hostname"}])), "422 external-file"),
    "glb-escaped-uri": (
        glb(json.dumps(scene({"uri": "x", "byteLength": 36})).replace('"x"', '"\\u002fetc"')
            .encode()), "422 external-file"),
    "glb-billion": (glb(scene({"byteLength": 36}, 3_000_000_000), b"\0" * 36),
                    "422 too-many-faces"),
    "glb-accessor-outside": (glb(scene({"byteLength": 36}, 30_000), b"\0" * 36), "failed bad-mesh"),
    "glb-cycle": (glb(scene({"byteLength": 36}, nodes=[{"mesh": 0, "children": [0]}]),
                      struct.pack("<9f", 0, 0, 0, 1, 0, 0, 0, 1, 0)), "failed bad-mesh"),
    "obj-traversal": (b"mtllib ../../../etc/passwd\n" + CUBE_OBJ, "422 external-file"),
    "obj-absolute": (CUBE_OBJ + b"mtllib /etc/passwd\n", "422 external-file"),
    "obj-no-vertex": (CUBE_OBJ + b"f 1 2 999999999\n", "failed bad-mesh"),
    "obj-only-points": (b"v 0 0 0\nv 1 1 1\n", "failed bad-mesh"),
    "obj-too-many": (b"v 0 0 0\n" + b"f 1 1 1\n" * 20_000, "422 too-many-faces"),
    "ply-billion": (ply(3, 10**9), "422 too-many-faces"),
    "ply-absurd": (ply(10**30 - 1, 1), "422 too-many-faces"),
    "ply-short": (ply(9000, 9000, b"\0" * 20), "failed bad-mesh"),
    "ply-no-end": (b"ply\nformat ascii 1.0\nelement vertex 3\n", "422 damaged"),
    "stl-billion": (binary_stl(10**9, 3), "422 damaged"),
    "stl-cut": (binary_stl(100, 100)[:-7], "415 bad-type"),
    "stl-too-many": (binary_stl(20_000, 20_000), "422 too-many-faces"),
    "off-billion": (b"OFF\n1000000000 1000000000 0\n", "422 too-many-faces"),
    "off-negative": (b"OFF\n-4 -4 0\n0 0 0\n", "failed bad-mesh"),
    "off-nan": (TETRAHEDRON.replace(b"0 0 1\n", b"nan nan nan\n")
                .replace(b"1 0 0\n", b"inf inf inf\n"), "failed bad-mesh"),
    "off-huge-numbers": (TETRAHEDRON.replace(b"1 0 0", b"1e308 -1e308 1e308"), "failed bad-mesh"),
    "3mf-bomb": (bomb_3mf, "422 zip-bomb"),
    "3mf-lying": (lying_3mf, "failed bad-mesh"),
    "3mf-many": (many_entries_3mf, "422 damaged"),
    "3mf-traversal": (archive({"3D/3dmodel.model": b"<model/>", "../../evil": b"x"}),
                      "422 damaged"),
    "3mf-entities": (entities_3mf, "failed bad-mesh"),
    "3mf-external-entity": (external_entity_3mf, "failed bad-mesh"),
    "too-large": (b"v 0 0 0\n" * 600_000, "413 too-large"),
}  # fmt: skip
"""Name -> file, and the status and code of the answer, or `failed` and the code of the job."""

IMAGES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "415 bad-type"),
    "noise": (os.urandom(500), "415 bad-type"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
            "415 bad-type"),
    "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "415 bad-type"),
    "pixel-bomb": (png(60_000, 60_000), "413 too-many-pixels"),
    "beyond-pillow": (png(2**31 - 1, 2**31 - 1), "413 too-many-pixels"),
    "over-the-limit": (png(1200, 1000), "413 too-many-pixels"),
    "tiny": (png(4, 4), "422 too-small"),
    "cut": (png()[:60], "failed bad-image"),
    "lying-header": (png(900, 900), "failed bad-image"),
    "too-large": (png() + b"\0" * 1_100_000, "413 too-large"),
}  # fmt: skip


def check_refused(http: httpx.Client, parts: list[Any], expected: str) -> None:
    answer = http.post("/refine", files=parts)
    status, _, code = expected.partition(" ")
    if status == "failed":
        assert answer.status_code == 202, answer.text
        url = answer.headers["location"]
        found = wait_for(
            lambda: (j := http.get(url).json())["state"] in ("done", "failed") and j
        )  # fmt: skip
        assert found["state"] == "failed", found
        error = found["error"]
    else:
        assert answer.status_code == int(status), answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        error = answer.json()
    assert error["code"] == code, error
    assert error["hint"]
    assert "/jobs/" not in json.dumps(error)  # no folder of ours


def check_as_before(http: httpx.Client, service: Served, before: list[str]) -> None:
    assert http.get("/health").status_code == 200
    assert http.get("/ready").status_code == 200
    assert sorted(os.listdir(service.folder.parent)) == before
    assert list((service.folder / "spool").iterdir()) == []


@pytest.mark.parametrize("name", MESHES)
def test_a_hostile_mesh(http: httpx.Client, service: Served, name: str) -> None:
    before = sorted(os.listdir(service.folder.parent))
    content, expected = MESHES[name]
    check_refused(http, files(content() if callable(content) else content), expected)
    check_as_before(http, service, before)


@pytest.mark.parametrize("name", IMAGES)
def test_a_hostile_image(http: httpx.Client, service: Served, name: str) -> None:
    before = sorted(os.listdir(service.folder.parent))
    content, expected = IMAGES[name]
    check_refused(http, files(image=content), expected)
    check_as_before(http, service, before)


@pytest.mark.parametrize(
    "name",
    ["../../../evil.off", "/etc/cron.d/evil", "C:\\evil.off", "a\0b.off", "x" * 2000, "", ".."],
)
def test_a_hostile_name_is_only_a_name(http: httpx.Client, service: Served, name: str) -> None:
    before = sorted(os.listdir(service.folder.parent))
    answer = http.post("/refine", files=files(name=name or "."))
    assert answer.status_code == 202, answer.text
    shown = answer.json()["inputs"]["mesh"]["name"]
    assert not set("/\\\0") & set(shown)
    assert 0 < len(shown) <= 80
    check_as_before(http, service, before)


@pytest.mark.parametrize(
    ("parts", "status"),
    [
        ([], 415),
        ([("mesh_file", ("a.off", TETRAHEDRON))], 422),
        ([("image_file", ("a.png", png()))], 422),
        ([*files(), ("mesh_file", ("b.off", TETRAHEDRON))], 422),
        ([*files(), ("extra", ("b.off", b"x"))], 422),
        ([files()[0], *[("image_file", ("a.png", png()))] * 12], 400),
    ],
    ids=["nothing", "no-image", "no-mesh", "two-meshes", "unknown-part", "too-many-parts"],
)
def test_a_form_that_is_none(http: httpx.Client, parts: list[Any], status: int) -> None:
    answer = http.post("/refine", files=parts)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


def raw(service: Served, head: str, body: bytes = b"") -> bytes:
    """Sends bytes as they are and returns the head of the answer."""
    host, port = service.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 20) as client:
        sent = head.replace("\n", "\r\n").replace("HOST", f"{host}:{port}").encode() + body
        # Who refuses may close before all is sent; it has said why.
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            client.sendall(sent)
        answer = b""
        while b"\r\n\r\n" not in answer and (piece := client.recv(65536)):
            answer += piece
        return answer


MULTIPART = "POST /refine HTTP/1.1\nHost: HOST\nContent-Type: multipart/form-data; boundary=x\n"
PART = b'--x\r\nContent-Disposition: form-data; name="mesh_file"; filename="a.off"\r\n\r\n'


def test_an_upload_that_is_cut_off_leaves_nothing(service: Served) -> None:
    before = len(list(service.store.jobs_folder.iterdir()))
    host, port = service.url.removeprefix("http://").split(":")
    head = MULTIPART + "Content-Length: 1000000\n\n"
    with socket.create_connection((host, int(port)), 20) as client:
        client.sendall(head.replace("\n", "\r\n").replace("HOST", f"{host}:{port}").encode())
        client.sendall(PART + b"OFF\n" * 50_000)
    time.sleep(0.3)
    assert len(list(service.store.jobs_folder.iterdir())) == before
    assert list((service.folder / "spool").iterdir()) == []


def test_an_upload_shorter_than_promised_is_given_up(service: Served) -> None:
    started = time.monotonic()
    answer = raw(service, MULTIPART + "Content-Length: 1000\n\n", PART + b"OFF")
    assert b" 408 " in answer.splitlines()[0]
    assert time.monotonic() - started < 6


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (MULTIPART + "Content-Length: 99999999999\n\n", b" 413 "),
        (MULTIPART + "Content-Length: -5\n\n", b" 400 "),
        (MULTIPART + "Content-Length: many\n\n", b" 400 "),
        ("POST /lease HTTP/1.1\nHost: HOST\nContent-Length: 99999999\n\n", b" 413 "),
        ("GET /jobs HTTP/1.1\nHost: HOST\nX: " + "y" * 300_000 + "\n\n", b" 400 "),
        ("NONSENSE\n\n", b" 400 "),
        ("POST /refine HTTP/1.1\nHost: HOST\nContent-Type: multipart/form-data\n"
         "Content-Length: 0\n\n", b" 400 "),
    ],
)  # fmt: skip
def test_heads_that_lie(service: Served, head: str, status: bytes) -> None:
    assert status in raw(service, head).splitlines()[0]


def test_a_body_without_length_ends_at_the_limit(service: Served) -> None:
    def pieces() -> Iterator[bytes]:
        yield PART
        for _ in range(40):
            yield b"v 0 0 0\n" * 100_000

    with httpx.Client(base_url=service.url, timeout=30) as http:
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        answer = http.post("/refine", content=pieces(), headers=headers)
    assert answer.status_code == 413
    assert answer.headers["content-type"] == "application/problem+json"


def test_many_slow_uploads_keep_nobody_waiting(service: Served) -> None:
    """More connections than may upload, none of which goes on: looks are answered all the same."""
    host, port = service.url.removeprefix("http://").split(":")
    head = (MULTIPART + "Content-Length: 100000\n\n").replace("\n", "\r\n")
    with ExitStack() as open_ones:
        for _ in range(30):
            client = open_ones.enter_context(socket.create_connection((host, int(port)), 20))
            client.sendall(head.replace("HOST", f"{host}:{port}").encode() + PART)
        for _ in range(20):
            assert httpx.get(f"{service.url}/health", timeout=2).status_code == 200
            assert httpx.get(f"{service.url}/jobs", timeout=2).status_code == 200


@pytest.mark.slow
def test_uploads_that_drip_are_given_up_and_others_get_their_turn(tmp_path: Path) -> None:
    with served(tmp_path / "data", uploads_at_once=2, upload_idle_s=1.0) as service:
        host, port = service.url.removeprefix("http://").split(":")
        head = (MULTIPART + "Content-Length: 100000\n\n").replace("\n", "\r\n")
        clients = [socket.create_connection((host, int(port)), 20) for _ in range(2)]
        for client in clients:
            client.sendall(head.replace("HOST", f"{host}:{port}").encode() + PART)
        done = threading.Event()

        def drip() -> None:
            while not done.wait(0.2):
                for client in clients:
                    with contextlib.suppress(OSError):
                        client.sendall(b"x")

        dripping = threading.Thread(target=drip)
        dripping.start()
        try:
            answer = httpx.post(f"{service.url}/refine", files=files(), timeout=15)
            assert answer.status_code == 202
        finally:
            done.set()
            dripping.join()
        assert all(b" 408 " in client.recv(200) for client in clients)
        for client in clients:
            client.close()


def test_a_full_disk_takes_no_more(tmp_path: Path) -> None:
    with served(tmp_path / "data", min_free_gb=1e9) as full:
        answer = httpx.post(f"{full.url}/refine", files=files())
        assert answer.status_code == 507
        assert answer.json()["code"] == "disk-full"
        assert answer.headers["retry-after"]
        assert httpx.get(f"{full.url}/health").status_code == 200


def test_the_memory_of_the_web_is_as_before(service: Served, http: httpx.Client) -> None:
    assert service.process is not None
    (web,) = [
        child
        for child in psutil.Process(service.process.pid).children()
        if "ultrashape_cli.service.web" in child.cmdline()
    ]
    http.post("/refine", files=files(b"v 0 0 0\n" * 450_000))
    before = web.memory_info().rss
    for _ in range(10):
        http.post("/refine", files=files(b"v 0 0 0\n" * 450_000))
    assert web.memory_info().rss < before + 20e6
