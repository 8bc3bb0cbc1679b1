"""What a place holds before a pack goes there: nothing else of anyone's is replaced or removed."""

from __future__ import annotations

import json
from pathlib import Path

from ultrashape_cli.errors import UsageError
from ultrashape_cli.files import read_json
from ultrashape_cli.packing.layout import (
    COMMON,
    PACK_FILE,
    SHARDS,
    SOURCES,
    Member,
    Pack,
    PackError,
    is_shard_file,
    read_index,
)
from ultrashape_cli.packing.location import Location
from ultrashape_cli.packing.transfer import find_remote_pack

_OF_OURS = {PACK_FILE, f"{PACK_FILE}.part", SOURCES, ".lock"}
_OF_THE_HUB = {".gitattributes", "README.md"}
"""What the Hub itself puts into a repository."""
_LARGEST_INDEX = 64 << 20
"""Bytes of an index that is read to see whether two packs are of one dataset."""


def held_pack(place: Location) -> Pack | None:
    """Returns the pack in a place; None where nothing is, or only shards of a killed process.

    Raises:
        UsageError: It holds something else.
        StorageError: It cannot be reached.
    """
    try:
        if (found := find_remote_pack(place)) is not None:
            return found
    except PackError as error:
        raise UsageError(
            f"`{place.address.rstrip('/')}/{PACK_FILE}` is there, and no pack's",
            hint="choose another place, or remove the file",
        ) from error
    files = place.sizes("")
    expected = _OF_OURS | {SHARDS} | (_OF_THE_HUB if place.kind == "hf" else set())
    others = sorted({*files, *place.folders("")} - expected)
    shards = place.sizes(SHARDS)
    others += sorted(f"{SHARDS}/{name}" for name in shards if not is_shard_file(name))
    if place.is_local and shards and ".lock" not in files:
        others += [f"{SHARDS}/{min(shards)}"]
    if others:
        raise UsageError(
            f"`{place.address}` holds `{others[0]}`, and no pack",
            hint="choose a place that is empty, or a new one below",
        )
    return None


def require_own(root: Path, held: Pack | None, data: Path) -> None:
    """Raises UsageError where a folder's pack was made of another dataset, or came from elsewhere.

    Args:
        root: The folder.
        held: From `held_pack`.
        data: The dataset that is to be packed into it.
    """
    if held is None:
        return
    sources = read_json(root / SOURCES)
    before = sources.get(".data") if isinstance(sources, dict) else None
    if before is None or (Path(before) != data.resolve() and Path(before).exists()):
        came = "came from elsewhere" if before is None else f"was made of `{before}`"
        raise UsageError(
            f"`{root}` is a pack of {held.assets:,} assets that {came}",
            hint="choose another --out; --force replaces it",
        )


def require_version_of(root: Path, held: Pack | None, pack: Pack, place: Location) -> None:
    """Raises UsageError where a place's pack has no asset in common with the one to be sent."""
    if (
        held is None
        or not held.assets
        or {s.stem for s in held.shards} & {s.stem for s in pack.shards if s.bits != COMMON}
    ):
        return
    theirs = min((s for s in held.shards if s.bits != COMMON), key=lambda s: s.index_size)
    data = place.read(theirs.index) if theirs.index_size <= _LARGEST_INDEX else None
    try:
        names = {Member(*json.loads(line)).asset for line in (data or b"").splitlines()}
    except (ValueError, TypeError, RecursionError):
        names = set()
    mine = (s for s in pack.shards if s.bits != COMMON and _overlap(s.bits, theirs.bits))
    if any(member.asset in names for shard in mine for member in read_index(root / shard.index)):
        return
    raise UsageError(
        f"`{place.address}` holds another dataset, {held.digest[:16]} of {held.assets:,} assets",
        hint="choose another place; --force replaces it",
    )


def _overlap(a: str, b: str) -> bool:
    return a.startswith(b) or b.startswith(a)
