"""Charts as inline SVG. Each carries its numbers, which the page's script shows under the mouse."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ultrashape_cli.monitoring.plot import number

Point = tuple[float, float]

WIDTH, HEIGHT = 560, 230
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 10, 26
MAX_POINTS = 400
LOG_SPAN = 12.0
"""Positive values that span more are drawn by logarithm."""


@dataclass(frozen=True, slots=True)
class Series:
    """One curve."""

    name: str
    points: Sequence[Point]
    colour: int
    """Index of the page's palette."""
    kind: str = "line"
    """`line`, `dashed`, `faint`, or `dots` (a line with its points marked)."""
    spread: Sequence[Point] = ()
    """Interval of each point of `dots`, from low to high."""


def line_chart(
    title: str,
    series: Sequence[Series],
    *,
    marks: Sequence[float] = (),
    note: str = "",
    linear: bool = False,
) -> str:
    """Returns a chart of curves over steps, or nothing where no curve has two points.

    Args:
        title: Above the chart.
        series: Curves, drawn in their order.
        marks: Steps with a vertical line: restarts.
        note: Small text behind the title.
        linear: Whether values that span much are drawn from zero on all the same.
    """
    curves = [
        replace(s, points=thin([p for p in s.points if all(map(math.isfinite, p))])) for s in series
    ]
    curves = [curve for curve in curves if len(curve.points) > 1 or curve.spread]
    if not curves:
        return ""
    if len(curves) == 1 and curves[0].kind == "faint":
        curves = [replace(curves[0], kind="line", colour=0)]
    ends = [
        (x, end)
        for curve in curves
        for (x, _), low_high in zip(curve.points, curve.spread, strict=False)
        for end in low_high
    ]
    scale = _Scale.around([*ends, *(p for curve in curves for p in curve.points)], linear)
    lines = [_grid(scale)]
    lines += [
        f"<line class=mark x1='{x:.1f}' x2='{x:.1f}' y1='{TOP}' y2='{HEIGHT - BOTTOM}'/>"
        for step in marks
        if scale.left < step < scale.right
        for x in [scale.x(step)]
    ]
    lines += [_path(curve, scale) for curve in curves]
    data = [
        {
            "n": curve.name,
            "c": curve.colour,
            "p": [[x, float(f"{y:.5g}"), round(scale.x(x), 1), round(scale.y(y), 1)]
                  for x, y in curve.points],
        }
        for curve in curves
    ]  # fmt: skip
    legend = "".join(
        f"<span class='key c{curve.colour} {curve.kind}'>{html.escape(curve.name)}</span>"
        for curve in curves
        if len(curves) > 1
    )
    small = f" <small>{html.escape(note)}</small>" if note else ""
    return (
        f"<figure class='plot'><figcaption><b>{html.escape(title)}</b>{small}"
        f"<div class=legend>{legend}</div></figcaption>"
        f"<svg viewBox='0 0 {WIDTH} {HEIGHT}' data-series='{html.escape(json.dumps(data))}'>"
        f"{''.join(lines)}<g class=cursor></g></svg><output></output></figure>"
    )


def stacked_bar(shares: Sequence[tuple[str, float]]) -> str:
    """Returns shares of a whole as one bar with its legend."""
    parts = "".join(
        f"<i class=f{index} style='width:{100 * share:.2f}%' title='{html.escape(name)}'></i>"
        for index, (name, share) in enumerate(shares)
    )
    keys = "".join(
        f"<span class='key c{index}'>{html.escape(name)} <b>{100 * share:.0f} %</b></span>"
        for index, (name, share) in enumerate(shares)
        if share >= 0.005
    )
    return f"<div class=stack>{parts}</div><div class=legend>{keys}</div>"


