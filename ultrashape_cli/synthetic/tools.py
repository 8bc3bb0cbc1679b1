"""Tools and household things that a hand holds."""

from __future__ import annotations

import math

import numpy as np

from ultrashape_cli.synthetic.blends import Detail, Part, Pattern, turn
from ultrashape_cli.synthetic.maker import Maker
from ultrashape_cli.synthetic.outlines import ellipse, profile, smooth_outline
from ultrashape_cli.synthetic.wheels import LIE


def tool(rng: np.random.Generator) -> list[Part]:
    """Returns the parts of a tool that stands upright."""
    made = Maker(rng)
    kinds = {
        "hammer": _hammer,
        "wrench": _wrench,
        "driver": _driver,
        "pliers": _pliers,
        "saw": _saw,
        "shovel": _shovel,
        "key": _key,
        "lantern": _lantern,
        "pick": _pick,
        "brush": _brush,
    }
    kinds[made.choose(*kinds)](made)
    return made.parts


def _handle(made: Maker, low: float, high: float, radius: float) -> None:
    """A turned handle of wood, or one with a grip."""
    section = profile(np.linspace(low, high, 5), np.array([0.95, 1.15, 0.9, 0.85, 0.75]) * radius)
    made.revolve(section, **made.coat("wood", "ornate", "wood", deep=0.7))
    made.cylinder((0, high - 0.03, 0), radius * 0.95, 0.05, round=0.015, blend=0.01)


def _hammer(made: Maker) -> None:
    u = made.rng.uniform
    _handle(made, -0.95, 0.55, u(0.08, 0.1))
    made.box((0, 0.6, 0), (0.14, 0.14, 0.13), round=0.03, blend=0.02, **made.coat("metal"))
    made.cylinder((0.34, 0.6, 0), u(0.13, 0.18), 0.14, rotation=turn(z=math.pi / 2), round=0.03,
                  sides=int(made.rng.choice([0, 8])), **made.coat("metal", deep=0.6))  # fmt: skip
    made.limb((0, 0.6, 0), (0.4, 0.6, 0), 0.11, 0.11, blend=0.03)
    if made.chance(0.5):
        for side in (-1, 1):
            made.tube(
                [(-0.1, 0.62, side * 0.05), (-0.35, 0.6, side * 0.07), (-0.55, 0.42, side * 0.08)],
                [0.1, 0.065, 0.03],
                blend=0.03,
            )
    else:
        made.prism(
            np.array([(-0.1, 0.12), (-0.1, -0.12), (-0.6, -0.04), (-0.6, 0.04)]),
            (0, 0.6, 0),
            0.13,
            round=0.025,
            blend=0.03,
        )


def _wrench(made: Maker) -> None:
    u = made.rng.uniform
    thick, bar = u(0.07, 0.1), u(0.09, 0.13)
    made.box((0, 0, 0), (bar, 0.7, thick * 0.8), round=0.04, **made.coat("metal", deep=0.6))
    for z in (-1, 1):
        made.box(
            (0, 0, z * thick), (bar * 0.55, 0.45, thick * 0.35), round=0.02, cut=True, blend=0.02
        )
        made.box(
            (0, 0, z * thick * 0.5),
            (bar * 0.4, 0.3, 0.03),
            details=(Detail(Pattern.ENGRAVING, 0.012, 8),),
        )
    made.cylinder((0, 0.75, 0), 0.28, thick, rotation=LIE, round=0.03, blend=0.06)
    made.prism(
        np.array([(-0.12, -0.08), (0.12, -0.08), (0.15, 0.5), (-0.15, 0.5)]),
        (0, 0.78, 0),
        1,
        rotation=turn(z=u(-0.4, 0.4)),
        cut=True,
    )
    if made.chance(0.6):
        made.cylinder((0, -0.75, 0), 0.24, thick, rotation=LIE, round=0.03, blend=0.06)
        made.cylinder((0, -0.75, 0), 0.14, 1, rotation=LIE, sides=6, cut=True)
    else:
        made.prism(ellipse(0.2, 0.2), (0, -0.75, 0), thick, round=0.03, blend=0.06)
        made.box((0, -0.95, 0), (0.09, 0.2, 1), cut=True)


