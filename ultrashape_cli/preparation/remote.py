"""Sources in storage elsewhere: listed once, brought one by one when a step reads them.

What an asset is, is told by what the storage tells of a file's content, so that nothing is brought
to find out whether it has changed.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ultrashape_cli.data.layout import Dataset, Record
from ultrashape_cli.errors import AssetError, UsageError
from ultrashape_cli.files import disk_errors
from ultrashape_cli.meshfiles.companions import named_files
from ultrashape_cli.meshfiles.load import MESH_SUFFIXES, NOT_READ
from ultrashape_cli.packing.location import Location

logger = logging.getLogger(__name__)

FOLDER = ".sources"
"""Below the dataset: a folder for each asset at work, removed when its steps are done."""
_ROUNDS = 3
"""A mesh names materials, and those name textures."""


def is_remote(address: str) -> bool:
    """Says whether sources are named by an address, and not by a path."""
    return "://" in address


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A mesh in storage."""

    address: str
    size: int
    content: str
    """Changes with its content: the storage's own hash, or the time it was written."""

    @property
    def stem(self) -> str:
        """Name without folders and suffix."""
        return Path(self.address).stem

    def source(self) -> dict[str, Any]:
        """Returns the `source` of its record."""
        digest = hashlib.sha256(f"{self.content}:{self.size}".encode()).hexdigest()
        return {"path": self.address, "sha256": digest, "bytes": self.size, "mtime_ns": 0}


def warn_of_others(place: str, kinds: Iterable[str]) -> None:
    """Tells of files whose formats are known and not read; `kinds` are suffixes of all files."""
    counts = Counter(kind for kind in kinds if kind in NOT_READ)
    if counts:
        text = ", ".join(f"{count:,} {kind}" for kind, count in sorted(counts.items()))
        logger.warning("not read in `%s`: %s; export them as GLB or OBJ", place, text)


def find_remote(address: str) -> list[RemoteFile]:
    """Returns all mesh files below an address, sorted.

    Raises:
        UsageError: There are none.
        StorageError: It cannot be reached.
    """
    base = address.rstrip("/")
    there = list(Location(base).tree())
    found = [
        RemoteFile(f"{base}/{name}", size, content)
        for name, size, content in there
        if Path(name).suffix.lower() in MESH_SUFFIXES and not Path(name).name.startswith(".")
    ]
    warn_of_others(base, (Path(name).suffix.lower() for name, _, _ in there))
    if not found:
        kinds = " ".join(sorted(suffix.lstrip(".").upper() for suffix in MESH_SUFFIXES))
        raise UsageError(f"no meshes at `{address}`", hint=f"put {kinds} files there")
    return sorted(found, key=lambda file: file.address)


def local_path(dataset: Dataset, record: Record) -> Path:
    """Returns where the source of an asset that is elsewhere lies while it is read."""
    return _folder(dataset, record.id) / str(record.source["path"]).rpartition("/")[2]


def source_path(dataset: Dataset, record: Record, max_bytes: int) -> Path:
    """Returns the path of an asset's source, which is brought first where it is elsewhere.

    Raises:
        AssetError: It is larger than `max_bytes`, or no longer what was listed.
        StorageError: It cannot be reached.
    """
    address = str(record.source["path"])
    if not is_remote(address):
        return Path(address)
    folder, _, name = address.rpartition("/")
    path = local_path(dataset, record)
    if path.is_file():
        return path
    size = int(record.source["bytes"])
    if size > max_bytes:
        raise AssetError(
            f"`{address}` has {size / 2**30:.2f} GiB, more than the {max_bytes / 2**30:g} allowed",
            hint="--set watertight.max_file_gib=N",
        )
    place = Location(folder)
    if place.size(name) != size:
        raise AssetError(f"`{address}` is no longer what was listed", hint="repeat the command")
    coming = path.with_name(f"coming{path.suffix}")
    _bring(place, name, coming, size)
    _bring_beside(place, coming, max_bytes)
    # Last: what has its name has all that belongs to it.
    coming.replace(path)
    return path


def drop_source(dataset: Dataset, asset_id: str) -> None:
    """Removes what was brought of an asset's source."""
    shutil.rmtree(_folder(dataset, asset_id), ignore_errors=True)
    with suppress(OSError):
        (dataset.root / FOLDER).rmdir()


def _folder(dataset: Dataset, asset_id: str) -> Path:
    return dataset.root / FOLDER / asset_id


def _bring_beside(place: Location, mesh: Path, left: int) -> None:
    """Brings what a mesh names of the files in its folder and below, as far as they are there."""
    asked: set[str] = set()
    for _ in range(_ROUNDS):
        candidates = {name for named in named_files(mesh) for name in _candidates(named)} - asked
        if not candidates:
            return
        asked |= candidates
        for name in sorted(candidates):
            size = place.size(name)
            if size is None:
                continue
            left -= size
            if left < 0:
                raise AssetError(f"`{name}` and what else the mesh names are too large",
                                 hint="--set watertight.max_file_gib=N")  # fmt: skip
            _bring(place, name, mesh.parent / name, size)


def _candidates(named: str) -> list[str]:
    """Returns where a file may be that was named on another machine: as named, or beside."""
    name = named.strip().strip("\"'").replace("\\", "/")
    last = name.rpartition("/")[2]
    parts = name.split("/")
    inside = "" not in parts and "." not in parts and ".." not in parts and ":" not in parts[0]
    found = [name, last] if inside else [last]
    return [n for n in dict.fromkeys(found) if n not in ("", ".", "..") and "\0" not in n]


def _bring(place: Location, name: str, path: Path, size: int) -> None:
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            for data in place.chunks(name, 0, size):
                file.write(data)
