"""Furniture: chairs, tables, cabinets, beds, lamps, clocks, barrels and chests."""

from __future__ import annotations

import math

import numpy as np

from ultrashape_cli.synthetic.blends import Part, turn
from ultrashape_cli.synthetic.maker import Maker
from ultrashape_cli.synthetic.outlines import profile, smooth_outline
from ultrashape_cli.synthetic.seats import armchair, bed, chair, legs
from ultrashape_cli.synthetic.wheels import LIE


def furniture(rng: np.random.Generator) -> list[Part]:
    """Returns the parts of a piece of furniture whose front faces z."""
    made = Maker(rng)
    kinds = {"chair": chair, "armchair": armchair, "table": _table, "cabinet": _cabinet,
             "shelf": _shelf, "bed": bed, "lamp": _lamp, "clock": _clock, "barrel": _barrel,
             "chest": _chest}  # fmt: skip
    kinds[made.choose(*kinds)](made)
    return made.parts


def _table(made: Maker) -> None:
    u = made.rng.uniform
    round_top, x, z = made.chance(0.4), u(0.6, 0.95), u(0.45, 0.65)
    coat = made.coat("planks", "wood", "ornate")
    if round_top:
        made.cylinder((0, 0.3, 0), 0.8, 0.05, round=0.02, **coat)
        radii = [0.16, 0.1, 0.16, 0.09, 0.15, 0.12, 0.2]
        made.revolve(
            profile(np.linspace(-0.45, 0.28, 7), radii), blend=0.02, **made.coat("wood", "ornate")
        )
        for k in range(3):
            a = 2 * math.pi * k / 3
            made.tube(
                [
                    (0.05 * math.sin(a), -0.3, 0.05 * math.cos(a)),
                    (0.35 * math.sin(a), -0.4, 0.35 * math.cos(a)),
                    (0.55 * math.sin(a), -0.66, 0.55 * math.cos(a)),
                ],
                [0.1, 0.075, 0.06],
                blend=0.04,
            )
    else:
        made.box((0, 0.3, 0), (x, 0.05, z), round=0.015, **coat)
        made.box(
            (0, 0.2, 0),
            (x * 0.9, 0.08, z * 0.9),
            round=0.01,
            blend=0.01,
            **made.coat("ornate", deep=0.5),
        )
        made.box((0, 0.15, 0), (x * 0.82, 0.11, z * 0.82), cut=True)
        legs(made, x * 0.86, z * 0.84, 0.28, -0.7)
    for _ in range(int(u(0, 4))):
        at = u((-0.4, 0, -0.3), (0.4, 0, 0.3))
        if made.chance(0.5):
            made.revolve(
                profile([0.34, 0.4, 0.5, 0.62], [0.08, 0.14, 0.1, 0.13], 0.045),
                at,
                **made.coat("clay"),
            )
        else:
            for k in range(3):
                made.box(
                    at + (0.01 * k, 0.38 + 0.07 * k, 0),
                    (0.15, 0.035, 0.11),
                    rotation=turn(y=u(-0.5, 0.5)),
                    round=0.01,
                )


def _cabinet(made: Maker) -> None:
    u = made.rng.uniform
    x, y, z = u(0.42, 0.7), u(0.6, 0.88), u(0.25, 0.36)
    made.box((0, 0, 0), (x, y, z), round=0.015, **made.coat("planks", "wood"))
    for at, wide in ((y, 1.08), (-y + 0.06, 1.06)):
        made.box(
            (0, at, 0),
            (x * wide, 0.05, z * wide),
            round=0.02,
            blend=0.015,
            **made.coat("ornate", deep=0.5),
        )
    if made.chance(0.4):
        made.prism(
            smooth_outline([(-x, 0), (-x * 0.5, 0.05), (0, 0.24), (x * 0.5, 0.05), (x, 0)]),
            (0, y, z * 0.7),
            0.05,
            round=0.02,
            blend=0.01,
            **made.coat("ornate", deep=0.6),
        )
    rows, doors = int(u(1, 4)), made.chance(0.6)
    split = -y * 0.1 if doors else -y
    for k in range(2 if doors else 0):
        side = 2 * k - 1
        middle = (y * 0.86 + split) / 2
        high = (y * 0.86 - split) / 2
        made.box((side * x * 0.47, middle, z), (x * 0.42, high, 0.03), round=0.012)
        made.box(
            (side * x * 0.47, middle, z + 0.03), (x * 0.3, high * 0.82, 0.025), cut=True, round=0.01
        )
        made.box(
            (side * x * 0.47, middle, z + 0.01),
            (x * 0.27, high * 0.78, 0.014),
            **made.coat("ornate", "planks", deep=0.6),
        )
        made.egg((side * x * 0.12, middle, z + 0.06), (0.035, 0.045, 0.04), blend=0.01)
    low, top = -y * 0.85, split - 0.03 if doors else y * 0.88
    for k in range(rows + (not doors) * 2):
        count = rows + (not doors) * 2
        high = (top - low) / count / 2
        at = low + high * (2 * k + 1)
        made.box(
            (0, at, z), (x * 0.88, high * 0.86, 0.035), round=0.015, **made.coat("wood", deep=0.5)
        )
        for side in (-1, 1):
            made.egg((side * x * 0.45, at, z + 0.06), (0.04, 0.035, 0.04), blend=0.01)
    legs(made, x * 0.88, z * 0.8, -y + 0.05, -y - u(0.1, 0.3))