def _driver(made: Maker) -> None:
    u = made.rng.uniform
    made.revolve(
        profile(
            [-0.95, -0.85, -0.5, -0.15, -0.05], np.array([0.1, 0.19, 0.17, 0.2, 0.12]) * u(0.9, 1.2)
        ),
        sides=int(made.rng.choice([0, 6])),
        details=(Detail(Pattern.FLUTES, 0.025, u(2.5, 4)),),
    )
    made.cylinder(
        (0, 0.0, 0), 0.1, 0.05, round=0.015, blend=0.01, details=(Detail(Pattern.KNURL, 0.012, 8),)
    )
    made.cylinder((0, 0.4, 0), 0.055, 0.45)
    if made.chance(0.5):
        made.prism(
            np.array(
                [(-0.05, 0.78), (0.05, 0.78), (0.1, 0.88), (0.07, 1.0), (-0.07, 1.0), (-0.1, 0.88)]
            ),
            (0, 0, 0),
            0.03,
            round=0.01,
            blend=0.02,
        )
    else:
        made.cone((0, 0.9, 0), 0.08, 0.1, 0.02, sides=4, blend=0.02)


def _pliers(made: Maker) -> None:
    u = made.rng.uniform
    spread = u(0.15, 0.35)
    for side in (-1, 1):
        z = side * 0.02
        jaw = smooth_outline(
            [(0.03, 0.2), (0.2, 0.3), (0.14, 0.65), (0.05, 0.95), (0.012, 0.95), (0.012, 0.35)], 3
        )
        made.prism(
            jaw * (side, 1),
            (0, 0, z),
            0.09,
            round=0.03,
            blend=0.03,
            details=(Detail(Pattern.RINGS, 0.01, 14),),
        )
        made.tube(
            [
                (side * 0.08, 0.2, z),
                (-side * 0.1, 0.02, z),
                (-side * spread, -0.4, z),
                (-side * spread * 0.85, -0.95, z),
            ],
            [0.09, 0.09, 0.075, 0.065],
            blend=0.03,
        )
        made.tube(
            [
                (-side * spread * 0.92, -0.32, z),
                (-side * spread, -0.5, z),
                (-side * spread * 0.85, -0.97, z),
            ],
            [0.085, 0.095, 0.09],
            blend=0.01,
            **made.coat("ornate", "cloth", deep=0.5),
        )
    made.cylinder((0, 0.17, 0), 0.15, 0.14, rotation=LIE, round=0.03, blend=0.02)
    made.box((0, 0.17, 0.15), (0.1, 0.02, 0.03), rotation=turn(z=0.6), cut=True)


def _saw(made: Maker) -> None:
    count = int(made.rng.uniform(14, 24))
    teeth = [(x, -0.12 - 0.075 * (k % 2)) for k, x in enumerate(np.linspace(-0.3, 1.0, 2 * count))]
    outline = np.array([(-0.3, 0.22), *teeth, (1.0, 0.08)])[::-1]
    made.prism(outline, (0, 0, 0), 0.028, **made.coat("metal", deep=0.3))
    grip = smooth_outline(
        [(-0.2, 0.28), (-0.2, -0.2), (-0.6, -0.4), (-0.95, -0.3), (-0.9, 0.1), (-0.6, 0.35)], 4
    )
    made.prism(grip, (0, 0, 0), 0.075, round=0.05, blend=0.01, **made.coat("wood"))
    made.prism(
        smooth_outline([(-0.42, 0.12), (-0.45, -0.18), (-0.75, -0.22), (-0.72, 0.1)], 4),
        (0, 0, 0),
        1,
        cut=True,
        round=0.03,
        blend=0.03,
    )
    for x, y in ((-0.27, 0.12), (-0.3, -0.1)):
        made.cylinder((x, y, 0), 0.04, 0.1, rotation=LIE, round=0.015)


