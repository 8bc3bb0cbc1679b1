"""Whether a pack is what it was when it was written."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import IO

from ultrashape_cli.files import file_hash
from ultrashape_cli.packing.layout import Member, Pack, PackError, Said, Shard, read_index
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
    return wrong


def _verify_shard(root: Path, shard: Shard) -> list[str]:
    tar, index = root / shard.tar, root / shard.index
    missing = [f"`{path.name}` is not there" for path in (tar, index) if not path.is_file()]
    if missing:
        return missing
    if file_hash(index) != shard.index_sha256:
        return [f"`{index.name}` has changed"]
    if file_hash(tar) == shard.sha256:
        return []
    try:
        with tar.open("rb") as file:
            changed = [m.name for m in read_index(index) if not _is_whole(file, m)]
    except PackError as error:
        return [error.message]
    return [f"`{name}` has changed" for name in changed] or ["the tar file has changed"]


def _is_whole(tar: IO[bytes], member: Member) -> bool:
    return hashlib.sha256(read_member(tar, member)).hexdigest() == member.sha256
