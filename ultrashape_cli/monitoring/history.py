"""The metrics of a run in bounded memory: the newest lines whole, older ones thinned out.

A file of any length opens in the same time: its end is read, and of the rest as many lines as a
plot can show, found by seeking.
"""

from __future__ import annotations

import math
import os
from bisect import bisect_left
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from ultrashape_cli.monitoring.events import MetricsReader, parse_line

TAIL_BYTES = 1 << 20
NUM_SAMPLES = 800
NUM_VALIDATIONS = 160
"""Points of the part of a file that is not read whole."""
MAX_LINES = 4000
MAX_VALIDATIONS = 600
_LINE_BYTES = 8192
"""More than a line has."""
_WINDOW_BYTES = 24_576
"""Searched for a validation line around where its step should be."""

Line = dict[str, float]


class MetricsHistory:
    """Follows metrics.jsonl; `lines` and `validations` are ordered by step."""

    def __init__(self, path: Path, *, tail_bytes: int = TAIL_BYTES, sample: bool = True) -> None:
        self.lines: list[Line] = []
        self.validations: list[Line] = []
        self.lost_step: int | None = None
        """The newest step, if its loss was no number."""
        self._sample = sample
        self._reader = MetricsReader(path, tail_bytes)

    def update(self) -> int:
        """Reads what is new; returns the number of new lines."""
        lines = []
        for value in self._reader.read_new():
            line = _numbers(value)
            if line:
                lines.append(line)
                lost = "loss" in value and "loss" not in line
                self.lost_step = int(line["step"]) if lost else None
        if self._reader.replaced:
            self.lines.clear()
            self.validations.clear()
        start, end = self._reader.gap
        if end > start and self._sample:
            every = _validation_interval(lines)
            sampled, validations = sample_file(self._reader.path, start, end, every)
            for line in sampled:
                _append(self.lines, line)
            for line in validations:
                _append(self.validations, line)
        for line in lines:
            _append(self.lines, line)
            if "val_loss" in line:
                _append(self.validations, line)
        _thin(self.lines, MAX_LINES)
        _thin(self.validations, MAX_VALIDATIONS)
        return len(lines)

    def recent(self, count: int) -> list[Line]:
        """Returns the newest lines, oldest first."""
        return self.lines[-count:]

    def series(self, name: str) -> list[tuple[float, float]]:
        """Returns (step, value) of one metric, as far as it is kept."""
        source = self.validations if name.startswith("val_") else self.lines
        return [(line["step"], line[name]) for line in source if name in line]

    def mean(self, name: str, count: int = 50) -> float | None:
        """Returns the mean of a metric over the newest lines that have it, or None."""
        found = [line[name] for line in self.recent(count) if name in line]
        return sum(found) / len(found) if found else None


def sample_file(
    path: Path, start: int, end: int, validation_steps: int
) -> tuple[list[Line], list[Line]]:
    """Returns evenly spread lines and validation lines between two offsets of a file.

    Args:
        path: metrics.jsonl.
        start: First byte.
        end: First byte behind the part.
        validation_steps: Steps between validations, which are looked for where lines of their
            steps should be; 0 looks for none.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return [], []
    try:
        placed = list(_sample(descriptor, start, end))
        found = list(_find_validations(descriptor, placed, validation_steps))
    except OSError:  # the file vanished or its server did; what comes next is read anyhow
        return [], []
    finally:
        os.close(descriptor)
    return [line for _, line in placed], found


def _sample(descriptor: int, start: int, end: int) -> Iterator[tuple[int, Line]]:
    for index in range(NUM_SAMPLES):
        offset = start + (end - start) * index // NUM_SAMPLES
        data = os.pread(descriptor, min(_LINE_BYTES, end - offset), offset)
        first = 0 if offset == 0 else data.find(b"\n") + 1
        stop = data.find(b"\n", first)
        line = _numbers(parse_line(data[first:stop]) or {}) if stop > first else None
        if line:
            yield offset + first, line


def _find_validations(
    descriptor: int, placed: list[tuple[int, Line]], every: int
) -> Iterator[Line]:
    if every <= 0 or len(placed) < 2:
        return
    steps = [line["step"] for _, line in placed]
    first, last = math.ceil(steps[0] / every), int(steps[-1] // every)
    stride = max(1, (last - first + 1) // NUM_VALIDATIONS)
    for multiple in range(first, last + 1, stride):
        index = min(max(bisect_left(steps, multiple * every), 1), len(steps) - 1)
        (low, before), (high, after) = placed[index - 1], placed[index]
        span = after["step"] - before["step"] or 1
        middle = low + (high - low) * (multiple * every - before["step"]) / span
        offset = max(0, int(middle) - _WINDOW_BYTES // 2)
        data = os.pread(descriptor, _WINDOW_BYTES, offset)
        mark = data.find(b'"val_loss"')
        left, right = data.rfind(b"\n", 0, mark) + 1, data.find(b"\n", mark)
        line = _numbers(parse_line(data[left:right]) or {}) if mark >= 0 and right > left else None
        if line and "val_loss" in line:
            yield line


def _validation_interval(lines: list[Line]) -> int:
    """Returns the steps between the validations of the newest lines; 0 where they do not tell."""
    steps = [line["step"] for line in lines if "val_loss" in line]
    gaps = sorted(int(b - a) for a, b in pairwise(steps) if b > a)
    return gaps[len(gaps) // 2] if gaps else 0


def _numbers(value: dict[str, Any]) -> Line | None:
    """Returns the finite numbers of a line that has a step; others cannot be placed."""
    line = {
        name: number
        for name, number in value.items()
        if isinstance(number, int | float) and math.isfinite(number)
    }
    return line if "step" in line else None


def _append(lines: list[Line], line: Line) -> None:
    """Adds a line in place of those of its step and later: a resumed run does them again."""
    while lines and lines[-1]["step"] >= line["step"]:
        lines.pop()
    lines.append(line)


def _thin(lines: list[Line], most: int) -> None:
    """Drops every other of the older half, so that old parts get coarser and coarser."""
    while len(lines) > most:
        half = most // 2
        lines[:-half] = lines[:-half][::2]
