"""Weapons of blade and shaft."""

from __future__ import annotations

import math

import numpy as np

from ultrashape_cli.synthetic.armour import crossbow, gun, helmet, shield
from ultrashape_cli.synthetic.blends import Detail, Part, Pattern, turn
from ultrashape_cli.synthetic.maker import Maker
from ultrashape_cli.synthetic.outlines import profile, rectangle, smooth_outline


def weapon(rng: np.random.Generator) -> list[Part]:
    """Returns the parts of a weapon that stands upright, its flat side towards z."""
    made = Maker(rng)
    kinds = {"sword": _sword, "sabre": _sabre, "axe": _axe, "mace": _mace, "shield": shield,
             "spear": _spear, "gun": gun, "helmet": helmet, "bow": crossbow}  # fmt: skip
    kinds[made.choose(*kinds)](made)
    return made.parts


def _grip(made: Maker, low: float, high: float, radius: float) -> None:
    """A wound or ribbed grip along y."""
    kind = made.choose("cord", "rings", "wood", "knurl")
    detail = {
        "cord": Detail(Pattern.THREAD, 0.022, 11),
        "rings": Detail(Pattern.RINGS, 0.018, 10),
        "wood": Detail(Pattern.FUR, 0.012, 9),
        "knurl": Detail(Pattern.KNURL, 0.016, 8),
    }[kind]
    made.revolve(
        profile([low, (low + high) / 2, high], [radius * 0.9, radius * 1.1, radius * 0.85]),
        details=(detail,),
    )


def _blade(made: Maker, outline: np.ndarray, thick: float, ridge: float) -> None:
    """A blade that thins towards its edges, with a groove or ridge and marks."""
    wear = made.coat("metal", deep=0.4)
    made.prism(outline, (0, 0, 0), thick, round=0.016, **wear)
    top, low = outline[:, 1].max(), outline[:, 1].min()
    for side in (-1, 1):
        groove = [
            (0, low + 0.05, side * thick * 1.05),
            (0, low + (top - low) * ridge, side * thick * 1.05),
        ]
        if made.chance(0.5):
            made.tube(groove, [0.03, 0.02], steps=1, cut=True, blend=0.02)
        else:
            made.tube(groove, [0.04, 0.02], steps=1, blend=0.03)


def _sword(made: Maker) -> None:
    u = made.rng.uniform
    wide, waist = u(0.09, 0.17), u(0.75, 1.15)
    tip = u(0.12, 0.35)
    right = [(wide, -0.4), (wide * waist, 0.2), (wide * 0.85, 0.95 - tip), (0, 1.0)]
    outline = np.array(right + [(-x, y) for x, y in right[-2::-1]])
    _blade(made, outline, u(0.035, 0.05), 0.7)
    if made.chance(0.5):
        made.prism(
            rectangle(wide * 0.45, 0.16),
            (0, -0.2, 0),
            0.06,
            details=(Detail(Pattern.ENGRAVING, 0.014, 7),),
        )
    span, bend = u(0.25, 0.42), u(-0.08, 0.12)
    made.tube(
        [(-span, -0.42 + bend, 0), (0, -0.44, 0), (span, -0.42 + bend, 0)],
        [0.05, 0.07, 0.05],
        blend=0.02,
        **made.coat("ornate", deep=0.6),
    )
    for x in (-span, span):
        made.egg((x, -0.42 + bend, 0), (0.07, 0.07, 0.065), blend=0.02)
    _grip(made, -0.82, -0.44, 0.06)
    made.egg((0, -0.87, 0), (0.1, 0.1, u(0.06, 0.1)), blend=0.02, **made.coat("ornate", "metal"))


def _sabre(made: Maker) -> None:
    u = made.rng.uniform
    bend, wide = u(0.15, 0.4), u(0.08, 0.13)
    t = np.linspace(0, 1, 9)
    spine = np.column_stack([bend * t * t, -0.4 + 1.35 * t])
    edge = spine + np.column_stack([-wide * 2 * (1 - t**6) * (0.8 + 0.5 * t), 0 * t])
    made.prism(np.concatenate([spine, edge[::-1][1:]]), (wide, 0, 0), u(0.035, 0.05), round=0.016,
               **made.coat("metal", deep=0.5))  # fmt: skip
    for side in (-1, 1):
        made.tube(
            [
                (wide - 0.07 + bend * x * x, -0.35 + 1.35 * x, side * 0.05)
                for x in (0, 0.3, 0.6, 0.8)
            ],
            [0.02] * 4,
            cut=True,
            blend=0.02,
        )
    made.egg((0, -0.42, 0), (0.19, 0.045, 0.14), **made.coat("ornate"))
    made.tube(
        [(-0.15, -0.42, 0), (-0.24, -0.62, 0), (-0.12, -0.84, 0), (0, -0.85, 0)],
        [0.035] * 4,
        blend=0.02,
    )
    _grip(made, -0.84, -0.42, 0.06)
    made.egg((0, -0.87, 0), (0.075, 0.065, 0.075), blend=0.02)


def _shaft(made: Maker, low: float, high: float, radius: float) -> None:
    made.cylinder((0, (low + high) / 2, 0), radius, (high - low) / 2, round=0.02,
                  **made.coat("wood", "ornate", deep=0.6))  # fmt: skip
    for y in (low + 0.03, low + 0.3, high - 0.3):
        made.cylinder((0, y, 0), radius * 1.35, 0.035, round=0.012, blend=0.01)