def _shovel(made: Maker) -> None:
    u = made.rng.uniform
    _handle(made, -0.3, 0.95, 0.065)
    made.tube(
        [(-0.16, 1.08, 0), (-0.16, 0.98, 0), (0, 0.9, 0), (0.16, 0.98, 0), (0.16, 1.08, 0)],
        [0.045] * 5,
        blend=0.02,
    )
    made.limb((-0.16, 1.08, 0), (0.16, 1.08, 0), 0.05, 0.05, blend=0.01)
    if made.chance(0.5):
        plate = smooth_outline(
            [(-0.26, -0.28), (0.26, -0.28), (0.28, -0.7), (0, -1.0), (-0.28, -0.7)], 3
        )
        made.prism(plate, (0, 0, 0), 0.5)
        made.cylinder((0, -0.6, u(0.3, 0.45)), 0.48, 1, shell=0.07, keep=True, **made.coat("metal"))
        made.parts = made.parts[-2:] + made.parts[:-2]
        made.limb((0, -0.2, 0), (0, -0.62, -0.1), 0.085, 0.03, blend=0.04)
    else:
        made.box((0, -0.32, 0), (0.34, 0.05, 0.05), round=0.02, blend=0.02)
        for x in (-0.3, -0.1, 0.1, 0.3):
            made.tube(
                [(x, -0.32, 0), (x, -0.6, 0.03), (x, -0.98, 0.1)], [0.042, 0.04, 0.016], blend=0.01
            )


def _key(made: Maker) -> None:
    u = made.rng.uniform
    made.cylinder((0, -0.2, 0), 0.08, 0.72, round=0.02, **made.coat("metal", deep=0.6))
    for y in (0.35, 0.45, -0.3):
        made.cylinder((0, y, 0), 0.115, 0.03, round=0.015, blend=0.01)
    for k in range(int(u(2, 4))):
        wide = u(0.18, 0.34)
        made.box((wide / 2, -0.85 + 0.15 * k, 0), (wide / 2 + 0.05, 0.05, 0.05), round=0.012)
    count = int(u(1, 5))
    for k in range(count):
        a = (k - (count - 1) / 2) * 1.3
        at = (0.22 * math.sin(a) * (count > 1), 0.62 + 0.16 * math.cos(a), 0)
        made.ring(
            at,
            (0.2 if count > 1 else 0.27, 0.055),
            rotation=LIE,
            blend=0.02,
            **made.coat("ornate", deep=0.4),
        )


def _lantern(made: Maker) -> None:
    sides = int(made.rng.choice([0, 4, 6]))
    made.cylinder((0, -0.75, 0), 0.42, 0.1, sides=sides, round=0.03, **made.coat("ornate"))
    made.cone(
        (0, 0.4, 0),
        0.48,
        0.16,
        0.16,
        sides=sides,
        round=0.02,
        **made.coat("tiles", "metal", fine=0.8),
    )
    made.cylinder((0, -0.2, 0), 0.26, 0.5, sides=sides, details=(Detail(Pattern.NOISE, 0.01, 5),))
    for k in range(max(sides, 5)):
        a = 2 * math.pi * (k + 0.5) / max(sides, 5)
        x, z = 0.4 * math.sin(a), 0.4 * math.cos(a)
        made.limb((x, -0.7, z), (x, 0.3, z), 0.04, 0.04, blend=0.01)
    made.egg((0, 0.6, 0), (0.11, 0.1, 0.11), blend=0.03)
    made.ring((0, 0.8, 0), (0.16, 0.04), rotation=LIE)


def _pick(made: Maker) -> None:
    u = made.rng.uniform
    _handle(made, -0.95, 0.7, 0.075)
    drop = u(0.15, 0.35)
    made.tube(
        [(-0.8, 0.65 - drop, 0), (-0.4, 0.68, 0), (0, 0.72, 0), (0.4, 0.68, 0)],
        [0.02, 0.07, 0.1, 0.075],
        blend=0.02,
        **made.coat("metal", deep=0.8),
    )
    made.prism(
        np.array([(0.35, 0.75), (0.35, 0.6), (0.8, 0.62 - drop), (0.82, 0.68 - drop)]),
        (0, 0, 0),
        0.12,
        round=0.025,
        blend=0.04,
    )
    made.box((0, 0.7, 0), (0.12, 0.13, 0.12), round=0.03, blend=0.02)


def _brush(made: Maker) -> None:
    u = made.rng.uniform
    _handle(made, -0.95, 0.15, 0.08)
    wide = u(0.15, 0.4)
    made.box(
        (0, 0.25, 0),
        (wide, 0.13, 0.12),
        round=0.03,
        blend=0.03,
        **made.coat("ornate", "metal", deep=0.7),
    )
    made.tube(
        [(0, 0.3, 0), (0, 0.65, 0), (0, 0.98, u(-0.1, 0.1))],
        [0.13, 0.14, 0.06],
        squash=1 / max(wide / 0.13, 1.0),
        blend=0.01,
        **made.coat("fur", deep=1.4),
    )
