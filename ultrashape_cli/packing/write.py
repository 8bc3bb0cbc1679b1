"""Writing a pack: each file of the dataset is read once, and unchanged shards not at all."""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

from ultrashape_cli import __version__
from ultrashape_cli.data.attribution import origin_of
from ultrashape_cli.data.layout import OWNED, Dataset
from ultrashape_cli.errors import DatasetError
from ultrashape_cli.files import disk_errors, partial_path, read_json, write_json
from ultrashape_cli.packing.layout import (
    ALL,
    COMMON,
    SHARDS,
    SOURCES,
    Member,
    Pack,
    Said,
    Shard,
    alone,
    digest_of,
    is_dataset_file,
    missing_here,
    remove_others,
)
from ultrashape_cli.packing.shards import plan_shards

_CHUNK = 1 << 20
_BLOCK = 512
"""Of a tar file."""
_NAME_FIELD = 100
_HEADER_REST = (b"0" + bytes(_NAME_FIELD) + b"ustar\x0000").ljust(356, b"\0")
"""Of a plain file's header what stands behind the sum."""
_RECORD_BLOCKS = 20
"""Blocks to a multiple of which a tar file is filled up."""


class Planned(NamedTuple):
    """The files of an asset, or those that belong to none."""

    size: int
    """Bytes of all of them."""
    seen: bytes
    """Changes when one of them does, by sizes and times."""


@dataclass(slots=True)
class Packing:
    """What packing is about to do, and what it found.

    Files are looked up again when they are packed: half a million names are not kept.
    """

    dataset: Dataset
    limit: int
    """Bytes of a shard."""
    assets: dict[str, Planned] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    """Asset -> what is wrong with its files."""
    licences: Counter[str] = field(default_factory=Counter)
    """Of imported assets."""

    @property
    def total(self) -> int:
        """Bytes of all files of assets."""
        return sum(planned.size for planned in self.assets.values())


def plan_pack(dataset: Dataset, limit: int) -> Packing:
    """Returns what a pack of a dataset will hold, by its records.

    An asset whose files are not those of its record is left out, and the cause noted.

    Raises:
        DatasetError: No asset is whole.
    """
    found = Packing(dataset, limit)
    for asset in dataset.recorded_ids():
        try:
            found.assets[asset] = _look_at(dataset, asset)
        except DatasetError as error:
            found.left_out[asset] = error.message
            continue
        record = dataset.read_record(asset)
        if record is not None and (origin := origin_of(record)):
            found.licences[origin.get("licence") or "unknown"] += 1
    if not found.assets:
        cause = next(iter(found.left_out.values()), "it has no records")
        raise DatasetError(f"nothing to pack in `{dataset.root}`: {cause}")
    return found


def _look_at(dataset: Dataset, asset: str) -> Planned:
    """Returns size and state of the files of an asset; the empty one has what belongs to none.

    Raises:
        DatasetError: One of them is missing, or not what the record says.
    """
    root, total, seen = str(dataset.root), 0, hashlib.sha256()
    for name, size in _files_of(dataset, asset):
        try:
            there = os.stat(f"{root}/{name}")
        except OSError as error:
            raise DatasetError(f"`{name}` is missing") from error
        if size is not None and there.st_size != size:
            message = f"`{name}` has {there.st_size:,} bytes, its record says {size:,}"
            raise DatasetError(message)
        seen.update(_state_line(name, there))
        total += there.st_size
    return Planned(total, seen.digest())


def _state_line(name: str, state: os.stat_result) -> bytes:
    line = f"{name}\0{state.st_size}\0{state.st_mtime_ns}\n"
    return line.encode(errors="surrogateescape")


def _files_of(dataset: Dataset, asset: str) -> list[tuple[str, int | None]]:
    """Returns the files of an asset in order, with their sizes where the record tells them."""
    if not asset:
        tops = [dataset.root / top for top in OWNED]
        paths = [p for top in tops for p in (top.glob("*") if top.name == "data_list" else [top])]
        names = [str(p.relative_to(dataset.root)) for p in paths
                 if p.is_file() and not p.name.startswith(".")]  # fmt: skip
        return [(name, None) for name in sorted(names)]
    record = dataset.read_record(asset)
    if record is None:
        raise DatasetError("its record cannot be read")
    found: list[tuple[str, int | None]] = [(f"records/{asset}.json", None)]
    for step in record.steps.values():
        if step.status == "done":
            found += step.outputs.items()
    for name, _ in found:
        if not is_dataset_file(name):
            raise DatasetError(f"its record names `{name}`, which is no file of a dataset")
    return sorted(found)


