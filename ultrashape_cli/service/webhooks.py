"""Calls the addresses that clients gave when their jobs end: signed, again and again, nowhere else.

The signature is HMAC-SHA256 over `TIME.BODY` with the SHA-256 (hex) of the client's token as the
key: the client can compute it, and the service keeps nothing more than it has. Where no token is
asked for, the key is in `webhook.key`, in the folder of the service.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import ipaddress
import json
import logging
import os
import secrets
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from ultrashape_cli import __version__
from ultrashape_cli.config.serve import ServeConfig
from ultrashape_cli.errors import UShapeError
from ultrashape_cli.service import views
from ultrashape_cli.service.auth import TOKENS_FILE, Tokens
from ultrashape_cli.service.store import Store, clock

logger = logging.getLogger(__name__)

TIMEOUT_S = 10.0
FIRST_PAUSE_S = 5.0
"""After the first failure; each pause is four times the one before."""
_LOOK_S = 0.5
KEY_FILE = "webhook.key"


class Refused(UShapeError):
    """An address that is not called."""


class Caller(threading.Thread):
    """Looks for deliveries that are due and makes them, one after another."""

    def __init__(self, store: Store, config: ServeConfig) -> None:
        super().__init__(name="webhooks", daemon=True)
        self.store, self.config = store, config
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Ends after the call at hand; what is left waits in the store."""
        self._stopping.set()

    def run(self) -> None:
        """Calls until it is stopped."""
        while not self._stopping.wait(_LOOK_S):
            try:
                self.call_due()
            except Exception:  # a full disk, a busy store: the next look may find it better
                logger.exception("webhooks")

    def call_due(self) -> int:
        """Makes the deliveries that are due; returns how many."""
        rows = self.store.connection.execute(
            "SELECT jobs.*, tries FROM deliveries JOIN jobs ON jobs.id = deliveries.job "
            "WHERE deliveries.state = 'waiting' AND due <= ? LIMIT 20",
            (clock(),),
        ).fetchall()
        for row in rows:
            body = json.dumps(views.describe(self.store, row)).encode()
            try:
                key = signing_key(self.store.folder, row["owner"])
                post(row["webhook"], body, key, row["id"], private=self.config.webhook_private)
                state, note = "done", ""
            except (OSError, http.client.HTTPException, Refused, ValueError) as error:
                again = row["tries"] + 1 < self.config.webhook_tries
                again = again and not isinstance(error, Refused)
                state, note = "waiting" if again else "failed", f"{error}"[:200]
                logger.warning("webhook of %s: %s", row["id"], note)
            pause = FIRST_PAUSE_S * 4 ** row["tries"]
            with self.store.writing() as db:
                db.execute(
                    "UPDATE deliveries SET state = ?, tries = tries + 1, due = ?, note = ? "
                    "WHERE job = ?",
                    (state, clock() + pause, note, row["id"]),
                )
        return len(rows)


def signing_key(folder: Path, owner: str) -> bytes:
    """Returns the key of a client's signatures."""
    for token in Tokens(folder / TOKENS_FILE).all():
        if token.name == owner:
            return token.sha256.encode()
    path = folder / KEY_FILE
    if not path.exists():
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(file, "w") as stream:
            stream.write(secrets.token_hex(32))
    return path.read_text().strip().encode()


def signature(key: bytes, moment: str, body: bytes) -> str:
    """Returns the signature of a call at a time (seconds since 1970, as text)."""
    return "v1=" + hmac.new(key, moment.encode() + b"." + body, hashlib.sha256).hexdigest()


def post(
    address: str,
    body: bytes,
    key: bytes,
    delivery: str,
    *,
    private: bool,
    resolve: Callable[..., list[tuple]] = socket.getaddrinfo,
) -> None:
    """Sends a signed body; redirections are not followed.

    Args:
        address: Of http or https.
        body: JSON.
        key: Of the signature.
        delivery: The same for each try, so that a receiver can tell repetitions.
        private: Also call addresses of this machine and network.
        resolve: Names to addresses.

    Raises:
        Refused: The address is private, and private ones are not allowed.
        OSError: It does not answer, or not with success.
    """
    parts = urlsplit(address)
    assert parts.hostname is not None
    port = parts.port or (443 if parts.scheme == "https" else 80)
    place = public_address(parts.hostname, port, private=private, resolve=resolve)
    connection = http.client.HTTPConnection(parts.hostname, port, timeout=TIMEOUT_S)
    # Connected to what was looked at: a second look-up of the name may lead elsewhere.
    sock = socket.create_connection((place, port), TIMEOUT_S)
    try:
        if parts.scheme == "https":
            context = ssl.create_default_context()
            sock = context.wrap_socket(sock, server_hostname=parts.hostname)
        connection.sock = sock
        moment = str(int(time.time()))
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"ushape/{__version__}",
            "X-Ushape-Delivery": delivery,
            "X-Ushape-Timestamp": moment,
            "X-Ushape-Signature": signature(key, moment, body),
        }
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        answer.read(1024)
        if not 200 <= answer.status < 300:
            raise OSError(f"the server answered {answer.status}")
    finally:
        sock.close()


def public_address(
    host: str,
    port: int,
    *,
    private: bool,
    resolve: Callable[..., list[tuple]] = socket.getaddrinfo,
) -> str:
    """Returns an address of a host; raises Refused where any of them is private."""
    found = [entry[4][0] for entry in resolve(host, port, type=socket.SOCK_STREAM)]
    if not found:
        raise OSError(f"`{host}` has no address")
    for address in found:
        if not private and not is_public(address):
            raise Refused(
                f"`{host}` is at the private address {address}",
                hint="--set serve.webhook_private=true allows it",
            )
    return found[0]


def is_public(address: str) -> bool:
    """Says whether an address is of the public internet, also through IPv6's disguises."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo and ip.teredo[1])
        if inner:
            ip = inner
        elif ip in ipaddress.ip_network("64:ff9b::/96"):
            ip = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.is_global and not ip.is_multicast
