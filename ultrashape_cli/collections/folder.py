"""A studio's own tree of meshes: series from its folders, licences from files beside them."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

from ultrashape_cli.collections.licences import identifier
from ultrashape_cli.collections.manifest import SourceItem, stored_path
from ultrashape_cli.data.attribution import OWN
from ultrashape_cli.errors import UsageError
from ultrashape_cli.preparation.discover import find_meshes

TABLE = "sources.csv"
LICENCE_FILES = ("licence.txt", "license.txt", "LICENCE", "LICENSE")
_COLUMNS = ("licence", "author", "title", "source_url", "series", "category", "tags")
_TAG = "SPDX-License-Identifier:"

SeriesOf = Callable[[str], str]
"""Path below the folder -> its series, empty for none."""


def parse_series(rule: str) -> SeriesOf:
    """Returns what finds the series of a path.

    Args:
        rule: `depth:N`, the first N folders of the path; or a regular expression for it, whose
            group `series`, or first group, or whole match, is the series.

    Raises:
        UsageError: It is neither.
    """
    if rule.startswith("depth:") and not rule[6:].isdecimal():
        raise UsageError(f"`--series-from {rule}` names no number of folders",
                         hint="--series-from depth:1")  # fmt: skip
    if (depth := re.fullmatch(r"depth(?::(\d+))?", rule)) is not None:
        count = int(depth[1] or 1)
        if not count:
            raise UsageError("`--series-from depth:0` would make one series of all",
                             hint="--series-from depth:1")  # fmt: skip
        return lambda path: "/".join(path.split("/")[:-1][:count])
    try:
        pattern = re.compile(rule)
    except re.error as error:
        hint = "--series-from depth:1, or a pattern with one group"
        raise UsageError(f"`{rule}` is no regular expression: {error}", hint=hint) from error
    group = "series" if "series" in pattern.groupindex else min(pattern.groups, 1)

    def find(path: str) -> str:
        found = pattern.search(path)
        return (found[group] or "").strip() if found else ""

    return find


def read_items(
    folder: Path, manifest: Path, series: SeriesOf | None = None, licence: str = OWN
) -> Iterator[SourceItem]:
    """Yields the meshes below a folder.

    What is known of one comes from sources.csv in the folder (columns `path` and any of licence,
    author, title, source_url, series, category, tags), then from the nearest licence file above
    it. A statement that is not understood counts as unknown.

    Args:
        folder: Where to look, as `prepare` does.
        manifest: File whose folder paths are relative to.
        series: From `parse_series`.
        licence: Of what has none stated.

    Raises:
        UsageError: No meshes, or a table that fits none.
    """
    table = _read_table(folder)
    beside = _licence_finder(folder, licence)
    files = find_meshes(folder)
    names = {file: file.relative_to(folder).as_posix() for file in files}
    if strange := table.keys() - set(names.values()):
        raise UsageError(f"`{folder / TABLE}` names `{min(strange)}`, which is no mesh there")
    for file, name in names.items():
        text = beside(file.parent)
        item = SourceItem(
            uid=name,
            source="folder",
            path=stored_path(file, manifest),
            bytes=file.stat().st_size if file.is_file() else 0,
            licence=licence if text is None else identifier(text),
            licence_text=text or "",
            title=file.stem,
            series=series(name) if series else "",
        )
        yield _with_row(item, table.get(name, {}))


def _with_row(item: SourceItem, row: dict[str, str]) -> SourceItem:
    said = {name: value for name in _COLUMNS if (value := (row.get(name) or "").strip())}
    tags = tuple(tag.strip() for tag in said.pop("tags", "").split(";") if tag.strip())
    if text := said.get("licence"):
        said |= {"licence": identifier(text), "licence_text": text}
    return replace(item, tags=tags or item.tags, **said)  # type: ignore[arg-type]


def _read_table(folder: Path) -> dict[str, dict[str, str]]:
    path = folder / TABLE
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        reader = csv.DictReader(file)
        columns = set(reader.fieldnames or ())
        unknown = columns - {"path", *_COLUMNS}
        if unknown or "path" not in columns:
            what = (
                f"an unknown column `{min(unknown)}`" if "path" in columns else "no column `path`"
            )
            raise UsageError(f"`{path}` has {what}",
                             hint=f"columns are path, {', '.join(_COLUMNS)}")  # fmt: skip
        return {str(row["path"]).strip().replace("\\", "/"): row for row in reader}


def _licence_finder(folder: Path, default: str) -> Callable[[Path], str | None]:
    """Returns what finds the statement that holds in a folder below; None where there is none."""

    @cache
    def find(place: Path) -> str | None:
        for name in LICENCE_FILES:
            if (place / name).is_file():
                return _statement(place / name)
        return None if place == folder else find(place.parent)

    return find


def _statement(path: Path) -> str:
    """Returns the licence that a file states: an SPDX tag, or its first lines if they name one."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        lines = [line.strip() for line in file.read(4096).splitlines() if line.strip()]
    for line in lines:
        if _TAG in line:
            return line.partition(_TAG)[2].strip()
    # Whole texts of licences begin with their name, on one line or two.
    both = re.sub(r"(version [\d.]+),.*", r"\1", " ".join(lines[:2]).lower())
    return both if len(lines) > 1 and identifier(both) else (lines or [""])[0]
