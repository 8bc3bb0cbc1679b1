"""Finds mesh files and gives each an id made of its content."""

from __future__ import annotations

import difflib
import hashlib
import logging
import os
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from ultrashape_cli.data.layout import Record
from ultrashape_cli.errors import UsageError
from ultrashape_cli.meshfiles.companions import colour_files, material_names, uris
from ultrashape_cli.meshfiles.load import MESH_SUFFIXES
from ultrashape_cli.preparation.remote import RemoteFile, warn_of_others

logger = logging.getLogger(__name__)

SLUG_LENGTH = 40


def find_meshes(folder: Path) -> list[Path]:
    """Returns all mesh files below `folder`, sorted.

    Symbolic links to folders are not followed; the meshes of a prepared dataset are left out, so
    that a dataset may lie inside the folder it is made from. A dangling link is returned: it
    costs one record, not silence.

    Raises:
        UsageError: There are none.
    """
    files = []
    kinds: list[str] = []
    for parent, folders, names in os.walk(folder, onerror=_warn):
        if "records" in folders and "meshes" in folders and _has_records(parent):
            folders.remove("meshes")
        for name in names:
            path = os.path.join(parent, name)
            kind = os.path.splitext(name)[1].lower()
            kinds.append(kind)
            if kind not in MESH_SUFFIXES or name.startswith("."):
                continue
            # Neither pipes nor devices: reading them would never end.
            if os.path.isfile(path) or not os.path.exists(path):
                files.append(Path(path))
    files.sort()
    warn_of_others(str(folder), kinds)
    if not files:
        known = " ".join(sorted(suffix.lstrip(".").upper() for suffix in MESH_SUFFIXES))
        raise UsageError(f"no meshes in `{folder}`", hint=f"put {known} files there")
    return files


def _has_records(folder: str) -> bool:
    """Says whether a folder is a dataset, and not one where somebody keeps other records."""
    with os.scandir(os.path.join(folder, "records")) as entries:
        return any(entry.name == ".lock" or entry.name.endswith(".json") for entry in entries)


def new_records(
    files: Sequence[Path | RemoteFile],
    known: dict[str, Record],
    origins: Mapping[str, dict[str, Any]] | None = None,
) -> Iterator[Record]:
    """Yields a record per distinct content, reusing hashes of files that have not changed.

    Files with the same content and the same colours beside them are one asset; the first path
    names it and the others are listed as its duplicates. A file whose materials or textures have
    changed stays the asset it was.

    Args:
        files: Those to describe.
        known: Records of the dataset.
        origins: Whole path -> author, licence and the like, of what was imported. An asset keeps
            what was known of it: found another way, it has the same author.
    """
    by_path = {r.source["path"]: r for r in known.values()}
    # A file that was moved or renamed stays the asset it was, too.
    ids = {_content(r.source): r.id for r in known.values()}
    by_content: dict[tuple[str, str], Record] = {}
    taken: set[str] = set()
    for path in files:
        name = str(path.absolute()) if isinstance(path, Path) else path.address
        old = by_path.get(name)
        earlier = old.source if old else {}
        source = _describe(path, earlier) if isinstance(path, Path) else path.source()
        if origin := (origins or {}).get(source["path"]):
            source["origin"] = origin
        content = _content(source)
        if content in by_content:
            by_content[content].duplicates.append(source["path"])
            continue
        same = old.id if old and old.source["sha256"] == source["sha256"] else None
        choices = (ids.get(content), same, f"{slug(path.stem)}-{_digest(content)[:12]}")
        asset_id = next(choice for choice in choices if choice and choice not in taken)
        taken.add(asset_id)
        by_content[content] = Record(asset_id, source)
    for record in by_content.values():
        if record.id in known:
            old = known[record.id]
            record.steps, record.verdict = old.steps, old.verdict
            if "origin" in old.source:
                record.source.setdefault("origin", old.source["origin"])
        yield record


