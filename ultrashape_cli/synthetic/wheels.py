"""Gears, and wheels of vehicles."""

from __future__ import annotations

import math

import numpy as np

from ultrashape_cli.synthetic.blends import Detail, Part, Pattern, turn
from ultrashape_cli.synthetic.maker import Maker
from ultrashape_cli.synthetic.outlines import gear, profile, star

LIE = turn(x=math.pi / 2)
"""Takes y to z: a wheel that faces z."""


def gears(rng: np.random.Generator) -> list[Part]:
    """Returns the parts of a gear, ratchet, bevel gear, worm, or two gears that mesh."""
    made = Maker(rng)
    u = rng.uniform
    kind = made.choose("spur", "spur", "helical", "pair", "ratchet", "bevel", "worm", "sprocket")
    if kind == "pair":
        module = u(0.05, 0.07)
        small, large = int(u(9, 13)), int(u(16, 22))
        apart = module * (small + large) / 2
        thick = u(0.08, 0.14)
        _wheel(made, (-apart * 0.45, 0, 0), large, module * large / 2 + module * 0.9, thick)
        turned = math.pi / small * (1 if small % 2 else 0)
        _wheel(made, (apart * 0.55, 0, 0), small, module * small / 2 + module * 0.9, thick, turned)
        made.box((0, 0, -thick - 0.07), (apart * 0.75, 0.12, 0.045), round=0.03, blend=0.02)
        for x in (-apart * 0.45, apart * 0.55):
            made.cylinder((x, 0, -thick * 0.4), 0.07, thick + 0.12, rotation=LIE, round=0.01)
    elif kind == "worm":
        made.cylinder((0, 0, 0), 0.24, 0.62, details=(Detail(Pattern.THREAD, 0.075, u(3, 4.5)),))
        made.cylinder((0, 0, 0), 0.13, 0.95, round=0.02, blend=0.02)
        for y in (-0.68, 0.68):
            made.cylinder((0, y, 0), 0.2, 0.05, round=0.012)
        made.box((0.12, 0.85, 0), (0.04, 0.12, 0.04), cut=True)
    else:
        lean = 0.22 if kind == "ratchet" else 0.0
        teeth = int(u(10, 30))
        _wheel(made, (0, 0, 0), teeth, 0.9, u(0.1, 0.28), lean=lean, sharp=kind == "sprocket")
        if kind == "bevel":
            made.cone((0, 0, 0.0), 1.25, 0.3, 0.62, rotation=LIE, keep=True)
            made.cone((0, 0, 0.22), 0.45, 0.2, 0.3, rotation=LIE, cut=True, blend=0.02)
        elif kind == "helical":
            made.cylinder((0, 0, 0.12), 0.35, 0.3, rotation=LIE, round=0.02, blend=0.03)
            made.cylinder((0, 0, 0.2), 0.2, 0.5, rotation=LIE, cut=True)
    return made.parts


def _wheel(made: Maker, at: tuple[float, float, float], teeth: int, radius: float, thick: float,
           turned: float = 0.0, lean: float = 0.0, sharp: bool = False) -> None:  # fmt: skip
    """A toothed rim, a hub with a keyway, and spokes, holes or a web between them."""
    u = made.rng.uniform
    depth = radius * min(u(3.0, 4.2) / teeth, 0.2)
    outline = gear(teeth, radius, depth, lean)
    if sharp:
        outline = star(teeth, radius, radius - 1.1 * depth)
    wear = made.coat("metal", deep=0.7)
    made.prism(outline, at, thick, rotation=turn(z=turned), round=0.012, **wear)
    rim, hub = radius - depth * 2.2, radius * u(0.24, 0.34)
    web = made.choose("solid", "recess", "spokes", "holes")
    for side in (-1, 1) if web != "solid" else ():
        recess = np.array(at) + (0, 0, side * thick)
        made.cylinder(
            recess,
            rim,
            thick * (0.55 if web == "recess" else 0.4),
            rotation=LIE,
            cut=True,
            blend=0.03,
        )
    count = int(u(4, 8))
    for k in range(count):
        a = 2 * math.pi * k / count
        way = np.array([math.sin(a), math.cos(a), 0])
        if web == "holes":
            spot = np.array(at) + way * (rim + hub) / 2
            made.cylinder(spot, (rim - hub) * 0.3, 1, rotation=LIE, cut=True, blend=0.02)
        elif web == "spokes":
            # What is cut away lies between two spokes.
            wide = math.pi / count - 0.18
            low, high = hub + 0.04, rim - 0.03
            edge = [(r * math.sin(a + t * s), r * math.cos(a + t * s))
                    for r, t, s in ((low, wide * 0.75, -1), (high, wide, -1), (high * 1.02, 0, 1),
                                    (high, wide, 1), (low, wide * 0.75, 1))]  # fmt: skip
            made.prism(np.array(edge), at, 1.0, round=0.03, cut=True)
    made.cylinder(at, hub, thick * u(1.1, 1.7), rotation=LIE, round=0.015, blend=0.025)
    for k in range(6) if made.chance(0.4) else ():
        a = 2 * math.pi * k / 6
        spot = np.array(at) + (math.sin(a) * hub * 0.72, math.cos(a) * hub * 0.72, thick * 1.4)
        made.egg(spot, (0.03, 0.03, 0.25), cut=True)
    made.cylinder(at, hub * 0.5, 2, rotation=LIE, cut=True, blend=0.01)
    made.box(np.array(at) + (0, hub * 0.5, 0), (hub * 0.16, hub * 0.2, 2), cut=True)


def wheel(made: Maker, at: np.ndarray, radius: float, half: float, kind: str) -> None:
    """A wheel whose axle runs along x: tyred, spoked or solid."""
    side = turn(z=math.pi / 2)
    if kind == "wood":
        made.ring(at, (radius * 0.88, radius * 0.12), rotation=side, **made.coat("wood", deep=0.6))
        for k in range(8):
            a = k * math.pi / 4
            end = at + (0, radius * 0.85 * math.sin(a), radius * 0.85 * math.cos(a))
            made.limb(at, end, radius * 0.09, radius * 0.075, blend=0.01)
        made.cylinder(at, radius * 0.22, half * 1.5, rotation=side, round=0.015, blend=0.02)
        return
    tread = (
        (Detail(Pattern.KNURL, 0.02, 6),) if kind == "tyre" else (Detail(Pattern.FLUTES, 0.02, 4),)
    )
    h, r = half, radius
    section = profile([-h, -h * 0.8, h * 0.8, h], [r * 0.86, r, r, r * 0.86], steps=1)
    made.revolve(section, at, rotation=side, details=tread)
    for way in (-1, 1):
        face = at + (way * half, 0, 0)
        made.cylinder(face, r * 0.6, half * 0.4, rotation=side, cut=True, blend=0.015)
        for k in range(5):
            a = k * 2 * math.pi / 5
            spoke = np.array([0, math.sin(a), math.cos(a)]) * r * 0.58
            made.limb(
                face - (way * half * 0.25, 0, 0),
                face - (way * half * 0.25, 0, 0) + spoke,
                r * 0.13,
                r * 0.1,
                blend=0.015,
            )
        made.egg(face - (way * half * 0.1, 0, 0), (half * 0.4, r * 0.2, r * 0.2), blend=0.015)
