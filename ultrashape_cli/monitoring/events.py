"""metrics.jsonl: the only link between a trainer and whoever watches it."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ultrashape_cli.files import end_torn_line, write_atomic


class MetricsWriter:
    """Appends one JSON object per line, flushed at once."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        end_torn_line(path)
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

    def __init__(self, path: Path, tail_bytes: int | None = None) -> None:
        """Follows a file.

        Args:
            path: The file; it may appear later.
            tail_bytes: Most bytes of one call; where more is new, the last ones are read and `gap`
                says what was passed over.
        """
        self.path = path
        self.tail_bytes = tail_bytes
        self.gap = (0, 0)
        """Bytes from, to that the last call passed over."""
        self.replaced = False
        """Whether the last call found another file, or a shorter one."""
        self._offset = 0
        self._inode = 0

    def read_new(self) -> Iterator[dict[str, Any]]:
        """Yields each whole new line that is a JSON object; all lines of a replaced file."""
        for line in self._read().splitlines():
            value = parse_line(line)
            if value is not None:
                yield value

    def _read(self) -> bytes:
        self.gap, self.replaced = (0, 0), False
        try:
            with self.path.open("rb") as file:
                stat = os.fstat(file.fileno())
                if stat.st_ino != self._inode or stat.st_size < self._offset:
                    self.replaced = self._inode != 0
                    self._inode, self._offset = stat.st_ino, 0
                start, most = self._offset, self.tail_bytes
                if most is not None and stat.st_size - start > most:
                    start = stat.st_size - most
                file.seek(start)
                data = file.read(-1 if most is None else most)
        except FileNotFoundError:
            return b""
        except OSError:
            # Whoever only watches goes on when a remote mount stumbles; who rewrites must not.
            if self.tail_bytes is None:
                raise
            return b""
        whole = data[: data.rfind(b"\n") + 1]
        if start > self._offset:
            whole = whole[whole.find(b"\n") + 1 :]
            self.gap = (self._offset, start + data.rfind(b"\n") + 1 - len(whole))
        self._offset = start + data.rfind(b"\n") + 1
        return whole


def parse_line(line: bytes) -> dict[str, Any] | None:
    """Returns the object of one line, or None where it is torn or something else.

    What a crash tore may have the next whole line right behind it; that one counts.
    """
    try:
        value = json.loads(line)
    except ValueError:
        # Lines are flat: a brace inside one is that of the next.
        start = line.rfind(b'{"')
        return parse_line(line[start:]) if start > 0 else None
    return value if isinstance(value, dict) else None


def truncate_after(path: Path, step: int) -> None:
    """Drops lines of steps after `step`, which a resumed run will do again."""
    reader = MetricsReader(path)
    kept = [line for line in reader.read_new() if (line.get("step") or 0) <= step]
    if kept or path.exists():
        text = "".join(json.dumps(line) + "\n" for line in kept)
        write_atomic(path, lambda file: file.write(text.encode()))


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
