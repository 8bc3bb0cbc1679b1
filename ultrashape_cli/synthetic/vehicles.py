"""Vehicles that drive along z: cars, trucks, tanks, carts, and craft."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from ultrashape_cli.synthetic.blends import Part, turn
from ultrashape_cli.synthetic.craft import ACROSS, engine, plane, rocket, saucer, ship, side_view
from ultrashape_cli.synthetic.maker import Maker
from ultrashape_cli.synthetic.outlines import profile
from ultrashape_cli.synthetic.wheels import LIE, wheel


def vehicle(rng: np.random.Generator) -> list[Part]:
    """Returns the parts of a vehicle of a drawn kind, its front towards z."""
    made = Maker(rng)
    kinds = {"car": _car, "truck": _truck, "tank": _tank, "cart": _cart, "ship": ship,
             "plane": plane, "rocket": rocket, "engine": engine, "saucer": saucer}  # fmt: skip
    kinds[made.choose(*kinds)](made)
    return made.parts


def _car(made: Maker) -> None:
    u = made.rng.uniform
    wide, low, belt = u(0.36, 0.44), u(-0.12, -0.04), u(0.12, 0.2)
    roof, hood, rear = belt + u(0.22, 0.32), u(0.3, 0.5), u(-0.75, -0.35)
    paint = made.coat("plates", "metal", deep=0.5)
    body = [
        (-0.95, low - 0.06),
        (-0.98, belt - 0.06),
        (-0.9, belt + 0.02),
        (-0.55, belt + 0.04),
        (0.5, belt + 0.02),
        (0.86, belt - 0.05),
        (0.97, belt - 0.14),
        (0.97, low - 0.06),
    ]
    made.prism(side_view(body, False), (0, 0, 0), wide, rotation=ACROSS, round=0.06, **paint)
    cabin = [
        (rear - 0.12, belt - 0.05),
        (rear + 0.1, roof),
        (hood - 0.35, roof),
        (hood, belt - 0.05),
    ]
    made.prism(
        side_view(cabin, False),
        (0, 0, 0),
        wide * 0.86,
        rotation=ACROSS,
        round=0.07,
        blend=0.05,
        **paint,
    )
    glass = [
        (
            z + (0.07 if k < 2 else -0.07) * (1 if k in (0, 3) else 0.6),
            y + (0.05 if k in (0, 3) else -0.06),
        )
        for k, (z, y) in enumerate(cabin)
    ]
    for side in (-1, 1):
        made.prism(
            side_view(glass, False),
            (side * wide * 0.9, 0, 0),
            0.07,
            rotation=ACROSS,
            round=0.02,
            cut=True,
        )
        z = (rear + hood) / 2
        made.box((side * wide * 0.84, (belt + roof) / 2, z), (0.03, (roof - belt) / 2, 0.03))
        for at in (rear + 0.1, z, hood - 0.05):
            made.box(
                (side * (wide + 0.01), (low + belt) / 2, at),
                (0.022, (belt - low) * 0.42, 0.012),
                cut=True,
            )
        made.box((side * (wide + 0.005), belt - 0.08, z - 0.12), (0.025, 0.016, 0.05), round=0.01)
        made.egg((side * wide * 1.05, belt + 0.06, hood - 0.08), (0.06, 0.045, 0.035), blend=0.02)
        made.egg((side * wide * 0.68, belt - 0.1, 0.9), (0.085, 0.075, 0.06), blend=0.02)
        made.box((side * wide * 0.7, belt - 0.1, -0.95), (0.08, 0.05, 0.03), round=0.015)
    for k in range(4):
        made.box((0, low + 0.06 + 0.045 * k, 0.99), (wide * 0.42, 0.01, 0.05), cut=True)
    for z in (-1, 1):
        made.box((0, low + 0.02, z * 0.97), (wide * 1.02, 0.05, 0.05), round=0.03, blend=0.01)
    r = u(0.18, 0.22)
    if made.chance(0.3):
        made.box((0, roof - 0.02, rear + 0.3), (wide * 0.7, 0.02, 0.25), round=0.01)
        made.box((0, belt + 0.18, -0.92), (wide, 0.02, 0.09), round=0.015)
        made.box((0, belt + 0.08, -0.92), (0.03, 0.12, 0.03))
    _axles(made, wide, low, r, (-0.58, 0.6), "tyre", arches=True)


def _axles(
    made: Maker,
    wide: float,
    low: float,
    radius: float,
    places: tuple[float, ...],
    kind: str,
    arches: bool = False,
) -> None:
    for z in places:
        for side in (-1, 1) if arches else ():
            made.cylinder(
                (side * wide, low, z), radius * 1.12, 0.17, rotation=turn(z=math.pi / 2), cut=True
            )
        made.cylinder((0, low, z), radius * 0.28, wide, rotation=turn(z=math.pi / 2))
        for side in (-1, 1):
            wheel(made, np.array([side * (wide - 0.07), low, z]), radius, 0.095, kind)


def _truck(made: Maker) -> None:
    u = made.rng.uniform
    wide, load = u(0.32, 0.4), made.choose("box", "tank", "logs", "open")
    paint = made.coat("plates", deep=0.6)
    made.box((0, -0.2, 0), (wide * 0.7, 0.05, 0.93), round=0.02)
    nose = made.chance(0.5)
    made.box((0, 0.12, 0.66 - 0.12 * nose), (wide, 0.3, 0.24), round=0.06, **paint)
    made.box((0, 0.24, 0.92 - 0.12 * nose), (wide * 0.82, 0.1, 0.06), cut=True, round=0.02)
    if nose:
        made.box((0, -0.02, 0.82), (wide * 0.8, 0.17, 0.15), round=0.06, blend=0.03, **paint)
    for k in range(5):
        made.box((-0.16 + 0.08 * k, -0.05, 0.98 if nose else 0.91), (0.016, 0.1, 0.05), cut=True)
    for side in (-1, 1):
        made.box((side * wide, 0.22, 0.66 - 0.12 * nose), (0.04, 0.1, 0.13), cut=True, round=0.02)
        made.cylinder((side * wide * 0.95, 0.3, 0.36), 0.045, 0.3, round=0.02)
        made.egg((side * wide * 0.75, -0.15, 0.93), (0.07, 0.06, 0.06), blend=0.01)
    if load == "tank":
        made.cylinder((0, 0.14, -0.35), 0.34, 0.58, rotation=LIE, round=0.12, **made.coat("plates"))
        for z in (-0.7, -0.35, 0):
            made.ring((0, 0.14, z), (0.33, 0.03), rotation=LIE, blend=0.01)
        made.cylinder((0, 0.5, -0.35), 0.1, 0.06, round=0.02, blend=0.02)
    elif load == "logs":
        for k, (x, y) in enumerate(
            ((-0.22, -0.03), (0, -0.03), (0.22, -0.03), (-0.11, 0.16), (0.11, 0.16), (0, 0.35))
        ):
            made.limb(
                (x, y, -0.9), (x, y, 0.25 + 0.01 * k), 0.12, 0.11, blend=0.012, **made.coat("bark")
            )
    else:
        made.box(
            (0, 0.18, -0.36), (wide * 1.03, 0.36, 0.6), round=0.03, **made.coat("plates", "planks")
        )
        if load == "open":
            made.box((0, 0.32, -0.36), (wide * 0.88, 0.36, 0.53), cut=True)
            for _ in range(8):
                made.gem(
                    u((-0.22, 0.05, -0.8), (0.22, 0.3, 0.1)), u(0.12, 0.2, 3), 16, 0.2, blend=0.02
                )
    _axles(made, wide, -0.3, 0.17, (-0.68, -0.32, 0.6), "tyre")


def _tank(made: Maker) -> None:
    u = made.rng.uniform
    armour = made.coat("plates", "metal")
    hull = [
        (-0.85, 0.0),
        (-0.9, 0.15),
        (-0.8, 0.25),
        (0.5, 0.25),
        (0.9, 0.05),
        (0.75, -0.1),
        (-0.7, -0.1),
    ]
    made.prism(side_view(hull, False), (0, 0, 0), 0.4, rotation=ACROSS, round=0.02, **armour)
    for side in (-1, 1):
        track = [
            (-0.9, 0.02),
            (-0.72, 0.17),
            (0.72, 0.17),
            (0.92, 0.02),
            (0.65, -0.27),
            (-0.65, -0.27),
        ]
        made.prism(side_view(track, False), (side * 0.45, 0, 0), 0.13, rotation=ACROSS, round=0.06)
        inner = np.array(track) * (0.88, 0.78) - (0, 0.012)
        made.prism(
            side_view(inner.tolist(), False),
            (side * 0.6, 0, 0),
            0.08,
            rotation=ACROSS,
            cut=True,
            round=0.04,
        )
        ends = np.array([*track, track[0]])
        for (z0, y0), (z1, y1) in pairwise(ends):
            steps = max(int(math.hypot(z1 - z0, y1 - y0) / 0.085), 1)
            for k in range(steps):
                t = (k + 0.5) / steps
                lean = math.atan2(y1 - y0, z1 - z0)
                made.box(
                    (side * 0.45, y0 + (y1 - y0) * t, z0 + (z1 - z0) * t),
                    (0.14, 0.025, 0.026),
                    rotation=turn(x=-lean),
                    round=0.008,
                )
        for z in np.linspace(-0.6, 0.6, 5):
            wheel(made, np.array([side * 0.5, -0.12, z]), 0.13, 0.06, "steel")
    size = np.array([0.34, 0.14, 0.42]) * u(0.85, 1.1, 3)
    if made.chance(0.5):
        made.box((0, 0.36, -0.1), size, round=0.1, blend=0.02, **armour)
    else:
        made.egg((0, 0.34, -0.1), size * (1.1, 1.5, 1.1), blend=0.03, **armour)
    long = u(0.7, 1.05)
    made.limb((0, 0.37, 0.2), (0, 0.4, 0.25 + long), 0.065, 0.05)
    made.cylinder((0, 0.4, 0.25 + long), 0.075, 0.08, rotation=LIE, round=0.01)
    made.cylinder((0, 0.4, 0.33 + long), 0.035, 0.1, rotation=LIE, cut=True)
    made.cylinder((0.12, 0.5, -0.2), 0.11, 0.06, round=0.02, blend=0.01)
    made.box((-0.3, 0.3, -0.62), (0.12, 0.05, 0.12), round=0.02)


def _cart(made: Maker) -> None:
    u = made.rng.uniform
    wood = made.coat("planks", "wood")
    cover = made.choose("open", "canvas", "barrels", "chest")
    made.box((0, 0, 0), (0.36, 0.05, 0.62), **wood)
    for side in (-1, 1):
        made.box((side * 0.36, 0.15, 0), (0.04, 0.17, 0.64), **wood)
        made.box((0, 0.15, side * 0.62), (0.36, 0.17, 0.04), **wood)
        made.limb(
            (side * 0.2, 0, 0.6), (side * 0.16, -0.1, 1.15), 0.042, 0.036, **made.coat("wood")
        )
        for z in (-0.62, 0, 0.62):
            made.box((side * 0.4, 0.15, z), (0.03, 0.21, 0.04), round=0.01)
    if cover == "canvas":
        made.cylinder(
            (0, 0.3, 0), 0.4, 0.62, rotation=LIE, round=0.06, **made.coat("cloth", deep=1.3)
        )
        for z in (-0.55, 0, 0.55):
            made.ring((0, 0.3, z), (0.4, 0.035), rotation=LIE, blend=0.02)
    elif cover == "barrels":
        for x, z in ((-0.16, -0.3), (0.16, -0.3), (0, 0.2)):
            made.revolve(
                profile([0.05, 0.3, 0.55], [0.13, 0.18, 0.13]),
                (x, 0, z),
                **made.coat("planks", fine=1.4),
            )
    elif cover == "chest":
        made.box((0, 0.3, 0), (0.3, 0.26, 0.5), round=0.04, **made.coat("ornate", "planks"))
    radius = u(0.28, 0.36)
    made.cylinder((0, -0.12, 0), 0.05, 0.5, rotation=turn(z=math.pi / 2), blend=0.02)
    two = made.chance(0.5)
    for z in (-0.4, 0.42) if two else (0.0,):
        made.box((0, -0.08, z), (0.1, 0.09, 0.06))
        made.cylinder((0, -0.12, z), 0.05, 0.5, rotation=turn(z=math.pi / 2))
        for side in (-1, 1):
            wheel(
                made,
                np.array([side * 0.48, -0.12, z]),
                radius * (0.85 if two else 1.1),
                0.06,
                "wood",
            )
