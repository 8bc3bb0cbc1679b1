"""Ships, planes, rockets, locomotives and saucers."""

from __future__ import annotations

import math

import numpy as np

from ultrashape_cli.synthetic.blends import Detail, Pattern, turn
from ultrashape_cli.synthetic.maker import Maker
from ultrashape_cli.synthetic.outlines import leaf, profile, smooth_outline
from ultrashape_cli.synthetic.wheels import LIE, wheel

ACROSS = turn(y=math.pi / 2)
"""Takes the z of a prism to x, and its x to -z."""


def side_view(points: list[tuple[float, float]], smooth: bool) -> np.ndarray:
    """Returns a side view (z, y) as the outline of a prism turned by `ACROSS`."""
    outline = np.array(points) * (-1, 1)
    return smooth_outline(outline, 3) if smooth else outline


def ship(made: Maker) -> None:
    """A sailing ship or a steamer."""
    u = made.rng.uniform
    steam = made.chance(0.4)
    hull = smooth_outline(
        [
            (0, 1.0),
            (0.2, 0.6),
            (0.3, 0.1),
            (0.28, -0.6),
            (0.2, -0.92),
            (-0.2, -0.92),
            (-0.28, -0.6),
            (-0.3, 0.1),
            (-0.2, 0.6),
        ],
        3,
    )
    lay = turn(x=math.pi / 2)
    coat = made.coat("plates") if steam else made.coat("planks")
    for y, scale in ((-0.18, 0.86), (-0.05, 0.95), (0.08, 1.0)):
        made.prism(hull * scale, (0, y, 0), 0.12, rotation=lay, round=0.06, blend=0.06, **coat)
    made.box((0, -0.24, -0.05), (0.035, 0.12, 0.75), round=0.02, blend=0.04)
    made.prism(hull * 0.86, (0, 0.26, 0), 0.13, rotation=lay, cut=True)
    made.box((0, 0.25, -0.72), (0.25, 0.16, 0.22), round=0.03, blend=0.02, **coat)
    if steam:
        made.box((0, 0.25, -0.1), (0.2, 0.16, 0.4), round=0.03, **coat)
        made.box((0, 0.45, 0.1), (0.16, 0.08, 0.16), round=0.02, **coat)
        for z in (-0.35, -0.08):
            made.cone((0, 0.6, z), 0.09, 0.26, 0.08, blend=0.01)
            made.cylinder((0, 0.85, z), 0.06, 0.1, cut=True)
        for z in np.linspace(-0.45, 0.2, 6):
            made.cylinder((0, 0.25, z), 0.035, 0.3, rotation=turn(z=math.pi / 2), cut=True)
        made.limb((0, 0.2, 0.55), (0, 0.85, 0.5), 0.03, 0.025)
        return
    belly = u(0.06, 0.16)
    for z, tall in ((0.45, 0.85), (-0.05, 1.1), (-0.6, 0.75)):
        made.limb((0, -0.1, z), (0, tall, z), 0.04, 0.026, **made.coat("wood", deep=0.5))
        for y, wide in ((0.32, 0.42), (0.64, 0.3)):
            if y + 0.28 < tall:
                made.limb((-wide, y + 0.27, z), (wide, y + 0.27, z), 0.024, 0.024)
                made.limb((-wide, y, z), (wide, y, z), 0.024, 0.024)
                t = np.linspace(-1, 1, 9)
                bow = np.column_stack([-belly * (1 - t * t) - 0.02, 0.14 * t])
                sail = np.concatenate([bow + (-0.022, 0), bow[::-1] + (0.022, 0)])
                made.prism(sail, (0, y + 0.135, z), wide * 0.93, rotation=ACROSS, blend=0.01,
                           **made.coat("cloth", deep=0.7))  # fmt: skip
    made.limb((0, 0.12, 0.85), (0, 0.4, 1.25), 0.036, 0.024)
    for side in (-1, 1):
        for z in np.linspace(-0.6, 0.4, 6):
            made.box((side * 0.28, 0.0, z), (0.1, 0.03, 0.035), cut=True)
            made.limb((side * 0.2, -0.01, z), (side * 0.36, 0.0, z), 0.022, 0.022)


