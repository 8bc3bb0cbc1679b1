"""What buildings and ruins share: openings, roofs, ground, towers, castles and temples."""

from __future__ import annotations

import math

import numpy as np

from ultrashape_cli.synthetic.blends import Detail, Pattern, turn
from ultrashape_cli.synthetic.maker import Maker
from ultrashape_cli.synthetic.outlines import height_map, profile


def ground(made: Maker) -> None:
    """A plate of uneven ground below everything."""
    heights = 0.035 * height_map(made.rng, 24, 3, 4.0)
    if made.chance(0.5):
        made.relief(
            heights, (0, -0.9, 0), 0.95, 0.12, blend=0.02, **made.coat("rubble", "stone", deep=0.7)
        )
    else:
        made.cylinder(
            (0, -0.95, 0),
            0.95,
            0.07,
            round=0.02,
            blend=0.02,
            **made.coat("rubble", "stone", deep=0.7),
        )


def opening(made: Maker, at: tuple[float, float, float], wide: float, tall: float, angle: float, *,
             door: bool = False, arched: bool = True, deep: float = 0.07) -> None:  # fmt: skip
    """A window or door cut into a wall that faces `angle` about y, with frame and bars."""
    facing = turn(y=angle)
    place = np.array(at)
    out = facing @ np.array([0, 0, 1.0])
    made.box(
        place,
        (wide * 1.25, tall * 1.1, deep * 0.6),
        rotation=facing,
        round=0.012,
        **made.coat("stone", deep=0.4),
    )
    if arched:
        made.cylinder(
            place + (0, tall, 0), wide * 1.25, deep * 0.6, rotation=facing @ turn(x=math.pi / 2)
        )
        made.cylinder(
            place + (0, tall, 0), wide, deep * 2, rotation=facing @ turn(x=math.pi / 2), cut=True
        )
    made.box(place, (wide, tall, deep * 2), rotation=facing, cut=True)
    inside = place - out * deep * 0.9
    if door:
        made.box(
            inside,
            (wide * 1.1, tall * 1.25, deep * 0.5),
            rotation=facing,
            **made.coat("planks", fine=1.4),
        )
    else:
        made.box(inside, (wide * 1.1, tall * 1.4, deep * 0.4), rotation=facing)
        made.box(place - out * deep * 0.4, (0.018, tall * 1.3, 0.02), rotation=facing)
        made.box(place - out * deep * 0.4, (wide, 0.018, 0.02), rotation=facing)


def gable(made: Maker, at: tuple[float, float, float], x: float, z: float, tall: float) -> None:
    """A roof with its ridge along z, in two tiled slopes."""
    made.prism(
        np.array([(-x, 0), (x, 0), (0, tall)]),
        at,
        z * 0.94,
        **made.coat("masonry", "planks", deep=0.6),
    )
    lean, slope = math.atan2(tall, x), math.hypot(tall, x)
    tiles = made.coat("tiles", "tiles", "planks")
    for side in (-1, 1):
        middle = np.array(at) + (side * x * 0.54, tall * 0.47, 0)
        made.box(
            middle,
            (0.035, slope * 0.58, z * 1.1),
            rotation=turn(z=side * (math.pi / 2 - lean)),
            round=0.01,
            **tiles,
        )
    made.limb(
        np.array(at) + (0, tall + 0.02, -z * 1.1),
        np.array(at) + (0, tall + 0.02, z * 1.1),
        0.045,
        0.045,
        blend=0.01,
    )


def _battlements(made: Maker, at: np.ndarray, radius: float, count: int) -> None:
    for k in range(count):
        a = 2 * math.pi * k / count
        spot = at + (radius * math.sin(a), 0.06, radius * math.cos(a))
        made.box(spot, (0.055, 0.085, 0.05), rotation=turn(y=a), round=0.01)


