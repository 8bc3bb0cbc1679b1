"""A pack back to the dataset that it was made of."""

from __future__ import annotations

import hashlib
import os
from functools import partial
from pathlib import Path
from typing import IO

from ultrashape_cli.data.layout import Dataset
from ultrashape_cli.errors import UsageError
from ultrashape_cli.files import disk_errors, file_hash, write_atomic, write_json
from ultrashape_cli.packing.layout import (
    Member,
    Pack,
    PackError,
    Said,
    Shard,
    file_size,
    is_dataset_file,
    read_index,
)

_FROM_PACK = ".unpacked.json"
"""Says of a dataset that nothing in it is the only copy."""


def unpack_pack(
    root: Path,
    pack: Pack,
    out: Path,
    said: Said = lambda done, shard: None,
    *,
    force: bool = False,
) -> tuple[int, int]:
    """Writes all files of a pack below a dataset's folder; returns how many were made and kept.

    A file of the same content is kept, so that a killed one goes on. Records come last of an
    asset: before its other files are there, it is not in the dataset.

    Args:
        root: The pack.
        pack: From `read_pack`.
        out: The dataset; absent, empty, or from a pack before.
        said: Told the bytes that are done and the shard in work.
        force: Remove assets that are there and not in the pack.

    Raises:
        UsageError: Another dataset is in the folder, or assets that the pack lacks.
        PackError: A file is not what its index says; nothing is written of it.
        DiskError: No room.
    """
    if Dataset(out).exists() and not (out / _FROM_PACK).is_file():
        raise UsageError(f"`{out}` is a dataset that was made there", hint="choose another --out")
    _remove_others(root, pack, out, force)
    write_json(out / _FROM_PACK, {"digest": pack.digest})
    made = kept = done = 0
    # Lists and settings last: what names assets comes behind them.
    for shard in pack.shards:
        said(done, shard.stem)
        new, old = unpack_shard(root, shard, out)
        made, kept, done = made + new, kept + old, done + shard.size + shard.index_size
    said(done, "")
    return made, kept


def _remove_others(root: Path, pack: Pack, out: Path, force: bool) -> None:
    """Removes assets that a pack lacks: they may have been withdrawn, and would be trained on."""
    dataset = Dataset(out)
    there = dataset.recorded_ids() if dataset.exists() else []
    if not there:
        return
    known = {member.asset for shard in pack.shards for member in read_index(root / shard.index)}
    others = [asset for asset in there if asset not in known]
    if others and not force:
        raise UsageError(
            f"`{out}` has {len(others):,} assets that the pack lacks, such as `{others[0]}`",
            hint="choose another --out; --force removes them",
        )
    for asset in others:
        record = dataset.read_record(asset)
        names = (
            [] if record is None else [n for step in record.steps.values() for n in step.outputs]
        )
        with disk_errors(out):
            # Without its record it is in no list.
            (out / f"records/{asset}.json").unlink(missing_ok=True)
            for name in filter(is_dataset_file, names):
                (out / name).unlink(missing_ok=True)


def unpack_shard(root: Path, shard: Shard, out: Path) -> tuple[int, int]:
    """Writes the files of one shard; returns how many were made and kept."""
    made = kept = 0
    members = sorted(read_index(root / shard.index), key=lambda m: m.name.startswith("records/"))
    try:
        tar = (root / shard.tar).open("rb")
    except FileNotFoundError as error:
        raise PackError(f"`{root / shard.tar}` is not there", hint="pull it again") from error
    with tar, disk_errors(out):
        for member in members:
            path = out / member.name
            if _has(path, member):
                kept += 1
                continue
            data = read_member(tar, member)
            if hashlib.sha256(data).hexdigest() != member.sha256:
                raise PackError(f"`{member.name}` in `{root / shard.tar}` is damaged",
                                hint=f"ushape data verify {root}")  # fmt: skip
            write_atomic(path, partial(write_bytes, data))
            made += 1
    return made, kept


def read_member(tar: IO[bytes], member: Member) -> bytes:
    """Returns the bytes that an index ascribes to a file; fewer where the tar file has no more."""
    there = os.fstat(tar.fileno()).st_size - member.offset
    tar.seek(member.offset)
    # An index that lies must not make us allocate what it says.
    return tar.read(max(0, min(member.size, there)))


def write_bytes(data: bytes, file: IO[bytes]) -> None:
    """Writes all of it, for `write_atomic`."""
    file.write(data)


def _has(path: Path, member: Member) -> bool:
    return file_size(path) == member.size and file_hash(path) == member.sha256
