"""Finds mesh files and gives each an id made of its content."""

from __future__ import annotations

import difflib
import hashlib
import json
import logging
import os
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from ultrashape_cli.data.layout import Record
from ultrashape_cli.errors import UsageError
from ultrashape_cli.meshfiles.load import MESH_SUFFIXES

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
    for parent, folders, names in os.walk(folder, onerror=_warn):
        if "records" in folders and "meshes" in folders and _has_records(parent):
            folders.remove("meshes")
        for name in names:
            path = os.path.join(parent, name)
            kind = os.path.splitext(name)[1].lower()
            if kind not in MESH_SUFFIXES or name.startswith("."):
                continue
            # Neither pipes nor devices: reading them would never end.
            if os.path.isfile(path) or not os.path.exists(path):
                files.append(Path(path))
    files.sort()
    if not files:
        kinds = " ".join(sorted(suffix.lstrip(".").upper() for suffix in MESH_SUFFIXES))
        raise UsageError(f"no meshes in `{folder}`", hint=f"put {kinds} files there")
    return files


def _has_records(folder: str) -> bool:
    """Says whether a folder is a dataset, and not one where somebody keeps other records."""
    with os.scandir(os.path.join(folder, "records")) as entries:
        return any(entry.name == ".lock" or entry.name.endswith(".json") for entry in entries)


def new_records(files: list[Path], known: dict[str, Record]) -> Iterator[Record]:
    """Yields a record per distinct content, reusing hashes of files that have not changed.

    Files with the same content are one asset; the first path names it and the others are listed
    as its duplicates.
    """
    unchanged = {
        (r.source["path"], r.source["bytes"], r.source["mtime_ns"]): r.source["sha256"]
        for r in known.values()
    }
    # A file that was moved or renamed stays the asset it was.
    ids = {r.source["sha256"]: r.id for r in known.values()}
    by_hash: dict[str, Record] = {}
    for path in files:
        source = _describe(path, unchanged)
        sha256 = source["sha256"]
        if sha256 in by_hash:
            by_hash[sha256].duplicates.append(source["path"])
            continue
        asset_id = ids.get(sha256) or f"{slug(path.stem)}-{sha256[:12]}"
        by_hash[sha256] = Record(asset_id, source)
    for record in by_hash.values():
        if record.id in known:
            record.steps, record.verdict = known[record.id].steps, known[record.id].verdict
        yield record


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


def _describe(path: Path, unchanged: dict[tuple[str, int, int], str]) -> dict[str, Any]:
    name = str(path.absolute())
    try:
        files = [path, *_gltf_buffers(path)]
        stats = [file.stat() for file in files]
        size, mtime = sum(s.st_size for s in stats), max(s.st_mtime_ns for s in stats)
        sha256 = unchanged.get((name, size, mtime)) or _hash(files)
    except OSError:
        # An unreadable file still gets a record, which the first step marks as failed.
        sha256, size, mtime = hashlib.sha256(os.fsencode(name)).hexdigest(), -1, -1
    return {"path": name, "sha256": sha256, "bytes": size, "mtime_ns": mtime}


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
        uris = [buffer.get("uri", "data:") for buffer in json.loads(path.read_bytes())["buffers"]]
        inside = [(root / unquote(uri)).resolve() for uri in uris if not uri.startswith("data:")]
        return [file for file in inside if file.is_relative_to(root) and file.is_file()]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return []


def _warn(error: OSError) -> None:
    logger.warning("cannot look into `%s`: %s", error.filename, error.strerror)
