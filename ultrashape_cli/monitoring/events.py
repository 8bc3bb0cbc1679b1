"""metrics.jsonl: the only link between a trainer and whoever watches it."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ultrashape_cli.files import write_atomic


class MetricsWriter:
    """Appends one JSON object per line, flushed at once."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        _end_torn_line(path)
        self._file = path.open("a", encoding="utf-8")

    def write(self, values: dict[str, Any]) -> None:
        """Appends a line; non-finite numbers become null, which JSON can hold."""
        self._file.write(json.dumps({k: _finite(v) for k, v in values.items()}) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class MetricsReader:
    """Reads the lines added since the last call; survives torn lines and a replaced file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0
        self._inode = 0

    def read_new(self) -> Iterator[dict[str, Any]]:
        """Yields each whole new line that is a JSON object; all lines of a replaced file."""
        try:
            with self.path.open("rb") as file:
                stat = os.fstat(file.fileno())
                if stat.st_ino != self._inode or stat.st_size < self._offset:
                    self._inode, self._offset = stat.st_ino, 0
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.splitlines():
            try:
                value = json.loads(line)
            except ValueError:
                continue
            if isinstance(value, dict):
                yield value


def truncate_after(path: Path, step: int) -> None:
    """Drops lines of steps after `step`, which a resumed run will do again."""
    reader = MetricsReader(path)
    kept = [line for line in reader.read_new() if (line.get("step") or 0) <= step]
    if kept or path.exists():
        text = "".join(json.dumps(line) + "\n" for line in kept)
        write_atomic(path, lambda file: file.write(text.encode()))


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _end_torn_line(path: Path) -> None:
    if path.exists() and path.stat().st_size:
        with path.open("rb+") as file:
            file.seek(-1, 2)
            if file.read(1) != b"\n":
                file.write(b"\n")
