"""A packed dataset: the contract between `ushape data` and training, owned by this module.

    pack.json                     what is in it: shards with sizes and hashes, the dataset's digest
    shards/0110-3f9c....tar       all files of some assets, as below the dataset's folder
    shards/0110-3f9c....jsonl     its index: a line per file with asset, offset, bytes, hash
    shards/common-8b21....tar     lists, settings and reports, which belong to no asset
    .sources.json                 what the shards were made from; of this machine alone

A shard is named after the first bits of its assets' places (`place`) and after its own hash. So a
name stands for one content: nothing is ever changed in place, and what has a name there need not
be sent again. `pack.json` is the last thing written and the only one replaced.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ultrashape_cli.errors import DatasetError, UsageError
from ultrashape_cli.files import disk_errors, read_json, try_lock, write_json

Said = Callable[[int, str], None]
"""Told the bytes that are done and the shard, or the file, in work."""

PACK_FORMAT = 1
PACK_FILE = "pack.json"
SHARDS = "shards"
COMMON = "common"
"""Name of the shard with what belongs to no asset."""
ALL = "all"
"""Instead of no bits, in the name of the shard with all assets."""
SOURCES = ".sources.json"
_STEM = re.compile(rf"(?:[01]{{0,64}}|{ALL}|{COMMON})-[0-9a-f]{{16}}")
_FILE = re.compile(
    rf"{_STEM.pattern}\.(tar|jsonl)(\.part)?|\.([01]{{0,64}}|{ALL}|{COMMON})\.\d+\.tmp\.\w+"
)
_compact = json.JSONEncoder(separators=(",", ":")).encode
_HASH = re.compile(r"[0-9a-f]{64}")
_PART = r"[^./\\\0][^/\\\0]*"
_NAME = re.compile(
    r"render\.json|settings\.toml|report\.html|report\.json"
    rf"|(?:meshes|renders|samples|records|data_list)/{_PART}(?:/{_PART})?"
)


class PackError(DatasetError):
    """A pack is damaged, not whole, or not one."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A file of a pack."""

    name: str
    """Below the pack."""
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Shard:
    """One tar file and its index."""

    stem: str
    """Name without ending: bits or `common`, and the first digits of the hash."""
    assets: int
    files: int
    size: int
    sha256: str
    """Of the tar file."""
    index_size: int
    index_sha256: str

    @property
    def bits(self) -> str:
        """First bits of the places of its assets; `common` for the one without assets."""
        bits = self.stem.partition("-")[0]
        return "" if bits == ALL else bits

    @property
    def tar(self) -> str:
        """Path of the tar file below the pack."""
        return f"{SHARDS}/{self.stem}.tar"

    @property
    def index(self) -> str:
        """Path of the index below the pack."""
        return f"{SHARDS}/{self.stem}.jsonl"

    @property
    def pieces(self) -> tuple[Piece, Piece]:
        """Its files, the index first: a tar file is never without it."""
        return (
            Piece(self.index, self.index_size, self.index_sha256),
            Piece(self.tar, self.size, self.sha256),
        )


@dataclass(frozen=True, slots=True)
class Pack:
    """What `pack.json` says."""

    digest: str
    """Of all assets' files; two packs with the same digest hold the same dataset."""
    shards: tuple[Shard, ...]
    version: str
    """Of ushape, when it was packed."""
    licences: dict[str, int] = field(default_factory=dict)
    """SPDX identifier, or `unknown`, -> imported assets; empty where none was imported."""

    @property
    def assets(self) -> int:
        """Assets in all shards."""
        return sum(shard.assets for shard in self.shards)

    @property
    def size(self) -> int:
        """Bytes of all tar files and indexes."""
        return sum(shard.size + shard.index_size for shard in self.shards)

    @property
    def counts(self) -> dict[str, int]:
        """Assets, shards and bytes."""
        return {"assets": self.assets, "shards": len(self.shards), "bytes": self.size}

    def shard_of(self, asset_id: str) -> Shard | None:
        """Returns the shard in which an asset is, if the pack has it."""
        bits = place(asset_id)
        return next((s for s in self.shards if s.bits != COMMON and bits.startswith(s.bits)), None)

    def to_json(self) -> dict[str, Any]:
        """Returns it as plain JSON values, the same for the same content."""
        body = {
            "format": PACK_FORMAT,
            "digest": self.digest,
            "version": self.version,
            "counts": self.counts,
            "shards": [asdict(shard) for shard in self.shards],
        }
        return body | ({"licences": self.licences} if self.licences else {})

    def write(self, root: Path) -> None:
        """Replaces `pack.json` atomically."""
        write_json(root / PACK_FILE, self.to_json())


@dataclass(frozen=True, slots=True)
class Member:
    """One file in a shard."""

    asset: str
    """Empty in the common shard."""
    name: str
    """Path below the dataset."""
    offset: int
    """Of its first byte in the tar file."""
    size: int
    sha256: str

    def line(self) -> bytes:
        """Returns its line of the index."""
        values = [self.asset, self.name, self.offset, self.size, self.sha256]
        return _compact(values).encode() + b"\n"