def _axe(made: Maker) -> None:
    u = made.rng.uniform
    _shaft(made, -0.95, 0.95, u(0.05, 0.065))
    for side in (-1, 1) if made.chance(0.5) else (1,):
        reach, tall, hook = u(0.35, 0.5), u(0.25, 0.42), u(0.0, 0.15)
        points = [(0.0, 0.12), (reach * 0.5, 0.12), (reach * 0.92, tall), (reach * 1.05, 0.0),
                  (reach * 0.9, -tall - hook), (reach * 0.5, -0.12), (0.0, -0.12)]  # fmt: skip
        outline = smooth_outline([(side * x, y) for x, y in points], 3)
        made.prism(outline, (0, 0.6, 0), 0.05, round=0.03, **made.coat("metal", deep=0.6))
        for z in (-1, 1):
            made.egg(
                (side * reach * 0.5, 0.6, z * 0.06),
                (reach * 0.22, 0.07, 0.03),
                cut=True,
                blend=0.01,
            )
    if len(made.parts) < 8:
        made.box((-0.14, 0.6, 0), (0.1, 0.08, 0.07), round=0.02, blend=0.02)
    made.box(
        (0, 0.6, 0), (0.1, 0.15, 0.085), round=0.02, blend=0.02, **made.coat("ornate", deep=0.5)
    )
    made.cone((0, 1.02, 0), 0.06, 0.12, 0.01)


def _mace(made: Maker) -> None:
    u = made.rng.uniform
    _shaft(made, -0.95, 0.5, u(0.05, 0.065))
    kind = made.choose("flanged", "spiked", "hammer", "flail")
    if kind == "flanged":
        count = int(u(5, 9))
        for k in range(count):
            fin = np.array([(0, 0.2), (0.2, 0.35), (0.3, 0.55), (0.18, 0.8), (0, 0.9)])
            made.prism(
                fin,
                (0, 0, 0),
                0.035,
                rotation=turn(y=2 * math.pi * k / count),
                round=0.016,
                blend=0.02,
            )
        made.revolve(
            profile([0.15, 0.5, 0.92], [0.08, 0.13, 0.04]),
            blend=0.02,
            **made.coat("ornate", deep=0.5),
        )
    elif kind == "hammer":
        made.box(
            (0, 0.6, 0), (0.42, 0.17, 0.17), round=0.04, **made.coat("ornate", "metal", "stone")
        )
        for x in (-0.42, 0.42):
            made.box((x, 0.6, 0), (0.09, 0.21, 0.21), round=0.03, blend=0.02)
        made.cone((0, 0.85, 0), 0.08, 0.13, 0.015, blend=0.02)
    else:
        at = np.array([0, 0.6, 0])
        made.egg(at, (0.27,) * 3, **made.coat("metal", "ornate"))
        for k in range(24):
            y = 1 - 2 * (k + 0.5) / 24
            ring, a = math.sqrt(1 - y * y), k * 2.39996
            way = np.array([ring * math.sin(a), y, ring * math.cos(a)])
            made.limb(at + way * 0.24, at + way * 0.42, 0.06, 0.012, blend=0.015)


def _spear(made: Maker) -> None:
    u = made.rng.uniform
    _shaft(made, -0.95, 0.5, 0.045)
    kind = made.choose("leaf", "trident", "glaive")
    if kind == "leaf":
        wide = u(0.1, 0.18)
        made.prism(
            smooth_outline(
                [
                    (0.03, 0.42),
                    (wide, 0.62),
                    (0.04, 0.92),
                    (0, 1.05),
                    (-0.04, 0.92),
                    (-wide, 0.62),
                    (-0.03, 0.42),
                ]
            ),
            (0, 0, 0),
            0.045,
            round=0.02,
        )
        made.limb((0, 0.4, 0), (0, 0.95, 0), 0.06, 0.02, blend=0.03)
    elif kind == "trident":
        made.tube(
            [(-0.24, 0.75, 0), (-0.2, 0.5, 0), (0, 0.45, 0), (0.2, 0.5, 0), (0.24, 0.75, 0)],
            [0.045] * 5,
        )
        for x, y in ((-0.24, 1.0), (0, 1.1), (0.24, 1.0)):
            made.limb((x, 0.5, 0), (x, y, 0), 0.045, 0.014, blend=0.015)
            made.prism(
                np.array([(-0.08, -0.1), (0, 0.08), (0.08, -0.1)]),
                (x, y - 0.08, 0),
                0.03,
                round=0.012,
                blend=0.01,
            )
    else:
        made.prism(
            smooth_outline(
                [(0, 0.4), (0.18, 0.5), (0.28, 0.75), (0.1, 1.05), (0.0, 1.0), (-0.05, 0.7)]
            ),
            (0, 0, 0),
            0.045,
            round=0.02,
        )
        made.limb((-0.02, 0.55, 0), (-0.22, 0.68, 0), 0.04, 0.014, blend=0.02)
    made.cylinder(
        (0, 0.42, 0), 0.075, 0.06, round=0.02, blend=0.015, **made.coat("ornate", deep=0.5)
    )
    for k in range(5) if made.chance(0.4) else ():
        a = k * 1.257
        made.limb(
            (0, 0.36, 0),
            (0.1 * math.sin(a), 0.12, 0.1 * math.cos(a)),
            0.035,
            0.045,
            blend=0.01,
            **made.coat("fur", deep=0.5),
        )
