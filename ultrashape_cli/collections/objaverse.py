"""Objaverse 1.0: 800,000 GLB files of Sketchfab, by the client or by a copy of its index."""

from __future__ import annotations

import gzip
import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ultrashape_cli.collections.licences import spdx
from ultrashape_cli.collections.manifest import SourceItem
from ultrashape_cli.errors import DatasetError, DependencyError

INDEX = "object-paths.json.gz"
_FILES = "datasets/allenai/objaverse/resolve/main"

Annotations = dict[str, Any]


def read_items(index: Path | None) -> Iterator[SourceItem]:
    """Yields the items of Objaverse 1.0.

    Args:
        index: A folder with object-paths.json.gz and metadata/*.json.gz, as the collection has
            them. None asks the client, which keeps them in ~/.objaverse.

    Raises:
        DependencyError: Neither an index nor the client.
        DatasetError: The index is not one.
    """
    folder, annotate = _client() if index is None else (index, _from_copy(index))
    paths = _read(folder / INDEX)
    parts: dict[str, list[str]] = defaultdict(list)
    for uid, path in paths.items():
        parts[path.split("/")[1]].append(uid)
    # A part has some 5,000 objects; all annotations at once would take gigabytes.
    for part, uids in sorted(parts.items()):
        found = annotate(part, uids)
        for uid in sorted(found.keys() & set(uids)):
            yield _item(uid, paths[uid], found[uid])


def _client() -> tuple[Path, Callable[[str, list[str]], Annotations]]:
    try:
        import objaverse
    except ImportError as error:
        raise DependencyError(
            "the client of Objaverse is not installed",
            hint="pipx inject ultrashape-cli objaverse  "
            "(pip: pip install 'ultrashape-cli[collections]')",
        ) from error
    objaverse.load_uids()  # brings the index
    folder = Path(objaverse.BASE_PATH) / "hf-objaverse-v1"
    return folder, lambda part, uids: objaverse.load_annotations(uids)


def _from_copy(folder: Path) -> Callable[[str, list[str]], Annotations]:
    return lambda part, uids: _read(folder / "metadata" / f"{part}.json.gz")


def _read(path: Path) -> Annotations:
    try:
        with gzip.open(path, "rb") as file:
            found: Annotations = json.load(file)
            return found
    except (OSError, EOFError, ValueError) as error:
        raise DatasetError(
            f"`{path}` is no part of the index of Objaverse: {error}",
            hint="name the folder with object-paths.json.gz and metadata/",
        ) from error


def _item(uid: str, path: str, said: Annotations) -> SourceItem:
    user = said.get("user") or {}
    server = os.environ.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"
    archive = (said.get("archives") or {}).get("glb") or {}
    categories = _names(said.get("categories"))
    licence = str(said.get("license") or "")
    return SourceItem(
        uid=uid,
        source="objaverse",
        url=f"{server}/{_FILES}/{path}",
        bytes=int(archive.get("size") or 0),
        licence=spdx(licence),
        licence_text=licence,
        title=str(said.get("name") or ""),
        author=str(user.get("displayName") or user.get("username") or ""),
        source_url=str(said.get("viewerUrl") or said.get("uri") or ""),
        category=categories[0] if categories else "",
        tags=tuple(dict.fromkeys((*categories[1:], *_names(said.get("tags"))))),
        faces=said.get("faceCount"),
        animated=bool(said.get("animationCount")),
    )


def _names(entries: Any) -> list[str]:
    return [str(entry["name"]) for entry in entries or () if entry.get("name")]
