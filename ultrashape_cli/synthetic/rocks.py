"""Rocks, crystals and terrain."""

from __future__ import annotations

import math

import numpy as np

from ultrashape_cli.synthetic.blends import Detail, Part, Pattern, turn, turn_up
from ultrashape_cli.synthetic.maker import Maker
from ultrashape_cli.synthetic.outlines import height_map


def rock(rng: np.random.Generator) -> list[Part]:
    """Returns the parts of a rock, a cluster of crystals, a pile, an arch of stone or bones."""
    made = Maker(rng)
    u = made.rng.uniform
    kind = made.choose("boulder", "boulder", "crystals", "pile", "layers", "arch")
    coat = made.coat("stone", "rubble", "bark", deep=1.2)
    if kind == "crystals":
        made.gem((0, -0.75, 0), (0.7, 0.25, 0.7), 30, 0.25, **made.coat("stone", deep=1.2))
        for _ in range(int(u(6, 13))):
            way = u((-0.7, 0.6, -0.7), (0.7, 1.2, 0.7))
            way /= np.linalg.norm(way)
            long, wide = u(0.3, 0.75), u(0.09, 0.18)
            at = np.array([0, -0.75, 0]) + way * (1, 0.1, 1) * 0.35 + way * long
            tilt = turn_up(way) @ turn(y=u(0, 1))
            made.cylinder(
                at, wide, long, rotation=tilt, sides=6, details=(Detail(Pattern.NOISE, 0.01, 4),)
            )
            made.cone(
                at + way * (long + wide * 0.7),
                wide * 1.02,
                wide * 0.75,
                0.01,
                rotation=tilt,
                sides=6,
            )
    elif kind == "pile":
        for k in range(16):
            t = k / 16
            at = u((-0.6, 0, -0.6), (0.6, 0, 0.6)) * (1 - t) + (0, -0.8 + 1.2 * t, 0)
            made.gem(at, u(0.22, 0.42, 3), int(u(14, 30)), 0.3, blend=0.015, **made.coat("stone"))
        made.gem((0, -0.6, 0), (0.6, 0.4, 0.6), 20, 0.2)
    elif kind == "layers":
        for k in range(9):
            size = u(0.4, 0.8) * (1 - 0.04 * k)
            made.gem(
                (u(-0.1, 0.1), -0.8 + 0.19 * k, u(-0.1, 0.1)),
                (size, 0.16, size * u(0.7, 1)),
                40,
                0.12,
                blend=0.02,
                **coat,
            )
    elif kind == "arch":
        points = [
            (-0.65, -0.9, 0),
            (-0.55, 0, u(-0.1, 0.1)),
            (u(-0.1, 0.1), u(0.4, 0.7), 0),
            (0.6, 0.1, 0),
            (0.65, -0.9, 0),
        ]
        made.tube(
            points,
            u(0.2, 0.36, 5),
            details=(
                Detail(Pattern.NOISE, 0.045, 2.5),
                Detail(Pattern.CRACKS, 0.014, 4),
                Detail(Pattern.NOISE, 0.012, 9),
            ),
        )
        for x in (-0.65, 0.65):
            made.gem((x, -0.75, 0), u(0.3, 0.45, 3), 24, 0.3, blend=0.08, **coat)
    else:
        made.gem((0, 0, 0), u(0.6, 0.95, 3), int(u(14, 60)), u(0.1, 0.35), **coat)
        for _ in range(int(u(1, 5))):
            way = made.rng.normal(size=3)
            way /= np.linalg.norm(way)
            made.gem(way * 0.6, u(0.25, 0.5, 3), 20, 0.3, blend=0.06, cut=made.chance(0.5), **coat)
    return made.parts


def terrain(rng: np.random.Generator) -> list[Part]:
    """Returns the parts of a square of land: hills, peaks, dunes, a canyon, islands, a crater."""
    made = Maker(rng)
    u = made.rng.uniform
    side = 64
    x, z = np.meshgrid(*(np.linspace(-1, 1, side),) * 2, indexing="ij")
    rough = height_map(rng, side, 5)
    kind = made.choose("hills", "peaks", "dunes", "canyon", "crater", "terraces")
    if kind == "peaks":
        heights = 0.25 * height_map(rng, side, 2) + 0.55 * (1 - abs(rough)) * np.exp(
            -1.5 * (x * x + z * z)
        )
    elif kind == "dunes":
        wave = 5 * (x * math.cos(0.4) + z * math.sin(0.4)) + rough
        heights = 0.14 * (abs(np.sin(wave)) * 2 - 1) + 0.12 * height_map(rng, side, 2)
    elif kind == "canyon":
        bed = z * 0 + 0.35 * np.sin(2.5 * z + u(0, 6)) + 0.1 * rough
        heights = np.clip(3.2 * abs(x - bed) - 0.5, -0.4, 0.3) + 0.06 * rough
    elif kind == "crater":
        far = np.hypot(x, z)
        heights = (
            0.4 * np.exp(-(((far - 0.55) / 0.16) ** 2))
            - 0.2 * (far < 0.5) * (1 - far / 0.5)
            + 0.07 * rough
        )
    else:
        heights = 0.25 * rough
        if kind == "terraces":
            steps = heights * 9
            heights = (np.floor(steps) + np.clip((steps - np.floor(steps)) * 4 - 1.5, 0, 1)) / 9
    made.relief(
        heights, (0, 0, 0), 0.95, u(0.5, 0.6), **made.coat("stone", "rubble", "bark", deep=0.8)
    )

    def ground(px: float, pz: float) -> float:
        i, k = (int((p / 0.95 + 1) / 2 * (side - 1)) for p in (px, pz))
        return float(heights[i, k])

    for _ in range(int(u(3, 14)) if kind != "dunes" else 3):
        px, pz = u(-0.85, 0.85, 2)
        y, scale = ground(px, pz), u(0.06, 0.13)
        if made.chance(0.5):
            made.gem((px, y, pz), scale * u(0.8, 1.5, 3), 18, 0.3, blend=0.02)
        else:
            made.limb((px, y - 0.05, pz), (px, y + scale * 1.4, pz), 0.028, 0.025)
            made.cone(
                (px, y + scale * 1.9, pz),
                scale * 0.8,
                scale * 1.2,
                0.012,
                **made.coat("fur", deep=0.6),
            )
    return made.parts
