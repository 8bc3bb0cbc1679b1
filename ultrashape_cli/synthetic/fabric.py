"""Cloth, and things of thin walls."""

from __future__ import annotations

import math

import numpy as np

from ultrashape_cli.synthetic.blends import Detail, Part, Pattern, Shape, turn
from ultrashape_cli.synthetic.maker import Maker
from ultrashape_cli.synthetic.outlines import height_map, profile, smooth_outline


def cloth(rng: np.random.Generator) -> list[Part]:
    """Returns the parts of a flag, a draped cloth, a banner, a carpet or a curtain."""
    made = Maker(rng)
    u = made.rng.uniform
    side = 72
    x, z = np.meshgrid(*(np.linspace(-1, 1, side),) * 2, indexing="ij")
    kind = made.choose("flag", "drape", "curtain", "carpet")
    thick = u(0.034, 0.045)
    coat = made.coat("cloth", "cloth", "ornate", deep=0.7)
    if kind == "drape":
        far = np.hypot(x, z)
        angle, count = np.arctan2(z, x), int(u(5, 9))
        fall = np.clip(far - 0.45, 0, None)
        heights = (
            0.45
            - 1.15 * fall**1.1
            + 0.13 * np.clip(fall * 2.5, 0, 1) * np.cos(count * angle + u(0, 6))
            + 0.02 * height_map(rng, side, 4, 4)
        )
        made.relief(heights, (0, 0, 0), 0.9, thick, taper=1, **coat)
        made.cylinder(
            (0, -0.2, 0), 0.4, 0.62, round=0.05, blend=0.02, **made.coat("planks", "stone")
        )
        made.egg((0, 0.5, 0), (u(0.1, 0.25), u(0.15, 0.3), 0.2), blend=0.06, **coat)
    elif kind == "carpet":
        heights = 0.1 * height_map(rng, side, 3, 2.5) + 0.06 * np.sin(
            u(6, 10) * x + height_map(rng, side, 2)
        )
        made.relief(heights, (0, 0, 0), 0.8, thick, taper=1, **made.coat("ornate"))
        for edge in (-1, 1):
            for k in range(13):
                i = int((k + 0.5) / 13 * side)
                y = heights[i, 0 if edge < 0 else side - 1]
                at = np.array([-0.8 + 1.6 * (k + 0.5) / 13, y, edge * 0.78])
                made.limb(at, at + (0, -0.03, edge * 0.14), 0.03, 0.022, blend=0.02)
    else:
        folds, wave = u(7, 13), u(0.05, 0.1)
        if kind == "flag":
            heights = wave * 1.3 * (x + 1) * 0.5 * np.sin(
                folds * 0.6 * x + 1.2 * z + height_map(rng, side, 2)
            ) + 0.02 * height_map(rng, side, 4, 4)
        else:
            heights = (
                wave * np.sin(folds * x + 0.8 * height_map(rng, side, 2, 1.5)) * (1 - 0.25 * z)
            )
        upright = turn(x=math.pi / 2)
        made.relief(heights, (0, 0, 0), 0.75, thick, taper=1, rotation=upright, **coat)
        if kind == "flag":
            made.cylinder((-0.78, -0.15, 0), 0.05, 1.1, **made.coat("wood", "ornate", deep=0.5))
            made.egg((-0.78, 0.98, 0), (0.08, 0.1, 0.08), blend=0.02)
            if made.chance(0.5):
                made.prism(np.array([(0.3, 0), (0.85, 0.4), (0.85, -0.4)]), (0, 0, 0), 1, cut=True)
        else:
            made.cylinder(
                (0, 0.75, 0),
                0.055,
                0.95,
                rotation=turn(z=math.pi / 2),
                **made.coat("ornate", "wood", deep=0.4),
            )
            for k in (-1, 1):
                made.egg(
                    (k * 0.95, 0.75, 0), (0.1,) * 3, blend=0.02, **made.coat("ornate", deep=0.5)
                )
            for k in range(7):
                made.ring(
                    (-0.7 + 0.233 * k, 0.75, 0),
                    (0.085, 0.03),
                    rotation=turn(z=math.pi / 2),
                    blend=0.01,
                )
    return made.parts


