"""The source manifest, a line of JSON per mesh: the contract between `import` and `prepare`."""

from __future__ import annotations

import codecs
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, dataclass, fields
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.parse import urlsplit

from ultrashape_cli.errors import UsageError
from ultrashape_cli.files import write_atomic

SUFFIX = ".jsonl"
LOCAL = ("folder", "shapenet", "abc", "thingi10k")
"""Collections whose files lie where the user has them, which may be anywhere."""
MAX_LINE_BYTES = 1 << 20


class ManifestError(UsageError):
    """A manifest that cannot be read; the message names its file and line."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint or "correct the line, or take it out")


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceItem:
    """One mesh of a collection."""

    uid: str
    """Unique in its collection."""
    source: str
    """Collection: `objaverse`, `objaverse-xl`, `thingi10k`, `shapenet`, `abc` or `folder`."""
    path: str = ""
    """File, below the manifest's folder; absolute only in collections of `LOCAL`. Empty: not
    fetched."""
    url: str = ""
    """Where it can be fetched, by http or https."""
    sha256: str = ""
    """Of the file, once known."""
    bytes: int = 0
    """Size of the file; 0 where unknown."""
    suffix: str = ""
    """Format such as `.glb`, where neither path nor address tell it."""
    licence: str = ""
    """SPDX identifier; empty where unknown."""
    licence_text: str = ""
    """The licence as the collection states it."""
    title: str = ""
    author: str = ""
    source_url: str = ""
    """Page about it, for the attribution."""
    series: str = ""
    """What it belongs to; the lists of a dataset keep a series together."""
    category: str = ""
    tags: tuple[str, ...] = ()
    faces: int | None = None
    """None where the collection does not say."""
    animated: bool = False

    @property
    def key(self) -> str:
        """Unique over all collections."""
        return f"{self.source}/{self.uid}"

    @property
    def kind(self) -> str:
        """Suffix of the file, in small letters."""
        name = self.path or urlsplit(self.url).path
        return (self.suffix or PurePosixPath(name).suffix).lower()

    def to_json(self) -> dict[str, Any]:
        """Returns what is not at its default."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {f.name: list(v) if isinstance(v, tuple) else v for f in fields(self)
                if (v := values[f.name]) != f.default}  # fmt: skip

    def origin(self) -> dict[str, Any]:
        """Returns what records keep: who made it, where it is from, what it may be used for."""
        names = ("source", "uid", "licence", "licence_text", "title", "author", "source_url",
                 "series", "category", "tags")  # fmt: skip
        values = self.to_json()
        return {name: values[name] for name in names if name in values}


_FIELDS = {f.name: f for f in fields(SourceItem)}
_REQUIRED = [name for name, f in _FIELDS.items() if f.default is MISSING]


def write_manifest(path: Path, items: Iterable[SourceItem]) -> None:
    """Replaces a manifest atomically; items are taken one at a time.

    Raises:
        DiskError: The disk is full or read-only.
    """

    def write(file: IO[bytes]) -> None:
        for item in items:
            line = json.dumps(item.to_json(), ensure_ascii=False)
            file.write(line.encode(errors="surrogateescape") + b"\n")

    write_atomic(path, write)


def read_manifest(path: Path) -> Iterator[SourceItem]:
    """Yields the items of a manifest in their order.

    Raises:
        ManifestError: A line is no item, or has the uid of another one.
    """
    seen: set[str] = set()
    with path.open("rb") as file:
        number = 0
        while line := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            where = f"`{path}`, line {number}"
            if len(line) > MAX_LINE_BYTES:
                raise ManifestError(f"{where}: longer than {MAX_LINE_BYTES:,} bytes")
            if not line.strip():
                continue
            item = _parse(line, where)
            if item.key in seen:
                raise ManifestError(f"{where}: `{item.key}` is there twice")
            seen.add(item.key)
            yield item


def file_of(item: SourceItem, manifest: Path) -> Path | None:
    """Returns where the file of an item is, there or not; None before it is fetched.

    Raises:
        ManifestError: Its path leads out of the manifest's folder.
    """
    if not item.path:
        return None
    if os.path.isabs(item.path) and item.source in LOCAL:
        return Path(item.path)
    root = manifest.parent.resolve()
    file = root / item.path
    if not file.resolve().is_relative_to(root):
        raise ManifestError(f"`{manifest}`: the path of `{item.key}`, `{item.path}`, leads out of "
                            "the manifest's folder")  # fmt: skip
    return manifest.parent.absolute() / item.path


def stored_path(file: Path, manifest: Path) -> str:
    """Returns how a manifest names a file: below its own folder where it is there, else whole."""
    file, root = file.absolute(), manifest.parent.absolute()
    return file.relative_to(root).as_posix() if file.is_relative_to(root) else str(file)


def _parse(line: bytes, where: str) -> SourceItem:
    try:
        value = json.loads(line.removeprefix(codecs.BOM_UTF8).decode(errors="surrogateescape"))
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{where}: no JSON: {error}") from error
    if not isinstance(value, dict):
        raise ManifestError(f"{where}: no JSON object")
    for name in _REQUIRED:
        if not value.get(name):
            raise ManifestError(f"{where}: no `{name}`")
    for name, content in value.items():
        if name not in _FIELDS:
            raise ManifestError(f"{where}: unknown key `{name}`",
                                hint=f"known are {', '.join(_FIELDS)}")  # fmt: skip
        if not _fits(name, content):
            raise ManifestError(f"{where}: `{name}` is {content!r}, not {_kind(name)}")
    values: dict[str, Any] = value | ({"tags": tuple(value["tags"])} if "tags" in value else {})
    return SourceItem(**values)


def _fits(name: str, content: Any) -> bool:
    if name == "tags":
        return isinstance(content, list) and all(isinstance(tag, str) for tag in content)
    if name == "animated":
        return isinstance(content, bool)
    if name in ("bytes", "faces"):
        is_count = isinstance(content, int) and not isinstance(content, bool) and content >= 0
        return is_count or (name == "faces" and content is None)
    return isinstance(content, str)


def _kind(name: str) -> str:
    kinds = {"tags": "a list of texts", "animated": "true or false"}
    return kinds.get(name, "a number" if name in ("bytes", "faces") else "a text")
