"""What `ushape prepare` reads: the meshes of a folder, or of a manifest with their origins."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ultrashape_cli.config.choices import GroupBy

if TYPE_CHECKING:
    from ultrashape_cli.config.resolve import Resolved
    from ultrashape_cli.data.layout import Dataset
    from ultrashape_cli.preparation.remote import RemoteFile
    from ultrashape_cli.ui import UI

GROUPS: tuple[GroupBy, ...] = ("series", "author")
"""What an imported dataset is split by, the first that there are several of."""


@dataclass(frozen=True, slots=True)
class Sources:
    """Mesh files and what is known of them."""

    files: Sequence[Path | RemoteFile]
    folder: Path | str
    """Where they were looked for; an address if elsewhere."""
    manifest: Path | None = None
    origins: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Whole path -> origin, of a manifest."""


def read_sources(ui: UI, dataset: Dataset, name: str | None) -> Sources:
    """Returns the meshes of a folder, an address, or a manifest, of which it tells those not here.

    Raises:
        UsageError: There are none, the manifest cannot be read, or the dataset would replace
            files of the user, or read its own.
    """
    from ultrashape_cli.errors import UsageError
    from ultrashape_cli.preparation.discover import find_meshes
    from ultrashape_cli.preparation.remote import find_remote, is_remote

    if name is None:
        raise UsageError("no folder with meshes given", hint="ushape prepare MODELS_DIR -o DATA")
    if is_remote(name):
        _check_folders(dataset, Path("models"), set())
        return Sources(find_remote(name), name)
    models = Path(name)
    if not models.exists():
        raise UsageError(f"`{name}` is not there", hint="name the folder with the meshes")
    if models.is_dir():
        _check_folders(dataset, models, {models})
        return Sources(find_meshes(models), models)
    sources = _read_manifest(ui, models)
    parents = {file.parent for file in sources.files if isinstance(file, Path)}
    _check_folders(dataset, models, parents)
    return sources


def _read_manifest(ui: UI, path: Path) -> Sources:
    from ultrashape_cli.collections.manifest import SUFFIX, file_of, read_manifest
    from ultrashape_cli.errors import UsageError
    from ultrashape_cli.meshfiles.load import MESH_SUFFIXES

    if path.suffix != SUFFIX:
        raise UsageError(f"`{path}` is neither a folder nor a manifest (.jsonl)",
                         hint=f"ushape import folder {shlex.quote(str(path.parent))}")  # fmt: skip
    files: list[Path] = []
    found = Sources(files, path.parent, path.absolute())
    absent, unread = [], []
    for item in read_manifest(path):
        file = file_of(item, path)
        if file is None or not file.is_file():
            absent.append(item.key)
        elif file.suffix.lower() not in MESH_SUFFIXES:
            unread.append(item.key)
        else:
            files.append(file)
            origin = {**item.origin(), "manifest": str(found.manifest)}
            if item.sha256:
                origin["sha256"] = item.sha256
            found.origins[str(file.absolute())] = origin
    if absent:
        total = len(absent) + len(unread) + len(found.files)
        ui.warn(f"{len(absent):,} of {total:,} items of `{path}` are not on this disk, such as "
                f"`{absent[0]}`; `ushape import` with --fetch brings them")  # fmt: skip
    if unread:
        ui.warn(f"{len(unread):,} items of `{path}` are in formats that are not read, such as "
                f"`{unread[0]}`")  # fmt: skip
    if not found.files:
        hint = f"ushape import SOURCE -o {path} --fetch {path.with_suffix('')}"
        raise UsageError(f"no mesh of `{path}` is on this disk", hint=hint)
    return found


def with_grouping(resolved: Resolved, sources: Sources) -> Resolved:
    """Returns the settings with series, or authors, kept together, unless told otherwise."""
    from ultrashape_cli.data.splits import origin_group

    if resolved.origins["split.group_by"] != "default":
        return resolved
    for group in GROUPS:
        names = {origin_group(origin, group) for origin in sources.origins.values()} - {""}
        if len(names) > 1:
            split = replace(resolved.config.split, group_by=group)
            origins = {**resolved.origins, "split.group_by": "manifest"}
            return replace(resolved, config=replace(resolved.config, split=split), origins=origins)
    return resolved


def _check_folders(dataset: Dataset, models: Path, folders: set[Path]) -> None:
    from ultrashape_cli.data.layout import FOLDERS, OWNED
    from ultrashape_cli.errors import UsageError

    out, read = dataset.root.resolve(), models.resolve()
    hint = f"ushape prepare {models} -o {read.with_name(f'{read.stem}-data')}"
    own = [f"{out / name}{os.sep}" for name in FOLDERS]
    if any(f"{folder.resolve()}{os.sep}".startswith(tuple(own)) for folder in folders):
        raise UsageError(f"`{models}` is a part of the dataset `{dataset.root}`", hint=hint)
    if dataset.exists():
        return
    if out == read:
        raise UsageError(f"`{models}` would be both models and dataset", hint=hint)
    there = [name for name in OWNED if (out / name).exists()]
    if there:
        raise UsageError(
            f"`{dataset.root / there[0]}` is there, and `{dataset.root}` is no dataset", hint=hint
        )
