"""The report as a file: written after every case, so that a killed command loses none."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ultrashape_cli.dotenv import masked_text
from ultrashape_cli.errors import UsageError
from ultrashape_cli.files import read_json, write_json

KIND = "ushape doctor --card"
SCHEMA = 1
KEPT = ("ok", "failed", "skipped")
"""Results that stay; what had no time has its turn when the command is repeated."""
KEY = ("version", "torch", "device", "name", "capability", "gib")
"""What of a machine makes results comparable."""
TEXTS = ("reason", "hint")
"""Words of others, which may name places."""
OFF = 0.08
"""Part by which memory may differ from its plan."""


@dataclass(slots=True)
class Report:
    """Results by case, and the machine they are of."""

    path: Path
    machine: dict[str, Any]
    settings: dict[str, Any]
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    seconds: float = 0.0
    """Of all commands that worked on it."""

    @property
    def key(self) -> dict[str, Any]:
        """Returns what must be the same for a report to go on."""
        return {name: self.machine.get(name) for name in KEY} | self.settings

    def waiting(self, names: Iterable[str]) -> list[str]:
        """Returns the cases that have no result that stays."""
        return [n for n in names if self.results.get(n, {}).get("status") not in KEPT]

    def record(self, name: str, result: dict[str, Any]) -> None:
        """Keeps a result and writes the file."""
        told = {key: _without_places(text) for key, text in result.items() if key in TEXTS and text}
        self.results[name] = _plain(result | told)
        self.save()

    def figure(self, name: str, key: str) -> Any:
        """Returns a figure of a case, or None."""
        return (self.results.get(name, {}).get("figures") or {}).get(key)

    def save(self, **more: Any) -> None:
        """Writes the file, with further entries at its end.

        Raises:
            DiskError: It cannot be written.
        """
        head = {"kind": KIND, "schema_version": SCHEMA, "key": self.key, "machine": self.machine}
        body = {"seconds": round(self.seconds, 1), "results": self.results}
        found = _plain({**head, **body})
        write_json(self.path, {**found, "digest": _digest(found), **_plain(more)})


def check_target(path: Path) -> None:
    """Raises UsageError where a file is in the place that is no report of this command."""
    if path.is_dir():
        raise UsageError(f"`{path}` is a folder", hint=f"-o {path / 'card.json'}")
    found = read_json(path)
    if found is None and _was_ours(path):
        return
    if path.exists() and not (isinstance(found, dict) and found.get("kind") == KIND):
        raise UsageError(
            f"`{path}` exists, and `{KIND}` did not make it", hint="another -o, or remove it first"
        )


def open_report(
    path: Path, machine: dict[str, Any], settings: dict[str, Any], *, force: bool
) -> Report:
    """Returns the report of a path: the one that is there, to go on with, or an empty one.

    Args:
        path: Of the file, which `check_target` has passed.
        machine: From `device.identify`.
        settings: Of the cases.
        force: Begin anew.

    Raises:
        UsageError: The one that is there is of another machine, version or setting.
    """
    fresh = Report(path, machine, settings)
    if force or not path.exists() or not path.stat().st_size:
        return fresh
    found = read_json(path)
    if not isinstance(found, dict) or found.get("digest") != _digest(found):
        raise UsageError(
            f"`{path}` is damaged or was changed by hand",
            hint="--force to begin anew, or another -o",
        )
    there, here = found.get("key", {}), _plain(fresh.key)
    names = [name for name in {**there, **here} if there.get(name) != here.get(name)]
    if names or found.get("schema_version") != SCHEMA:
        told = ", ".join(f"{n} {there.get(n)} (now {here.get(n)})" for n in names) or "its schema"
        raise UsageError(
            f"`{path}` is a report of something else: {told}",
            hint="another -o, or --force to begin anew",
        )
    fresh.results, fresh.seconds = found.get("results", {}), found.get("seconds", 0.0)
    return fresh


def _was_ours(path: Path) -> bool:
    """Says whether a file that cannot be read is a torn report, or holds nothing at all."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        start = file.read(200)
    return not start or KIND.encode() in start


def _digest(found: dict[str, Any]) -> str:
    """Returns the checksum of what a report goes on with."""
    names = ("kind", "schema_version", "key", "machine", "seconds", "results")
    text = json.dumps({name: found.get(name) for name in names}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def memory_off(result: dict[str, Any]) -> float | None:
    """Returns by which part the measured peak is above the plan; None where one is not known."""
    figures = result.get("figures") or {}
    planned, measured = figures.get("planned_bytes"), figures.get("measured_bytes")
    if not planned or measured is None or figures.get("out_of_memory"):
        return None
    return float(measured / planned - 1)


def is_red(result: dict[str, Any]) -> bool:
    """Says whether a case failed, broke its cap, or was off its plan."""
    off = memory_off(result)
    return result.get("status") == "failed" or (off is not None and abs(off) > OFF)


def _without_places(text: str) -> str:
    """Returns a text whose files have no folders, and which holds no secrets."""
    return re.sub(r"(?<![\w.])~?(?:/[^\s/'\"`:,()]+)+/(?=[^\s/])", "", masked_text(text))


def _plain(value: Any) -> Any:
    """Returns what JSON can hold; numbers that are not finite have no place there."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
