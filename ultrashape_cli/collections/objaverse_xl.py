"""Objaverse-XL: files of GitHub, Thingiverse and the Smithsonian, by the client's index.

Its part of Sketchfab is Objaverse 1.0, of which `objaverse` knows more. The files themselves come
from where they are: the client would clone whole repositories, and ends with the first failure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ultrashape_cli.collections.licences import spdx
from ultrashape_cli.collections.manifest import SourceItem
from ultrashape_cli.errors import DatasetError, DependencyError

_HINT = ("pipx inject ultrashape-cli objaverse  "
         "(pip: pip install 'ultrashape-cli[collections]')")  # fmt: skip
_GITHUB = re.compile(r"https://github\.com/([^/]+)/([^/]+)/blob/([0-9a-f]{7,40})/(.+)")
_THING = re.compile(r"thing:(\d+)/.*\bfileId=(\d+)")


def read_items(index: Path | None) -> Iterator[SourceItem]:
    """Yields the items of Objaverse-XL but for those of Sketchfab.

    Args:
        index: A folder with the parquet files of the annotations. None asks the client, which
            keeps them in ~/.objaverse.

    Raises:
        DependencyError: Neither the client nor pandas.
        DatasetError: No annotations in the folder.
    """
    for table in _tables(index):
        columns = ("fileIdentifier", "source", "license", "fileType", "sha256")
        for values in zip(*(table[name] for name in columns), strict=True):
            item = _item(*("" if value is None or value != value else str(value)
                           for value in values))  # fmt: skip
            if item is not None:
                yield item


def _tables(index: Path | None) -> Iterator[Any]:
    if index is None:
        try:
            import objaverse.xl
        except ImportError as error:
            raise DependencyError("the client of Objaverse-XL is not installed",
                                  hint=_HINT) from error  # fmt: skip
        yield objaverse.xl.get_annotations()
        return
    try:
        import pandas
    except ImportError as error:
        raise DependencyError("parquet files need pandas", hint=_HINT) from error
    files = sorted(index.rglob("*.parquet"))
    if not files:
        raise DatasetError(f"no parquet files in `{index}`", hint="name the folder that has them")
    for file in files:
        yield pandas.read_parquet(file)


def _item(name: str, source: str, licence: str, kind: str, sha256: str) -> SourceItem | None:
    common: dict[str, Any] = {
        "uid": name,
        "source": "objaverse-xl",
        "sha256": sha256,
        "suffix": f".{kind.lower().lstrip('.')}" if kind else "",
        "licence": spdx(licence),
        "licence_text": licence,
    }
    if source == "github" and (found := _GITHUB.fullmatch(name)):
        owner, repo, commit, path = found.groups()
        return SourceItem(
            **common,
            url=f"https://raw.githubusercontent.com/{owner}/{repo}/{commit}/{path}",
            title=path.rpartition("/")[2],
            author=owner,
            source_url=name,
            series=f"{owner}/{repo}",
        )
    if source == "thingiverse" and (found := _THING.search(name)):
        thing, file = found.groups()
        return SourceItem(
            **common,
            url=f"https://www.thingiverse.com/download:{file}",
            source_url=f"https://www.thingiverse.com/thing:{thing}",
            series=f"thing:{thing}",
        )
    if source == "smithsonian" and name.startswith("https://"):
        return SourceItem(**common, url=name, author="Smithsonian Institution", source_url=name)
    return None