def place(asset_id: str) -> str:
    """Returns where an asset stands in the order of all assets, as 64 bits of text."""
    digest = hashlib.sha256(asset_id.encode(errors="surrogateescape")).digest()
    return f"{int.from_bytes(digest[:8], 'big'):064b}"


@contextmanager
def alone(root: Path) -> Iterator[None]:
    """Keeps other processes from writing the same pack.

    Raises:
        UsageError: One does already.
    """
    with disk_errors(root):
        (root / SHARDS).mkdir(parents=True, exist_ok=True)
        with (root / ".lock").open("a") as file:
            if not try_lock(file.fileno()):
                raise UsageError(f"another process writes `{root}`", hint="wait for it")
            yield


def read_pack(root: Path) -> Pack:
    """Returns what a folder's `pack.json` says.

    Raises:
        UsageError: There is none.
        PackError: It is damaged, or of a later format.
    """
    path = root / PACK_FILE
    if not path.is_file():
        raise UsageError(f"`{root}` is no packed dataset (no {PACK_FILE})",
                         hint="ushape data pack DATA -o PACK")  # fmt: skip
    return parse_pack(read_json(path), str(path))


def parse_pack(value: Any, name: str) -> Pack:
    """Returns what the content of a `pack.json` says; raises PackError as `read_pack`."""
    try:
        if value["format"] > PACK_FORMAT:
            raise PackError(f"`{name}` was written by ushape {value.get('version', '?')}, and is "
                            "of a later format", hint="pipx upgrade ultrashape-cli")  # fmt: skip
        shards = tuple(Shard(**entry) for entry in value["shards"])
        whole = all(_is_shard(shard) for shard in shards)
        licences = {str(name): int(n) for name, n in value.get("licences", {}).items()}
        pack = Pack(str(value["digest"]), shards, str(value["version"]), licences)
        stems = {shard.stem for shard in shards}
        whole = whole and len(stems) == len(shards) > 0 and value["counts"] == pack.counts
    except (TypeError, KeyError, ValueError, AttributeError):
        whole = False
    if not whole:
        raise PackError(f"`{name}` is damaged", hint="pack or pull it again")
    return pack


def _is_shard(shard: Shard) -> bool:
    counts = (shard.assets, shard.files, shard.size, shard.index_size)
    return (
        _STEM.fullmatch(shard.stem) is not None
        and all(isinstance(count, int) and count >= 0 for count in counts)
        and _HASH.fullmatch(shard.sha256) is not None
        and _HASH.fullmatch(shard.index_sha256) is not None
        and shard.sha256.startswith(shard.stem.partition("-")[2])
    )


def read_index(path: Path) -> Iterator[Member]:
    """Yields the files of a shard in their order.

    Raises:
        PackError: It is not there, damaged, or names a file outside of a dataset.
    """
    try:
        with path.open("rb") as file:
            for line in file:
                member = Member(*json.loads(line))
                if not is_dataset_file(member.name) or member.offset < 0 or member.size < 0:
                    raise ValueError(member.name)
                yield member
    except FileNotFoundError as error:
        raise PackError(f"`{path}` is not there", hint="pull or pack it again") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise PackError(f"`{path}` is damaged: {error}", hint="pull or pack it again") from error


def digest_of(root: Path, shards: Iterable[Shard]) -> str:
    """Returns a dataset's digest, which does not depend on where it is cut into shards.

    Raises:
        PackError: An index is missing or damaged.
    """
    digest = hashlib.sha256()
    for shard in shards:
        for member in read_index(root / shard.index):
            digest.update(json.dumps([member.asset, member.name, member.sha256]).encode())
    return digest.hexdigest()


def file_size(path: Path) -> int | None:
    """Returns the bytes of a file; None where there is none."""
    with suppress(FileNotFoundError, NotADirectoryError):
        return path.stat().st_size
    return None


def missing_here(shards: Iterable[Shard], root: Path) -> list[Piece]:
    """Returns the files that a folder lacks, by name and size: a name stands for one content."""
    return [piece for shard in shards for piece in shard.pieces
            if file_size(root / piece.name) != piece.size]  # fmt: skip


def remove_others(root: Path, pack: Pack) -> None:
    """Removes files of shards that are not of a pack, such as those of an earlier one."""
    named = {Path(name).name for shard in pack.shards for name in (shard.tar, shard.index)}
    for entry in os.scandir(root / SHARDS):
        # Nothing of a user's is ours to remove.
        if is_shard_file(entry.name) and entry.name not in named:
            with suppress(OSError):
                os.unlink(entry.path)


def is_shard_file(name: str) -> bool:
    """Says whether a file in the folder of shards is one of ours, half-written ones too."""
    return _FILE.fullmatch(name) is not None


def is_dataset_file(name: object) -> bool:
    """Says whether a path below a dataset is one that a dataset has."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None