def tower(
    made: Maker, at: tuple[float, float] = (0, 0), scale: float = 1.0, top: float = 0.45
) -> None:
    """A tower at a place (x, z), with battlements or a pointed roof from height `top`."""
    u = made.rng.uniform
    radius = u(0.24, 0.34) * scale
    sides = int(made.rng.choice([0, 0, 4, 6, 8]))
    coat = made.coat("masonry", "rubble", "masonry")
    x, z = at
    made.cone((x, (top - 0.9) / 2, z), radius * 1.2, (top + 0.9) / 2, radius, sides=sides, **coat)
    made.cylinder(
        (x, top, z),
        radius * 1.2,
        0.09,
        sides=sides,
        round=0.015,
        blend=0.03,
        **made.coat("stone", deep=0.5),
    )
    if made.chance(0.5):
        made.cylinder((x, top + 0.1, z), radius * 0.95, 0.1, cut=True)
        _battlements(made, np.array([x, top + 0.08, z]), radius * 1.08, 8)
    else:
        tall = u(0.25, 0.42) * max(scale, 0.7)
        made.cone(
            (x, top + tall, z),
            radius * 1.4,
            tall,
            0.02,
            sides=sides,
            **made.coat("tiles", "planks"),
        )
        made.limb((x, top + 2 * tall - 0.08, z), (x, top + 2 * tall + 0.12, z), 0.026, 0.02)
    for k in range(4):
        a = 1.57 * k
        y = -0.55 + 0.2 * k + (top - 0.45)
        far = radius * (1.12 - 0.1 * k / 4)
        opening(
            made, (x + far * math.sin(a), y, z + far * math.cos(a)), 0.05 * scale, 0.09 * scale, a
        )
    if scale == 1.0:
        opening(made, (x, -0.7, z + radius * 1.17), 0.09, 0.16, 0.0, door=True)


def castle(made: Maker) -> None:
    """Four walls, corner towers, a gate and a keep."""
    u = made.rng.uniform
    half, tall = u(0.5, 0.6), u(0.2, 0.32)
    coat = made.coat("masonry", "rubble")
    for k in range(4):
        a = k * math.pi / 2
        way = np.array([math.sin(a), 0, math.cos(a)])
        made.box(way * half + (0, tall - 0.9, 0), (half, tall, 0.075), rotation=turn(y=a), **coat)
        for t in np.linspace(-0.7, 0.7, 6):
            across = np.array([way[2], 0, -way[0]]) * half * t
            made.box(
                way * half + across + (0, 2 * tall - 0.86, 0),
                (0.05, 0.06, 0.06),
                rotation=turn(y=a),
                round=0.01,
            )
    for sx in (-1, 1):
        for sz in (-1, 1):
            tower(made, (sx * half, sz * half), 0.6, u(-0.25, 0.0))
    if made.chance(0.7):
        tower(made, (0, -0.1), 0.85, u(0.2, 0.5))
    made.box((0, -0.62, half), (0.16, 0.3, 0.13), round=0.015, **coat)
    opening(made, (0, -0.72, half + 0.13), 0.085, 0.13, 0.0, door=True)


def temple(made: Maker) -> None:
    """A hall behind rows of columns, on steps, under a gable."""
    u = made.rng.uniform
    x, z, count = u(0.5, 0.62), u(0.6, 0.8), int(u(4, 6))
    for k in range(3):
        made.box(
            (0, -0.88 + 0.07 * k, 0),
            (x * (1.25 - 0.08 * k), 0.045, z * (1.2 - 0.07 * k)),
            round=0.008,
            **made.coat("stone", deep=0.5),
        )
    made.box((0, -0.3, -0.05), (x * 0.62, 0.45, z * 0.66), **made.coat("masonry"))
    opening(made, (0, -0.45, z * 0.62), 0.1, 0.25, 0.0, door=True, arched=False)
    radius, top = u(0.06, 0.08), u(0.15, 0.3)
    flutes = (Detail(Pattern.FLUTES, 0.012, u(5, 7)), Detail(Pattern.NOISE, 0.008, 8))
    places = {
        (round(sx * x, 3), round(zz, 3)) for sx in (-1, 1) for zz in np.linspace(-z, z, count + 2)
    }
    places |= {
        (round(xx, 3), round(sz * z, 3)) for sz in (-1, 1) for xx in np.linspace(-x, x, count)
    }
    for px, pz in sorted(places):
        made.revolve(
            profile([-0.72, -0.3, top], [radius * 1.1, radius * 1.1, radius * 0.85], steps=3),
            (px, 0, pz),
            details=flutes,
        )
        made.box((px, top, pz), (radius * 1.4, 0.035, radius * 1.4), round=0.008)
    made.box(
        (0, top + 0.09, 0), (x * 1.17, 0.075, z * 1.12), round=0.01, **made.coat("ornate", deep=0.7)
    )
    gable(made, (0, top + 0.16, 0), x * 1.2, z * 1.05, u(0.22, 0.32))
