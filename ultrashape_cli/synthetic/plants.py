"""Plants: trees, cacti, mushrooms, flowers, fruit."""

from __future__ import annotations

import math

import numpy as np

from ultrashape_cli.synthetic.blends import Detail, Part, Pattern, turn
from ultrashape_cli.synthetic.maker import Maker
from ultrashape_cli.synthetic.outlines import leaf, profile
from ultrashape_cli.synthetic.trees import bare_tree, cactus, fir, leafy_tree, palm


def plant(rng: np.random.Generator) -> list[Part]:
    """Returns the parts of a tree, palm, cactus, mushroom, flower, fruit or fern."""
    made = Maker(rng)
    kinds = {
        "bare": bare_tree,
        "leafy": leafy_tree,
        "fir": fir,
        "palm": palm,
        "cactus": cactus,
        "mushroom": _mushrooms,
        "flower": _flower,
        "fruit": _fruit,
        "potted": _potted,
    }
    kinds[made.choose(*kinds)](made)
    return made.parts


def _mushrooms(made: Maker) -> None:
    u = made.rng.uniform
    for k in range(int(u(2, 5))):
        scale = 1.0 if k == 0 else u(0.35, 0.7)
        at = np.array([0, 0, 0]) if k == 0 else u((-0.5, 0, -0.5), (0.5, 0, 0.5))
        top = np.array([at[0] + u(-0.1, 0.1), -0.85 + 1.1 * scale, at[2]])
        made.tube(
            [at + (0, -0.9, 0), at + (0, -0.6, 0), top],
            np.array([0.17, 0.11, 0.09]) * scale,
            blend=0.03,
            **made.coat("wood", deep=0.6),
        )
        wide, tall = u(0.42, 0.6) * scale, u(0.22, 0.45) * scale
        cap = profile(
            np.array([-0.1, -0.03, 0.35, 0.75, 1.0]) * tall,
            np.array([0.92, 1.0, 0.85, 0.45, 0.06]) * wide,
        )
        made.revolve(
            cap,
            top,
            details=(Detail(Pattern.STUDS, 0.028, u(2.5, 4)), Detail(Pattern.NOISE, 0.01, 6)),
        )
        made.egg(
            top - (0, 0.1 * tall, 0), (wide * 0.85, tall * 0.25, wide * 0.85), cut=True, blend=0.02
        )
        for j in range(18):
            a = j * math.pi / 9
            way = np.array([math.sin(a), 0, math.cos(a)])
            made.limb(
                top + way * 0.06, top + way * wide * 0.88 + (0, -0.02, 0), 0.022, 0.022, blend=0.01
            )
        made.ring(top - (0, 0.35 * scale, 0), (0.13 * scale, 0.035), blend=0.015)
        made.limb(top - (0, 0.2 * scale, 0), top + (0, tall * 0.5, 0), 0.1 * scale, 0.09 * scale)
    made.egg((0, -0.95, 0), (0.65, 0.12, 0.65), blend=0.04, **made.coat("fur", "stone"))


def _petals(made: Maker, at: np.ndarray, count: int, long: float, wide: float, lift: float) -> None:
    for k in range(count):
        rotation = turn(y=2 * math.pi * k / count + lift) @ turn(x=math.pi / 2 - lift)
        made.prism(leaf(long, wide, 0.62), at, 0.028, rotation=rotation, round=0.02, blend=0.02,
                   details=(Detail(Pattern.FUR, 0.012, 9),))  # fmt: skip
        tip = rotation @ np.array([0, long * 0.9, 0])
        made.limb(at, at + tip, 0.032, 0.02, blend=0.02)


def _flower(made: Maker) -> None:
    u = made.rng.uniform
    top = np.array([u(-0.2, 0.2), 0.35, u(-0.1, 0.2)])
    made.tube(
        [(0, -0.95, 0), (0.05, -0.3, 0.05), top], [0.06, 0.05, 0.055], **made.coat("wood", deep=0.5)
    )
    count = int(u(5, 13))
    for row in range(int(u(1, 4))):
        _petals(
            made,
            top,
            count,
            u(0.5, 0.62) * (1 - 0.22 * row),
            min(2.4 / count, 0.4) * u(0.9, 1.2),
            0.15 + 0.4 * row,
        )
    made.egg(
        top + (0, 0.05, 0),
        (0.17, 0.13, 0.17),
        blend=0.02,
        details=(Detail(Pattern.STUDS, 0.025, 6),),
    )
    for k in range(3):
        rotation = turn(y=2.1 * k) @ turn(x=u(0.6, 1.1))
        made.prism(
            leaf(0.5, 0.22),
            (0.02, -0.75 + 0.18 * k, 0.02),
            0.026,
            rotation=rotation,
            round=0.018,
            blend=0.02,
            details=(Detail(Pattern.FUR, 0.012, 9),),
        )


