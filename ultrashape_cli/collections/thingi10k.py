"""Thingi10K: 10,000 models of Thingiverse, by the client or by its unpacked archive.

The client brings the whole archive, some ten gigabytes, before it says what is in it.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ultrashape_cli.collections.licences import spdx
from ultrashape_cli.collections.manifest import SourceItem, stored_path
from ultrashape_cli.errors import DatasetError, DependencyError

CC_VERSION = "3.0"
"""Of the Creative Commons licences that Thingiverse offered when the models were collected."""


def read_items(folder: Path | None, cache: Path | None, manifest: Path) -> Iterator[SourceItem]:
    """Yields the models that are on this disk.

    Args:
        folder: The unpacked archive, with raw_meshes/ and the tables of metadata.
        cache: Where the client puts the archive, if no folder is given.
        manifest: File whose folder paths are relative to.

    Raises:
        DependencyError: The client is not installed.
        DatasetError: The folder has no tables.
    """
    rows = _from_client(cache) if folder is None else _from_folder(folder)
    for row in rows:
        yield _item(row, manifest)


def _from_client(cache: Path | None) -> Iterator[dict[str, Any]]:
    try:
        import thingi10k
    except ImportError as error:
        raise DependencyError(
            "the client of Thingi10K is not installed",
            hint="pipx inject ultrashape-cli thingi10k, or name the folder of the unpacked archive",
        ) from error
    thingi10k.init(variant="raw", cache_dir=str(cache) if cache else None)
    yield from thingi10k.dataset()


def _from_folder(folder: Path) -> Iterator[dict[str, Any]]:
    """Yields rows as of the client's, from the tables."""
    things = {row["Thing ID"]: row for row in _table(folder, "contextual_data.csv")}
    summary = {row["ID"]: row["Thing ID"] for row in _table(folder, "input_summary.csv")}
    faces = {row["file_id"]: row["num_faces"] for row in _table(folder, "geometry_data.csv")}
    tags = defaultdict(list)
    for row in _table(folder, "tag_data.csv"):
        tags[row["Thing ID"]].append(row["Tag"])
    files = {path.stem: path for path in sorted((folder / "raw_meshes").iterdir())}
    for file_id, thing_id in summary.items():
        thing, path = things.get(thing_id, {}), files.get(file_id)
        if path is None:
            continue
        yield {
            "file_id": file_id,
            "thing_id": thing_id,
            "file_path": path,
            "author": thing.get("Author", ""),
            "license": thing.get("License", ""),
            "category": thing.get("Category", ""),
            "subcategory": thing.get("Sub-category", ""),
            "name": thing.get("Name", ""),
            "tags": tags.get(thing_id, ()),
            "num_facets": faces.get(file_id),
        }


def _table(folder: Path, name: str) -> Iterable[dict[str, str]]:
    path = next((p for p in (folder / name, folder / "metadata" / name) if p.is_file()), None)
    if path is None or not (folder / "raw_meshes").is_dir():
        raise DatasetError(f"`{folder}` has no raw_meshes/ or no {name}",
                           hint="name the folder of the unpacked archive")  # fmt: skip
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        yield from csv.DictReader(file)


def _item(row: dict[str, Any], manifest: Path) -> SourceItem:
    def said(name: str) -> str:
        text = str(row.get(name) or "").strip()
        return "" if text == "unknown" else text

    thing, faces = said("thing_id"), said("num_facets")
    path = Path(row["file_path"])
    return SourceItem(
        uid=said("file_id"),
        source="thingi10k",
        path=stored_path(path, manifest),
        bytes=path.stat().st_size,
        licence=spdx(said("license"), cc_version=CC_VERSION),
        licence_text=said("license"),
        title=said("name"),
        author=said("author"),
        source_url=f"https://www.thingiverse.com/thing:{thing}" if thing else "",
        series=f"thing:{thing}" if thing else "",
        category=said("category"),
        tags=tuple(dict.fromkeys(filter(None, (said("subcategory"), *map(str, row["tags"]))))),
        faces=int(float(faces)) if faces else None,
    )
