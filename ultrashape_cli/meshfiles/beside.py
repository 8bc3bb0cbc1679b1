"""Files in the folder of a mesh, by the names that a program on another machine wrote."""

from __future__ import annotations

import re
from pathlib import Path


def find_beside(path: Path, name: str) -> Path | None:
    r"""Returns the file that a mesh names, however it does; None without one in its folder.

    The name may be quoted, have `\` between folders, another case, or folders of another machine:
    `C:\work\textures\wood.PNG` finds `textures/Wood.png` or `Wood.png` beside the mesh.
    """
    if _lies_outside(path, name):
        # Another file of the same name is not meant.
        return None
    root = path.parent.resolve()
    parts = re.split(r"[/\\]", name.strip().strip("\"'"))
    parts = [part for part in parts if part not in ("", ".")]
    for first in range(len(parts)):
        found = _descend(root, parts[first:])
        if found is not None:
            return found
    return None


def why_not_beside(path: Path, name: str) -> str:
    """Returns, for a message, why `find_beside` finds no such file."""
    # Its end is what tells names apart.
    if _lies_outside(path, name):
        return f"`{name[-80:]}` lies outside the folder of the mesh"
    return f"`{name[-80:]}` is not beside the mesh"


def _lies_outside(path: Path, name: str) -> bool:
    """Says whether a name leads to a file that exists, and is not in the folder of the mesh."""
    root = path.parent.resolve()
    try:
        target = (root / name.strip().strip("\"'").replace("\\", "/")).resolve()
        return target.is_file() and not target.is_relative_to(root)
    except (OSError, ValueError, RuntimeError):
        return False


def _descend(folder: Path, parts: list[str]) -> Path | None:
    root = folder
    try:
        for part in parts:
            if part == "..":
                return None
            if not (folder / part).exists():
                same = (p for p in sorted(folder.iterdir()) if p.name.lower() == part.lower())
                part = next(same).name
            folder = folder / part
        # A link may lead out; neither pipes nor devices: reading them would never end.
        target = folder.resolve()
        return target if target.is_file() and target.is_relative_to(root) else None
    except (OSError, ValueError, StopIteration, RuntimeError):
        return None
