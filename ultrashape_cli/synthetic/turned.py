"""Turned things: vases, jugs, goblets, bottles, and columns, chess pieces, balusters."""

from __future__ import annotations

import math

import numpy as np

from ultrashape_cli.synthetic.blends import Detail, Part, Pattern
from ultrashape_cli.synthetic.maker import Maker
from ultrashape_cli.synthetic.outlines import profile


def vase(rng: np.random.Generator) -> list[Part]:
    """Returns the parts of a vessel: hollow, with handles, a spout or a lid for some."""
    made = Maker(rng)
    u = rng.uniform
    kind = made.choose("amphora", "bowl", "bottle", "jug", "goblet", "mug", "urn", "teapot")
    heights = np.array([-0.9, -0.82, -0.5, 0.0, 0.4, 0.62, 0.82, 0.9])
    foot, belly, neck = u(0.25, 0.4), u(0.45, 0.65), u(0.16, 0.28)
    radii = {
        "amphora": [0.2, 0.18, 0.42, belly, 0.42, neck, neck * 0.95, neck * 1.4],
        "bottle": [foot, foot + 0.1, belly * 0.8, belly * 0.8, 0.4, 0.16, 0.13, 0.17],
        "jug": [foot, foot, belly, belly, 0.36, neck + 0.04, neck + 0.06, neck + 0.14],
        "urn": [foot, 0.2, 0.4, belly * 1.1, belly * 1.1, 0.45, 0.34, 0.44],
        "goblet": [0.42, 0.14, 0.09, 0.12, 0.4, 0.46, 0.47, 0.46],
        "mug": [0.44, 0.46, 0.46, 0.45, 0.45, 0.45, 0.46, 0.47],
        "bowl": [0.36, 0.34, 0.55, 0.78, 0.85, 0.9, 0.93, 0.95],
        "teapot": [0.36, 0.4, 0.62, 0.7, 0.5, 0.35, 0.22, 0.2],
    }[kind]
    tall = {"bowl": 0.55, "mug": 0.62, "teapot": 0.62}.get(kind, u(0.85, 1.1))
    heights = heights * tall
    outer = np.array(radii) * u(0.92, 1.08, 8)
    sides = int(rng.choice([0, 0, 0, 6, 8]))
    wall = u(0.05, 0.075)
    coat = made.coat("ornate", "ornate", "clay", "metal")
    made.revolve(profile(heights, outer, wall if kind != "teapot" else 0), sides=sides, **coat)
    _bands(made, heights, outer)
    top, middle = outer[-2], outer[3]
    if kind in ("amphora", "jug", "mug", "teapot") or (kind == "urn" and made.chance(0.5)):
        _handles(made, kind, heights, outer)
    if kind == "jug":
        made.egg((0, heights[-1], top + 0.08), (0.11, 0.1, 0.14), blend=0.06)
        made.egg((0, heights[-1] + 0.03, top + 0.06), (0.065, 0.12, 0.14), cut=True, blend=0.03)
    if kind == "teapot":
        made.tube(
            [
                (0, heights[2], middle * 0.85),
                (0, heights[3], middle + 0.25),
                (0, heights[5] + 0.05, middle + 0.42),
            ],
            [0.15, 0.1, 0.075],
            blend=0.05,
        )
        made.egg((0, heights[5] + 0.12, middle + 0.45), (0.05, 0.09, 0.05), cut=True, blend=0.02)
    if kind in ("teapot", "urn") and (kind == "teapot" or made.chance(0.6)):
        lid = np.array([0, 0.02, 0.09, 0.14, 0.2, 0.28]) * 1.1 + heights[-1] - 0.02
        made.revolve(profile(lid, np.array([1.15, 1.2, 0.8, 0.25, 0.32, 0.12]) * top, steps=4),
                     blend=0.008, **made.coat("clay", "ornate"))  # fmt: skip
    return made.parts


