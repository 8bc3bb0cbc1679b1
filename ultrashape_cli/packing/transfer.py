"""Packs from and to other places: only what is missing, whole, and on from where it was killed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from ultrashape_cli.files import disk_errors, file_hash
from ultrashape_cli.packing.layout import (
    PACK_FILE,
    SHARDS,
    SOURCES,
    Pack,
    PackError,
    Piece,
    Said,
    alone,
    digest_of,
    file_size,
    missing_here,
    parse_pack,
    remove_others,
)
from ultrashape_cli.packing.location import Location

DAMAGED = "ushape data push PACK ADDRESS --check, from a pack that is whole"
_COMMIT_BYTES = 4 << 30
"""Of shards in one commit on the Hub, which takes some hundred commits an hour at most."""


def read_remote_pack(place: Location) -> Pack:
    """Returns what the `pack.json` of a place says.

    Raises:
        PackError: There is none, or it is damaged.
    """
    found = find_remote_pack(place)
    if found is None:
        raise PackError(f"no packed dataset at `{place.address}` (no {PACK_FILE} there)",
                        hint="correct the address, or: ushape data push PACK ADDRESS")  # fmt: skip
    return found


def find_remote_pack(place: Location) -> Pack | None:
    """Returns what the `pack.json` of a place says, None where there is none.

    Raises:
        PackError: It is damaged.
    """
    data = place.read(PACK_FILE)
    if data is None:
        return None
    name = f"{place.address.rstrip('/')}/{PACK_FILE}"
    try:
        return parse_pack(json.loads(data), name)
    except (ValueError, RecursionError) as error:
        raise PackError(f"`{name}` is damaged", hint="push it again") from error


def missing_there(pack: Pack, place: Location) -> list[Piece]:
    """Returns the files that a place lacks, by name and size: a name stands for one content."""
    there = place.sizes(SHARDS)
    return [piece for shard in pack.shards for piece in shard.pieces
            if there.get(Path(piece.name).name) != piece.size]  # fmt: skip


def damaged_there(pack: Pack, place: Location, said: Said = lambda done, name: None) -> list[Piece]:
    """Returns the files of a place that are not what a pack says, or not there; reads all of it.

    Raises:
        StorageError: The place cannot be reached or refuses.
    """
    missing = missing_there(pack, place)
    done, found = 0, []
    for shard in pack.shards:
        for piece in shard.pieces:
            said(done, piece.name)
            if piece in missing or _hash_there(piece, place) != piece.sha256:
                found.append(piece)
            done += piece.size
    said(done, "")
    return found


def _hash_there(piece: Piece, place: Location) -> str:
    digest = hashlib.sha256()
    for data in place.chunks(piece.name, 0, piece.size):
        digest.update(data)
    return digest.hexdigest()


def push_pack(
    root: Path,
    pack: Pack,
    place: Location,
    said: Said = lambda done, name: None,
    *,
    missing: list[Piece] | None = None,
) -> list[Piece]:
    """Sends what a place lacks of a pack, and `pack.json` last; returns what was sent.

    Args:
        root: The pack.
        pack: From `read_pack`.
        place: Where it goes.
        said: Told the bytes that are done and the file in work.
        missing: What to send; None for what `missing_there` says.

    Raises:
        PackError: A file here is not whole, and nothing of it is sent; or another process has
            pushed another pack meanwhile.
        StorageError: The place cannot be reached or refuses.
    """
    missing = missing_there(pack, place) if missing is None else missing
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
    if (there := read_remote_pack(place).digest) != pack.digest:
        raise PackError(f"another process has pushed dataset {there[:16]} to `{place.address}`",
                        hint="give each dataset a place of its own")  # fmt: skip
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
        # Before anything of a former pack goes.
        if digest_of(root, pack.shards) != pack.digest:
            raise PackError(f"`{place.address.rstrip('/')}/{PACK_FILE}` is not of its shards",
                            hint="push it again from a pack that is whole")  # fmt: skip
        pack.write(root)
        # What they were packed from is no longer here.
        (root / SOURCES).unlink(missing_ok=True)
        remove_others(root, pack)
    said(done, "")
    return missing


def _said_beyond(said: Said, before: int, name: str, done: int) -> None:
    said(before + done, name)


def fetch(
    place: Location,
    piece: Piece,
    path: Path,
    said: Callable[[int], None] = lambda done: None,
    *,
    hint: str = DAMAGED,
) -> None:
    """Brings one file, or the rest of it; it gets its name when its hash is right.

    Args:
        place: Where it is.
        piece: Its name and hash.
        path: What it becomes.
        said: Told the bytes that are done.
        hint: What mends one that is damaged there.

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
                    hint=hint)  # fmt: skip
