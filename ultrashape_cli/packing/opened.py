"""Training from a pack, here or elsewhere: files come by ranged reads when they are first used.

Of an asset a step needs its samples and one view, a fifth of its bytes. Whole shards would bring
the rest too, and where not all of them fit on the disk the order of training would have to follow
them. File by file, the order is that of the plain dataset, whatever the cache holds.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import shutil
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import ClassVar, TypeVar

from ultrashape_cli.data.layout import Dataset
from ultrashape_cli.errors import AssetError
from ultrashape_cli.files import disk_errors, read_json, user_cache, write_atomic
from ultrashape_cli.packing.layout import (
    COMMON,
    PACK_FILE,
    Member,
    Pack,
    PackError,
    Piece,
    Shard,
    read_index,
)
from ultrashape_cli.packing.location import Location, StorageError
from ultrashape_cli.packing.transfer import DAMAGED, fetch, read_remote_pack
from ultrashape_cli.packing.unpack import unpack_shard, write_bytes

_FOLDERS = ("meshes", "renders", "samples")
"""What is brought file by file."""
_WAITS_S = (1, 2, 4, 8, 16, 32)
"""Before each further try to read what storage does not give."""
_TURNS = 64
"""Of files: those with different ones are brought at the same time."""
_RECENT_S = 60.0
"""Files used since then are never removed: somebody may be about to open them."""
_TRIM_SHARE = 0.05
"""Of the cache's limit that a process brings before it looks whether the limit is passed."""


def open_dataset(address: str, cache: str = "", cache_gib: float = 0.0) -> Dataset:
    """Returns a dataset that lies in a folder, in a pack, or in a pack elsewhere.

    Args:
        address: A folder, or what `Location` takes.
        cache: Folder for what is brought of packs; `~/.cache/ushape/packs` if empty.
        cache_gib: Of all files there; 0 has no limit.

    Raises:
        PackError: No pack there, or a damaged one.
        StorageError: It cannot be reached.
    """
    if "://" not in address and not (Path(address) / PACK_FILE).is_file():
        return Dataset(Path(address))
    place = Location(address)
    pack = read_remote_pack(place)
    folder = Path(cache) if cache else user_cache("packs")
    full = place.root if place.is_local else address
    root = folder / hashlib.sha256(str(full).encode()).hexdigest()[:16]
    found = PackedDataset(root, address, pack, int(cache_gib * 2**30))
    with _turn(root):
        if read_json(root / PACK_FILE) != pack.to_json():
            # Files of another content may have the same names.
            for name in _FOLDERS:
                shutil.rmtree(root / name, ignore_errors=True)
            common = next((shard for shard in pack.shards if shard.bits == COMMON), None)
            if common is None:
                raise PackError(f"the pack `{address}` has no lists", hint="pack it again")
            for piece in common.pieces:
                fetch(place, piece, root / piece.name)
            unpack_shard(root, common, root)
            (root / "records").mkdir(exist_ok=True)
            pack.write(root)
    return found


