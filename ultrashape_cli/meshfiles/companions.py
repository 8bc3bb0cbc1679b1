"""Files beside a mesh that hold its colours: materials and textures, by the names it gives."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from ultrashape_cli.meshfiles.beside import find_beside
from ultrashape_cli.meshfiles.mtl import libraries, picture_names, read_materials

_HEADER = 65536
"""Bytes of a PLY file that may name its texture."""


def material_names(path: Path) -> list[str]:
    """Returns the material files that an OBJ names; reads all of it, they may stand anywhere."""
    if path.suffix.lower() != ".obj":
        return []
    with path.open("rb") as file:
        if not file.seek(0, 2):
            return []
        with mmap(file.fileno(), 0, access=ACCESS_READ) as text:
            found = re.findall(rb"^[ \t]*mtllib[ \t]+(.*?)\s*$", text, re.MULTILINE)
    return sorted({_text(name) for name in found})


def colour_files(path: Path, materials: list[str]) -> list[str]:
    """Returns the names of files in the folder of a mesh that hold its colours, sorted.

    They need not exist: one that is missing may come later. Names that lead out of the folder are
    left out, as no loader follows them.

    Args:
        path: The mesh.
        materials: What `material_names` says of it, now or when it was the same.
    """
    suffix = path.suffix.lower()
    root = path.parent.resolve()
    names = set(materials)
    for name in tuple(names):
        names |= set(_textures_of(root / name)) if _is_inside(root, name) else set()
    # Also what the reader finds under another spelling, in another folder, or with options.
    names |= {str(file.relative_to(root)) for file in _found(path, materials)}
    if suffix == ".gltf":
        names |= {unquote(uri) for uri in uris(path, "images")}
    if suffix == ".ply":
        named = _texture_lines(path)
        names |= {_text(name) for name in named}
        found = [find_beside(path, _text(name)) for name in named]
        names |= {str(picture.relative_to(root)) for picture in found if picture}
    return sorted(name for name in names if _is_inside(root, name))


def named_files(path: Path) -> set[str]:
    """Returns the names of all files that a mesh names, as they stand there, there or not.

    Those that its materials name are among them once the material files are beside it.
    """
    suffix = path.suffix.lower()
    if suffix == ".gltf":
        return {unquote(uri) for kind in ("buffers", "images") for uri in uris(path, kind)}
    if suffix == ".ply":
        return {_text(name) for name in _texture_lines(path)}
    lines = material_names(path)
    pictures = {name for library in libraries(path, lines, []) for name in picture_names(library)}
    return {*lines, *(name for line in lines for name in line.split()), *pictures}


def uris(path: Path, kind: str) -> list[str]:
    """Returns the files that the `buffers` or `images` of a GLTF name, as they stand there."""
    try:
        items = json.loads(path.read_bytes()).get(kind, [])
        found: list[Any] = [item.get("uri", "data:") for item in items]
        return [uri for uri in found if not uri.startswith("data:")]
    except (ValueError, TypeError, AttributeError, RecursionError):
        return []


def _texture_lines(path: Path) -> list[bytes]:
    with path.open("rb") as file:
        head = file.read(_HEADER)
    return re.findall(rb"^comment TextureFile[ \t]+(.*?)\s*$", head, re.M)


def _found(path: Path, materials: list[str]) -> Iterator[Path]:
    yield from libraries(path, materials, [])
    for material in read_materials(path, materials, []).values():
        for look in (material.plain, material.textured):
            for picture in (look.picture, look.alpha) if look else ():
                if picture is not None and isinstance(picture.data, Path):
                    yield picture.data


def _textures_of(mtl: Path) -> Iterator[str]:
    # Neither pipes nor devices: reading them would never end.
    for line in mtl.read_bytes().splitlines() if mtl.is_file() else ():
        words = line.split(maxsplit=1)
        if len(words) == 2 and words[0].lower() == b"map_kd":
            yield _text(words[1].strip())


def _text(name: bytes) -> str:
    return name.decode("utf-8", "replace")


def _is_inside(root: Path, name: str) -> bool:
    try:
        return (root / name).resolve().is_relative_to(root)
    except (OSError, ValueError):  # no name at all: too long, or with a zero in it
        return False


def read_beside(path: Path, name: str) -> bytes:
    """Returns the content of a file that a mesh names, none outside the folder of the mesh.

    Raises:
        ValueError: It lies outside, or is no file.
        OSError: It is not there.
    """
    root = path.resolve().parent
    # glTF percent-encodes its URIs.
    names = (name, unquote(name))
    target = next((t for n in names if (t := (root / n).resolve()).exists()), root / name)
    if not target.resolve().is_relative_to(root):
        raise ValueError("it lies outside its own folder")
    if target.exists() and not target.is_file():
        raise ValueError("it is no file")
    return target.read_bytes()