def _fruit(made: Maker) -> None:
    u = made.rng.uniform
    kind = made.choose("pine", "pumpkin", "apple", "corn", "grapes")
    if kind == "pine":
        made.egg(
            (0, -0.3, 0),
            (0.42, 0.58, 0.42),
            details=(Detail(Pattern.KNURL, 0.045, u(1.6, 2.4)), Detail(Pattern.STUDS, 0.015, 4)),
        )
        for row in range(3):
            _petals(made, np.array([0, 0.22, 0]), 7, 0.62 - 0.05 * row, 0.16, 0.5 + 0.38 * row)
    elif kind == "pumpkin":
        for k in range(10):
            a = k * math.pi / 5
            made.egg(
                (0.36 * math.sin(a), -0.2, 0.36 * math.cos(a)),
                (0.33, u(0.42, 0.55), 0.33),
                blend=0.06,
                **made.coat("skin", deep=0.8),
            )
        made.tube(
            [(0, 0.1, 0), (0.03, 0.35, 0), (0.15, 0.5, 0.05)],
            [0.13, 0.075, 0.085],
            blend=0.05,
            details=(Detail(Pattern.FLUTES, 0.02, 5),),
        )
    elif kind == "corn":
        made.egg(
            (0, 0, 0),
            (0.25, 0.8, 0.25),
            details=(Detail(Pattern.STUDS, 0.035, 5), Detail(Pattern.SCALES, 0.015, 5)),
        )
        for k in range(4):
            rotation = turn(y=1.57 * k) @ turn(x=0.3)
            made.prism(
                leaf(1.0, 0.42),
                rotation @ np.array([0, -0.8, 0.1]),
                0.03,
                rotation=rotation,
                round=0.02,
                blend=0.03,
                details=(Detail(Pattern.FLUTES, 0.01, 9),),
            )
        made.limb((0, -0.95, 0), (0, -0.6, 0), 0.09, 0.12, blend=0.05)
    elif kind == "grapes":
        made.tube(
            [(0, 0.9, 0), (0, 0.5, 0), (0.03, -0.7, 0)],
            [0.05, 0.06, 0.04],
            **made.coat("bark", deep=0.5),
        )
        for k in range(60):
            t = (k + 0.5) / 60
            a, far = k * 2.39996, 0.42 * math.sqrt(1 - t) * (0.55 + 0.45 * (k % 2))
            made.egg(
                (far * math.sin(a), 0.5 - 1.25 * t, far * math.cos(a)), (0.13,) * 3, blend=0.012
            )
    else:
        made.revolve(
            profile([-0.6, -0.68, -0.3, 0.2, 0.5, 0.45], [0.08, 0.3, 0.66, 0.7, 0.3, 0.05]),
            **made.coat("skin", deep=0.7),
        )
        made.tube(
            [(0, 0.35, 0), (0.03, 0.6, 0), (0.12, 0.8, 0)],
            [0.04, 0.04, 0.055],
            blend=0.03,
            **made.coat("bark", deep=0.4),
        )
        made.prism(
            leaf(0.45, 0.24),
            (0.05, 0.6, 0),
            0.026,
            rotation=turn(y=1.2) @ turn(x=1.0),
            round=0.018,
            blend=0.02,
        )


def _potted(made: Maker) -> None:
    u = made.rng.uniform
    made.revolve(
        profile([-0.9, -0.5, -0.3, -0.24], [0.28, 0.38, 0.44, 0.46], 0.06),
        **made.coat("ornate", "clay"),
    )
    made.cylinder((0, -0.42, 0), 0.37, 0.08, blend=0.01, **made.coat("rubble", deep=0.8))
    count = int(u(7, 13))
    for k in range(count):
        a, out, tall = 2.39996 * k, u(0.2, 0.6), u(0.5, 1.15)
        way = np.array([math.sin(a), 0, math.cos(a)])
        root = way * 0.1 + (0, -0.42, 0)
        end = root + way * out + (0, tall, 0)
        made.tube(
            [root, root + way * out * 0.3 + (0, tall * 0.6, 0), end],
            [0.05, 0.04, 0.028],
            blend=0.02,
        )
        rotation = turn(y=a) @ turn(x=u(0.5, 1.4))
        made.prism(
            leaf(u(0.3, 0.48), u(0.2, 0.3)),
            end - rotation @ np.array([0, 0.05, 0]),
            0.026,
            rotation=rotation,
            round=0.018,
            blend=0.02,
            details=(Detail(Pattern.FUR, 0.012, 9),),
        )
