"""Curves and bars of characters: braille dots where the terminal can show them, else plain ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

Point = tuple[float, float]

LOG_SPAN = 8.0
"""Positive values that span more are drawn by logarithm."""
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Braille bit of each dot: row from the top, column."""
_LABEL = 9
_EIGHTHS = " ▁▂▃▄▅▆▇█"
_EIGHTHS_ASCII = " ..::==##"


def plot(
    points: Sequence[Point], width: int, height: int, *, ascii_only: bool = False
) -> list[str]:
    """Returns the rows of a curve with its axes, `height` rows of at most `width` characters.

    Args:
        points: (x, y), ordered by x; of points that share a column the mean is drawn.
        width: Characters, labels included.
        height: Rows; the last one holds the labels of x.
        ascii_only: Whether to do without braille.
    """
    points = [point for point in points if all(map(math.isfinite, point))]
    if len(points) < 2:
        return ["waiting for values"]
    columns, rows = max(4, width - _LABEL - 2), max(2, height - 1)
    across, down = (1, 1) if ascii_only else (2, 4)
    means = _columns(points, columns * across)
    ys = [y for y in means if y is not None]
    low, high, logarithmic = _range(ys)
    levels = [
        None if y is None else round(_place(y, low, high, logarithmic) * (rows * down - 1))
        for y in means
    ]
    cells = _draw(levels, columns, rows, across, down)
    lines = []
    for row, bits in enumerate(cells):
        share = 1 - row / (rows - 1)
        labelled = row in (0, rows // 2, rows - 1)
        label = number(_value(share, low, high, logarithmic)) if labelled else ""
        mark = "*" if ascii_only else None
        text = "".join((mark or chr(0x2800 + bit)) if bit else " " for bit in bits).rstrip()
        lines.append(f"{label:>{_LABEL}} {'|' if ascii_only else '│'}{text}")
    return [*lines, _x_axis(points, columns)]


def bars(values: Sequence[float | None], *, ascii_only: bool = False) -> str:
    """Returns one character per value, as high as the value is; None is a blank."""
    blocks = _EIGHTHS_ASCII if ascii_only else _EIGHTHS
    most = max((v for v in values if v is not None), default=0.0)
    return "".join(
        " " if v is None else blocks[max(1, round(8 * max(v, 0.0) / most)) if most > 0 else 1]
        for v in values
    )


def progress(share: float, width: int, *, ascii_only: bool = False) -> str:
    """Returns a bar of `width` characters of which a share in [0, 1] is full."""
    full = round(min(max(share, 0.0), 1.0) * width)
    done, rest = ("#", "-") if ascii_only else ("━", "╌")
    return done * full + rest * (width - full)


def number(value: float | None) -> str:
    """Returns a number in at most nine characters."""
    if value is None or not math.isfinite(value):
        return "-"
    return f"{value:.4g}"


def _columns(points: Sequence[Point], count: int) -> list[float | None]:
    """Returns the mean of the points of each of `count` columns of dots; gaps are bridged."""
    first, last = points[0][0], points[-1][0]
    span = (last - first) or 1.0
    sums, counts = [0.0] * count, [0] * count
    for x, y in points:
        column = min(count - 1, max(0, int((x - first) / span * count)))
        sums[column] += y / 2  # halves: two of the largest numbers would overflow
        counts[column] += 1
    found: list[float | None] = [
        2 * (s / n) if n else None for s, n in zip(sums, counts, strict=True)
    ]
    known = [index for index, value in enumerate(found) if value is not None]
    for left, right in pairwise(known):
        a, b = found[left], found[right]
        assert a is not None
        assert b is not None
        for index in range(left + 1, right):
            part = (index - left) / (right - left)
            found[index] = a * (1 - part) + b * part
    return found


def _range(ys: Sequence[float]) -> tuple[float, float, bool]:
    low, high = min(ys), max(ys)
    if low == high:
        pad = abs(low) * 0.05 or 1.0
        return low - pad, high + pad, False
    return low, high, low > 0 and high / LOG_SPAN > low


def _place(y: float, low: float, high: float, logarithmic: bool) -> float:
    if logarithmic:
        return (math.log(y) - math.log(low)) / (math.log(high) - math.log(low))
    return (y / 2 - low / 2) / (high / 2 - low / 2)


def _value(share: float, low: float, high: float, logarithmic: bool) -> float:
    if logarithmic:
        return math.exp(math.log(low) * (1 - share) + math.log(high) * share)
    return low * (1 - share) + high * share


def _draw(
    levels: Sequence[int | None], columns: int, rows: int, across: int, down: int
) -> list[list[int]]:
    """Returns the bits of each cell; neighbours in x are joined."""
    cells = [[0] * columns for _ in range(rows)]
    previous: int | None = None
    for column, level in enumerate(levels):
        if level is None:
            previous = None
            continue
        start = level if previous is None else previous + (level > previous) - (level < previous)
        for dot in range(min(start, level), max(start, level) + 1):
            row, part = divmod(rows * down - 1 - dot, down)
            bit = 1 if down == 1 else _DOTS[part][column % across]
            cells[row][column // across] |= bit
        previous = level
    return cells


def _x_axis(points: Sequence[Point], columns: int) -> str:
    left, right = f"{points[0][0]:,.0f}", f"{points[-1][0]:,.0f}"
    middle = f"{(points[0][0] + points[-1][0]) / 2:,.0f}"
    text = f"{left}{middle:^{max(0, columns - len(left) - len(right))}}{right}"
    return " " * (_LABEL + 2) + text[:columns]
