"""Packs from and to other places: only what is missing, whole, and on from where it was killed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from ultrashape_cli.files import disk_errors, file_hash
from ultrashape_cli.packing.layout import (
    PACK_FILE,
    SHARDS,
    Pack,
    PackError,
    Piece,
    Said,
    alone,
    file_size,
    missing_here,
    parse_pack,
    remove_others,
)
from ultrashape_cli.packing.location import Location

_COMMIT_BYTES = 4 << 30
"""Of shards in one commit on the Hub, which takes some hundred commits an hour at most."""


def read_remote_pack(place: Location) -> Pack:
    """Returns what the `pack.json` of a place says.

    Raises:
        PackError: There is none, or it is damaged.
    """
    data = place.read(PACK_FILE)
    name = f"{place.address.rstrip('/')}/{PACK_FILE}"
    if data is None:
        raise PackError(f"no packed dataset at `{place.address}` (no {PACK_FILE})",
                        hint="ushape data push PACK ADDRESS")  # fmt: skip
    try:
        return parse_pack(json.loads(data), name)
    except ValueError as error:
        raise PackError(f"`{name}` is damaged", hint="push it again") from error


def missing_there(pack: Pack, place: Location) -> list[Piece]:
    """Returns the files that a place lacks, by name and size: a name stands for one content."""
    there = place.sizes(SHARDS)
    return [piece for shard in pack.shards for piece in shard.pieces
            if there.get(Path(piece.name).name) != piece.size]  # fmt: skip


def push_pack(
    root: Path, pack: Pack, place: Location, said: Said = lambda done, name: None
) -> list[Piece]:
    """Sends what a place lacks of a pack, and `pack.json` last; returns what was sent.

    Raises:
        PackError: A file here is not whole; nothing of it is sent.
        StorageError: The place cannot be reached or refuses.
    """
    missing = missing_there(pack, place)
    done = pack.size - sum(piece.size for piece in missing)
    for group in _groups(missing, place):
        for piece in group:
            _require_whole(root / piece.name, piece)
        if place.kind == "hf":
            _commit(place, root, [piece.name for piece in group])
        for piece in group:
            said(done, piece.name)
            if place.kind != "hf":
                place.send(root / piece.name, piece.name)
            done += piece.size
    if place.kind == "hf":
        _commit(place, root, [PACK_FILE])
    else:
        place.send(root / PACK_FILE, PACK_FILE)
    said(done, "")
    return missing


def may_be_public(place: Location) -> bool:
    """Says whether others may read a place, as far as it can be known; buckets do not tell."""
    if place.kind == "hf":
        from ultrashape_cli.hub import is_public

        return is_public(_repository(place)[0], kind="dataset")
    return place.kind in ("s3", "gs")


def _groups(missing: list[Piece], place: Location) -> Iterator[list[Piece]]:
    """Yields what is sent in one go: each file alone, but for the Hub."""
    group: list[Piece] = []
    for piece in missing:
        group.append(piece)
        if place.kind != "hf" or sum(p.size for p in group) >= _COMMIT_BYTES:
            yield group
            group = []
    if group:
        yield group


def _commit(place: Location, root: Path, names: list[str]) -> None:
    from ultrashape_cli.hub import upload

    repo, folder = _repository(place)
    files: dict[str, Path | bytes] = {f"{folder}{name}": root / name for name in names}
    upload(repo, files, message=f"Upload {len(names)} files with ushape", kind="dataset")


def _repository(place: Location) -> tuple[str, str]:
    """Returns the repository of an address on the Hub, and the folder in it."""
    owner, name, *folders = place.root.removeprefix("datasets/").split("/")
    return f"{owner}/{name}", "".join(f"{folder}/" for folder in folders)


def _require_whole(path: Path, piece: Piece) -> None:
    if file_size(path) != piece.size or file_hash(path) != piece.sha256:
        raise PackError(
            f"`{path}` is not what was packed",
            hint=f"ushape data verify {path.parents[1]} names what changed",
        )


def pull_pack(
    pack: Pack, place: Location, root: Path, said: Said = lambda done, name: None
) -> list[Piece]:
    """Brings what a folder lacks of a pack, checked, and `pack.json` last; returns what came.

    Raises:
        PackError: What came is not what the pack says.
        StorageError: The place cannot be reached or refuses.
        DiskError: No room.
    """
    with alone(root):
        missing = missing_here(pack.shards, root)
        done = pack.size - sum(piece.size for piece in missing)
        for piece in missing:
            fetch(place, piece, root / piece.name, partial(_said_beyond, said, done, piece.name))
            done += piece.size
        pack.write(root)
        remove_others(root, pack)
    said(done, "")
    return missing


def _said_beyond(said: Said, before: int, name: str, done: int) -> None:
    said(before + done, name)


def fetch(
    place: Location, piece: Piece, path: Path, said: Callable[[int], None] = lambda done: None
) -> None:
    """Brings one file, or the rest of it; it gets its name when its hash is right.

    Raises:
        PackError: It is not what the pack says, twice.
    """
    unfinished = path.with_name(f"{path.name}.part")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # What an earlier call left may be of a copy that was damaged then.
        for start in dict.fromkeys((min(file_size(unfinished) or 0, piece.size), 0)):
            with unfinished.open("ab") as file:
                file.truncate(start)
                for data in place.chunks(piece.name, start, piece.size):
                    file.write(data)
                    said(file.tell())
            if file_hash(unfinished) == piece.sha256:
                unfinished.replace(path)
                return
            unfinished.unlink()
    raise PackError(f"`{place.address.rstrip('/')}/{piece.name}` is damaged there",
                    hint="ushape data push PACK ADDRESS, from a pack that is whole")  # fmt: skip