@dataclass(frozen=True, slots=True)
class PackedDataset(Dataset):
    """A dataset of which files are there once they have been asked for by `fetched`."""

    is_local: ClassVar[bool] = False
    address: str
    pack: Pack
    limit: int
    """Bytes of the cache; 0 for no limit."""

    def view_files(self, asset_id: str) -> list[Path]:
        """The views of an asset in their order, there or not."""
        names = fnmatch.filter(self._members(asset_id), "renders/*/view_*.png")
        return [self.root / name for name in sorted(names)]

    def has(self, path: Path) -> bool:
        """Says whether the pack holds a file."""
        name = path.relative_to(self.root).as_posix()
        return name in self._members(_asset_of(name))

    def lacking(self, ids: Sequence[str], file: Callable[[str], Path]) -> list[str]:
        """Returns none: it would take all indexes to know, and only whole assets are packed."""
        return []

    def sample_digest(self, asset_id: str) -> str:
        """Returns what changes when the samples do, and with others of their shard."""
        shard = self.pack.shard_of(asset_id)
        return f"shard:{shard.stem}" if shard else "unreadable"

    def fetched(self, path: Path) -> Path:
        """Returns a file's path when it is there, and keeps it from being the next to go.

        Raises:
            AssetError: The pack has no such file, or storage does not give it in a minute.
        """
        with suppress(FileNotFoundError):
            os.utime(path)
            return path
        name = path.relative_to(self.root).as_posix()
        asset = _asset_of(name)
        member = self._members(asset).get(name)
        shard = self.pack.shard_of(asset)
        if member is None or shard is None:
            raise AssetError(f"`{name}` is not in the pack `{self.address}`",
                             hint="ushape split DATA, then pack and push it again")  # fmt: skip
        # Not twice, where one process is about to have what another one needs.
        with _turn(self.root, zlib.crc32(name.encode()) % _TURNS):
            if path.is_file():
                return path
            data = _patiently(name, partial(_read, self.address, shard, member))
            if hashlib.sha256(data).hexdigest() != member.sha256:
                raise AssetError(f"`{name}` is damaged in `{self.address}`",
                                 hint=DAMAGED)  # fmt: skip
            write_atomic(path, partial(write_bytes, data))
        self._trim(len(data))
        return path

    def _members(self, asset_id: str) -> dict[str, Member]:
        shard = self.pack.shard_of(asset_id)
        if shard is None:
            return {}
        path = self.root / shard.index
        if not path.is_file():
            with _turn(self.root):
                if not path.is_file():
                    _patiently(shard.index, partial(_bring, self.address, shard.pieces[0], path))
        return _index(str(path)).get(asset_id, {})

    def _trim(self, more: int) -> None:
        """Removes what was not used for longest where the cache is beyond its limit."""
        global _brought
        _brought += more
        if not self.limit or _brought < _TRIM_SHARE * self.limit:
            return
        _brought = 0
        with _turn(self.root):
            files = []
            for folder in _FOLDERS:
                for entry in (self.root / folder).rglob("*"):
                    with suppress(OSError):
                        state = entry.stat()
                        if entry.is_file():
                            files.append((state.st_mtime, state.st_size, entry))
            over = sum(size for _, size, _ in files) - self.limit
            for used, size, path in sorted(files):
                if over <= -_TRIM_SHARE * self.limit or time.time() - used < _RECENT_S:
                    break
                with suppress(OSError):
                    path.unlink()
                over -= size


_Got = TypeVar("_Got")
_brought = 0
"""Bytes that this process has brought since it looked at the limit last."""


def _patiently(name: str, read: Callable[[], _Got]) -> _Got:
    """Returns what `read` does, after some tries: networks come back, and a run takes days."""
    for wait in (*_WAITS_S, None):
        try:
            return read()
        except StorageError as error:
            if wait is None:
                raise AssetError(f"`{name}` cannot be read: {error.message}",
                                 hint=error.hint) from error  # fmt: skip
            time.sleep(wait)
    raise AssertionError


def _read(address: str, shard: Shard, member: Member) -> bytes:
    chunks = _location(address).chunks(shard.tar, member.offset, member.offset + member.size)
    return b"".join(chunks)


def _bring(address: str, piece: Piece, path: Path) -> None:
    fetch(_location(address), piece, path)


@lru_cache(maxsize=8)
def _location(address: str) -> Location:
    # Once per process: connections are not shared between processes.
    return Location(address)


@lru_cache(maxsize=64)
def _index(path: str) -> dict[str, dict[str, Member]]:
    """Returns asset -> name -> place of what a shard's index lists."""
    found: dict[str, dict[str, Member]] = {}
    for member in read_index(Path(path)):
        found.setdefault(member.asset, {})[member.name] = member
    return found


def _asset_of(name: str) -> str:
    folder, _, rest = name.partition("/")
    return rest.partition("/")[0] if folder == "renders" else rest.rpartition(".")[0]


@contextmanager
def _turn(root: Path, which: int | None = None) -> Iterator[None]:
    """Lets one process or thread of this machine after the other in, to each of several turns."""
    import fcntl  # Windows has none

    with disk_errors(root):
        root.mkdir(parents=True, exist_ok=True)
        file = (root / (".turn" if which is None else f".turn-{which}")).open("a")
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