def write_pack(plan: Packing, root: Path, said: Said = lambda done, shard: None) -> Pack:
    """Writes what is not yet there of a pack, and removes shards that are no longer of it.

    `held_pack` and `require_own` say before whether it may go there.

    Killed, it goes on behind the last whole shard when called again.

    Raises:
        DatasetError: A file changed while it was read.
        DiskError: No room.
        UsageError: Another process packs into the same folder.
    """
    sizes = {asset: planned.size for asset, planned in plan.assets.items()}
    with alone(root):
        sources = read_json(root / SOURCES)
        known = sources if isinstance(sources, dict) else {}
        made: dict[str, Any] = {".data": str(plan.dataset.root.resolve())}
        shards, done = [], 0
        for bits, assets in [*plan_shards(sizes, plan.limit), (COMMON, [""])]:
            seen = _state(plan, assets)
            shard = _known(root, known.get(bits), seen)
            if shard is None:
                shard = _write_shard(plan, root, bits, assets)
                # At once: a killed process need not read it again.
                made[bits] = {"seen": seen, "shard": asdict(shard)}
                write_json(root / SOURCES, known | made)
            made[bits] = {"seen": seen, "shard": asdict(shard)}
            shards.append(shard)
            done += sum(sizes.get(asset, 0) for asset in assets)
            said(done, shard.stem)
        licences = dict(sorted(plan.licences.items()))
        pack = Pack(digest_of(root, shards), tuple(shards), __version__, licences)
        pack.write(root)
        write_json(root / SOURCES, made)
        remove_others(root, pack)
    return pack


def _state(plan: Packing, assets: list[str]) -> str:
    """Returns what changes when a file of one of the assets does."""
    found = hashlib.sha256()
    for asset in assets:
        planned = plan.assets.get(asset) or _look_at(plan.dataset, asset)
        found.update(planned.seen)
    return found.hexdigest()


def _known(root: Path, entry: Any, seen: str) -> Shard | None:
    """Returns the shard that was made of the same files before, if it is still there."""
    if not isinstance(entry, dict) or entry.get("seen") != seen:
        return None
    shard = Shard(**entry["shard"])
    return None if missing_here([shard], root) else shard


def _write_shard(plan: Packing, root: Path, bits: str, assets: list[str]) -> Shard:
    """Writes a tar file and its index under their final names."""
    files = 0
    index = hashlib.sha256()
    buffer = bytearray(_CHUNK)
    # Their names hold the hash, which is known when they are written.
    tar_path, index_path = (
        partial_path(root / SHARDS / f"{bits or ALL}.{end}", os.getpid())
        for end in ("tar", "jsonl")
    )
    try:
        with disk_errors(root), tar_path.open("wb") as raw, index_path.open("wb") as lines:
            tar = _HashedFile(raw)
            for asset in assets:
                planned = plan.assets.get(asset) or _look_at(plan.dataset, asset)
                seen = hashlib.sha256()
                for name, _ in _files_of(plan.dataset, asset):
                    member, state = _add(tar, plan.dataset.root, asset, name, buffer)
                    seen.update(_state_line(name, state))
                    line = member.line()
                    lines.write(line)
                    index.update(line)
                    files += 1
                if seen.digest() != planned.seen:
                    raise _changed(asset or "the lists")
            tar.write(bytes(2 * _BLOCK))
            tar.write(bytes(-tar.size % (_RECORD_BLOCKS * _BLOCK)))
            index_size = lines.tell()
        digest = tar.digest.hexdigest()
        stem = f"{bits or ALL}-{digest[:16]}"
        shard = Shard(stem, sum(map(bool, assets)), files, tar.size, digest,
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

    def write(self, data: bytes | memoryview) -> None:
        self._file.write(data)
        self.digest.update(data)
        self.size += len(data)


def _add(
    tar: _HashedFile, root: Path, asset: str, name: str, buffer: bytearray
) -> tuple[Member, os.stat_result]:
    """Appends a file, without anything that differs between machines or days.

    Returns its entry, and its state after it was read.
    """
    try:
        file = os.open(f"{root}/{name}", os.O_RDONLY)
    except OSError as error:
        raise _changed(name) from error
    # What goes wrong from here on is more likely the disk that is written to.
    try:
        got = os.readv(file, [buffer])
        state = os.fstat(file)
        size = state.st_size
        header = tar_header(name, size)
        view = memoryview(buffer)[:got]
        offset, digest = tar.size + len(header), hashlib.sha256(view)
        padding = bytes(-size % _BLOCK)
        if got == size:
            # Small files, of which there are half a million, in one piece.
            tar.write(b"".join((header, view, padding)))
        else:
            tar.write(header)
            while got:
                tar.write(view)
                got = os.readv(file, [buffer])
                view = memoryview(buffer)[:got]
                digest.update(view)
            if tar.size - offset != size:
                raise _changed(name)
            tar.write(padding)
            state = os.fstat(file)
    finally:
        os.close(file)
    return Member(asset, name, offset, size, digest.hexdigest()), state


def _changed(name: str) -> DatasetError:
    return DatasetError(f"`{name}` changed while it was packed", hint="repeat the command")


def tar_header(name: str, size: int) -> bytes:
    """Returns what stands before a file in a tar file; what `tarfile` writes, five times faster."""
    raw = name.encode("utf-8", "surrogateescape")
    if len(raw) >= _NAME_FIELD or size >= 8 << 30 or not name.isascii():
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = size, 0o644
        return entry.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
    head = b"%s0000644\x000000000\x000000000\0%011o\x0000000000000\0" % (
        raw.ljust(_NAME_FIELD, b"\0"),
        size,
    )
    # The sum counts its own field as eight blanks.
    return b"%s%06o\0 %s" % (head, sum(head) + sum(_HEADER_REST) + 8 * 32, _HEADER_REST)
