"""Trees, palms and cacti."""

from __future__ import annotations

import math

import numpy as np

from ultrashape_cli.synthetic.blends import Detail, Pattern, turn_up
from ultrashape_cli.synthetic.maker import Maker


def _branches(
    made: Maker,
    start: np.ndarray,
    way: np.ndarray,
    long: float,
    thick: float,
    level: int,
    ends: list[np.ndarray],
) -> None:
    """A limb and, from its end and middle, thinner ones."""
    u = made.rng.uniform
    bend = u(-0.25, 0.25, 3) * long
    end = start + way * long
    middle = (start + end) / 2 + bend * 0.4
    coat = made.coat("bark", deep=1.0 if level == 0 else 0.5)
    tip = max(thick * 0.62, 0.024)
    made.tube([start, middle, end], [thick, thick * 0.8, tip], blend=thick * 0.5, **coat)
    if level >= 3 or thick < 0.035:
        ends.append(end)
        return
    count, spin = int(u(2, 4)), u(0, 6.28)
    for k in range(count):
        a = spin + 2 * math.pi * k / count
        side = turn_up(way) @ np.array([math.sin(a), 0.0, math.cos(a)])
        turned = way * u(0.6, 1.0) + side * u(0.5, 0.9) + (0, 0.2, 0)
        turned /= np.linalg.norm(turned)
        root = end if k < 2 else middle
        _branches(made, root, turned, long * u(0.62, 0.85), tip, level + 1, ends)


def _roots(made: Maker, y: float, thick: float) -> None:
    for k in range(6):
        a = k * 1.05 + made.rng.uniform(-0.3, 0.3)
        way = np.array([math.sin(a), 0, math.cos(a)])
        made.tube(
            [
                (0, y + thick * 1.6, 0),
                way * thick * 1.3 + (0, y + thick * 0.5, 0),
                way * thick * 2.8 + (0, y - 0.02, 0),
            ],
            [thick * 0.7, thick * 0.5, thick * 0.22],
            blend=thick * 0.5,
            **made.coat("bark", deep=0.7),
        )


def bare_tree(made: Maker) -> None:
    """A tree without leaves."""
    thick = made.rng.uniform(0.11, 0.17)
    _branches(made, np.array([0, -0.9, 0]), np.array([0.0, 1.0, 0.0]), 0.6, thick, 0, [])
    _roots(made, -0.9, thick)


def leafy_tree(made: Maker) -> None:
    """A tree with clumps of leaves."""
    u = made.rng.uniform
    ends: list[np.ndarray] = []
    thick = u(0.09, 0.14)
    _branches(made, np.array([0, -0.9, 0]), np.array([0.0, 1.0, 0.0]), u(0.5, 0.7), thick, 1, ends)
    foliage = (Detail(Pattern.PEBBLES, 0.03, u(9, 13)), Detail(Pattern.NOISE, 0.04, u(3, 5)))
    for end in ends:
        made.egg(end, u(0.2, 0.34, 3), blend=0.05, details=foliage)
    _roots(made, -0.9, thick)


def fir(made: Maker) -> None:
    """A fir of drooping boughs."""
    u = made.rng.uniform
    made.cone((0, -0.1, 0), 0.1, 0.85, 0.03, **made.coat("bark"))
    layers = int(u(5, 8))
    for k in range(layers):
        t = k / (layers - 1)
        y, wide, count = -0.55 + 1.35 * t, 0.52 * (1 - t) + 0.08, int(9 - 4 * t)
        for j in range(count):
            a = 2 * math.pi * (j + 0.5 * (k % 2)) / count
            way = np.array([math.sin(a), 0, math.cos(a)])
            made.tube(
                [(0, y + 0.1, 0), way * wide * 0.55 + (0, y, 0), way * wide + (0, y - 0.12, 0)],
                [0.07, 0.085, 0.022],
                blend=0.02,
                **made.coat("fur", deep=1.1),
            )
    made.limb((0, 0.7, 0), (0, 0.98, 0), 0.06, 0.015, blend=0.02)


def palm(made: Maker) -> None:
    """A palm with feathered leaves."""
    u = made.rng.uniform
    lean = u(-0.4, 0.4)
    top = np.array([lean, 0.45, 0])
    rings = (Detail(Pattern.RINGS, 0.025, 6), Detail(Pattern.FUR, 0.01, 10))
    made.tube(
        [(0, -0.9, 0), (lean * 0.2, -0.4, 0), (lean * 0.6, 0.1, 0), top],
        [0.13, 0.085, 0.075, 0.07],
        details=rings,
    )
    count = int(u(8, 12))
    for k in range(count):
        a, rise = 2 * math.pi * k / count, u(0.1, 0.35)
        way = np.array([math.sin(a), 0, math.cos(a)])
        rib = [
            top,
            top + way * 0.3 + (0, rise, 0),
            top + way * 0.6 + (0, rise * 0.5, 0),
            top + way * 0.82 + (0, -0.25, 0),
        ]
        made.tube(rib, [0.05, 0.04, 0.034, 0.02], blend=0.02)
        across = np.array([way[2], 0, -way[0]])
        for t in np.linspace(0.25, 0.95, 6):
            at = (
                np.array(rib[1]) * (1 - t)
                + np.array(rib[3]) * t
                + (0, 0.16 * math.sin(math.pi * t), 0)
            )
            for side in (-1, 1):
                made.limb(
                    at,
                    at + side * across * 0.16 + way * 0.1 - (0, 0.1, 0),
                    0.034,
                    0.016,
                    blend=0.01,
                )
    for k in range(4):
        made.egg(
            top + (0.09 * math.sin(k * 1.6), -0.06, 0.09 * math.cos(k * 1.6)),
            (0.07, 0.08, 0.07),
            blend=0.01,
        )


def cactus(made: Maker) -> None:
    """A round or branched cactus."""
    u = made.rng.uniform
    ribs = (Detail(Pattern.FLUTES, 0.03, u(1.6, 2.8)), Detail(Pattern.STUDS, 0.02, u(4, 6)))
    if made.chance(0.4):
        tall = u(0.45, 0.65)
        made.egg((0, tall - 0.93, 0), (0.55, tall, 0.55), details=ribs)
        for k in range(3):
            made.egg(
                (0.3 * math.sin(k * 2.1), 1.8 * tall - 0.9, 0.3 * math.cos(k * 2.1)),
                (0.12, 0.16, 0.12),
                blend=0.02,
                details=(Detail(Pattern.SHINGLES, 0.02, 8),),
            )
    else:
        made.tube([(0, -0.9, 0), (0, 0, 0), (0, 0.85, 0)], [0.17, 0.19, 0.15], details=ribs)
        for _ in range(int(u(1, 4))):
            a, y, reach = u(0, 6.28), u(-0.5, 0.2), u(0.35, 0.5)
            way = np.array([math.sin(a), 0, math.cos(a)])
            made.tube(
                [
                    (0, y, 0),
                    way * reach * 0.8 + (0, y + 0.02, 0),
                    way * reach + (0, y + 0.2, 0),
                    way * reach + (0, y + 0.55, 0),
                ],
                [0.11, 0.11, 0.12, 0.1],
                blend=0.05,
                details=ribs,
            )
    made.cylinder((0, -0.93, 0), 0.5, 0.06, round=0.03, blend=0.03, **made.coat("stone"))
