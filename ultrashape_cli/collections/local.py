"""ShapeNet and ABC, from the folders that their users have downloaded and unpacked.

Both are given under terms of their own that neither permit to hand them on nor, without further
ado, commercial use; so they are taken only with `--licence-allow`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from ultrashape_cli.collections.manifest import SourceItem, stored_path
from ultrashape_cli.errors import DatasetError

_MODELS = ("models/model_normalized.obj", "models/model_normalized.solid.obj", "model.obj")
"""Where the releases of ShapeNetCore keep the mesh of a model."""
_ABC = re.compile(r"(\d{8})_([0-9a-f]{24})_.*\.obj")


def shapenet_items(folder: Path, manifest: Path) -> Iterator[SourceItem]:
    """Yields the models of ShapeNetCore: SYNSET/MODEL/models/model_normalized.obj.

    Args:
        folder: Of the synsets and, for their names, taxonomy.json.
        manifest: File whose folder paths are relative to.

    Raises:
        DatasetError: No models there.
    """
    names = _taxonomy(folder / "taxonomy.json")
    found = False
    for synset in sorted(path for path in folder.iterdir() if path.is_dir()):
        for model in sorted(path for path in synset.iterdir() if path.is_dir()):
            file = next((f for name in _MODELS if (f := model / name).is_file()), None)
            if file is None:
                continue
            found = True
            category, *others = names.get(synset.name) or [synset.name]
            yield SourceItem(
                uid=f"{synset.name}/{model.name}",
                source="shapenet",
                path=stored_path(file, manifest),
                bytes=file.stat().st_size,
                licence="LicenseRef-ShapeNet",
                author="ShapeNet",
                source_url="https://shapenet.org",
                category=category,
                tags=tuple(others),
            )
    if not found:
        raise DatasetError(f"no models of ShapeNet in `{folder}`",
                           hint="name the folder with SYNSET/MODEL/models/")  # fmt: skip


def _taxonomy(path: Path) -> dict[str, list[str]]:
    if not path.is_file():
        return {}
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        return {e["synsetId"]: [n.strip() for n in e["name"].split(",")] for e in entries}
    except (ValueError, LookupError, TypeError) as error:
        raise DatasetError(f"`{path}` is no taxonomy of ShapeNet: {error}") from error


def abc_items(folder: Path, manifest: Path) -> Iterator[SourceItem]:
    """Yields the OBJ files of ABC's chunks; those of one CAD document are a series.

    Args:
        folder: Of one or several unpacked chunks.
        manifest: File whose folder paths are relative to.

    Raises:
        DatasetError: None there.
    """
    found = False
    for file in sorted(folder.rglob("*.obj")):
        named = _ABC.fullmatch(file.name)
        if named is None:
            continue
        found = True
        yield SourceItem(
            uid=file.stem,
            source="abc",
            path=stored_path(file, manifest),
            bytes=file.stat().st_size,
            licence="LicenseRef-Onshape",
            source_url="https://deep-geometry.github.io/abc-dataset/",
            series=named[2],
        )
    if not found:
        raise DatasetError(f"no OBJ files of ABC in `{folder}`",
                           hint="name the folder of its unpacked OBJ chunks")  # fmt: skip
