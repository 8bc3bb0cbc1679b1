"""Calls to clients' addresses: signed, repeated, and never to private places."""

from __future__ import annotations

import hashlib
import hmac
import http.server
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import httpx
import pytest
from serving import files, served, wait_for

from ultrashape_cli.service import webhooks
from ultrashape_cli.service.auth import Tokens
from ultrashape_cli.service.webhooks import Refused, is_public, post, public_address, signature


class Receiver(http.server.BaseHTTPRequestHandler):
    """Fails `failures` times, then keeps what it is sent."""

    failures = 0
    got: ClassVar[list[tuple[dict[str, str], bytes]]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        Receiver.got.append((dict(self.headers), body))
        Receiver.failures -= 1
        self.send_response(500 if Receiver.failures >= 0 else 204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def receiver() -> Iterator[str]:
    Receiver.got, Receiver.failures = [], 0
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/hook?x=1"
    server.shutdown()
    server.server_close()


def submit(url: str, hook: str, **headers: str) -> httpx.Response:
    options = {"options": json.dumps({"seed": 1, "webhook": hook})}
    return httpx.post(f"{url}/refine", files=files(), data=options, headers=headers)


def test_the_end_of_a_job_is_told_signed(tmp_path: Path, receiver: str) -> None:
    (tmp_path / "data").mkdir()
    secret = Tokens(tmp_path / "data" / "tokens.json").add("anna", "user")
    with served(tmp_path / "data", webhook_private=True) as service:
        job = submit(service.url, receiver, Authorization=f"Bearer {secret}").json()["job_id"]
        wait_for(lambda: Receiver.got)
    headers, body = Receiver.got[0]
    told = json.loads(body)
    assert (told["job_id"], told["state"]) == (job, "done")
    # As the client computes it, who has the token.
    key = hashlib.sha256(secret.encode()).hexdigest().encode()
    text = headers["X-Ushape-Timestamp"].encode() + b"." + body
    expected = "v1=" + hmac.new(key, text, hashlib.sha256).hexdigest()
    assert headers["X-Ushape-Signature"] == expected
    assert headers["X-Ushape-Delivery"] == job


def test_a_receiver_that_fails_is_called_again(
    tmp_path: Path, receiver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ultrashape_cli.config.serve import ServeConfig
    from ultrashape_cli.service import jobs
    from ultrashape_cli.service.jobs import NewJob, Outcome
    from ultrashape_cli.service.store import prepare

    monkeypatch.setattr(webhooks, "FIRST_PAUSE_S", 0.0)
    store = prepare(tmp_path / "data")
    part = {"name": "a", "file": "a", "type": "off", "bytes": 1, "sha256": ""}
    inputs = {"mesh": part, "image": part}
    for name, failures, tries in (("a", 2, 3), ("b", 99, 5)):
        Receiver.got, Receiver.failures = [], failures
        jobs.submit(store, "local", [NewJob(name, "tiny", {}, inputs, 0, receiver)])
        lease = jobs.claim(store, "local:w", ["tiny"], 30.0)
        assert lease is not None
        jobs.finish(store, name, lease.fence, Outcome("done"), 3)
        caller = webhooks.Caller(store, ServeConfig(webhook_private=True, webhook_tries=5))
        while caller.call_due():
            pass
        assert len(Receiver.got) == tries
        assert {headers["X-Ushape-Delivery"] for headers, _ in Receiver.got} == {name}
    states = store.connection.execute("SELECT state FROM deliveries ORDER BY job").fetchall()
    assert [row["state"] for row in states] == ["done", "failed"]


def test_a_private_address_is_not_called(tmp_path: Path, receiver: str) -> None:
    with served(tmp_path / "data") as service:
        job = submit(service.url, receiver).json()["job_id"]
        look = "SELECT note FROM deliveries WHERE job = ? AND state = 'failed'"
        row = wait_for(lambda: service.store.connection.execute(look, (job,)).fetchone())
        assert "private address 127.0.0.1" in row["note"]
    assert Receiver.got == []


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "192.168.1.1", "172.16.0.1", "169.254.169.254", "0.0.0.0", "::1",
     "fe80::1", "fd00::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "224.0.0.1",
     "100.64.0.1", "::", "255.255.255.255"],
)  # fmt: skip
def test_private_addresses(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["93.184.215.14", "2606:2800:21f:cb07::1"])
def test_public_addresses(address: str) -> None:
    assert is_public(address)


def _resolver(*addresses: str):
    return lambda *_, **__: [(socket.AF_INET, 1, 6, "", (each, 80)) for each in addresses]


def test_one_private_address_among_public_ones_is_enough() -> None:
    with pytest.raises(Refused, match=r"10\.0\.0\.1"):
        public_address("x", 80, private=False, resolve=_resolver("93.184.215.14", "10.0.0.1"))


def test_a_name_is_looked_up_once(receiver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that leads to a private place at a second look leads nowhere."""
    looks = []

    def resolve(*_: object, **__: object) -> list[tuple]:
        looks.append(1)
        return _resolver("127.0.0.1" if len(looks) == 1 else "10.0.0.1")()

    port = int(receiver.split(":")[2].split("/")[0])
    post(f"http://studio.test:{port}/hook", b"{}", b"k", "d", private=True, resolve=resolve)
    assert looks == [1]
    assert Receiver.got[0][0]["Host"] == f"studio.test:{port}"


def test_a_redirection_is_not_followed(tmp_path: Path) -> None:
    class Elsewhere(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(302)
            self.send_header("Location", "http://169.254.169.254/")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    with http.server.HTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        with pytest.raises(OSError, match="answered 302"):
            post(f"http://127.0.0.1:{server.server_port}/", b"{}", b"k", "d", private=True)


def test_a_signature_depends_on_time_and_body() -> None:
    found = {signature(b"k", moment, body) for moment in ("1", "2") for body in (b"a", b"b")}
    assert len(found) == 4
