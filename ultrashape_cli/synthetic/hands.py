"""Hands."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np

from ultrashape_cli.synthetic.blends import Part, turn
from ultrashape_cli.synthetic.maker import Maker


def hand(rng: np.random.Generator) -> list[Part]:
    """Returns the parts of a hand, palm towards z, in a drawn pose, on its wrist."""
    made = Maker(rng)
    u = rng.uniform
    kind = made.choose("human", "human", "human", "claw", "gauntlet")
    skin = made.coat(*{"claw": ("hide", "scales"), "gauntlet": ("plates",)}.get(kind, ("skin",)),
                     deep=0.8)  # fmt: skip
    pose = made.choose("open", "relaxed", "fist", "point", "victory", "spread")
    side = 1 if made.chance(0.5) else -1
    slim = u(0.85, 1.15)
    made.box((0, 0.1, 0), (0.3 * slim, 0.34, 0.1), round=0.095, **skin)
    made.egg((-0.2 * side * slim, -0.08, 0.06), (0.14, 0.24, 0.1), rotation=turn(z=-side * 0.35),
             blend=0.08, **skin)  # fmt: skip
    made.egg((0.2 * side * slim, -0.05, 0.05), (0.1, 0.26, 0.09), blend=0.06, **skin)
    long = np.array([0.78, 0.88, 0.8, 0.6]) * u(0.55, 0.68)
    for k in range(4):
        curl = {
            "open": u(-0.05, 0.12),
            "spread": u(-0.1, 0.1),
            "relaxed": u(0.25, 0.55),
            "fist": u(1.25, 1.45),
        }.get(pose, 1.35 if k > (0 if pose == "point" else 1) else 0.05)
        fan = (1.5 - k) * (0.17 if pose in ("spread", "victory") else 0.06)
        x = (-0.225 + 0.15 * k) * side * slim
        root = np.array([x, 0.38 - 0.02 * abs(k - 1.2) ** 2, 0.0])
        _finger(made, kind, root, -side * fan, curl, long[k], 0.075 * slim, skin)
    # The thumb comes from the side and bends across.
    across = 0.9 if pose in ("fist", "point") else u(0.0, 0.35)
    base = np.array([-0.24 * side * slim, -0.12, 0.07])
    knuckle = base + (-side * (0.2 - 0.1 * across), 0.2, 0.1 + 0.12 * across)
    joint = knuckle + (-side * (0.12 - 0.32 * across), 0.17, 0.06 + 0.05 * across)
    tip = joint + (side * (0.3 * across - 0.04), 0.15 - 0.05 * across, 0.02)
    made.tube([base, knuckle, joint, tip], [0.12, 0.095, 0.085, 0.065], blend=0.06, **skin)
    wrist = np.array([[0, 0.0, 0], [0, -0.3, 0], [u(-0.08, 0.08), -0.8, u(-0.08, 0.08)]])
    made.tube(wrist, [0.19, 0.165, 0.2], blend=0.12, **skin)
    if kind == "gauntlet" or made.chance(0.35):
        made.cone(
            (0, -0.55, 0), 0.3, 0.16, 0.23, blend=0.01, **made.coat("ornate", "metal", "cloth")
        )
    for k in range(4) if kind == "human" else ():
        start = np.array([(-0.2 + 0.14 * k) * side * slim, 0.3, -0.085])
        made.tube([start, (start[0] * 0.3, -0.15, -0.1)], [0.026, 0.018], steps=1, blend=0.03)
    for bend in (0.12, -0.02, 0.24):
        made.tube(
            [(-0.2 * side, bend, 0.115), (0, bend + 0.03, 0.1), (0.22 * side, bend + 0.06, 0.115)],
            [0.008, 0.012, 0.008],
            cut=True,
            blend=0.03,
        )
    return made.parts


def _finger(made: Maker, kind: str, root: np.ndarray, lean: float, curl: float, long: float,
            thick: float, skin: dict[str, Any]) -> None:  # fmt: skip
    """Three bones, each bent towards the palm; with creases, and a nail, claw or plates."""
    at, angle, points = root - (0, 0.06, 0), 0.15 * curl, [root - (0, 0.06, 0)]
    for share, bend in ((0.45, 0.95), (0.32, 1.1), (0.25, 0.7)):
        angle += curl * bend
        way = np.array([lean * math.cos(angle), math.cos(angle), math.sin(angle)])
        at = at + way / np.linalg.norm(way) * long * share
        points.append(at)
    bones = list(pairwise(points))
    scale = np.array([1.08, 1.0, 0.92, 0.78]) * thick
    for k, (a, b) in enumerate(bones):
        made.limb(a, b, scale[k], scale[k + 1], blend=0.03, **(skin if k < 2 else {}))
        back = np.array([0, math.sin(angle), -math.cos(angle)])
        if kind == "gauntlet":
            made.egg(
                (a + b) / 2 + back * 0.02, (thick * 1.15, thick * 1.1, thick * 1.15), blend=0.006
            )
        elif k:
            made.egg(a, (scale[k] * 1.1,) * 3, blend=0.03)
    a, b = bones[-1]
    way = (b - a) / np.linalg.norm(b - a)
    back = np.array([0, -way[2], way[1]]) * (1, 1, -1)
    if kind == "claw":
        made.tube([b, b + way * 0.12 - back * 0.02, b + way * 0.22 - back * 0.09],
                  [thick * 0.7, thick * 0.45, 0.014], blend=0.015)  # fmt: skip
    else:
        made.egg(
            b + back * thick * 0.45 + way * 0.015,
            (thick * 0.5, thick * 0.5, thick * 0.4),
            blend=0.006,
        )
