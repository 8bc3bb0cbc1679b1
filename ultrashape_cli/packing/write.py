"""Writing a pack: each file of the dataset is read once, and unchanged shards not at all."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from ultrashape_cli import __version__
from ultrashape_cli.data.layout import OWNED, Dataset, Record
from ultrashape_cli.errors import DatasetError
from ultrashape_cli.files import disk_errors, partial_path, read_json, write_json
from ultrashape_cli.packing.layout import (
    COMMON,
    SHARDS,
    Member,
    Pack,
    Shard,
    alone,
    is_dataset_file,
    is_shard_file,
    read_index,
)
from ultrashape_cli.packing.shards import plan_shards

_SOURCES = ".sources.json"
_CHUNK = 1 << 20
_BLOCK = 512
"""Of a tar file."""
_RECORD_BLOCKS = 20
"""Blocks to a multiple of which a tar file is filled up."""

Said = Callable[[int, str], None]
"""Told the bytes that are done and the shard in work."""


@dataclass(slots=True)
class Packing:
    """What packing is about to do, and what it found."""

    dataset: Dataset
    limit: int
    files: dict[str, list[tuple[str, int]]] = field(default_factory=dict)
    """Asset -> path below the dataset and bytes; the empty asset has what belongs to none."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Asset -> what is wrong with its files."""

    @property
    def total(self) -> int:
        """Bytes of all files."""
        return sum(size for files in self.files.values() for _, size in files)


def plan_pack(dataset: Dataset, limit: int) -> Packing:
    """Returns what a pack of a dataset will hold, by its records.

    An asset whose files are not those of its record is left out, and the cause noted.

    Raises:
        DatasetError: No asset is whole.
    """
    found = Packing(dataset, limit)
    for asset, record in dataset.load_records().items():
        try:
            found.files[asset] = list(_files_of(dataset, record))
        except DatasetError as error:
            found.left_out[asset] = error.message
    if not found.files:
        cause = next(iter(found.left_out.values()), "it has no records")
        raise DatasetError(f"nothing to pack in `{dataset.root}`: {cause}")
    common = []
    for top in OWNED:
        path = dataset.root / top
        inside = sorted(path.glob("*")) if top == "data_list" else [path]
        common += [p for p in inside if p.is_file() and not p.name.startswith(".")]
    found.files[""] = [(str(p.relative_to(dataset.root)), p.stat().st_size) for p in common]
    return found


def _files_of(dataset: Dataset, record: Record) -> Iterator[tuple[str, int]]:
    path = dataset.record_path(record.id)
    yield f"records/{path.name}", path.stat().st_size
    for step in record.steps.values():
        for name, size in step.outputs.items() if step.status == "done" else ():
            if not is_dataset_file(name):
                raise DatasetError(f"its record names `{name}`, which is no file of a dataset")
            try:
                there = os.stat(dataset.root / name).st_size
            except OSError as error:
                raise DatasetError(f"`{name}` is missing") from error
            if there != size:
                raise DatasetError(f"`{name}` has {there:,} bytes, its record says {size:,}")
            yield name, size


def write_pack(plan: Packing, root: Path, said: Said = lambda done, shard: None) -> Pack:
    """Writes what is not yet there of a pack, and removes shards that are no longer of it.

    Killed, it goes on behind the last whole shard when called again.

    Raises:
        DatasetError: A file changed while it was read.
        DiskError: No room.
        UsageError: Another process packs into the same folder.
    """
    sizes = {asset: sum(size for _, size in files) for asset, files in plan.files.items()}
    common = sizes.pop("")
    with alone(root):
        sources = read_json(root / _SOURCES)
        known = sources if isinstance(sources, dict) else {}
        made: dict[str, Any] = {}
        shards, done = [], 0
        for bits, assets in [*plan_shards(sizes, plan.limit), (COMMON, [""])]:
            seen = _signature(plan, assets)
            shard = _known(root, known.get(bits), seen)
            if shard is None:
                shard = _write_shard(plan, root, bits, assets)
                # At once: a killed process need not read it again.
                made[bits] = {"seen": seen, "shard": asdict(shard)}
                write_json(root / _SOURCES, known | made)
            made[bits] = {"seen": seen, "shard": asdict(shard)}
            shards.append(shard)
            done += common if bits == COMMON else sum(sizes[asset] for asset in assets)
            said(done, shard.stem)
        pack = Pack(_digest(root, shards), tuple(shards), __version__)
        pack.write(root)
        write_json(root / _SOURCES, made)
        remove_others(root, pack)
    return pack


