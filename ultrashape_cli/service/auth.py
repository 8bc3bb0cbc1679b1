"""Who may ask: bearer tokens, of which the service keeps hashes only."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import os
import secrets
import stat
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from ultrashape_cli.errors import DiskError, UsageError
from ultrashape_cli.files import disk_errors, read_json, temporary_path

Role = Literal["user", "worker", "admin"]
TOKENS_FILE = "tokens.json"
PREFIX = "ushape_"
LOCAL_OWNER = "local"
"""Whose jobs those are that come in where no token is asked for."""


@dataclass(frozen=True, slots=True)
class Token:
    """What the service knows of a token."""

    name: str
    sha256: str
    role: Role
    created: float

    @property
    def may_lease(self) -> bool:
        """Says whether a machine that has it may work on jobs."""
        return self.role in ("worker", "admin")

    @property
    def is_admin(self) -> bool:
        """Says whether it sees all jobs and the logs."""
        return self.role == "admin"


class Tokens:
    """The file of hashed tokens, read anew whenever it changes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp: tuple[int, int] | None = None
        self._known: list[Token] = []

    @property
    def required(self) -> bool:
        """Says whether a token is asked for: once there was one, taking the last opens nothing."""
        return self.path.exists()

    def all(self) -> list[Token]:
        """Returns all tokens.

        Raises:
            DiskError: Others than the owner may read the file, or it is damaged.
        """
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return []
        if (stamp := (found.st_mtime_ns, found.st_ino)) == self._stamp:
            return self._known
        if found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise DiskError(f"others may read `{self.path}`", hint=f"chmod 600 {self.path}")
        rows = read_json(self.path)
        try:
            self._known = [Token(**row) for row in rows]
        except TypeError as error:
            raise DiskError(
                f"`{self.path}` is damaged",
                hint="remove it, and make the tokens anew with `ushape serve token add`",
            ) from error
        self._stamp = stamp
        return self._known

    def find(self, secret: str) -> Token | None:
        """Returns the token of a secret, in a time that tells nothing of those that are known."""
        digest, found = token_hash(secret), None
        for token in self.all():
            if hmac.compare_digest(token.sha256, digest):
                found = token
        return found

    def add(self, name: str, role: Role) -> str:
        """Makes a token and returns its secret, which is kept nowhere.

        Raises:
            UsageError: The name is taken or none.
        """
        if not name or len(name) > 80 or not name.isprintable() or name == LOCAL_OWNER:
            raise UsageError(f"`{name}` is no name for a token")
        if role not in get_args(Role):
            raise UsageError(f"`{role}` is no role", hint=f"one of {', '.join(get_args(Role))}")
        known = self.all()
        if any(token.name == name for token in known):
            raise UsageError(f"there is a token `{name}`", hint=f"ushape serve token remove {name}")
        secret = PREFIX + secrets.token_urlsafe(32)
        self._write([*known, Token(name, token_hash(secret), role, round(time.time(), 3))])
        return secret

    def remove(self, name: str) -> None:
        """Removes a token.

        Raises:
            UsageError: There is none of this name.
        """
        known = self.all()
        if not any(token.name == name for token in known):
            names = ", ".join(token.name for token in known) or "none"
            raise UsageError(f"there is no token `{name}`", hint=f"known: {names}")
        self._write([token for token in known if token.name != name])

    def _write(self, tokens: list[Token]) -> None:
        rows: list[dict[str, Any]] = [asdict(token) for token in tokens]
        with disk_errors(self.path), temporary_path(self.path) as temporary:
            # Born private: it must not be open to others even for a moment.
            file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(file, "w") as stream:
                stream.write(json.dumps(rows, indent=1) + "\n")


def token_hash(secret: str) -> str:
    """Returns what is kept of a secret. It is random and long, so no slow hash is needed."""
    return hashlib.sha256(secret.encode()).hexdigest()


def is_own(host: str) -> bool:
    """Says whether an address to listen on can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
