"""Heads and busts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ultrashape_cli.synthetic.blends import Detail, Part, Pattern, turn
from ultrashape_cli.synthetic.maker import Maker
from ultrashape_cli.synthetic.outlines import profile


def head(rng: np.random.Generator) -> list[Part]:
    """Returns the parts of a head or bust that faces z: old, young, helmeted, a skull."""
    made = _Head(rng)
    made.skull()
    made.eyes()
    made.nose()
    made.mouth()
    if made.name != "skull":
        made.ears()
        made.neck()
        made.hair()
        if made.name == "helmet":
            made.helmet()
        elif made.name == "crown":
            made.crown()
    return made.parts


class _Head(Maker):
    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__(rng)
        u = rng.uniform
        self.name = self.choose("plain", "plain", "plain", "helmet", "crown", "skull", "beast")
        self.wide, self.tall, self.deep = u(0.31, 0.39), u(0.4, 0.5), u(0.38, 0.45)
        self.jaw, self.brow = u(0.6, 0.95), u(0.03, 0.09)
        self.age = u(0, 1)
        self.skin: dict[str, Any] = {"details": ()}
        if self.name == "skull":
            self.skin = self.coat("stone", deep=0.5)
        elif self.name == "beast":
            self.skin = self.coat("hide", "scales", deep=0.6)
        elif self.age > 0.4:
            wrinkles = Detail(Pattern.WRINKLES, 0.012 * self.age, u(7, 11))
            self.skin = {"details": (wrinkles, Detail(Pattern.NOISE, 0.006, u(8, 12)))}
        else:
            self.skin = {"details": (Detail(Pattern.NOISE, 0.007, u(4, 9)),)}
        self.eye_y, self.eye_x = u(-0.02, 0.04), self.wide * u(0.4, 0.48)
        self.face = self.deep * 0.86
        """z of the face's plane at the eyes"""
        self.mouth_y = -self.tall * u(0.58, 0.68)

    def skull(self) -> None:
        """Cranium, face, cheeks, jaw and chin."""
        w, t, d = self.wide, self.tall, self.deep
        self.egg((0, 0.1, -0.04), (w, t * 0.82, d), **self.skin)
        self.egg((0, -t * 0.3, d * 0.2), (w * 0.82, t * 0.72, d * 0.72), taper=0.12, blend=0.12,
                 **self.skin)  # fmt: skip
        for side in (-1, 1):
            corner = np.array([side * w * self.jaw * 0.8, -t * 0.55, 0.02])
            chin = np.array([side * 0.06, -t * 0.93, d * 0.62])
            self.limb(corner, chin, 0.1, 0.085, blend=0.1, **self.skin)
            cheek = (side * w * 0.58, -t * 0.2, d * 0.62)
            self.egg(cheek, (0.11, 0.08, 0.1), blend=0.09, **self.skin)
            if self.age > 0.65:
                fold = [(side * 0.1, -t * 0.3, d * 0.98), (side * 0.16, -t * 0.5, d * 0.93),
                        (side * 0.15, -t * 0.68, d * 0.85)]  # fmt: skip
                self.tube(fold, [0.012, 0.016, 0.01], cut=True, blend=0.04)
        self.egg((0, -t * 0.95, d * 0.66), (0.09, 0.075, 0.08), blend=0.07, **self.skin)
        if self.age > 0.5 and self.name != "skull":
            for k in range(3):
                y = 0.27 + 0.075 * k
                line = [(x, y + 0.012 * math.cos(9 * x), d * 1.02 - 1.5 * x * x - 0.09 * k)
                        for x in (-0.18, -0.09, 0, 0.09, 0.18)]  # fmt: skip
                self.tube(line, [0.006, 0.01, 0.011, 0.01, 0.006], cut=True, blend=0.03)

    def eyes(self) -> None:
        """Sockets, balls, lids and brows."""
        y, z, size = self.eye_y, self.face, self.rng.uniform(0.075, 0.095)
        hair = self.coat("fur", deep=0.4) if self.chance(0.6) else {}
        for side in (-1, 1):
            x = side * self.eye_x
            socket = (0.12, 0.1, 0.11) if self.name == "skull" else (0.13, 0.085, 0.1)
            self.egg(
                (x, y, z + 0.03), socket, cut=True, blend=0.03 if self.name == "skull" else 0.07
            )
            if self.name == "skull":
                continue
            ball = np.array([x, y, z - 0.045])
            self.egg(ball, (size,) * 3)
            self.egg(ball + (0, 0, size * 0.95), (0.034, 0.034, 0.022), cut=True, blend=0.006)
            for way, drop in ((1, 0.45), (-1, 0.62)):
                lid = [ball + size * np.array([s, way * drop * (1 - s * s) - way * 0.05,
                                               0.2 + 0.85 * math.sqrt(1.05 - s * s)])
                       for s in (-0.98, -0.5, 0, 0.5, 0.98)]  # fmt: skip
                self.tube(lid, [0.016, 0.025, 0.027, 0.025, 0.016], steps=3, blend=0.015)
            arch = self.rng.uniform(-0.02, 0.05)
            brow = [(x - side * 0.12, y + 0.1, z + 0.06), (x, y + 0.13 + arch, z + 0.05),
                    (x + side * 0.14, y + 0.09, z - 0.04)]  # fmt: skip
            self.tube(brow, [self.brow * 0.8 + 0.015, self.brow * 0.6 + 0.02, 0.02], blend=0.05,
                      **hair)  # fmt: skip

    def nose(self) -> None:
        """A bridge, tip, wings and holes; of a skull, a hole."""
        u, z = self.rng.uniform, self.face
        tip_y = self.mouth_y * u(0.5, 0.6)
        if self.name == "skull":
            for side in (-1, 1):
                self.limb((side * 0.015, tip_y * 0.5, z + 0.1), (side * 0.05, tip_y, z + 0.1), 0.03,
                          0.04, cut=True, blend=0.03)  # fmt: skip
            return
        if self.name == "beast":
            snout = u(0.12, 0.35)
            self.egg((0, tip_y * 1.15, z + 0.02), (0.2, 0.17, 0.15 + snout), blend=0.1, **self.skin)
            for side in (-1, 1):
                self.egg((side * 0.07, tip_y, z + 0.15 + snout), (0.04, 0.03, 0.05), cut=True,
                         blend=0.03)  # fmt: skip
                tusk = (side * 0.13, self.mouth_y, z + 0.08 + snout * 0.5)
                self.tube(
                    [tusk, (side * 0.16, tip_y - 0.02, z + 0.14 + snout * 0.5)],
                    [0.035, 0.012],
                    steps=1,
                    blend=0.015,
                )
            return
        long, wide, hook = u(0.1, 0.19), u(0.055, 0.08), u(-0.02, 0.05)
        points = [(0, self.eye_y + 0.06, z + 0.0), (0, tip_y * 0.4, z + 0.06 + hook),
                  (0, tip_y, z + 0.02 + long)]  # fmt: skip
        self.tube(points, [0.035, wide * 0.75, wide], blend=0.045, **self.skin)
        for side in (-1, 1):
            wing = np.array([side * wide * 1.05, tip_y - 0.015, z + long * 0.55])
            self.egg(wing, (wide * 0.6, wide * 0.62, wide * 0.9), blend=0.025)
            self.egg(wing + (-side * 0.015, -wide * 0.6, 0.015), (0.022, 0.025, 0.035), cut=True,
                     blend=0.015)  # fmt: skip

    def mouth(self) -> None:
        """Lips, shut, open or with teeth."""
        u, y, z = self.rng.uniform, self.mouth_y, self.face + 0.01
        half, full, smile = u(0.11, 0.16), u(0.016, 0.03), u(-0.03, 0.04)
        teeth = self.name in ("skull", "beast") or self.chance(0.15)
        gape = u(0.05, 0.11) if teeth or self.chance(0.2) else 0.0
        spots = np.array([-1, -0.5, 0, 0.5, 1])
        bend = z + 0.015 - 0.09 * spots**2
        line = np.column_stack([half * spots, y + smile * spots**2, bend + 0.02])
        if gape:
            self.egg((0, y, z), (half * 0.95, gape, 0.14), cut=True, blend=0.03)
        else:
            self.tube(line, [0.008, 0.013, 0.011, 0.013, 0.008], cut=True, blend=0.03)
        if self.name != "skull":
            for way, thick in ((1, 0.8), (-1, 1.1)):
                lip = line + np.outer(1 - spots**2, (0, way * (full * 0.9 + gape), 0.012))
                self.tube(lip, full * thick * np.array([0.5, 1, 1.05, 1, 0.5]), blend=0.02)
        for way in (-1, 1) if teeth else ():
            for k in range(-3, 4):
                x = k * half * 0.27
                self.box((x, y + way * gape * 0.55, z + 0.0 - 3.0 * x * x),
                         (half * 0.12, gape * 0.6, 0.035), round=0.012, blend=0.006)  # fmt: skip

    def ears(self) -> None:
        """A rim, a bowl and a lobe; pointed for some."""
        point = 0.16 if self.name == "beast" or self.chance(0.15) else 0.0
        for side in (-1, 1):
            at = np.array([side * (self.wide * 0.98), -0.04, -0.03])
            self.egg(at, (0.045, 0.11, 0.075), rotation=turn(y=side * 0.4), blend=0.03)
            rim = [
                at
                + (
                    side * 0.03,
                    0.1 * math.sin(a) + point * max(0, math.sin(a)) ** 3,
                    0.075 * math.cos(a) - 0.01,
                )
                for a in np.linspace(-1.2, 4.2, 9)
            ]
            self.egg(at + (side * 0.045, 0, 0.005), (0.035, 0.06, 0.035), cut=True, blend=0.02)
            self.tube(rim, [0.022] * 9, steps=3, blend=0.02)

    def neck(self) -> None:
        """A neck, and shoulders or a socle."""
        u = self.rng.uniform
        thick = self.wide * u(0.52, 0.68)
        bottom = -self.tall * 1.55
        self.tube([(0, -0.1, -0.1), (0, -self.tall, -0.09), (0, bottom, -0.12)],
                  [thick, thick * 0.95, thick * 1.15], blend=0.08, **self.skin)  # fmt: skip
        for side in (-1, 1):
            self.tube([(side * self.wide * 0.75, -0.2, -0.15), (side * 0.05, bottom, 0.07)],
                      [0.05, 0.05], steps=1, blend=0.07)  # fmt: skip
        kind = self.choose("shoulders", "shoulders", "socle", "cut")
        dress = self.coat("cloth", "ornate", "plates", "scales")
        if kind == "shoulders":
            span = u(0.5, 0.68)
            self.egg((0, bottom - 0.22, -0.12), (span, 0.28, 0.27), blend=0.12, **dress)
            self.tube([(0.2 * math.sin(a), bottom - 0.02, -0.1 + 0.2 * math.cos(a))
                       for a in np.linspace(0, 2 * math.pi, 13)], [0.045] * 13, steps=2, blend=0.02,
                      **self.coat("ornate", deep=0.6))  # fmt: skip
            self.box((0, bottom - 0.65, -0.1), (1, 0.3, 1), cut=True, blend=0.02)
        if kind != "cut":
            heights = (
                np.array([-0.5, -0.42, -0.3, -0.12, 0.0]) + bottom - (kind == "shoulders") * 0.25
            )
            radii = [0.3, 0.3, 0.16, 0.14, 0.22]
            self.revolve(profile(heights, radii, steps=4), (0, 0, -0.1), blend=0.03,
                         **self.coat("stone", "ornate"))  # fmt: skip

    def hair(self) -> None:
        """Hair, plaits or none; a beard for some."""
        u = self.rng.uniform
        style = self.choose("short", "long", "bun", "bald", "curls")
        if self.name in ("helmet", "beast"):
            style = "bald"
        coat = self.coat("fur", deep=1.2)
        w, t, d = self.wide, self.tall, self.deep
        if style != "bald":
            self.egg((0, 0.2, -0.13), (w * 1.1, t * 0.78, d * 0.98), blend=0.02, **coat)
            fringe = [
                (x, 0.36 - 0.6 * x * x, d * 0.78 - 1.2 * x * x)
                for x in (-0.25, -0.12, 0, 0.12, 0.25)
            ]
            self.tube(fringe, [0.05, 0.06, 0.055, 0.06, 0.05], blend=0.08, **coat)
        if style == "long":
            for side in (-1, 1):
                lock = [(side * w * 0.9, 0.25, 0.0), (side * w * 1.12, -0.2, -0.08),
                        (side * w * u(0.9, 1.1), -t * 1.3, -0.05)]  # fmt: skip
                self.tube(lock, [0.13, 0.14, 0.07], blend=0.04, **coat)
            self.tube([(0, 0.2, -0.35), (0, -0.3, -0.4), (0, -t * 1.5, -0.32)], [0.25, 0.24, 0.12],
                      blend=0.05, **coat)  # fmt: skip
        elif style == "bun":
            self.egg((0, u(0.2, 0.5), -d * 1.15), (0.17, 0.15, 0.14), blend=0.02, **coat)
        elif style == "curls":
            for k in range(46):
                y = 1 - 1.3 * (k + 0.5) / 46
                ring, a = math.sqrt(1 - y * y), k * 2.39996
                way = np.array([ring * math.sin(a), y, ring * math.cos(a)])
                if way[2] < 0.45 or way[1] > 0.62:
                    at = np.array([0, 0.16, -0.1]) + way * (w * 1.06, t * 0.8, d * 0.95)
                    self.egg(at, (0.075,) * 3, blend=0.015,
                             details=(Detail(Pattern.RINGS, 0.014, 11),))  # fmt: skip
        if self.name != "beast" and self.chance(0.4):
            beard = self.coat("fur", deep=1.2)
            long = u(0.1, 0.4)
            self.tube(
                [(0, -t * 0.85, d * 0.6), (0, -t * 0.95 - long, d * 0.62)],
                [0.15, 0.06],
                steps=1,
                blend=0.04,
                **beard,
            )
            for side in (-1, 1):
                self.tube([(side * w * 0.93, -0.15, 0.05), (side * w * 0.8, -t * 0.55, d * 0.3),
                           (side * 0.08, -t * 0.85, d * 0.65)], [0.05, 0.085, 0.12], blend=0.04,
                          **beard)  # fmt: skip
                self.tube([(0.01 * side, self.mouth_y + 0.06, self.face + 0.06),
                           (side * 0.16, self.mouth_y - 0.02, self.face - 0.02)], [0.034, 0.02],
                          steps=1, blend=0.012, **beard)  # fmt: skip

    def helmet(self) -> None:
        """A cap with a rim, cheek plates and a crest."""
        w, t, d, u = self.wide, self.tall, self.deep, self.rng.uniform
        coat = self.coat("metal", "ornate", "plates")
        self.egg((0, 0.28, -0.06), (w * 1.2, t * 0.75, d * 1.16), **coat)
        ring = [(w * 1.2 * math.sin(a), 0.2 + 0.05 * math.cos(a), -0.06 + d * 1.16 * math.cos(a))
                for a in np.linspace(0, 2 * math.pi, 17)]  # fmt: skip
        self.tube(ring, [0.035] * 17, steps=2, blend=0.01)
        for side in (-1, 1) if self.chance(0.7) else ():
            self.egg((side * w * 1.08, -0.2, 0.1), (0.05, 0.3, 0.17), blend=0.02, **coat)
        if self.chance(0.6):
            line = [(0, 0.28 + t * 0.85 * math.sin(a), -0.06 + d * 1.25 * math.cos(a))
                    for a in np.linspace(0.4, 2.9, 9)]  # fmt: skip
            self.tube(line, np.full(9, u(0.06, 0.1)), steps=3, squash=1.6, blend=0.01,
                      **self.coat("fur", deep=1.2))  # fmt: skip

    def crown(self) -> None:
        """A band with points and stones."""
        w, d, count = self.wide, self.deep, int(self.rng.integers(5, 10))
        band = [(w * 1.12 * math.sin(a), 0.36, -0.06 + d * 1.08 * math.cos(a))
                for a in np.linspace(0, 2 * math.pi, 25)]  # fmt: skip
        self.tube(band, [0.05] * 25, steps=2, **self.coat("ornate", deep=0.6))
        for k in range(count):
            a = 2 * math.pi * k / count
            at = np.array([w * 1.12 * math.sin(a), 0.38, -0.06 + d * 1.08 * math.cos(a)])
            self.limb(at, at * (1.08, 1, 1.05) + (0, 0.26, 0), 0.05, 0.022, blend=0.015)
            self.egg(at * (1.09, 1, 1.07) + (0, 0.28, 0), (0.038,) * 3, blend=0.01)
            self.egg(at * (1.12, 1, 1.1) - (0, 0.02, 0), (0.034,) * 3, blend=0.008)
