"""Chairs, sofas and beds, and the legs of furniture."""

from __future__ import annotations

import numpy as np

from ultrashape_cli.synthetic.blends import turn
from ultrashape_cli.synthetic.maker import Maker
from ultrashape_cli.synthetic.outlines import profile
from ultrashape_cli.synthetic.wheels import LIE


def _leg(made: Maker, top: np.ndarray, foot: np.ndarray, kind: str) -> None:
    """A leg: square, turned, bent like an animal's, or a plain rod."""
    long = float(top[1] - foot[1])
    if kind == "square":
        made.box(
            (top + foot) / 2, (0.055, long / 2, 0.055), round=0.012, **made.coat("wood", deep=0.6)
        )
    elif kind == "turned":
        at = np.linspace(0, 1, 8)
        radii = [0.045, 0.06, 0.04, 0.075, 0.065, 0.045, 0.06, 0.055]
        made.revolve(profile(foot[1] + at * long, radii, steps=4), (top[0], 0, top[2]),
                     **made.coat("wood", deep=0.5))  # fmt: skip
    elif kind == "bent":
        out = np.array([np.sign(top[0]), 0, np.sign(top[2])]) * 0.07
        made.tube(
            [
                top,
                top - (0, long * 0.25, 0) + out,
                top - (0, long * 0.7, 0) - out * 0.2,
                foot + out,
            ],
            [0.07, 0.075, 0.045, 0.055],
            **made.coat("wood", deep=0.5),
        )
        made.egg(foot + out + (0, 0.02, 0), (0.075, 0.045, 0.075), blend=0.02)
    else:
        made.limb(top, foot * (1.15, 1, 1.15), 0.05, 0.035)


def legs(made: Maker, x: float, z: float, top: float, foot: float) -> str:
    """Four legs in a rectangle, with bars between them for some; returns their kind."""
    kind = made.choose("square", "turned", "bent", "rod")
    for side in (-1, 1):
        for end in (-1, 1):
            _leg(
                made, np.array([side * x, top, end * z]), np.array([side * x, foot, end * z]), kind
            )
    if kind != "bent" and made.chance(0.6):
        y = foot + (top - foot) * 0.3
        for side in (-1, 1):
            made.limb((side * x, y, -z), (side * x, y, z), 0.03, 0.03, blend=0.01)
        made.limb((-x, y, 0), (x, y, 0), 0.03, 0.03, blend=0.01)
    return kind


def _seat(made: Maker, y: float, x: float, z: float) -> None:
    if made.chance(0.5):
        made.box((0, y, 0), (x, 0.045, z), round=0.02, blend=0.01, **made.coat("planks", "wood"))
    else:
        made.box((0, y - 0.02, 0), (x, 0.035, z), round=0.015, blend=0.01)
        made.box((0, y + 0.04, 0), (x * 0.95, 0.07, z * 0.95), round=0.065, blend=0.01,
                 **made.coat("cloth", "ornate", deep=0.8))  # fmt: skip


def chair(made: Maker) -> None:
    """A chair, its back of slats, rods, rungs or a panel."""
    u = made.rng.uniform
    x, z, y, top = u(0.34, 0.42), u(0.32, 0.4), -0.15, u(0.7, 0.95)
    _seat(made, y, x, z)
    legs(made, x * 0.85, z * 0.85, y, -0.95)
    lean = u(0.05, 0.18)
    for side in (-1, 1):
        made.tube(
            [
                (side * x * 0.88, y, -z * 0.85),
                (side * x * 0.88, top * 0.4, -z * 0.9),
                (side * x * 0.9, top, -z * 0.85 - lean),
            ],
            [0.05, 0.045, 0.04],
            blend=0.01,
        )
        if made.chance(0.3):
            made.limb(
                (side * x * 0.9, 0.12, -z * 0.88),
                (side * x * 0.9, 0.1, z * 0.6),
                0.045,
                0.04,
                blend=0.02,
            )
            made.limb(
                (side * x * 0.9, 0.1, z * 0.6),
                (side * x * 0.88, y, z * 0.55),
                0.035,
                0.035,
                blend=0.01,
            )
    back = -z * 0.85 - lean
    kind = made.choose("slats", "rods", "panel", "ladder")
    made.tube(
        [(-x * 0.9, top, back), (0, top + u(0, 0.1), back - 0.02), (x * 0.9, top, back)],
        [0.055, 0.07, 0.055],
        blend=0.02,
        **made.coat("ornate", "wood", deep=0.5),
    )
    if kind == "panel":
        made.box(
            (0, (y + top) / 2 + 0.08, -z * 0.88 - lean * 0.5),
            (x * 0.72, (top - y) * 0.34, 0.05),
            round=0.04,
            rotation=turn(x=-lean * 0.8),
            **made.coat("ornate", "cloth"),
        )
        made.box((0, 0.1, -z * 0.88), (x * 0.85, 0.04, 0.03), blend=0.01)
        made.limb((0, y, -z * 0.85), (0, top, back), 0.06, 0.04, blend=0.01)
    elif kind == "ladder":
        for t in (0.3, 0.55, 0.8):
            made.box(
                (0, y + (top - y) * t, -z * 0.87 - lean * t * t),
                (x * 0.88, 0.05, 0.03),
                round=0.02,
                blend=0.01,
            )
    else:
        for k in range(5):
            at = (-0.6 + 0.3 * k) * x
            radius = 0.026 if kind == "rods" else 0.04
            made.tube(
                [(at, y, -z * 0.86), (at, top * 0.45, -z * 0.9 - lean * 0.3), (at, top, back)],
                [radius] * 3,
                blend=0.008,
            )


