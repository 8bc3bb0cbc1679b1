"""Variables from a file `.env` in the working folder, and secrets that nobody else should read.

Standard library only.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PREFIXES = ("WANDB_", "HF_", "USHAPE_", "CUDA_", "NCCL_")
"""Other names are left alone: a `.env` may belong to another program of the folder."""
_LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_]\w*)\s*=\s*(.*?)\s*")
_SECRET = re.compile(r"KEY|TOKEN(?!S)|SECRET|PASSWORD|WEBHOOK|COMMAND", re.IGNORECASE)
"""Names of what is secret; `refine.tokens` is a number."""
_SECRET_TEXT = re.compile(
    r"https?://(?:[^\s/'\"]+@|[^\s/'\"]+/)[^\s'\"]+|\bhf_\w{16,}"
    r"|\bushape_[\w-]{40,}"
)
"""Secret under any name: addresses with a password or a path, tokens of the hub and of `serve`."""
_SETTING = re.compile(r"((?:--set=)?([^=]+)=)(.*)", re.DOTALL)


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
    if not _SECRET.search(name) and not _SECRET_TEXT.search(value):
        return value
    return f"...{value[-4:]}" if len(value) >= 12 else "..."


def masked_arguments(arguments: Sequence[str]) -> list[str]:
    """Returns a command line that may be recorded: `--set alerts.webhook=...ret1`."""
    return [
        f"{match[1]}{masked(match[2], match[3])}"
        if (match := _SETTING.fullmatch(text))
        else _SECRET_TEXT.sub(lambda found: masked("KEY", found[0]), text)
        for text in arguments
    ]


def masked_text(text: str, environ: Mapping[str, str] | None = None) -> str:
    """Returns a text that may be passed on: secrets of its own, and those of variables, masked."""
    for name, value in (os.environ if environ is None else environ).items():
        # Shorter ones are switches, and parts of other words.
        if len(value) >= 12 and _SECRET.search(name):
            text = text.replace(value, masked(name, value))
    return _SECRET_TEXT.sub(lambda found: masked("KEY", found[0]), text)


def _unquote(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
        return value[1:-1]
    return value.split(" #")[0].rstrip()