def columns(title: str, values: Sequence[tuple[str, float | None]], note: str = "") -> str:
    """Returns a chart of labelled columns from zero on, or nothing without values."""
    known = [value for _, value in values if value is not None]
    if not known or max(known) <= 0:
        return ""
    most, width = max(known), (WIDTH - LEFT - RIGHT) / len(values)
    body = ""
    for index, (label, value) in enumerate(values):
        x = LEFT + index * width
        middle = x + width / 2
        body += f"<text class=x x='{middle:.1f}' y='{HEIGHT - 8}'>{html.escape(label)}</text>"
        if value is None:
            continue
        height = max(0.0, value) / most * (HEIGHT - TOP - BOTTOM - 16)
        top = HEIGHT - BOTTOM - height
        body += (
            f"<rect class=f0 rx=3 x='{x + 4:.1f}' y='{top:.1f}' width='{width - 8:.1f}' "
            f"height='{height:.1f}'/>"
            f"<text class=x x='{middle:.1f}' y='{top - 5:.1f}'>{number(value)}</text>"
        )
    small = f" <small>{html.escape(note)}</small>" if note else ""
    return (
        f"<figure class=plot><figcaption><b>{html.escape(title)}</b>{small}</figcaption>"
        f"<svg viewBox='0 0 {WIDTH} {HEIGHT}'>{body}</svg></figure>"
    )


def thin(points: Sequence[Point]) -> list[Point]:
    """Returns at most `MAX_POINTS` points: the lowest and the highest of each stretch."""
    if len(points) <= MAX_POINTS:
        return list(points)
    count = MAX_POINTS // 2
    kept: list[Point] = []
    for index in range(count):
        part = points[index * len(points) // count : (index + 1) * len(points) // count]
        ends = {min(part, key=lambda p: p[1]), max(part, key=lambda p: p[1])}
        kept += sorted(ends)
    return kept


@dataclass(frozen=True, slots=True)
class _Scale:
    left: float
    right: float
    low: float
    high: float
    logarithmic: bool

    @classmethod
    def around(cls, points: Sequence[Point], linear: bool) -> _Scale:
        xs, ys = [x for x, _ in points], [y for _, y in points]
        low, high = min(ys), max(ys)
        logarithmic = low > 0 and high / LOG_SPAN > low and not linear
        if not logarithmic:
            pad = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
            # Curves of positive numbers do not need a negative axis.
            low, high = (max(0.0, low - pad) if low >= 0 else low - pad), high + pad
        return cls(min(xs), max(max(xs), min(xs) + 1e-9), low, high, logarithmic)

    def x(self, value: float) -> float:
        share = (value - self.left) / (self.right - self.left)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        if self.logarithmic:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    def ticks(self) -> list[float]:
        if not self.logarithmic:
            return nice_ticks(self.low, self.high)
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        steps = (1, 2, 5) if last - first < 4 else (1,)
        found = [m * 10.0**e for e in range(first, last + 1) for m in steps]
        return [tick for tick in found if self.low <= tick <= self.high]


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Returns about `count` round numbers from low to high."""
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw)
    first = math.ceil(low / step)
    return [index * step for index in range(first, math.floor(high / step) + 1)]


def _grid(scale: _Scale) -> str:
    body = ""
    for tick in scale.ticks():
        y = scale.y(tick)
        body += (
            f"<line class=grid x1='{LEFT}' x2='{WIDTH - RIGHT}' y1='{y:.1f}' y2='{y:.1f}'/>"
            f"<text class=y x='{LEFT - 6}' y='{y + 4:.1f}'>{number(tick)}</text>"
        )
    for tick in nice_ticks(scale.left, scale.right, 6):
        label = _steps(tick, scale.right)
        body += f"<text class=x x='{scale.x(tick):.1f}' y='{HEIGHT - 8}'>{label}</text>"
    return body


def _path(curve: Series, scale: _Scale) -> str:
    places = [(scale.x(x), scale.y(y)) for x, y in curve.points]
    text = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    dots = "".join(
        f"<circle class='d{curve.colour}' r=2.6 cx='{x:.1f}' cy='{y:.1f}'/>"
        for x, y in (places if curve.kind == "dots" and len(places) < 60 else ())
    )
    bars = "".join(
        f"<path class='s{curve.colour} faint' d='M{x:.1f} {scale.y(low):.1f}V{scale.y(high):.1f}'/>"
        for (x, _), (low, high) in zip(places, curve.spread, strict=False)
    )
    return f"{bars}<path class='s{curve.colour} {curve.kind}' d='{text}'/>{dots}"


def _steps(value: float, largest: float) -> str:
    """Returns a step in the unit that suits the largest one."""
    for unit, name in ((1e6, "M"), (1e3, "k")):
        if largest >= 10 * unit:
            return f"{value / unit:g}{name}"
    return f"{value:,.6g}"