def armchair(made: Maker) -> None:
    """An armchair or sofa."""
    u = made.rng.uniform
    sofa = made.chance(0.4)
    x = 0.85 if sofa else u(0.42, 0.52)
    coat = made.coat("cloth", "ornate", deep=0.7)
    made.box((0, -0.4, 0), (x, 0.16, 0.4), round=0.06, **coat)
    for k in range(2 if sofa else 1):
        at = (k - 0.5) * x * sofa
        made.box(
            (at, -0.2, 0.06),
            (x * (0.48 if sofa else 0.9), 0.1, 0.38),
            round=0.085,
            blend=0.01,
            **coat,
        )
        made.box(
            (at, 0.15, -0.27),
            (x * (0.47 if sofa else 0.85), 0.3, 0.11),
            round=0.1,
            rotation=turn(x=-0.15),
            blend=0.01,
            **coat,
        )
    made.box((0, 0.05, -0.4), (x * 1.02, 0.45, 0.1), round=0.09, blend=0.03, **coat)
    for side in (-1, 1):
        made.box((side * x, -0.18, 0.0), (0.1, 0.25, 0.42), round=0.06, blend=0.02, **coat)
        made.limb((side * x, 0.08, -0.35), (side * x, 0.08, 0.38), 0.13, 0.13, blend=0.02, **coat)
        made.cylinder((side * x, 0.08, 0.5), 0.08, 0.03, rotation=LIE, round=0.015, blend=0.01)
    for a in np.linspace(-0.7, 0.7, 5 if not sofa else 9):
        for y in (0.1, 0.28):
            made.egg((a * x, y, -0.15), (0.035, 0.035, 0.06), cut=True, blend=0.05)
    legs(made, x * 0.85, 0.32, -0.5, -0.75)


def bed(made: Maker) -> None:
    """A bed with pillows and a cover."""
    u = made.rng.uniform
    x = u(0.45, 0.65)
    made.box((0, -0.3, 0), (x, 0.1, 0.9), round=0.02, **made.coat("wood"))
    made.box((0, -0.14, 0.0), (x * 0.96, 0.11, 0.86), round=0.09, **made.coat("cloth"))
    made.box(
        (0, -0.06, 0.2),
        (x * 1.02, 0.11, 0.66),
        round=0.08,
        blend=0.01,
        **made.coat("cloth", "ornate", deep=1.3),
    )
    for side in (-1, 1):
        made.box(
            (side * x * 0.48, 0.02, -0.66),
            (x * 0.4, 0.09, 0.18),
            round=0.085,
            rotation=turn(x=-0.2),
            **made.coat("cloth", deep=0.8),
        )
    for z, tall in ((-0.92, u(0.3, 0.55)), (0.92, u(0.0, 0.2))):
        made.box(
            (0, tall / 2 - 0.2, z),
            (x, tall / 2 + 0.2, 0.04),
            round=0.02,
            **made.coat("ornate", "planks"),
        )
        for side in (-1, 1):
            made.revolve(
                profile([-0.6, -0.3, 0.0, tall, tall + 0.1], [0.05, 0.07, 0.055, 0.065, 0.03]),
                (side * x, 0, z),
                blend=0.01,
            )
            made.egg((side * x, tall + 0.12, z), (0.08,) * 3, blend=0.01)