def _bands(made: Maker, heights: np.ndarray, radii: np.ndarray) -> None:
    """Mouldings at some heights: plain rings, cords, rows of beads."""
    for k in range(1, len(heights)):
        if not made.chance(0.45):
            continue
        kind = made.choose("ring", "cord", "beads")
        radius, y = radii[k] + 0.005, heights[k]
        ring = [
            (radius * math.sin(a), y, radius * math.cos(a)) for a in np.linspace(0, 2 * math.pi, 25)
        ]
        if kind == "beads":
            count = max(int(radius * 40), 8)
            for a in np.arange(count) * 2 * math.pi / count:
                made.egg((radius * math.sin(a), y, radius * math.cos(a)), (0.042,) * 3, blend=0.006)
        else:
            twist = (Detail(Pattern.THREAD, 0.022, 9),) if kind == "cord" else ()
            made.tube(ring, [0.036] * 25, steps=2, blend=0.012, details=twist)


def _handles(made: Maker, kind: str, heights: np.ndarray, radii: np.ndarray) -> None:
    """Loops between neck and belly, on one side or two."""
    u = made.rng.uniform
    high, low = (6, 3) if kind in ("amphora", "jug") else (5, 2)
    out, thick = u(0.14, 0.26), u(0.04, 0.055)
    coat = made.coat("ornate", "clay", deep=0.5)
    for way in ((0, -1),) if kind in ("jug", "mug", "teapot") else ((1, 0), (-1, 0)):
        across = np.array([way[0], 0.0, way[1]])
        wide = max(radii[low : high + 1])
        points = [across * (radii[high] - 0.02) + (0, heights[high], 0),
                  across * (wide + out * 0.8) + (0, heights[high] + 0.06, 0),
                  across * (wide + out) + (0, (heights[high] + heights[low]) / 2, 0),
                  across * (radii[low] - 0.02) + (0, heights[low], 0)]  # fmt: skip
        made.tube(points, [thick, thick * 0.9, thick, thick * 1.15], blend=0.04, **coat)


def column(rng: np.random.Generator) -> list[Part]:
    """Returns the parts of a column, baluster, chess piece, candlestick or spindle."""
    made = Maker(rng)
    if made.choose("column", "turned") == "column":
        _column(made)
    else:
        _spindle(made)
    return made.parts