def plane(made: Maker) -> None:
    """A plane with one pair of wings or two, jets or a propeller."""
    u = made.rng.uniform
    jet = made.chance(0.5)
    skin = made.coat("plates", "metal", deep=0.6)
    made.tube([(0, 0.02, -0.95), (0, 0, -0.4), (0, 0, 0.3), (0, -0.02, 0.8), (0, -0.03, 0.98)],
              [0.05, 0.13, 0.17, 0.13, 0.03 if jet else 0.09], **skin)  # fmt: skip
    span, sweep, chord = u(0.8, 1.0), u(0.25, 0.55) if jet else u(-0.02, 0.1), u(0.2, 0.28)
    layers = (-0.04,) if jet or made.chance(0.5) else (-0.12, 0.24)
    for y in layers:
        for side in (-1, 1):
            plan = np.array(
                [(0, 0.2 + chord), (span, 0.15 - sweep), (span, -sweep - 0.02), (0, -chord + 0.1)]
            )
            made.prism(plan * (side, -1), (0, y, 0), 0.03, rotation=turn(x=math.pi / 2), round=0.02,
                       blend=0.04, **skin)  # fmt: skip
            if len(layers) > 1:
                made.limb(
                    (side * 0.5, -0.12, 0.1), (side * 0.5, 0.24, 0.1), 0.022, 0.022, blend=0.01
                )
                made.limb(
                    (side * 0.15, 0, 0.15), (side * 0.18, 0.24, 0.1), 0.022, 0.022, blend=0.01
                )
    for side in (-1, 1):
        tail = np.array(
            [(0, -0.62), (0.36, -0.78 - sweep * 0.2), (0.36, -0.9 - sweep * 0.2), (0, -0.92)]
        )
        made.prism(
            tail * (side, -1),
            (0, 0.03, 0),
            0.024,
            rotation=turn(x=math.pi / 2),
            round=0.016,
            blend=0.03,
        )
        if jet:
            at = np.array([side * 0.4, -0.14, -0.02])
            made.cylinder(at, 0.095, 0.2, rotation=LIE, round=0.03, blend=0.02)
            made.cylinder(at + (0, 0, 0.2), 0.065, 0.08, rotation=LIE, cut=True)
        else:
            made.limb((side * 0.1, -0.1, 0.25), (side * 0.2, -0.32, 0.3), 0.025, 0.025)
            wheel(made, np.array([side * 0.21, -0.34, 0.3]), 0.09, 0.04, "tyre")
    fin = np.array([(-0.55, 0.05), (-0.8, 0.38), (-0.95, 0.38), (-0.93, 0.05)])
    made.prism(
        side_view(fin.tolist(), False), (0, 0, 0), 0.024, rotation=ACROSS, round=0.016, blend=0.03
    )
    made.egg((0, 0.14, 0.35), (0.09, 0.1, 0.2), blend=0.015)
    if not jet:
        blades = int(u(2, 5))
        for k in range(blades):
            a = 2 * math.pi * k / blades
            made.prism(
                leaf(0.42, 0.1, 0.6), (0, -0.03, 1.03), 0.024, rotation=turn(z=a), round=0.016
            )
        made.egg((0, -0.03, 1.03), (0.065, 0.065, 0.1), blend=0.01)


def rocket(made: Maker) -> None:
    """A rocket on fins, with boosters or none."""
    u = made.rng.uniform
    radius = u(0.17, 0.26)
    made.revolve(
        profile(
            [-0.7, -0.4, 0.2, 0.55, 0.8, 0.97], np.array([0.8, 1, 1, 0.85, 0.5, 0.08]) * radius
        ),
        **made.coat("plates"),
    )
    made.cone(
        (0, -0.8, 0),
        radius * 0.85,
        0.14,
        radius * 0.5,
        blend=0.02,
        details=(Detail(Pattern.FLUTES, 0.015, 4),),
    )
    made.cone((0, -0.88, 0), radius * 0.65, 0.1, radius * 0.35, cut=True)
    fins = int(u(3, 6))
    for k in range(fins):
        a = 2 * math.pi * k / fins + 0.4
        fin = smooth_outline([(radius * 0.6, -0.2), (radius + 0.25, -0.6), (radius + 0.32, -0.97),
                              (radius + 0.2, -0.85), (radius * 0.6, -0.65)], 3)  # fmt: skip
        made.prism(fin, (0, 0, 0), 0.035, rotation=turn(y=a), round=0.02, blend=0.03)
    for y in (0.15, 0.4):
        made.ring((0, y, radius * 0.93), (0.09, 0.026), rotation=LIE, blend=0.01)
        made.egg((0, y, radius * 0.95), (0.07, 0.07, 0.03))
    for y in (-0.4, 0.0, 0.55):
        made.ring((0, y, 0), (radius * (1.0 if y < 0.5 else 0.85), 0.024), blend=0.008)
    if made.chance(0.5):
        for side in (-1, 1):
            made.tube(
                [
                    (side * radius * 1.4, -0.75, 0),
                    (side * radius * 1.4, 0.1, 0),
                    (side * radius * 1.35, 0.3, 0),
                ],
                [0.09, 0.09, 0.03],
                blend=0.02,
                **made.coat("plates"),
            )
            made.box((side * radius * 1.1, -0.2, 0), (0.1, 0.04, 0.03))