def _digest(root: Path, shards: list[Shard]) -> str:
    """Returns the dataset's digest, which does not depend on where it is cut into shards."""
    digest = hashlib.sha256()
    for shard in shards:
        for member in read_index(root / shard.index):
            digest.update(json.dumps([member.asset, member.name, member.sha256]).encode())
    return digest.hexdigest()


def _signature(plan: Packing, assets: list[str]) -> str:
    """Returns what changes when a file of the assets does, by sizes and times."""
    found = hashlib.sha256()
    root = str(plan.dataset.root)
    for asset in assets:
        for name, size in plan.files[asset]:
            try:
                changed = os.stat(f"{root}/{name}").st_mtime_ns
            except OSError as error:
                raise _vanished(asset, name) from error
            found.update(f"{name}\0{size}\0{changed}\n".encode(errors="surrogateescape"))
    return found.hexdigest()


def _known(root: Path, entry: Any, seen: str) -> Shard | None:
    """Returns the shard that was made of the same files before, if it is still there."""
    if not isinstance(entry, dict) or entry.get("seen") != seen:
        return None
    shard = Shard(**entry["shard"])
    for name, size in ((shard.tar, shard.size), (shard.index, shard.index_size)):
        path = root / name
        if not path.is_file() or path.stat().st_size != size:
            return None
    return shard


def _write_shard(plan: Packing, root: Path, bits: str, assets: list[str]) -> Shard:
    """Writes a tar file and its index under their final names."""
    files = 0
    index = hashlib.sha256()
    # Their names hold the hash, which is known when they are written.
    tar_path, index_path = (
        partial_path(root / SHARDS / f"{bits}.{end}", os.getpid()) for end in ("tar", "jsonl")
    )
    try:
        with disk_errors(root), tar_path.open("wb") as raw, index_path.open("wb") as lines:
            tar = _HashedFile(raw)
            for asset in assets:
                for name, size in sorted(plan.files[asset]):
                    member = _add(tar, plan.dataset.root / name, asset, name, size)
                    line = member.line()
                    lines.write(line)
                    index.update(line)
                    files += 1
            tar.write(bytes(2 * _BLOCK))
            tar.write(bytes(-tar.size % (_RECORD_BLOCKS * _BLOCK)))
            index_size = lines.tell()
        digest = tar.digest.hexdigest()
        shard = Shard(f"{bits}-{digest[:16]}", sum(map(bool, assets)), files, tar.size, digest,
                      index_size, index.hexdigest())  # fmt: skip
        with disk_errors(root):
            index_path.replace(root / shard.index)
            tar_path.replace(root / shard.tar)
        return shard
    finally:
        for path in (tar_path, index_path):
            with suppress(OSError):
                path.unlink(missing_ok=True)


class _HashedFile:
    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.size = 0
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self.digest.update(data)
        self.size += len(data)


def _add(tar: _HashedFile, path: Path, asset: str, name: str, size: int) -> Member:
    """Appends a file, without anything that differs between machines or days."""
    entry = tarfile.TarInfo(name)
    entry.size = size
    entry.mode = 0o644
    # Names longer than 100 characters take a header of their own in this format.
    tar.write(entry.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
    offset, digest = tar.size, hashlib.sha256()
    try:
        with path.open("rb") as file:
            while data := file.read(_CHUNK):
                tar.write(data)
                digest.update(data)
    except OSError as error:
        raise _vanished(asset, name) from error
    if tar.size - offset != size:
        raise DatasetError(f"`{name}` changed while it was packed", hint="repeat the command")
    tar.write(bytes(-size % _BLOCK))
    return Member(asset, name, offset, size, digest.hexdigest())


def _vanished(asset: str, name: str) -> DatasetError:
    return DatasetError(f"`{name}` of asset `{asset}` vanished while it was packed",
                        hint="repeat the command")  # fmt: skip


def remove_others(root: Path, pack: Pack) -> None:
    """Removes files of shards that are not of a pack, such as those of an earlier one."""
    named = {Path(name).name for shard in pack.shards for name in (shard.tar, shard.index)}
    for entry in os.scandir(root / SHARDS):
        # Nothing of a user's is ours to remove.
        if is_shard_file(entry.name) and entry.name not in named:
            with suppress(OSError):
                os.unlink(entry.path)