def thin(rng: np.random.Generator) -> list[Part]:
    """Returns the parts of something with thin walls: a box, cup, horn, mask, can or boat."""
    made = Maker(rng)
    u = made.rng.uniform
    kind = made.choose("box", "crate", "horn", "mask", "umbrella", "boat", "bell")
    wall = u(0.04, 0.06)
    if kind in ("box", "crate"):
        _open_box(made, kind, wall)
    elif kind == "bell":
        _bell(made, wall)
    elif kind == "horn":
        _horn(made, wall)
    elif kind == "mask":
        _mask(made, wall)
    elif kind == "umbrella":
        _umbrella(made)
    else:
        _boat(made)
    return made.parts


def _open_box(made: Maker, kind: str, wall: float) -> None:
    """A box with flaps, or a crate."""
    u = made.rng.uniform
    x, y, z = u(0.5, 0.85), u(0.3, 0.6), u(0.4, 0.7)
    made.box((0, 0, 0), (x, y, z), round=0.03, **made.coat("planks", "ornate", "cloth"))
    made.box((0, wall, 0), (x - wall, y, z - wall), round=0.02, cut=True)
    if kind == "crate":
        for k in range(3):
            made.box((0, -y * 0.55 + y * 0.55 * k, 0), (2, 0.035, z * 0.75), cut=True, round=0.02)
    else:
        for side in (-1, 1):
            flap = turn(z=side * u(-1.2, -0.3))
            made.box(
                np.array([side * x * 0.98, y * 0.97, 0]) + flap @ np.array([0, x * 0.35, 0]),
                (wall * 0.5, x * 0.38, z * 0.97),
                rotation=flap,
            )
    made.box((0, -y * 0.2, 0), (wall * 0.5, y * 0.75, z * 0.97))


def _bell(made: Maker, wall: float) -> None:
    """A hanging bell with its clapper."""
    made.revolve(
        profile([-0.8, -0.65, -0.1, 0.4, 0.6], [0.75, 0.6, 0.42, 0.36, 0.05]),
        **made.coat("ornate", "metal"),
    )
    made.revolve(
        profile([-0.9, -0.68, -0.1, 0.36, 0.5], np.array([0.75, 0.6, 0.42, 0.36, 0.1]) - wall),
        cut=True,
    )
    made.ring((0, 0.72, 0), (0.16, 0.055), rotation=turn(x=math.pi / 2), blend=0.02)
    made.limb((0, 0.6, 0), (0.05, -0.6, 0), 0.04, 0.05)
    made.egg((0.06, -0.7, 0), (0.14,) * 3, blend=0.02)
    for y in (-0.6, -0.45, 0.2):
        made.ring(
            (0, y, 0),
            (float(np.interp(y, [-0.8, -0.65, -0.1, 0.4], [0.75, 0.6, 0.42, 0.36])), 0.03),
            blend=0.012,
        )


def _horn(made: Maker, wall: float) -> None:
    """A hollow drinking horn."""
    points = [
        (-0.7, -0.6, 0),
        (-0.1, -0.75, 0.1),
        (0.5, -0.35, 0.15),
        (0.55, 0.3, 0),
        (0.4, 0.75, 0),
    ]
    radii = np.array([0.05, 0.11, 0.18, 0.27, 0.38])
    made.tube(points, radii, **made.coat("ornate", "chitin", "wood"))
    made.tube(points, np.maximum(radii - wall, 0.012), cut=True)
    way = np.array([-0.25, 0.95, 0])
    made.egg(np.array(points[-1]) + way * 0.36, (0.5, 0.34, 0.5), rotation=turn(z=0.3), cut=True)
    made.ring(np.array(points[-1]) + way * 0.02, (0.36, 0.04), rotation=turn(z=0.3), blend=0.02)