def engine(made: Maker) -> None:
    """A steam locomotive."""
    u = made.rng.uniform
    iron = made.coat("plates", "metal")
    made.box((0, -0.12, 0), (0.26, 0.06, 0.9), round=0.02)
    made.cylinder((0, 0.16, 0.22), 0.24, 0.6, rotation=LIE, round=0.03, **iron)
    for z in (-0.2, 0.1, 0.4, 0.7):
        made.ring((0, 0.16, z), (0.235, 0.026), rotation=LIE, blend=0.006)
    made.cylinder(
        (0, 0.16, 0.83),
        0.19,
        0.05,
        rotation=LIE,
        round=0.02,
        details=(Detail(Pattern.STUDS, 0.012, 7),),
    )
    made.cone((0, 0.52, 0.62), 0.07, 0.2, u(0.1, 0.16), blend=0.02)
    made.cylinder((0, 0.72, 0.62), 0.06, 0.1, cut=True)
    for z in (0.3, 0.0):
        made.egg((0, 0.4, z), (0.1, 0.12, 0.1), blend=0.03)
    made.box((0, 0.26, -0.6), (0.3, 0.34, 0.26), round=0.02, **iron)
    made.box((0, 0.62, -0.6), (0.36, 0.035, 0.34), round=0.02)
    made.box((0, 0.4, -0.6), (0.5, 0.12, 0.14), cut=True, round=0.02)
    made.box((0, 0.3, -0.82), (0.24, 0.25, 0.2), cut=True)
    for k in range(7):
        made.limb(
            (-0.24 + 0.08 * k, -0.36, 1.08 - 0.014 * (k - 3) ** 2),
            (-0.15 + 0.05 * k, -0.1, 0.88),
            0.022,
            0.022,
        )
    made.limb((-0.25, -0.36, 0.96), (0.25, -0.36, 0.96), 0.024, 0.024)
    for side in (-1, 1):
        for z, r in ((-0.55, 0.23), (-0.08, 0.23), (0.36, 0.17), (0.7, 0.13)):
            wheel(made, np.array([side * 0.3, -0.42 + r, z]), r, 0.045, "steel")
        made.limb((side * 0.38, -0.2, -0.58), (side * 0.38, -0.2, 0.4), 0.028, 0.028)
        made.cylinder((side * 0.32, -0.1, 0.62), 0.09, 0.16, rotation=LIE, round=0.02)


def saucer(made: Maker) -> None:
    """A flying saucer on three legs."""
    u = made.rng.uniform
    made.revolve(
        profile([-0.22, -0.15, 0.0, 0.06, 0.16, 0.24], [0.3, 0.6, 0.95, 0.95, 0.55, 0.3]),
        **made.coat("plates"),
    )
    made.egg((0, 0.2, 0), (0.34, u(0.25, 0.4), 0.34), blend=0.03)
    count = int(u(8, 14))
    for k in range(count):
        a = 2 * math.pi * k / count
        made.egg((0.78 * math.sin(a), 0.1, 0.78 * math.cos(a)), (0.06, 0.05, 0.06), blend=0.01)
        made.egg(
            (0.72 * math.sin(a), -0.12, 0.72 * math.cos(a)),
            (0.07, 0.07, 0.07),
            cut=True,
            blend=0.01,
        )
    for k in range(3):
        a = 2 * math.pi * k / 3 + 0.5
        foot = np.array([0.7 * math.sin(a), -0.6, 0.7 * math.cos(a)])
        made.limb((foot[0] * 0.55, -0.1, foot[2] * 0.55), foot, 0.035, 0.03)
        made.egg(foot, (0.1, 0.035, 0.1), blend=0.02)
    made.limb((0, 0.4, 0), (0, 0.75, 0), 0.025, 0.022)
    made.egg((0, 0.75, 0), (0.05,) * 3, blend=0.01)
