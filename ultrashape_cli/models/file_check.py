"""What is wrong with a weights file, by its size and its table. Loads no torch."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import IO

from ultrashape_cli.errors import CheckpointError

MAX_HEADER = 100 << 20
"""The safetensors format allows no longer one."""
REPLACE = "copy or download the file again"


def weights_problem(path: Path) -> str:
    """Returns what is wrong with a weights file, said behind its name; nothing if all is well.

    By its size and its table only, no tensor is read: a file of any size takes no time.
    """
    try:
        size = path.stat().st_size
        if not size:
            return "is empty (0 bytes)"
        with path.open("rb") as file:
            if path.suffix == ".safetensors":
                return _safetensors_problem(file, size)
            start = file.read(4)
    except OSError as error:
        return f"cannot be read: {(error.strerror or 'unknown error').lower()}"
    if path.suffix == ".gguf":
        return "" if start == b"GGUF" else "is no GGUF file"
    if start.startswith(b"PK"):
        if not zipfile.is_zipfile(path):
            return "is truncated"
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        return "" if any(name.endswith("data.pkl") for name in names) else "is no torch file"
    # torch's older format is a row of pickles.
    return "" if start.startswith(b"\x80") else "is no torch file"


def _safetensors_problem(file: IO[bytes], size: int) -> str:
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > min(size - 8, MAX_HEADER):
        return "is truncated, or no safetensors file"
    try:
        header = json.loads(file.read(length))
        entries = [body for key, body in header.items() if key != "__metadata__"]
        end = max((body["data_offsets"][1] for body in entries), default=0)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return "is damaged: its table of tensors cannot be read"
    missing = 8 + length + end - size
    if missing > 0:
        return f"is truncated: {missing:,} bytes are missing at its end"
    return f"is damaged: {-missing:,} bytes too many are at its end" if missing else ""


def require_whole(path: Path) -> None:
    """Raises CheckpointError where `weights_problem` finds one."""
    if problem := weights_problem(path):
        raise CheckpointError(f"`{path}` {problem}", hint=REPLACE)
