"""Reads variables from a file `.env` in the working folder. Standard library only."""

from __future__ import annotations

import os
import re
from collections.abc import MutableMapping
from dataclasses import dataclass
from pathlib import Path

PREFIXES = ("WANDB_", "HF_", "USHAPE_", "CUDA_", "NCCL_")
"""Other names are left alone: a `.env` may belong to another program of the folder."""
_LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_]\w*)\s*=\s*(.*?)\s*")
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|WEBHOOK|COMMAND|ALERT", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class DotEnv:
    """What became of the variables of a file."""

    taken: tuple[str, ...] = ()
    """Set now."""
    kept: tuple[str, ...] = ()
    """Set before, and left so."""
    ignored: tuple[str, ...] = ()
    """Of other prefixes."""


def load_dotenv(folder: Path, environ: MutableMapping[str, str] | None = None) -> DotEnv:
    """Sets the variables of `folder/.env` that have a known prefix and are not set yet.

    Lines are `NAME=VALUE`, maybe with `export` before and quotes around the value; `#` begins a
    comment line. Other lines are passed over.
    """
    environ = os.environ if environ is None else environ
    try:
        text = (folder / ".env").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:  # none, or one that is not for us to read
        return DotEnv()
    taken, kept, ignored = [], [], []
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if not match:
            continue
        name, value = match.groups()
        if not name.startswith(PREFIXES):
            ignored.append(name)
        elif name in environ:
            kept.append(name)
        else:
            environ[name] = _unquote(value)
            taken.append(name)
    return DotEnv(tuple(taken), tuple(kept), tuple(ignored))


def masked(name: str, value: str) -> str:
    """Returns a value that may be shown: of secrets only the last four characters."""
    if not _SECRET.search(name):
        return value
    return f"...{value[-4:]}" if len(value) >= 12 else "..."


def _unquote(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
        return value[1:-1]
    return value.split(" #")[0].rstrip()
