"""Chains, ropes, knots and lattices."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ultrashape_cli.synthetic.blends import Part, turn, turn_up
from ultrashape_cli.synthetic.maker import Maker
from ultrashape_cli.synthetic.outlines import smooth_curve


def chain(rng: np.random.Generator) -> list[Part]:
    """Returns the parts of a chain, rope, knot or wreath."""
    made = Maker(rng)
    u = made.rng.uniform
    kind = made.choose("chain", "chain", "rope", "knot", "beads")
    a = np.linspace(0, 2 * math.pi, 60)
    shape = made.choose("loop", "wave", "coil")
    if kind == "knot":
        p, q = [(2, 3), (3, 2), (2, 5), (3, 4)][made.rng.integers(4)]
        far = 0.58 + 0.24 * np.cos(q * a)
        path = np.column_stack([far * np.cos(p * a), 0.3 * np.sin(q * a), far * np.sin(p * a)])
    elif shape == "loop":
        path = np.column_stack([0.75 * np.cos(a), 0.15 * np.sin(2 * a + u(0, 6)), 0.6 * np.sin(a)])
    elif shape == "wave":
        path = np.column_stack(
            [np.linspace(-0.95, 0.95, 60), 0.35 * np.sin(a * u(0.8, 1.6)), 0.25 * np.cos(a)]
        )
    else:
        path = np.column_stack(
            [(0.75 - 0.05 * a) * np.cos(2 * a), 0.11 * a - 0.3, (0.75 - 0.05 * a) * np.sin(2 * a)]
        )
    if kind in ("rope", "knot"):
        strands, thick = (3, u(0.06, 0.085)) if kind == "rope" else (1, u(0.09, 0.13))
        # Lay and strand follow the path's own length.
        long = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))])
        tangent = np.gradient(path, axis=0)
        tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
        for k in range(strands):
            turns = long * 9 + 2 * math.pi * k / strands
            offset = [
                turn_up(t) @ np.array([math.sin(w), 0, math.cos(w)])
                for t, w in zip(tangent, turns, strict=True)
            ]
            line = path + np.array(offset) * thick * (1.1 if strands > 1 else 0)
            coat = (
                made.coat("fur", deep=0.6, fine=1.3)
                if kind == "rope"
                else made.coat("ornate", "scales", "metal")
            )
            made.tube(line, np.full(60, thick), steps=2, blend=0.012, **coat)
        return made.parts
    _links(made, path, kind)
    return made.parts


def _links(made: Maker, path: np.ndarray, kind: str) -> None:
    """Links or beads along a path `[N, 3]`."""
    u = made.rng.uniform
    dense = smooth_curve(path, 20)
    along = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(dense, axis=0), axis=1))])
    wire = u(0.036, 0.05)
    link, half = u(0.14, 0.19), u(0.075, 0.095)
    step = 2 * link - 1.7 * wire if kind == "chain" else u(0.15, 0.22)
    coat = made.coat("metal", "metal", "ornate", deep=0.5)
    for k in range(int(along[-1] / step)):
        at, ahead = (
            np.array([np.interp(s, along, dense[:, j]) for j in range(3)])
            for s in ((k + 0.4) * step, (k + 0.6) * step)
        )
        way = (ahead - at) / np.linalg.norm(ahead - at)
        if kind == "beads":
            made.egg(
                (at + ahead) / 2,
                (step * 0.54,) * 3,
                rotation=turn_up(way),
                blend=0.01,
                **made.coat("ornate", deep=0.6),
            )
            continue
        rotation = turn_up(way) @ turn(y=(k % 2) * math.pi / 2 + 0.3)
        ring = [
            (
                half * math.cos(t),
                (link - half - wire) * np.sign(math.sin(t)) + half * math.sin(t),
                0,
            )
            for t in np.linspace(0.05, 2 * math.pi + 0.05, 19)
        ]
        made.tube(
            np.array(ring) @ rotation.T + (at + ahead) / 2,
            np.full(19, wire),
            steps=1,
            blend=0.006,
            **coat,
        )
    if kind == "chain" and made.chance(0.4):
        made.box(
            dense[0] - (0, 0.1, 0),
            (0.13, 0.12, 0.07),
            round=0.03,
            blend=0.01,
            **made.coat("ornate", deep=0.5),
        )


def lattice(rng: np.random.Generator) -> list[Part]:
    """Returns the parts of a truss, cage, sieve, basket or a ball of struts."""
    made = Maker(rng)
    u = made.rng.uniform
    kind = made.choose("cubic", "truss", "cage", "ball", "basket", "screen")
    rod = u(0.034, 0.05)
    knot = rod * u(1.0, 1.9)
    coat = made.coat("metal", "wood", "ornate", deep=0.4)
    if kind in ("cubic", "truss"):
        _truss(made, kind, rod, knot, coat)
    elif kind == "ball":
        _ball(made, rod, knot, coat)
    elif kind in ("cage", "basket"):
        _basket(made, kind, rod, coat)
    else:
        _screen(made, coat)
    return made.parts


def _truss(made: Maker, kind: str, rod: float, knot: float, coat: dict[str, Any]) -> None:
    """A cube of struts, braced or not."""
    u = made.rng.uniform
    n = int(u(2, 4))
    grid = np.linspace(-0.8, 0.8, n + 1)
    nodes = np.array([(x, y, z) for x in grid for y in grid for z in grid])
    step = grid[1] - grid[0]
    for i, a in enumerate(nodes):
        made.egg(a, (knot,) * 3, blend=0.015)
        for b in nodes[i + 1 :]:
            far = np.linalg.norm(b - a)
            # A brace in every other field.
            brace = kind == "truss" and far < step * 1.5 and round((a + b).sum() / step) % 2 == 0
            if far < step * 1.01 or brace:
                made.limb(a, b, rod, rod, blend=0.015, **coat)


def _ball(made: Maker, rod: float, knot: float, coat: dict[str, Any]) -> None:
    """Struts over a ball."""
    u = made.rng.uniform
    count = int(u(20, 40))
    place = np.arange(count) + 0.5
    y = 1 - 2 * place / count
    around, turns = np.sqrt(1 - y * y), place * 2.39996
    nodes = 0.85 * np.column_stack([around * np.sin(turns), y, around * np.cos(turns)])
    for i, a in enumerate(nodes):
        made.egg(a, (knot * 1.2,) * 3, blend=0.015)
        far = np.linalg.norm(nodes - a, axis=1)
        for j in np.argsort(far)[1:6]:
            if j > i:
                made.limb(a, nodes[j], rod, rod, blend=0.02, **coat)
    if made.chance(0.5):
        made.limb(nodes[0], nodes[-1], rod, rod, blend=0.02)
        made.egg((0, 0, 0), (0.3,) * 3, blend=0.02, **made.coat("ornate"))


def _basket(made: Maker, kind: str, rod: float, coat: dict[str, Any]) -> None:
    """A cage of bars, or a woven basket with a handle."""
    u = made.rng.uniform
    count, woven = int(u(10, 16)), kind == "basket"
    heights = np.linspace(-0.8, 0.8 if not woven else 0.3, 7)
    radii = (
        0.62 * np.sqrt(np.clip(1 - (np.clip(heights - 0.2, 0, 1) / 0.75) ** 2, 0.02, 1))
        if not woven
        else np.linspace(0.45, 0.72, 7)
    )
    for k in range(count):
        a = 2 * math.pi * k / count
        made.tube(
            np.column_stack([radii * math.sin(a), heights, radii * math.cos(a)]),
            np.full(7, rod),
            blend=0.01,
            **coat,
        )
    for j in range(0, 7, 1 if woven else 2):
        wave = 0.035 if woven else 0.0
        ring = [
            (
                (radii[j] + wave * math.cos(count * t / 2 + math.pi * j)) * math.sin(t),
                heights[j],
                (radii[j] + wave * math.cos(count * t / 2 + math.pi * j)) * math.cos(t),
            )
            for t in np.linspace(0, 2 * math.pi, count * 2 + 1)
        ]
        made.tube(
            ring, np.full(len(ring), rod * (1.3 if woven else 1)), steps=2, blend=0.01, **coat
        )
    made.cylinder(
        (0, heights[0], 0), radii[0] * 1.1, 0.05, round=0.02, blend=0.02, **made.coat("planks")
    )
    if woven:
        made.tube(
            [(-0.7, 0.3, 0), (-0.55, 0.75, 0), (0, 0.95, 0), (0.55, 0.75, 0), (0.7, 0.3, 0)],
            [0.055] * 5,
            **made.coat("ornate", deep=0.4),
        )
    else:
        made.ring((0, 0.93, 0), (0.12, 0.04), rotation=turn(x=math.pi / 2), blend=0.02)


def _screen(made: Maker, coat: dict[str, Any]) -> None:
    """A plate with rows of holes."""
    u = made.rng.uniform
    made.box((0, 0, 0), (0.85, 0.85, 0.07), round=0.02, **made.coat("metal", "wood"))
    n, hole = int(u(4, 8)), made.choose("round", "hex", "square")
    pitch = 1.5 / n
    for i in range(n):
        for j in range(n):
            x = -0.75 + pitch * (i + 0.5 + 0.5 * (j % 2) * (hole == "hex") - 0.25 * (hole == "hex"))
            at = (x, -0.75 + pitch * (j + 0.5), 0)
            sides = {"round": 0, "hex": 6, "square": 4}[hole]
            made.cylinder(
                at,
                pitch * 0.36,
                1,
                rotation=turn(x=math.pi / 2),
                sides=sides,
                cut=True,
                blend=0.015,
            )
    made.box((0, -0.9, 0.0), (0.6, 0.07, 0.25), round=0.03, blend=0.03)
