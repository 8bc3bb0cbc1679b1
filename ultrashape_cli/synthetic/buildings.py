"""Buildings: houses, towers, castles, temples, pagodas, churches, bridges, mills."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from ultrashape_cli.synthetic.blends import Detail, Part, Pattern, turn
from ultrashape_cli.synthetic.maker import Maker
from ultrashape_cli.synthetic.outlines import profile
from ultrashape_cli.synthetic.walls import castle, gable, ground, opening, temple, tower


def building(rng: np.random.Generator) -> list[Part]:
    """Returns the parts of a building whose door faces z."""
    made = Maker(rng)
    kinds = {"house": _house, "tower": tower, "castle": castle, "temple": temple,
             "pagoda": _pagoda, "church": _church, "bridge": _bridge, "mill": _mill}  # fmt: skip
    kinds[made.choose(*kinds)](made)
    ground(made)
    return made.parts


def _house(made: Maker) -> None:
    u = made.rng.uniform
    x, z, tall = u(0.4, 0.55), u(0.45, 0.65), u(0.28, 0.5)
    low = -0.9 + tall
    made.box((0, low, 0), (x, tall, z), **made.coat("masonry", "planks", "rubble"))
    if made.chance(0.5):
        for side in (-1, 1):
            for end in (-1.0, 1.0):
                made.box(
                    (side * x, low, end * z),
                    (0.045, tall, 0.045),
                    round=0.01,
                    **made.coat("wood", deep=0.6),
                )
            made.box((0, low + tall * 0.1, side * z), (x, 0.03, 0.035), round=0.01)
            made.limb(
                (side * x * 0.95, low + tall * 0.2, z),
                (side * x * 0.45, low + tall, z),
                0.035,
                0.035,
            )
    gable(made, (0, low + tall, 0), x * 1.1, z, u(0.35, 0.6))
    opening(made, (0, -0.68, z), 0.1, 0.18, 0.0, door=True, arched=made.chance(0.5))
    for side in (-1, 1):
        opening(made, (side * x * 0.58, low + 0.03, z), 0.08, 0.1, 0.0, arched=False)
        for end in (-0.5, 0.45):
            opening(made, (side * x, low, end * z), 0.09, 0.11, side * math.pi / 2, arched=False)
    made.box(
        (x * 0.5, low + tall + 0.35, -z * 0.4),
        (0.085, 0.35, 0.085),
        **made.coat("masonry", fine=1.4),
    )
    made.box((x * 0.5, low + tall + 0.7, -z * 0.4), (0.11, 0.03, 0.11), round=0.01)
    if made.chance(0.5):
        made.box(
            (0, -0.87, z + 0.12), (0.16, 0.05, 0.12), round=0.01, **made.coat("stone", deep=0.5)
        )
        made.box(
            (0, -0.38, z + 0.1), (0.2, 0.025, 0.16), rotation=turn(x=0.3), **made.coat("tiles")
        )
        for side in (-1, 1):
            made.limb((side * 0.17, -0.9, z + 0.2), (side * 0.17, -0.4, z + 0.2), 0.026, 0.026)


def _pagoda(made: Maker) -> None:
    u = made.rng.uniform
    floors, sides = int(u(3, 6)), int(made.rng.choice([4, 6, 8]))
    y, wide, step = -0.88, u(0.45, 0.55), 1.6 / floors
    for _ in range(floors):
        made.cylinder(
            (0, y + step * 0.3, 0),
            wide * 0.72,
            step * 0.34,
            sides=sides,
            **made.coat("planks", "masonry"),
        )
        for k in range(sides):
            a = 2 * math.pi * k / sides
            opening(
                made,
                (wide * 0.72 * math.sin(a), y + step * 0.25, wide * 0.72 * math.cos(a)),
                0.05,
                step * 0.15,
                a,
                arched=False,
            )
        section = profile([y + step * 0.55, y + step * 0.58, y + step * 0.7, y + step * 0.95],
                          np.array([1.2, 1.25, 0.95, 0.55]) * wide, steps=4)  # fmt: skip
        made.revolve(section, sides=sides, **made.coat("tiles"))
        for k in range(sides):
            a = 2 * math.pi * (k + 0.5) / sides
            reach = wide * 1.25 / math.cos(math.pi / sides)
            edge = np.array([math.sin(a), 0, math.cos(a)])
            made.tube(
                [
                    edge * wide * 0.6 + (0, y + step * 0.92, 0),
                    edge * reach * 0.85 + (0, y + step * 0.65, 0),
                    edge * reach + (0, y + step * 0.72, 0),
                ],
                [0.03, 0.034, 0.024],
                blend=0.015,
            )
        y, wide = y + step * 0.86, wide * 0.84
    made.tube([(0, y, 0), (0, y + 0.15, 0), (0, y + 0.35, 0)], [0.06, 0.045, 0.018], blend=0.02)
    for k in range(3):
        made.ring((0, y + 0.1 + 0.06 * k, 0), (0.075 - 0.015 * k, 0.022), blend=0.008)


def _church(made: Maker) -> None:
    u = made.rng.uniform
    x, tall = u(0.26, 0.34), u(0.25, 0.36)
    coat = made.coat("masonry", "rubble")
    made.box((0, tall - 0.9, -0.15), (x, tall, 0.65), **coat)
    gable(made, (0, 2 * tall - 0.9, -0.15), x * 1.1, 0.65, u(0.28, 0.4))
    tower = u(0.2, 0.26)
    made.box((0, -0.3, 0.6), (tower, 0.6, tower), **coat)
    made.box((0, 0.3, 0.6), (tower * 1.1, 0.035, tower * 1.1), round=0.01)
    made.cone(
        (0, 0.62, 0.6),
        tower * 1.0,
        0.33,
        0.015,
        sides=int(made.rng.choice([4, 8])),
        **made.coat("tiles"),
    )
    made.limb((0, 0.9, 0.6), (0, 1.12, 0.6), 0.024, 0.024)
    made.limb((-0.06, 1.04, 0.6), (0.06, 1.04, 0.6), 0.024, 0.024)
    opening(made, (0, -0.68, 0.6 + tower), 0.09, 0.17, 0.0, door=True)
    for a in (0, math.pi / 2, -math.pi / 2):
        opening(made, (tower * math.sin(a), 0.08, 0.6 + tower * math.cos(a)), 0.06, 0.1, a)
    made.ring((0, -0.22, 0.6 + tower), (0.08, 0.026), rotation=turn(x=math.pi / 2), blend=0.01)
    for side in (-1, 1):
        for k in range(3):
            z = -0.62 + 0.32 * k
            opening(made, (side * x, tall - 0.85, z), 0.055, tall * 0.42, side * math.pi / 2)
            made.box(
                (side * (x + 0.04), tall * 0.75 - 0.9, z + 0.16),
                (0.06, tall * 0.75, 0.035),
                round=0.01,
            )


def _bridge(made: Maker) -> None:
    u = made.rng.uniform
    arches, rise = int(u(1, 4)), u(0.0, 0.15)
    coat = made.coat("masonry", "rubble")
    deck = np.array(
        [
            (-0.95, -0.9),
            (0.95, -0.9),
            (0.95, -0.1),
            (0.5, -0.06 + rise * 0.6),
            (0, rise),
            (-0.5, -0.06 + rise * 0.6),
            (-0.95, -0.1),
        ]
    )
    made.prism(deck, (0, 0, 0), 0.26, **coat)
    step = 1.7 / arches
    for k in range(arches):
        x = -0.85 + step * (k + 0.5)
        radius = step * 0.38
        if radius < 0.42:
            made.cylinder(
                (x, -0.72, 0),
                radius * 1.12,
                0.275,
                rotation=turn(x=math.pi / 2),
                **made.coat("stone", deep=0.4),
            )
        made.cylinder((x, -0.72, 0), min(radius, 0.5), 1, rotation=turn(x=math.pi / 2), cut=True)
        made.box((x, -0.9, 0), (min(radius, 0.5), 0.18, 1), cut=True)
    top = deck[2:]
    for side in (-1, 1):
        for (x0, y0), (x1, y1) in pairwise(top):
            made.limb((x0, y0 + 0.12, side * 0.24), (x1, y1 + 0.12, side * 0.24), 0.04, 0.04)
            for t in (0.1, 0.4, 0.7):
                p = np.array([x0 + (x1 - x0) * t, y0 + (y1 - y0) * t])
                made.box((p[0], p[1] + 0.05, side * 0.24), (0.04, 0.08, 0.035), round=0.01)
        for x in (-0.92, 0.92):
            made.box(
                (x, 0.0, side * 0.24),
                (0.06, 0.22, 0.06),
                round=0.01,
                **made.coat("stone", deep=0.4),
            )
            made.egg((x, 0.26, side * 0.24), (0.06,) * 3, blend=0.01)


def _mill(made: Maker) -> None:
    u = made.rng.uniform
    made.cone(
        (0, -0.35, 0),
        0.42,
        0.55,
        0.26,
        sides=int(made.rng.choice([0, 6, 8])),
        **made.coat("masonry", "planks"),
    )
    made.cone((0, 0.38, 0), 0.36, 0.19, 0.06, round=0.02, blend=0.01, **made.coat("tiles"))
    hub, spin = np.array([0, 0.22, 0.42]), u(0, 1.57)
    made.limb((0, 0.22, 0), hub, 0.06, 0.055)
    for k in range(4):
        turned = turn(z=spin + k * math.pi / 2)
        made.limb(hub, hub + turned @ np.array([0, 0.75, 0]), 0.036, 0.026)
        made.box(hub + turned @ np.array([0.09, 0.44, 0]), (0.1, 0.31, 0.022), rotation=turned,
                 details=(Detail(Pattern.WEAVE, 0.012, 7),))  # fmt: skip
    opening(made, (0, -0.7, 0.4), 0.08, 0.15, 0.0, door=True)
    for k, a in enumerate((0.0, 1.57, 3.14, 4.71)):
        far = 0.37 - 0.05 * (k % 2)
        opening(
            made,
            (far * math.sin(a) * 0.92, -0.2 - 0.1 * (k % 2), far * math.cos(a) * 0.92),
            0.05,
            0.07,
            a,
        )