def _content(source: dict[str, Any]) -> tuple[str, str]:
    """Returns what makes a file one asset: its own content, and that of the colours beside it."""
    return source["sha256"], source.get("colours", "")


def _digest(content: tuple[str, str]) -> str:
    sha256, colours = content
    return hashlib.sha256(f"{sha256}:{colours}".encode()).hexdigest() if colours else sha256


def select_assets(records: list[Record], names: list[str]) -> list[Record]:
    """Returns the records with these ids or file names.

    Raises:
        UsageError: A name fits none.
    """
    keys = {r.id: {r.id, *(Path(p).name for p in (r.source["path"], *r.duplicates))}
            for r in records}  # fmt: skip
    known = {name for fitting in keys.values() for name in fitting}
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.3)
            raise UsageError(
                f"no asset has the id or file name `{name}`",
                hint=f"did you mean `{close[0]}`?" if close else None,
            )
    return [record for record in records if keys[record.id] & set(names)]


def slug(stem: str) -> str:
    """Returns a readable ASCII name for ids and file names."""
    plain = unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:SLUG_LENGTH].strip("-") or "asset"


def _describe(path: Path, old: dict[str, Any]) -> dict[str, Any]:
    """Returns the `source` of a record; what `old` says of the same files is not read again."""
    name = str(path.absolute())
    try:
        files = [path, *_gltf_buffers(path)]
        stats = [file.stat() for file in files]
        source: dict[str, Any] = {
            "path": name,
            "sha256": "",
            "bytes": sum(s.st_size for s in stats),
            "mtime_ns": max(s.st_mtime_ns for s in stats),
        }
        is_same = all(old.get(key) == source[key] for key in ("path", "bytes", "mtime_ns"))
        source["sha256"] = old["sha256"] if is_same else _hash(files)
        # A record from before colours were looked at has no `materials`, not even none.
        known = old.get("materials") if is_same else None
        source["materials"] = material_names(path) if known is None else known
        return source | _colours(path, source["materials"], old.get("colour_files", {}))
    except OSError:
        # An unreadable file still gets a record, which the first step marks as failed.
        sha256 = hashlib.sha256(os.fsencode(name)).hexdigest()
        return {"path": name, "sha256": sha256, "bytes": -1, "mtime_ns": -1}


def _colours(path: Path, materials: list[str], old: dict[str, Any]) -> dict[str, Any]:
    """Returns the colour files beside a mesh, and a hash of all; empty where there are none."""
    found: dict[str, list[Any]] = {}
    for name in colour_files(path, materials):
        file = path.parent / name
        state: list[Any] = [-1, -1]
        if file.is_file():
            state = [file.stat().st_size, file.stat().st_mtime_ns]
        known = old.get(name, [])
        sha256 = known[2] if known[:2] == state else _hash([file]) if state[0] >= 0 else ""
        found[name] = [*state, sha256]
    if not found:
        return {}
    parts = [f"{name}:{sha256}" for name, (_, _, sha256) in found.items()]
    digest = hashlib.sha256("\n".join(parts).encode(errors="surrogateescape")).hexdigest()
    return {"colour_files": found, "colours": digest}


def _hash(files: list[Path]) -> str:
    digests = []
    for path in files:
        with path.open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256"))
    for other in digests[1:]:
        digests[0].update(other.digest())
    return digests[0].hexdigest()


def _gltf_buffers(path: Path) -> list[Path]:
    """Returns the existing buffer files of a GLTF that lie in its own folder."""
    if path.suffix.lower() != ".gltf":
        return []
    root = path.parent.resolve()
    try:
        inside = [(root / unquote(uri)).resolve() for uri in uris(path, "buffers")]
        return [file for file in inside if file.is_relative_to(root) and file.is_file()]
    except ValueError:  # a zero in the name
        return []


def _warn(error: OSError) -> None:
    logger.warning("cannot look into `%s`: %s", error.filename, error.strerror)
