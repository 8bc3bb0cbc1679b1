"""Where packs are kept: a folder, or storage that fsspec reaches (s3, gs, hf, sftp).

Credentials come from the usual variables and files of each provider, never from the address, which
is shown, logged and recorded.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ultrashape_cli.errors import DependencyError, UsageError, UShapeError
from ultrashape_cli.files import disk_errors
from ultrashape_cli.formatting import cause

CHUNK = 8 << 20

_VARIABLES = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_PROFILE); AWS_ENDPOINT_URL for "
    "other providers than AWS",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "hf": "HF_TOKEN",
    "sftp": "an SSH agent or key",
}
_PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "sftp": "paramiko", "hf": "huggingface_hub"}
_ALIASES = {"gcs": "gs", "ssh": "sftp", "s3a": "s3"}
_STATES = ("ETag", "md5Hash", "etag", "lfs", "blob_id", "mtime", "LastModified")
"""What the providers' listings tell of a file's content, the surest first."""
_RENAMES = ("file", "sftp")
"""Storage where a file that is being written can be seen: it gets its name when it is whole."""


class StorageError(UShapeError):
    """Storage that cannot be reached, refuses, or lacks what was asked for."""


class Location:
    """A folder somewhere.

    Args:
        address: A path, or `s3://bucket/path`, `gs://...`, `hf://datasets/OWNER/NAME`, `sftp://...`.

    Raises:
        UsageError: No such kind of storage, or a secret in the address.
        DependencyError: The package for it is not installed.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.kind = _kind(address)
        from fsspec.core import url_to_fs

        with self._errors(""):
            try:
                self.fs, root = url_to_fs(_plain(address, self.kind), **_options(self.kind))
            except ImportError as error:
                package = _PACKAGES.get(self.kind, self.kind)
                raise DependencyError(
                    f"`{address}` needs the package {package}: {cause(error)}",
                    hint="pipx inject ultrashape-cli s3fs gcsfs  "
                    "(pip: pip install 'ultrashape-cli[cloud]')",
                ) from error
        self.root = str(root).rstrip("/")

    @property
    def is_local(self) -> bool:
        """Says whether it is a folder of this machine."""
        return self.kind == "file"

    def sizes(self, folder: str) -> dict[str, int]:
        """Returns the files of a folder below, by their names in it; none where there is none."""
        return {name: int(entry["size"] or 0)
                for name, entry in self._entries(folder) if entry["type"] == "file"}  # fmt: skip

    def size(self, name: str) -> int | None:
        """Returns the bytes of a file; None where there is none."""
        with self._errors(name):
            try:
                entry = self.fs.info(self._path(name))
            except FileNotFoundError:
                return None
        return int(entry["size"] or 0) if entry["type"] == "file" else None

    def folders(self, folder: str) -> list[str]:
        """Returns the names of the folders in a folder below; none where there is none."""
        return [name for name, entry in self._entries(folder) if entry["type"] == "directory"]

    def tree(self) -> Iterator[tuple[str, int, str]]:
        """Yields name, bytes and state of all files below; the state changes with the content.

        Raises:
            StorageError: There is no such place.
        """
        with self._errors(""):
            self.fs.invalidate_cache()
            if not self.fs.exists(self.root):
                raise StorageError(f"there is nothing at `{self.address}`",
                                   hint="correct the address")  # fmt: skip
            found = self.fs.find(self.root, detail=True)
        for path, entry in found.items():
            name = str(path)[len(self.root) :].lstrip("/")
            state = next((entry[key] for key in _STATES if entry.get(key)), "")
            yield name, int(entry["size"] or 0), str(state)

    def _entries(self, folder: str) -> list[tuple[str, dict[str, Any]]]:
        with self._errors(folder):
            self.fs.invalidate_cache()
            try:
                found = self.fs.ls(self._path(folder), detail=True)
            except FileNotFoundError:
                return []
        return [(str(entry["name"]).rstrip("/").rsplit("/", 1)[-1], entry) for entry in found]

    def read(self, name: str) -> bytes | None:
        """Returns the whole of a small file; None where there is none."""
        with self._errors(name):
            # The Hub's file system looks into listings of before for what it reads, too.
            self.fs.invalidate_cache()
            try:
                data: bytes = self.fs.cat_file(self._path(name))
            except FileNotFoundError:
                return None
        return data

    def chunks(self, name: str, start: int, size: int) -> Iterator[bytes]:
        """Yields a file's bytes from `start` to `size`, in pieces."""
        path = self._path(name)
        while start < size:
            with self._errors(name):
                data = self.fs.cat_file(path, start=start, end=min(start + CHUNK, size))
            if not data:
                raise StorageError(f"`{self._name(name)}` ends after {start:,} of {size:,} bytes",
                                   hint="push it again")  # fmt: skip
            yield data
            start += len(data)

    def send(self, path: Path, name: str) -> None:
        """Copies a file there; a reader sees all of it or nothing."""
        target = self._path(name)
        with self._errors(name), disk_errors(Path(target)):
            if self.kind not in _RENAMES:
                self.fs.put_file(str(path), target)
                return
            self.fs.makedirs(target.rpartition("/")[0], exist_ok=True)
            partial = f"{target}.part"
            self.fs.put_file(str(path), partial)
            if self.is_local:
                os.replace(partial, target)
                return
            # SFTP renames onto nothing only.
            if self.fs.exists(target):
                self.fs.rm_file(target)
            self.fs.mv(partial, target)

    def remove(self, name: str) -> None:
        """Removes a file, if it is there and may be removed."""
        with suppress(Exception):
            self.fs.rm_file(self._path(name))

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}" if name else self.root

    def _name(self, name: str) -> str:
        return f"{self.address.rstrip('/')}/{name}"

    @contextmanager
    def _errors(self, name: str) -> Iterator[None]:
        """Turns what the providers' packages raise into a StorageError that says what to do."""
        try:
            yield
        except UShapeError:
            raise
        except FileNotFoundError as error:
            bucket = urlsplit(self.address).netloc
            what = self._name(name) if self.is_local or not bucket else f"{self.kind}://{bucket}"
            raise StorageError(f"`{what}` is not there: {cause(error)}",
                               hint="make it, or correct the address") from error  # fmt: skip
        except Exception as error:  # each provider has its own tree of errors
            if self.is_local and not isinstance(error, OSError):
                raise
            raise self._explain(name, error) from error

    def _explain(self, name: str, error: Exception) -> UShapeError:
        kinds = " ".join(kind.__name__ for kind in type(error).__mro__)
        text = cause(error)
        shown = f"`{self._name(name)}`"
        variables = _VARIABLES.get(self.kind, "its credentials")
        if re.search("Skewed|clock|SignatureNotYet", text + kinds, re.IGNORECASE):
            return StorageError(f"{shown}: this machine's clock is wrong: {text}",
                                hint="set it: timedatectl set-ntp true")  # fmt: skip
        if re.search("NoCredentials|PartialCredentials|DefaultCredentials", kinds):
            return StorageError(f"{shown}: no credentials", hint=f"set {variables}")
        if re.search("InvalidRange|not satisfiable|416", text + kinds):
            return StorageError(f"{shown} is shorter than it was",
                                hint="push it again from what is whole")  # fmt: skip
        if isinstance(error, PermissionError) or re.search(
            "Forbidden|AccessDenied|InvalidAccessKey|SignatureDoesNotMatch|401|403", text + kinds
        ):
            return StorageError(f"{shown}: refused: {text}", hint=f"check {variables}")
        return StorageError(f"{shown}: {text}",
                            hint="repeat the command: it goes on where it stopped")  # fmt: skip


