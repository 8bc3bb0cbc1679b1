"""The manifest of an exported model: which files are its parts, and what made them. No torch."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from ultrashape_cli.errors import CheckpointError
from ultrashape_cli.files import file_hash, read_json, write_json

MANIFEST = "export.json"
"""Not the name that checkpoints of a run have for theirs."""
FORMAT = "ushape-onnx"
VERSION = 1
"""Of the graphs' inputs and outputs and of what a reader does between them."""


def is_export(folder: Path) -> bool:
    """Says whether a folder is, or was begun to be read as, an exported model."""
    found = read_json(folder / MANIFEST) if folder.is_dir() else None
    return isinstance(found, dict) and found.get("format") == FORMAT


def write_manifest(folder: Path, content: dict[str, Any], files: list[Path]) -> None:
    """Writes the manifest of finished files, with their sizes and hashes.

    Raises:
        DiskError: The folder cannot be written.
    """
    known = {path.name: {"bytes": path.stat().st_size, "sha256": file_hash(path)} for path in files}
    head = {"format": FORMAT, "format_version": VERSION}
    write_json(folder / MANIFEST, {**head, **content, "files": known})


def read_manifest(folder: Path) -> dict[str, Any]:
    """Returns the manifest of an exported model, whose files are all there in full size.

    Raises:
        CheckpointError: It is of another version, broken, or a file is missing or cut off.
    """
    found = read_json(folder / MANIFEST)
    anew = f"ushape weights export MODEL --format onnx -o {shlex.quote(str(folder))} --force"
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise CheckpointError(f"`{folder}` holds no exported model", hint=anew)
    if found.get("format_version") != VERSION:
        raise CheckpointError(
            f"`{folder}` was exported by ushape {found.get('ushape', '?')} in version "
            f"{found.get('format_version', '?')} of the format; this one reads version {VERSION}",
            hint=anew,
        )
    broken = f"`{folder / MANIFEST}` is broken"
    try:
        files, parts = found["files"], found["parts"]
        sizes = {str(name): int(known["bytes"]) for name, known in files.items()}
        hashed = all(isinstance(known["sha256"], str) for known in files.values())
        listed = all(f"{part}.onnx" in files for part in parts)
        if not (hashed and listed and parts and isinstance(found["model"], str)):
            raise CheckpointError(broken, hint=anew)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(broken, hint=anew) from error
    for name, size in sizes.items():
        path = folder / name
        if not path.is_file():
            raise CheckpointError(f"`{folder}` is incomplete: `{name}` is missing", hint=anew)
        if path.stat().st_size != size:
            raise CheckpointError(
                f"`{path}` has {path.stat().st_size:,} bytes instead of {size:,}: cut off, edited "
                "or of another export",
                hint=anew,
            )
    return found


def verify_files(folder: Path, manifest: dict[str, Any]) -> None:
    """Raises CheckpointError where a file is not, byte by byte, the one that was exported."""
    for name, known in manifest["files"].items():
        if file_hash(folder / name) != known["sha256"]:
            raise CheckpointError(
                f"`{folder / name}` is not the file that was exported: edited, or of other weights",
                hint="copy the folder again, or export it anew",
            )