def _mask(made: Maker, wall: float) -> None:
    """A mask with holes for eyes and mouth."""
    u = made.rng.uniform
    made.egg((0, 0, 0), (0.62, 0.9, 0.5), taper=0.12, **made.coat("ornate", "skin", "planks"))
    for side in (-1, 1):
        made.tube(
            [
                (side * 0.08, 0.28, 0.5),
                (side * 0.28, 0.4 + u(-0.05, 0.1), 0.45),
                (side * 0.45, 0.25, 0.3),
            ],
            [0.05, 0.06, 0.03],
            blend=0.05,
        )
    made.limb((0, 0.2, 0.46), (0, -0.2, 0.5 + u(0.05, 0.25)), 0.07, 0.12, blend=0.06)
    made.egg((0, -0.02, -0.05), (0.62 - wall, 0.9 - wall, 0.48 - wall), taper=0.12, cut=True)
    made.box((0, 0, -0.6), (2, 2, 0.58), cut=True)
    for side in (-1, 1):
        made.egg(
            (side * 0.25, 0.15, 0.45),
            (0.13, u(0.05, 0.1), 0.4),
            rotation=turn(z=side * u(-0.3, 0.3)),
            cut=True,
            blend=0.03,
        )
    made.egg((0, -0.48, 0.45), (u(0.15, 0.28), u(0.04, 0.12), 0.4), cut=True, blend=0.03)
    for k in range(9) if made.chance(0.5) else ():
        a = (k - 4) * 0.28
        root = np.array([0.58 * math.sin(a), 0.82 * math.cos(a), 0.05])
        made.limb(
            root, root * (1.35, 1.35, 1), 0.075, 0.03, blend=0.02, **made.coat("fur", deep=0.6)
        )


def _umbrella(made: Maker) -> None:
    """An open umbrella."""
    u = made.rng.uniform
    tall = u(0.5, 0.8)
    made.egg(
        (0, 0, 0),
        (0.95, tall, 0.95),
        details=(Detail(Pattern.FLUTES, 0.03, 1.35), Detail(Pattern.WEAVE, 0.008, 8)),
    )
    made.egg((0, -0.05, 0), (0.9, tall - 0.05, 0.9), cut=True)
    made.box((0, -1.0, 0), (2, 1.0, 2), cut=True)
    for k in range(8):
        a = k * math.pi / 4
        made.limb(
            (0, 0.0, 0),
            (0.85 * math.sin(a), 0.05, 0.85 * math.cos(a)),
            0.026,
            0.024,
            blend=0.01,
        )
    made.limb((0, tall + 0.15, 0), (0, -0.8, 0), 0.03, 0.04)
    made.tube(
        [(0, -0.75, 0), (0, -0.95, 0.03), (0, -0.98, 0.17), (0, -0.85, 0.22)],
        [0.05] * 4,
        blend=0.01,
    )


def _boat(made: Maker) -> None:
    """A rowing boat with benches and oars."""
    plan = smooth_outline(
        [
            (0, 0.95),
            (0.28, 0.45),
            (0.34, -0.1),
            (0.25, -0.7),
            (0, -0.92),
            (-0.25, -0.7),
            (-0.34, -0.1),
            (-0.28, 0.45),
        ]
    )
    made.prism(
        plan,
        (0, 0, 0),
        0.22,
        rotation=turn(x=math.pi / 2),
        round=0.1,
        **made.coat("planks", fine=0.8),
    )
    made.prism(
        plan * (0.8, 0.88),
        (0, 0.1, 0),
        0.25,
        rotation=turn(x=math.pi / 2),
        round=0.05,
        cut=True,
    )
    for z in (-0.5, 0.0, 0.45):
        made.box((0, 0.06, z), (0.34 - 0.15 * abs(z), 0.03, 0.08), **made.coat("planks"))
    for side in (-1, 1):
        made.limb((side * 0.15, 0.2, 0.2), (side * 0.8, -0.1, -0.15), 0.034, 0.03)
        made.add(
            Shape.BOX,
            (side * 0.85, -0.12, -0.17),
            (0.16, 0.024, 0.07),
            rotation=turn(y=-side * 0.5, z=side * -0.4),
            round=0.015,
            blend=0.02,
        )
