"""Machine parts: screws and springs, and bodies of plates, bosses, ribs and holes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ultrashape_cli.synthetic.blends import Detail, Part, Pattern, turn
from ultrashape_cli.synthetic.maker import Maker
from ultrashape_cli.synthetic.outlines import ellipse, rectangle
from ultrashape_cli.synthetic.wheels import LIE


def fastener(rng: np.random.Generator) -> list[Part]:
    """Returns the parts of a bolt, screw, nut, spring, hook, hinge pin or wing nut."""
    made = Maker(rng)
    u = rng.uniform
    kind = made.choose("bolt", "bolt", "screw", "nut", "spring", "eye", "wing", "pipe")
    radius, long, pitch = u(0.16, 0.28), u(0.55, 0.75), u(5, 9)
    thread = (Detail(Pattern.THREAD, min(0.45 / pitch, 0.075), pitch),)
    wear = made.coat("metal", deep=0.5)
    if kind in ("bolt", "eye", "screw"):
        if kind == "screw":
            made.cone((0, -0.25, 0), 0.03, long, radius, details=thread)
            made.cylinder((0, long - 0.25, 0), radius * 0.95, 0.18, blend=0.01)
        else:
            share = u(0.4, 0.9)
            made.cylinder((0, -long * (1 - share), 0), radius, long * share, details=thread)
            made.cylinder((0, 0.05, 0), radius * 0.95, long * 0.95, **wear)
        top = long if kind != "screw" else long - 0.1
        head = made.choose("hex", "round", "socket", "flange") if kind != "eye" else "eye"
        if head == "eye":
            made.ring((0, top + 0.25, 0), (0.27, 0.09), rotation=LIE, blend=0.08)
        elif head == "round":
            made.egg((0, top, 0), (radius * 1.9, 0.2, radius * 1.9), **wear)
            made.box((0, top - 0.3, 0), (1, 0.3, 1), cut=True)
            made.cylinder((0, top - 0.25, 0), radius * 0.9, 0.35)
            for k in range(2):
                made.box(
                    (0, top + 0.2, 0),
                    (radius * 1.2, 0.1, 0.045),
                    rotation=turn(y=k * math.pi / 2),
                    cut=True,
                )
        else:
            sides = 0 if head == "socket" else 6
            made.cylinder((0, top, 0), radius * 1.65, 0.14, sides=sides, round=0.015, **wear)
            if head == "flange":
                made.cylinder((0, top - 0.12, 0), radius * 2.2, 0.045, round=0.01, blend=0.02)
            if head == "socket":
                made.cylinder((0, top + 0.12, 0), radius * 0.85, 0.14, sides=6, cut=True)
    elif kind in ("nut", "wing"):
        made.cylinder((0, 0, 0), 0.75, 0.35, sides=6 if kind == "nut" else 0, round=0.03, **wear)
        made.cone((0, 0.5, 0), 1.1, 0.5, 0.4, keep=True, blend=0.03)
        if kind == "wing":
            for side in (-1, 1):
                made.tube([(side * 0.45, 0, 0), (side * 0.9, 0.3, 0), (side * 1.15, 0.75, 0)],
                          [0.22, 0.17, 0.2], blend=0.1)  # fmt: skip
        made.cylinder((0, 0, 0), 0.36, 2, cut=True, details=(Detail(Pattern.THREAD, 0.07, 6),))
    elif kind == "spring":
        turns, wire, wide = u(4, 8), u(0.055, 0.085), u(0.35, 0.5)
        a = np.linspace(0, turns * 2 * math.pi, int(turns * 16))
        y = np.interp(a, [0, 6.28, a[-1] - 6.28, a[-1]], [-0.85, -0.75, 0.75, 0.85])
        made.tube(np.column_stack([wide * np.sin(a), y, wide * np.cos(a)]), np.full(len(a), wire),
                  steps=1, **made.coat("metal", deep=0.6))  # fmt: skip
        if made.chance(0.5):
            made.cylinder((0, 0, 0), wide - wire * 0.8, 0.92, blend=0.005, **wear)
    else:
        bend = [(0, -0.9, 0), (0, -0.1, 0), (0, 0.25, 0.1), (0, 0.4, 0.45), (0, 0.4, 0.9)]
        made.tube(bend, [radius] * 5, **wear)
        made.tube(bend, [radius * 0.72] * 5, cut=True)
        for at, way in ((bend[0], None), (bend[-1], LIE)):
            made.cylinder(at, radius * 1.7, 0.07, rotation=way, round=0.01, blend=0.03)
            made.cylinder(at, radius * 0.72, 0.3, rotation=way, cut=True)
            for k in range(6):
                around = k * math.pi / 3
                out = np.array([math.sin(around), 0, math.cos(around)]) * radius * 1.35
                spot = np.array(at) + (out if way is None else way @ out)
                made.cylinder(spot, 0.045, 0.1, rotation=way, sides=6, blend=0.004)
    return made.parts


def bracket(rng: np.random.Generator) -> list[Part]:
    """Returns the parts of a bracket, flange, bearing block, crank or valve body."""
    made = Maker(rng)
    u = rng.uniform
    wear = made.coat("metal", "plates", "stone", deep=0.6)
    fillet = u(0.03, 0.08)
    kind = made.choose("angle", "flange", "bearing", "crank", "valve", "clevis")
    if kind == "angle":
        _angle(made, wear, fillet)
    elif kind == "flange":
        _flange(made, wear, fillet)
    elif kind == "bearing":
        _bearing(made, wear, fillet)
    elif kind == "crank":
        _crank(made, wear, fillet)
    elif kind == "valve":
        _valve(made, wear, fillet)
    else:
        _clevis(made, wear, fillet)
    if made.chance(0.3):
        outline = made.choose("disc", "slot")
        made.prism(ellipse(0.09, 0.09) if outline == "disc" else rectangle(0.05, 0.16),
                   (u(-0.1, 0.1), -0.1, 0), 2, cut=True, round=0.02)  # fmt: skip
    return made.parts


def _angle(made: Maker, wear: dict[str, Any], fillet: float) -> None:
    """An angle plate with ribs and holes."""
    u = made.rng.uniform
    wide, thick = u(0.4, 0.6), u(0.08, 0.13)
    made.box((0, -0.75, 0.1), (wide, thick, 0.75), round=0.03, **wear)
    made.box((0, 0.0, -0.6), (wide, 0.8, thick), round=0.03, blend=fillet, **wear)
    for x in (-1.0, 1.0):
        rib = np.array([(-0.6, -0.75), (0.7, -0.75), (-0.6, 0.6)])
        made.prism(
            rib * (-1, 1),
            (x * wide * 0.82, 0, 0),
            0.06,
            rotation=turn(y=math.pi / 2),
            round=0.02,
            blend=fillet,
        )
        for far in (0.2, 0.6):
            made.cylinder((x * wide * 0.45, -0.75, far), u(0.08, 0.12), 0.5, cut=True, blend=0.012)
    made.cylinder((0, 0.3, -0.6), wide * 0.55, thick * 2, rotation=LIE, blend=fillet, round=0.02)
    made.cylinder((0, 0.3, -0.6), wide * 0.36, 1, rotation=LIE, cut=True, blend=0.012)


def _flange(made: Maker, wear: dict[str, Any], fillet: float) -> None:
    """A flanged pipe end with ribs."""
    u = made.rng.uniform
    holes, r = int(u(4, 9)), 0.85
    made.cylinder((0, -0.6, 0), r, u(0.08, 0.15), round=0.03, **wear)
    made.cone((0, -0.1, 0), 0.5, 0.5, 0.36, blend=fillet * 1.5, **wear)
    made.cylinder(
        (0, 0.4, 0), 0.46, 0.1, sides=int(made.rng.choice([0, 6, 8])), round=0.02, blend=fillet
    )
    for k in range(holes):
        a = 2 * math.pi * k / holes
        spot = np.array([math.sin(a), 0, math.cos(a)])
        made.cylinder(spot * r * 0.78 + (0, -0.6, 0), 0.085, 0.5, cut=True, blend=0.01)
        rib = np.array([(0.3, -0.5), (r * 0.72, -0.5), (0.34, 0.2)])
        made.prism(
            rib,
            (0, 0, 0),
            0.045,
            rotation=turn(y=a + math.pi / holes),
            round=0.01,
            blend=fillet * 0.7,
        )
    made.cylinder((0, 0, 0), 0.25, 2, cut=True, blend=0.01)
    made.cylinder((0, 0.5, 0), 0.31, 0.14, cut=True)


def _bearing(made: Maker, wear: dict[str, Any], fillet: float) -> None:
    """A ball bearing in its block."""
    u = made.rng.uniform
    made.box((0, -0.6, 0), (0.95, 0.12, 0.35), round=0.05, **wear)
    made.cylinder((0, 0, 0), 0.55, u(0.3, 0.4), rotation=LIE, round=0.03, blend=fillet * 2, **wear)
    made.box((0, -0.3, 0), (0.52, 0.3, 0.27), round=0.03, blend=fillet * 2)
    made.cylinder((0, 0, 0), 0.4, 2, rotation=LIE, cut=True, blend=0.012)
    ring = np.linspace(0, 2 * math.pi, 12, endpoint=False)
    made.ring((0, 0, 0), (0.4, 0.06), rotation=LIE)
    made.ring((0, 0, 0), (0.22, 0.06), rotation=LIE)
    for a in ring:
        made.egg((math.sin(a) * 0.31, math.cos(a) * 0.31, 0), (0.075, 0.075, 0.09), blend=0.008)
    for x in (-0.74, 0.74):
        made.cylinder((x, -0.48, 0), 0.14, 0.05, blend=0.02)
        made.cylinder((x, -0.6, 0), 0.075, 0.5, cut=True)
    made.limb((0, 0.5, 0), (0, 0.75, 0), 0.09, 0.07, blend=0.03)


def _crank(made: Maker, wear: dict[str, Any], fillet: float) -> None:
    """A crank or rod with two eyes."""
    u = made.rng.uniform
    made.limb((0, -0.7, 0), (0, 0.7, 0), 0.2, 0.13, **wear)
    made.box((0, 0, 0.2), (0.06, 0.5, 0.12), round=0.03, cut=True, blend=0.03)
    for y, r in ((-0.7, u(0.3, 0.38)), (0.7, u(0.2, 0.26))):
        made.cylinder((0, y, 0), r, 0.22, rotation=LIE, round=0.025, blend=fillet, **wear)
        made.cylinder((0, y, 0), r * 0.55, 1, rotation=LIE, cut=True, blend=0.01)
    if made.chance(0.6):
        made.cylinder((0, 0.7, 0.45), 0.11, 0.45, rotation=LIE, round=0.03,
                      details=(Detail(Pattern.KNURL, 0.02, 6),))  # fmt: skip


def _valve(made: Maker, wear: dict[str, Any], fillet: float) -> None:
    """A valve with a hand wheel."""
    made.cylinder((0, 0, 0), 0.3, 0.85, rotation=turn(z=math.pi / 2), **wear)
    made.egg((0, 0, 0), (0.42, 0.42, 0.4), blend=fillet * 2, **wear)
    for x in (-0.82, 0.82):
        made.cylinder(
            (x, 0, 0),
            0.45,
            0.08,
            rotation=turn(z=math.pi / 2),
            sides=int(made.rng.choice([0, 8])),
            round=0.015,
            blend=fillet,
        )
    made.cylinder((0, 0, 0), 0.2, 2, rotation=turn(z=math.pi / 2), cut=True)
    made.cylinder((0, 0.45, 0), 0.24, 0.14, sides=6, blend=fillet, round=0.015)
    made.cylinder((0, 0.65, 0), 0.07, 0.3, details=(Detail(Pattern.THREAD, 0.03, 12),))
    made.ring((0, 0.92, 0), (0.38, 0.055), details=(Detail(Pattern.STUDS, 0.015, 5),))
    for k in range(5):
        a = k * 2 * math.pi / 5
        made.limb(
            (0, 0.92, 0), (0.38 * math.sin(a), 0.92, 0.38 * math.cos(a)), 0.05, 0.04, blend=0.02
        )


def _clevis(made: Maker, wear: dict[str, Any], fillet: float) -> None:
    """A fork with a pin, on a thread."""
    for x in (-0.4, 0.4):
        made.box((x, 0.25, 0), (0.12, 0.45, 0.36), round=0.03, **wear)
        made.cylinder(
            (x, 0.65, 0), 0.36, 0.12, rotation=turn(z=math.pi / 2), round=0.02, blend=0.02
        )
    made.box((0, -0.3, 0), (0.52, 0.2, 0.36), round=0.05, blend=fillet, **wear)
    made.cylinder((0, 0.65, 0), 0.17, 2, rotation=turn(z=math.pi / 2), cut=True)
    made.cylinder((0, 0.65, 0), 0.15, 0.75, rotation=turn(z=math.pi / 2), round=0.02)
    made.cylinder((0, 0.65, 0), 0.14, 0.32, rotation=turn(z=math.pi / 2), blend=0.0)
    made.cylinder((0, -0.75, 0), 0.24, 0.4, details=(Detail(Pattern.THREAD, 0.05, 7),))
