"""Whether a pack is what it was when it was written."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import IO

from ultrashape_cli.files import file_hash
from ultrashape_cli.packing.layout import (
    PACK_FILE,
    Member,
    Pack,
    PackError,
    Said,
    Shard,
    digest_of,
    file_size,
    read_index,
)
from ultrashape_cli.packing.unpack import read_member


def verify_pack(
    root: Path, pack: Pack, said: Said = lambda done, shard: None
) -> dict[str, list[str]]:
    """Returns what is wrong, by shard; the files by name where the index can tell.

    Args:
        root: The pack.
        pack: From `read_pack`.
        said: Told the bytes that are done and the shard in work.
    """
    wrong: dict[str, list[str]] = {}
    done = 0
    for shard in pack.shards:
        said(done, shard.stem)
        if problems := _verify_shard(root, shard):
            wrong[shard.stem] = problems
        done += shard.size + shard.index_size
    said(done, "")
    if not wrong and digest_of(root, pack.shards) != pack.digest:
        wrong[PACK_FILE] = [f"`{PACK_FILE}` is not of these shards"]
    return wrong


def _verify_shard(root: Path, shard: Shard) -> list[str]:
    tar, index = root / shard.tar, root / shard.index
    sizes = ((tar, shard.size), (index, shard.index_size))
    missing = [f"`{path.name}` is not there" for path, _ in sizes if not path.is_file()]
    if missing:
        return missing
    if file_hash(index) != shard.index_sha256:
        return [f"`{index.name}` has changed"]
    if file_hash(tar) == shard.sha256:
        return [f"`{PACK_FILE}` says {size:,} bytes of `{path.name}`"
                for path, size in sizes if file_size(path) != size]  # fmt: skip
    try:
        with tar.open("rb") as file:
            changed = [m.name for m in read_index(index) if not _is_whole(file, m)]
    except PackError as error:
        return [error.message]
    return [f"`{name}` has changed" for name in changed] or ["the tar file has changed"]


def _is_whole(tar: IO[bytes], member: Member) -> bool:
    return hashlib.sha256(read_member(tar, member)).hexdigest() == member.sha256
