"""Broken buildings."""

from __future__ import annotations

import math

import numpy as np

from ultrashape_cli.synthetic.blends import Detail, Part, Pattern, turn
from ultrashape_cli.synthetic.maker import Maker
from ultrashape_cli.synthetic.outlines import profile, rectangle
from ultrashape_cli.synthetic.walls import castle, ground, opening, temple, tower


def ruin(rng: np.random.Generator) -> list[Part]:
    """Returns the parts of a broken building, overgrown by rubble."""
    made = Maker(rng)
    u = made.rng.uniform
    kinds = {"tower": tower, "castle": castle, "temple": temple, "arch": _arch, "wall": _wall}
    kinds[made.choose(*kinds)](made)
    rough = made.coat("stone")
    for _ in range(int(u(2, 4))):
        a, high = u(0, 6.28), u(0.4, 1.0)
        at = np.array([math.sin(a) * 0.5, high, math.cos(a) * 0.5])
        made.gem(at, u(0.35, 0.7, 3), 26, 0.35, cut=True, **rough)
    ground(made)
    for _ in range(int(u(7, 14))):
        a, far, size = u(0, 6.28), u(0.3, 0.85), u(0.07, 0.15)
        at = np.array([far * math.sin(a), -0.84, far * math.cos(a)])
        if made.chance(0.5):
            made.box(
                at,
                size * u(0.6, 1.2, 3),
                rotation=turn(*u(-0.8, 0.8, 3)),
                round=0.012,
                **made.coat("stone", deep=0.6),
            )
        else:
            made.gem(at, size * u(0.7, 1.2, 3), 18, 0.3, blend=0.02)
    return made.parts


def _arch(made: Maker) -> None:
    u = made.rng.uniform
    coat = made.coat("masonry", "rubble")
    made.box((0, -0.2, 0), (0.75, 0.7, u(0.16, 0.24)), **coat)
    wide = u(0.26, 0.36)
    made.cylinder(
        (0, -0.15, 0),
        wide * 1.2,
        0.27,
        rotation=turn(x=math.pi / 2),
        **made.coat("stone", deep=0.5),
    )
    made.cylinder((0, -0.15, 0), wide, 1, rotation=turn(x=math.pi / 2), cut=True)
    made.box((0, -0.6, 0), (wide, 0.45, 1), cut=True)
    made.box((0, 0.5, 0), (0.82, 0.06, 0.3), round=0.01, **made.coat("ornate", deep=0.7))
    for side in (-1, 1):
        made.revolve(
            profile([-0.9, -0.8, 0.3, 0.42], [0.11, 0.08, 0.075, 0.12], steps=4),
            (side * 0.55, 0, 0.24),
            details=(Detail(Pattern.FLUTES, 0.014, 5),),
        )


def _wall(made: Maker) -> None:
    u = made.rng.uniform
    coat = made.coat("masonry", "rubble")
    made.box((0, -0.35, -0.45), (0.85, 0.55, 0.085), **coat)
    made.box((-0.78, -0.45, 0.1), (0.085, 0.45, 0.55), **coat)
    for x in (-0.4, 0.1, 0.55):
        opening(made, (x, u(-0.4, -0.2), -0.37), 0.09, 0.16, 0.0)
    for _ in range(3):
        made.gem(
            (u(-0.8, 0.8), u(0.1, 0.35), -0.45),
            u(0.2, 0.45, 3),
            24,
            0.35,
            cut=True,
            **made.coat("stone"),
        )
    made.gem((-0.78, 0.05, 0.5), (0.4, 0.35, 0.5), 24, 0.3, cut=True, **made.coat("stone"))
    made.prism(rectangle(0.1, 0.3), (0.82, -0.6, -0.42), 0.12, round=0.02, **coat)
