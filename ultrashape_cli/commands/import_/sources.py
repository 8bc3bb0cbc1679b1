"""Collections that `ushape import` knows, and which options go with which."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ultrashape_cli.collections.manifest import SourceItem


class Source(StrEnum):
    """Collections that can be imported."""

    OBJAVERSE = "objaverse"
    OBJAVERSE_XL = "objaverse-xl"
    THINGI10K = "thingi10k"
    SHAPENET = "shapenet"
    ABC = "abc"
    FOLDER = "folder"


ON_DISK = (Source.FOLDER, Source.SHAPENET, Source.ABC, Source.THINGI10K)
_NEED_FOLDER = (Source.FOLDER, Source.SHAPENET, Source.ABC)


def check_options(
    source: Source,
    directory: Path | None,
    out: Path,
    fetch: Path | None,
    max_gb: float | None,
    series_from: str | None,
    licence: str | None,
    dry_run: bool,
) -> None:
    """Raises UsageError where options do not go together, before anything is read or written."""
    from ultrashape_cli.collections.licences import identifier
    from ultrashape_cli.collections.manifest import SUFFIX, read_manifest
    from ultrashape_cli.errors import UsageError

    if out.suffix != SUFFIX:
        raise UsageError(f"`{out}` is no name of a manifest", hint=f"-o {out.with_suffix(SUFFIX)}")
    if source in _NEED_FOLDER and directory is None:
        raise UsageError(f"`{source.value}` needs the folder with its meshes",
                         hint=f"ushape import {source.value} DIR -o {out}")  # fmt: skip
    if source in _NEED_FOLDER and fetch is not None:
        raise UsageError(f"the meshes of `{source.value}` are on this disk: nothing to fetch",
                         hint="leave --fetch out")  # fmt: skip
    if source is not Source.FOLDER and (series_from or licence):
        raise UsageError(
            "--series-from and --licence are of `folder`; other collections tell what they have",
            hint="ushape import folder DIR --series-from depth:1",
        )
    if licence is not None and not identifier(licence):
        raise UsageError(f"`{licence}` is no SPDX identifier", hint="--licence CC-BY-4.0")
    if source is Source.THINGI10K and directory is None:
        if fetch is None:
            raise UsageError(
                "the client of Thingi10K brings the whole archive, some ten gigabytes",
                hint="--fetch DIR says where to, or name the folder of the unpacked archive",
            )
        if max_gb is not None or dry_run:
            what = "--dry-run" if dry_run else "--max-gb"
            raise UsageError(f"the client of Thingi10K brings all at once, whatever {what} says",
                             hint="name the folder of the unpacked archive")  # fmt: skip
    if max_gb is not None and fetch is None:
        raise UsageError("--max-gb limits what is fetched", hint=f"--fetch {out.stem}")
    # Paths in a manifest never lead out of its folder, so that both can be moved or given away.
    if fetch is not None and not fetch.resolve().is_relative_to(out.resolve().parent):
        raise UsageError(f"`{fetch}` is not below the folder of `{out}`",
                         hint=f"-o {fetch.with_suffix(SUFFIX)}")  # fmt: skip
    if out.exists():
        other = next(read_manifest(out), None)
        if other is not None and other.source != source.value:
            raise UsageError(f"`{out}` is a manifest of `{other.source}`",
                             hint=f"-o {source.value}{SUFFIX}")  # fmt: skip


def read_source(
    source: Source,
    directory: Path | None,
    out: Path,
    fetch: Path | None,
    series_from: str | None,
    licence: str | None,
) -> Iterator[SourceItem]:
    """Returns the items of a collection as they are read."""
    from ultrashape_cli.collections import folder, local, objaverse, objaverse_xl, thingi10k
    from ultrashape_cli.collections.licences import identifier
    from ultrashape_cli.data.attribution import OWN

    series = folder.parse_series(series_from) if series_from else None
    place = directory or Path()
    readers: dict[Source, Callable[[], Iterator[SourceItem]]] = {
        Source.OBJAVERSE: lambda: objaverse.read_items(directory),
        Source.OBJAVERSE_XL: lambda: objaverse_xl.read_items(directory),
        Source.THINGI10K: lambda: thingi10k.read_items(directory, fetch, out),
        Source.SHAPENET: lambda: local.shapenet_items(place, out),
        Source.ABC: lambda: local.abc_items(place, out),
        Source.FOLDER: lambda: folder.read_items(
            place, out, series, identifier(licence) if licence else OWN
        ),
    }
    return readers[source]()
