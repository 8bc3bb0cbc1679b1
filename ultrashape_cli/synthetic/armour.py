"""Shields and helmets, crossbows and guns."""

from __future__ import annotations

import math

import numpy as np

from ultrashape_cli.synthetic.blends import Detail, Pattern, turn
from ultrashape_cli.synthetic.maker import Maker
from ultrashape_cli.synthetic.outlines import smooth_outline, star
from ultrashape_cli.synthetic.wheels import LIE


def shield(made: Maker) -> None:
    """A round, kite-shaped, pointed or tall shield, bowed to the front."""
    u = made.rng.uniform
    kind = made.choose("round", "kite", "heater", "tower")
    outlines = {
        "kite": smooth_outline(
            [(0, 0.9), (0.45, 0.65), (0.5, 0.2), (0, -0.95), (-0.5, 0.2), (-0.45, 0.65)]
        ),
        "heater": smooth_outline(
            [(0, 0.7), (0.6, 0.75), (0.62, 0.1), (0, -0.9), (-0.62, 0.1), (-0.6, 0.75)]
        ),
        "tower": np.concatenate(
            [
                [(x, s * 0.9) for x in np.linspace(-s * 0.52, s * 0.42, 8)]
                + [(s * 0.52, y) for y in np.linspace(s * 0.9, -s * 0.8, 10)]
                for s in (1, -1)
            ]
        ),
        "round": np.array(
            [(0.85 * math.sin(a), 0.85 * math.cos(a)) for a in np.linspace(6.28, 0.17, 36)]
        ),
    }
    outline = outlines[kind]
    made.prism(outline, (0, 0, 0), 1.0)
    made.egg(
        (0, 0, -1.5 + 0.1), (1.6, 1.75, 1.6), keep=True, **made.coat("ornate", "planks", "metal")
    )
    made.egg((0, 0, -1.5), (1.6, 1.75, 1.6), cut=True)
    edge = np.concatenate([outline, outline[:1]])
    rim = [
        (x, y, 1.6 * math.sqrt(max(0.0, 1 - (x / 1.6) ** 2 - (y / 1.75) ** 2)) - 1.45)
        for x, y in edge
    ]
    made.tube(rim, [0.05] * len(rim), steps=1, blend=0.01, **made.coat("ornate", deep=0.5))
    top = 0.13
    style = made.choose("boss", "cross", "star", "studs")
    if style == "boss":
        made.egg((0, 0, top), (0.22, 0.22, 0.16), blend=0.015, **made.coat("ornate"))
        made.ring((0, 0, top), (0.26, 0.04), rotation=LIE, blend=0.01)
    elif style == "cross":
        for size in ((0.07, 0.8), (0.5, 0.07)):
            made.box((0, 0, top - 0.03), (*size, 0.05), round=0.015, keep=False, blend=0.012)
    elif style == "star":
        made.prism(star(int(u(4, 9)), 0.45, 0.18), (0, 0, top), 0.05, round=0.02, blend=0.012)
    for k in range(12):
        x, y = edge[int(k * len(outline) / 12)] * 0.82
        z = 1.6 * math.sqrt(max(0.0, 1 - (x / 1.6) ** 2 - (y / 1.75) ** 2)) - 1.4
        made.egg((x, y, z), (0.045, 0.045, 0.04), blend=0.008)
    made.tube([(-0.25, 0, -0.02), (0, 0, -0.14), (0.25, 0, -0.02)], [0.04] * 3, blend=0.02)


def gun(made: Maker) -> None:
    """A revolver, a pistol or a ray gun."""
    u = made.rng.uniform
    ray = made.chance(0.4)
    across = turn(y=math.pi / 2)
    skin = made.coat("plates", "metal")
    made.box((0, 0.18, 0.05), (0.085, 0.13, 0.42), round=0.03, **skin)
    grip = np.array([(-0.02, 0.1), (0.28, 0.1), (0.42, -0.5), (0.16, -0.52)])
    made.prism(grip, (0, 0, 0), 0.075, rotation=across, round=0.04, blend=0.02,
               details=(Detail(Pattern.KNURL, 0.014, 7),))  # fmt: skip
    guard = [(0, 0.06, 0.02), (0, -0.14, 0.06), (0, -0.13, 0.22), (0, 0.08, 0.28)]
    made.tube(guard, [0.03] * 4, blend=0.015)
    made.limb((0, 0.06, 0.14), (0, -0.05, 0.12), 0.03, 0.024)
    if ray:
        made.cylinder(
            (0, 0.2, 0.7), 0.06, 0.35, rotation=LIE, details=(Detail(Pattern.RINGS, 0.02, 7),)
        )
        for z in (0.5, 0.65, 0.8):
            made.ring((0, 0.2, z), (0.15 - 0.04 * (z - 0.5), 0.035), rotation=LIE)
            made.cylinder((0, 0.2, z), 0.15 - 0.04 * (z - 0.5), 0.018, rotation=LIE)
        made.egg((0, 0.2, 1.08), (0.09, 0.09, 0.1), blend=0.02)
        for side in (-1, 1):
            made.prism(
                np.array([(0.35, 0.3), (0.0, 0.55), (-0.1, 0.3)]),
                (side * 0.06, 0, 0),
                0.03,
                rotation=across,
                round=0.012,
                blend=0.01,
            )
    else:
        long = u(0.3, 0.6)
        made.cylinder((0, 0.24, 0.45 + long * 0.6), 0.06, long, rotation=LIE, round=0.012)
        made.cylinder((0, 0.24, 0.46 + long * 1.6), 0.03, 0.12, rotation=LIE, cut=True)
        if made.chance(0.5):
            made.cylinder(
                (0, 0.16, 0.14),
                0.15,
                0.14,
                rotation=LIE,
                round=0.02,
                details=(Detail(Pattern.FLUTES, 0.025, 2.2),),
            )
        made.box((0, 0.32, 0.4 + long * 1.4), (0.016, 0.05, 0.04), round=0.008)
    made.limb((0, 0.26, -0.36), (0, 0.4, -0.44), 0.04, 0.045, blend=0.02)