def _column(made: Maker) -> None:
    """Base, shaft and capital of an order, broken off now and then."""
    u = made.rng.uniform
    radius, bulge = u(0.17, 0.26), u(0.0, 0.03)
    shaft = made.choose("flutes", "twist", "plain", "bricks", "engraved")
    pattern = {
        "flutes": Detail(Pattern.FLUTES, 0.022, u(2.2, 4)),
        "twist": Detail(Pattern.THREAD, 0.05, u(1.2, 3)),
        "plain": Detail(Pattern.NOISE, 0.012, 4),
        "bricks": Detail(Pattern.BRICKS, 0.016, u(2.5, 4)),
        "engraved": Detail(Pattern.ENGRAVING, 0.02, u(3, 5)),
    }[shaft]
    wear = (Detail(Pattern.NOISE, u(0.006, 0.016), u(5, 12)),)
    section = profile([-0.72, -0.2, 0.3, 0.72], np.array([1.0, 1.0, 0.95, 0.84]) * radius + bulge)
    made.revolve(section, sides=int(made.rng.choice([0, 0, 0, 8])), details=(pattern, *wear))
    for y, half, wide in ((-0.92, 0.05, 1.75), (0.92, 0.05, 1.7)):
        made.box((0, y, 0), (radius * wide, half, radius * wide), round=0.015, details=wear)
    for y, wide, thick in ((-0.82, 1.45, 0.07), (-0.72, 1.2, 0.05), (0.72, 1.02, 0.04)):
        made.egg((0, y, 0), (radius * wide, thick, radius * wide), blend=0.01, details=wear)
    order = made.choose("plain", "scrolls", "leaves")
    made.cone((0, 0.8, 0), radius * 0.95, 0.08, radius * 1.5, blend=0.02,
              **made.coat("ornate", "stone"))  # fmt: skip
    if order == "scrolls":
        for x in (-1, 1):
            for z in (-1, 1):
                at = np.array([x * radius * 1.35, 0.78, z * radius * 1.05])
                curl = [
                    at
                    + (
                        0.1 * math.exp(-0.22 * a) * math.cos(a),
                        0.1 * math.exp(-0.22 * a) * math.sin(a),
                        0,
                    )
                    for a in np.linspace(0, 9, 16)
                ]
                made.tube(curl, np.linspace(0.045, 0.022, 16), steps=2, blend=0.01)
            made.limb(
                (x * radius * 1.35, 0.78, -radius * 1.05),
                (x * radius * 1.35, 0.78, radius * 1.05),
                0.07,
                0.07,
                blend=0.01,
            )
    elif order == "leaves":
        for k in range(16):
            a, row = 2 * math.pi * (k % 8 + (k // 8) * 0.5) / 8, k // 8
            way = np.array([math.sin(a), 0, math.cos(a)])
            low = way * radius * 0.95 + (0, 0.66 + 0.08 * row, 0)
            made.tube([low, low + way * 0.05 + (0, 0.12, 0), low + way * 0.15 + (0, 0.11, 0)],
                      [0.055, 0.05, 0.03], blend=0.012)  # fmt: skip
    if made.chance(0.25):
        made.gem((u(-0.2, 0.2), 1.0, 0), (0.9, u(0.3, 0.7), 0.9), 30, 0.3, cut=True,
                 **made.coat("stone"))  # fmt: skip


def _spindle(made: Maker) -> None:
    """A row of beads, coves, discs and vases along an axis."""
    u = made.rng.uniform
    y, heights, radii = -0.9, [-0.9], [u(0.3, 0.45)]
    parts: list[tuple[float, float]] = []
    while y < 0.75:
        step, kind = u(0.1, 0.3), made.choose("bead", "cove", "disc", "vase")
        base = u(0.12, 0.2)
        if kind == "disc":
            parts.append((y + 0.04, base + u(0.08, 0.2)))
            step = 0.1
        swell = {"bead": 0.12, "cove": -0.04, "disc": 0.0, "vase": 0.16}[kind]
        heights += [y + step * 0.5, y + step]
        radii += [base + swell, base * 0.8]
        y += step
    made.revolve(profile(heights, radii, steps=5), sides=int(made.rng.choice([0, 0, 0, 6])),
                 **made.coat("wood", "ornate", "metal"))  # fmt: skip
    for at, radius in parts:
        made.cylinder((0, at, 0), radius, 0.035, round=0.02, blend=0.008, **made.coat("ornate"))
    top = made.choose("ball", "cup", "cross", "crown", "horse")
    if top == "ball":
        made.egg((0, y + 0.1, 0), (0.17, 0.17, 0.17), blend=0.02, **made.coat("ornate", "metal"))
    elif top == "cup":
        made.revolve(
            profile([y - 0.02, y + 0.05, y + 0.2, y + 0.32], [0.1, 0.2, 0.23, 0.25], 0.06),
            blend=0.02,
        )
    elif top == "cross":
        made.box((0, y + 0.17, 0), (0.05, 0.19, 0.045), round=0.02, blend=0.01)
        made.box((0, y + 0.2, 0), (0.15, 0.05, 0.045), round=0.02)
    elif top == "crown":
        made.revolve(profile([y - 0.02, y + 0.1, y + 0.24], [0.12, 0.2, 0.27], 0.1), blend=0.01)
        for a in np.arange(6) * math.pi / 3:
            made.box(
                (0.28 * math.sin(a), y + 0.25, 0.28 * math.cos(a)), (0.05, 0.08, 0.05), cut=True
            )
    else:
        made.tube(
            [(0, y - 0.05, -0.05), (0, y + 0.2, -0.06), (0, y + 0.38, 0.02), (0, y + 0.3, 0.24)],
            [0.15, 0.14, 0.12, 0.07],
            blend=0.03,
        )
        for side in (-1, 1):
            made.limb(
                (side * 0.06, y + 0.44, -0.02),
                (side * 0.07, y + 0.56, -0.02),
                0.035,
                0.014,
                blend=0.01,
            )
        made.tube(
            [(0, y + 0.02, -0.2), (0, y + 0.25, -0.2), (0, y + 0.48, -0.06)],
            [0.04, 0.06, 0.05],
            blend=0.01,
            **made.coat("fur"),
        )
