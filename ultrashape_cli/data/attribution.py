"""Whose meshes a dataset is made of: ATTRIBUTION.md, which goes with the weights made from it.

    data_list/ATTRIBUTION.md    in a dataset, of the assets in its lists
    ATTRIBUTION.md              in a run; of exported weights, NAME.ATTRIBUTION.md

The file is a Markdown table, written the same for the same works and read back by the same module.
A studio's own meshes, without an origin or author, are not in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from ultrashape_cli.data.layout import Dataset, Record
from ultrashape_cli.files import write_atomic

NAME = "ATTRIBUTION.md"
OWN = "LicenseRef-own"
"""Licence of meshes that belong to those who import them."""
_HEAD = """# Attribution

The data that these weights were trained on, or this dataset, was made from the following works.
The meshes were repaired, normalised, rendered and sampled.

| work | author | licence | collection | source |
|---|---|---|---|---|
"""
_ROW = re.compile(r"(?<!\\)\|")


class Work(NamedTuple):
    """One work of others."""

    title: str
    author: str
    licence: str
    """SPDX identifier, `unknown`, or the words of the collection."""
    collection: str
    address: str
    """Page about it, or its name in the collection."""


def work_of(origin: dict[str, Any]) -> Work:
    """Returns the work that a record's origin tells of."""
    licence = origin.get("licence") or origin.get("licence_text") or "unknown"
    address = origin.get("source_url") or origin.get("uid", "")
    values = (origin.get("title") or origin.get("uid", ""), origin.get("author") or "unknown",
              licence, origin.get("source", ""), address)  # fmt: skip
    return Work(*(" ".join(str(value).split()) for value in values))


def works_of(records: Iterable[Record]) -> set[Work]:
    """Returns the works of others behind some records."""
    origins = (origin_of(record) for record in records)
    return {work_of(o) for o in origins if o and (o.get("licence") != OWN or o.get("author"))}


def origin_of(record: Record) -> dict[str, Any]:
    """Returns where a record's mesh came from; empty for a studio's own."""
    origin = record.source.get("origin")
    return origin if isinstance(origin, dict) else {}


def write_works(path: Path, works: Iterable[Work]) -> None:
    """Writes the file, or removes it where there are no works.

    Raises:
        DiskError: The disk is full or read-only.
    """
    rows = sorted(set(works))
    if not rows:
        path.unlink(missing_ok=True)
        return
    text = _HEAD + "".join(f"| {' | '.join(map(_escaped, work))} |\n" for work in rows)
    write_atomic(path, lambda file: file.write(text.encode(errors="backslashreplace")))


def read_works(path: Path) -> set[Work]:
    """Returns the works that a file names; none where there is no file."""
    works = set()
    with suppress(FileNotFoundError, NotADirectoryError):
        for line in path.read_text(encoding="utf-8").splitlines():
            cells = [cell.strip() for cell in _ROW.split(line)[1:-1]]
            if len(cells) == len(Work._fields):
                works.add(Work(*(re.sub(r"\\(.)", r"\1", cell) for cell in cells)))
    # The two lines that make it a table.
    return {work for work in works if work[:3] not in {("work", "author", "licence"), ("---",) * 3}}


def dataset_attribution(dataset: Dataset) -> Path:
    """Returns where a dataset, packed or not, has its attribution."""
    return dataset.list_path(NAME.removesuffix(".md")).with_suffix(".md")


def beside_weights(weights: Path) -> Path:
    """Returns the attribution of a run, of a folder of adapters, or of a weights file."""
    return weights / NAME if weights.is_dir() else weights.with_name(f"{weights.stem}.{NAME}")


def attribution_of_weights(weights: Path) -> Path | None:
    """Returns the attribution of weights that exists, for a checkpoint that of its run."""
    parent = weights.resolve().parent
    places = [weights, *([parent.parent] if parent.name == "checkpoints" else [])]
    return next((path for place in places if (path := beside_weights(place)).is_file()), None)


def add_works(path: Path, *others: Path | None) -> bool:
    """Adds what other files name to those of one: what was learned from stays named.

    Returns whether the file now names any.

    Raises:
        DiskError: The disk is full or read-only.
    """
    known = read_works(path)
    new = set[Work]().union(*(read_works(other) for other in others if other is not None))
    if not new <= known:
        write_works(path, known | new)
    return bool(known | new)


def _escaped(text: str) -> str:
    return re.sub(r"([\\|<>\[\]`*_])", r"\\\1", text) or " "