def _kind(address: str) -> str:
    scheme, found, rest = address.partition("://")
    if not found:
        return "file"
    kind = _ALIASES.get(scheme.lower(), scheme.lower())
    if kind != "file" and kind not in _VARIABLES:
        raise UsageError(f"cannot reach `{scheme}://`",
                         hint="a folder, s3://, gs://, hf:// or sftp://")  # fmt: skip
    if kind != "file" and not rest.split("/")[0]:
        raise UsageError(f"`{address}` names no place", hint=f"{scheme}://BUCKET/PATH")
    if ":" in rest.split("/")[0].rpartition("@")[0]:
        raise UsageError(
            f"the address `{scheme}://...` holds a secret, which other users of the machine can "
            "see and records would keep",
            hint=f"set {_VARIABLES.get(kind, 'its variables')}",
        )
    return kind


def _plain(address: str, kind: str) -> str:
    _, found, rest = address.partition("://")
    if kind == "file":
        return os.path.abspath(rest if found else address)
    return f"{kind}://{rest}"


def _options(kind: str) -> dict[str, Any]:
    # Listings of other processes' uploads must not be those of an hour ago.
    options: dict[str, Any] = {} if kind == "file" else {"use_listings_cache": False}
    if kind == "hf":
        endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/")
        return options | ({"endpoint": endpoint} if endpoint else {})
    return options