def _shelf(made: Maker) -> None:
    u = made.rng.uniform
    x, rows = u(0.45, 0.65), int(u(3, 5))
    coat = made.coat("planks", "wood")
    made.box((0, 0, -0.22), (x, 0.92, 0.035), **coat)
    for side in (-1, 1):
        made.box((side * x, 0, 0), (0.04, 0.95, 0.26), round=0.01, **coat)
    for k in range(rows + 1):
        y = -0.9 + 1.8 * k / rows
        made.box((0, y, 0), (x, 0.035, 0.25), round=0.01, **coat)
        at = -x + 0.08
        while k < rows and at < x - 0.1:
            thick, tall = u(0.035, 0.06), u(0.55, 0.85) * 1.8 / rows / 2
            if made.chance(0.8):
                made.box(
                    (at + thick, y + tall + 0.02, 0.0),
                    (thick * 0.93, tall, 0.19),
                    round=0.012,
                    rotation=turn(z=-0.12 * made.chance(0.15)),
                    **made.coat("ornate", deep=0.4),
                )
            elif made.chance(0.5):
                made.revolve(
                    profile([0.02, 0.1, 0.2, 0.26], [0.05, 0.09, 0.04, 0.06]), (at + 0.09, y, 0.03)
                )
                at += 0.1
            at += 2 * thick


def _lamp(made: Maker) -> None:
    u = made.rng.uniform
    made.cylinder((0, -0.9, 0), 0.36, 0.05, round=0.03, **made.coat("ornate", "metal"))
    radii = (
        np.array([0.2, 0.06, 0.1, u(0.1, 0.28), 0.09, 0.05])
        if made.chance(0.6)
        else np.full(6, 0.06)
    )
    made.revolve(
        profile(np.linspace(-0.88, 0.35, 6), radii),
        blend=0.03,
        **made.coat("ornate", "clay", "wood"),
    )
    made.cone(
        (0, 0.55, 0),
        u(0.45, 0.62),
        0.32,
        u(0.22, 0.4),
        sides=int(made.rng.choice([0, 0, 6])),
        **made.coat("cloth", "ornate", deep=0.8),
    )
    made.cone((0, 0.48, 0), 0.4, 0.32, 0.2, cut=True)
    made.limb((0, 0.0, 0), (0, 0.98, 0), 0.06, 0.04)
    made.egg((0, 0.5, 0), (0.12, 0.15, 0.12), blend=0.02)
    made.egg((0, 0.97, 0), (0.07,) * 3, blend=0.01)