def helmet(made: Maker) -> None:
    """A hollow helmet with a slit, a nose guard or a grille."""
    u = made.rng.uniform
    made.egg((0, 0.1, 0), (0.56, 0.72, 0.62), **made.coat("metal", "ornate", "plates"))
    made.box((0, -0.95, 0), (1, 0.5, 1), cut=True)
    made.egg((0, 0.02, 0), (0.49, 0.65, 0.55), cut=True)
    kind = made.choose("slit", "nose", "grille")
    if kind == "slit":
        made.box((0, 0.08, 0.6), (0.4, 0.045, 0.3), cut=True, round=0.02)
        for k in range(6):
            made.cylinder((-0.2 + 0.08 * k, -0.2, 0.5), 0.024, 0.3, rotation=LIE, cut=True)
    else:
        made.box((0, -0.15, 0.5), (0.28, 0.28, 0.35), cut=True, round=0.1, blend=0.02)
        bars = (0.0,) if kind == "nose" else (-0.18, -0.06, 0.06, 0.18)
        for x in bars:
            made.limb(
                (x, 0.2, 0.58),
                (x, -0.46 if kind == "grille" else -0.2, 0.58),
                0.04,
                0.035,
                blend=0.015,
            )
        if kind == "grille":
            made.tube(
                [(-0.3, -0.46, 0.45), (0, -0.46, 0.6), (0.3, -0.46, 0.45)], [0.04] * 3, blend=0.02
            )
    rim = [(0.37 * math.sin(a), -0.43, 0.41 * math.cos(a)) for a in np.linspace(0, 2 * math.pi, 21)]
    made.tube(rim, [0.05] * 21, steps=2, blend=0.015, **made.coat("ornate", deep=0.6))
    top = made.choose("crest", "horns", "spike", "none")
    if top == "crest":
        line = [(0, 0.1 + 0.82 * math.sin(a), 0.7 * math.cos(a)) for a in np.linspace(0.5, 2.9, 9)]
        made.tube(
            line,
            np.full(9, u(0.08, 0.14)),
            steps=3,
            squash=2.0,
            blend=0.02,
            **made.coat("fur", deep=1.3),
        )
    elif top == "horns":
        for side in (-1, 1):
            made.tube([(side * 0.45, 0.35, 0), (side * 0.8, 0.45, 0.05), (side * 0.95, 0.95, 0.1)],
                      [0.13, 0.1, 0.02], blend=0.03, **made.coat("chitin"))  # fmt: skip
    elif top == "spike":
        made.cone((0, 0.95, 0), 0.1, 0.22, 0.012, blend=0.04)


def crossbow(made: Maker) -> None:
    """A stock, a bow and its string."""
    u = made.rng.uniform
    made.box((0, 0, 0), (0.07, 0.9, 0.08), round=0.03, **made.coat("wood", "ornate", deep=0.7))
    bend = u(0.2, 0.5)
    limbs = [
        (-0.85, 0.7 - bend, 0.1),
        (-0.5, 0.72 - bend * 0.2, 0.1),
        (0, 0.75, 0.1),
        (0.5, 0.72 - bend * 0.2, 0.1),
        (0.85, 0.7 - bend, 0.1),
    ]
    made.tube(
        limbs, [0.04, 0.06, 0.075, 0.06, 0.04], blend=0.02, **made.coat("wood", "metal", deep=0.5)
    )
    for side in (-1, 1):
        made.limb((side * 0.85, 0.7 - bend, 0.1), (0, 0.1, 0.12), 0.022, 0.022, blend=0.01)
    made.limb((0, 0.0, 0.13), (0, 1.0, 0.13), 0.028, 0.024)
    made.cone((0, 1.02, 0.13), 0.06, 0.08, 0.01)
    made.ring((0, 0.98, 0.0), (0.12, 0.03), rotation=LIE)
    made.tube([(0, -0.2, -0.05), (0, -0.28, -0.24), (0, -0.55, -0.26)], [0.04] * 3, blend=0.02)
    made.prism(
        np.array([(-0.1, -0.6), (0.1, -0.6), (0.16, -0.97), (-0.16, -0.97)]),
        (0, 0, 0),
        0.1,
        round=0.04,
        blend=0.03,
    )