def _clock(made: Maker) -> None:
    u = made.rng.uniform
    x, z = u(0.2, 0.26), 0.17
    made.box((0, -0.75, 0), (x * 1.25, 0.2, z * 1.2), round=0.02, **made.coat("ornate", "wood"))
    made.box((0, -0.1, 0), (x * 0.9, 0.5, z * 0.9), round=0.01, **made.coat("wood"))
    made.box((0, -0.1, z), (x * 0.6, 0.4, 0.08), cut=True, round=0.02)
    made.limb((0, 0.25, z * 0.75), (0.04, -0.3, z * 0.75), 0.026, 0.026)
    made.cylinder((0.04, -0.32, z * 0.75), 0.1, 0.04, rotation=LIE, round=0.02, blend=0.01)
    made.box((0, 0.6, 0), (x * 1.2, 0.25, z * 1.15), round=0.02, **made.coat("wood", "planks"))
    made.cylinder((0, 0.6, z * 1.15), x * 0.95, 0.03, rotation=LIE, round=0.01)
    made.cylinder((0, 0.6, z * 1.15 + 0.03), x * 0.8, 0.02, rotation=LIE, cut=True)
    for k in range(12):
        a = k * math.pi / 6
        made.box(
            (x * 0.68 * math.sin(a), 0.6 + x * 0.68 * math.cos(a), z * 1.15 + 0.02),
            (0.014, 0.03, 0.02),
            rotation=turn(z=-a),
        )
    for long, a in ((0.6, u(0, 6)), (0.4, u(0, 6))):
        made.limb(
            (0, 0.6, z * 1.15 + 0.02),
            (x * long * math.sin(a), 0.6 + x * long * math.cos(a), z * 1.15 + 0.02),
            0.024,
            0.018,
        )
    crown = smooth_outline(
        [(-x * 1.25, 0.82), (-x * 0.8, 0.9), (0, 1.12), (x * 0.8, 0.9), (x * 1.25, 0.82)]
    )
    made.prism(crown, (0, 0, 0), z * 1.1, round=0.02, blend=0.01, **made.coat("ornate", deep=0.7))


def _barrel(made: Maker) -> None:
    u = made.rng.uniform
    bulge, tall = u(0.55, 0.7), u(0.7, 0.9)
    made.revolve(profile([-tall, 0, tall], [0.45, bulge, 0.45]), **made.coat("planks"))
    for y in (-0.82, -0.45, 0.45, 0.82):
        radius = 0.45 + (bulge - 0.45) * (1 - (y) ** 2) + 0.005
        made.cylinder(
            (0, y * tall, 0), radius + 0.03, 0.05, round=0.012, **made.coat("metal", deep=0.6)
        )
    made.cylinder((0, tall, 0), 0.4, 0.04, cut=True)
    made.cylinder((0, 0.0, bulge), 0.06, 0.09, rotation=LIE, round=0.02, blend=0.01)
    if made.chance(0.4):
        made.cylinder((0, tall, 0), 0.36, 0.6, cut=True)
        for _ in range(9):
            made.egg(
                u((-0.2, tall - 0.2, -0.2), (0.2, tall - 0.05, 0.2)), (0.15, 0.14, 0.15), blend=0.01
            )


def _chest(made: Maker) -> None:
    u = made.rng.uniform
    x, z = u(0.6, 0.85), u(0.4, 0.52)
    made.box((0, -0.25, 0), (x, 0.3, z), round=0.02, **made.coat("planks"))
    lean = u(0.0, 1.0) if made.chance(0.4) else 0.0
    lid = turn(x=-lean)
    hinge = np.array([0, 0.08, -z])
    middle = hinge + lid @ np.array([0, 0, z])
    made.cylinder(
        middle, z * 1.02, x * 1.01, rotation=lid @ turn(z=math.pi / 2), **made.coat("planks")
    )
    if lean:
        made.box(
            middle - lid @ np.array([0, 0.5, 0]), (x * 0.9, 0.5, z * 0.9), rotation=lid, cut=True
        )
        made.box((0, 0.1, 0), (x * 0.88, 0.3, z * 0.86), cut=True)
        made.box((0, -0.25, 0), (x, 0.3, 0.05), blend=0.02)
        for _ in range(22):
            at = u((-x * 0.8, -0.05, -z * 0.75), (x * 0.8, 0.06, z * 0.75))
            made.cylinder(at, 0.11, 0.026, rotation=turn(*u(-0.5, 0.5, 3)), round=0.01, blend=0.01)
        made.box((0, -0.12, 0), (x * 0.95, 0.16, z * 0.95), round=0.02)
    for k in (-1, 0, 1):
        made.box((k * x * 0.75, -0.25, 0), (0.06, 0.31, z * 1.04), round=0.012)
        if not lean:
            band = middle + (k * x * 0.75, 0, 0)
            made.cylinder(band, z * 1.07, 0.06, rotation=turn(z=math.pi / 2))
    made.box((0, -0.02, z), (0.1, 0.12, 0.06), round=0.02, **made.coat("ornate", deep=0.5))
    made.cylinder((0, -0.04, z + 0.06), 0.028, 0.04, rotation=LIE, cut=True)
    for side in (-1, 1):
        made.ring(
            (side * (x + 0.03), -0.2, 0), (0.13, 0.035), rotation=turn(z=math.pi / 2), blend=0.01
        )
