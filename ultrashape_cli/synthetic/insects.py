"""Insects and other small beasts with many legs."""

from __future__ import annotations

import math

import numpy as np

from ultrashape_cli.synthetic.blends import Detail, Part, Pattern, turn
from ultrashape_cli.synthetic.maker import Maker
from ultrashape_cli.synthetic.outlines import leaf, smooth_outline

_KINDS = ("beetle", "stag", "ant", "wasp", "butterfly", "spider", "scorpion", "mantis", "crab")


def insect(rng: np.random.Generator) -> list[Part]:
    """Returns the parts of an insect, spider, scorpion or crab that faces z."""
    made = _Insect(rng)
    made.body()
    made.legs()
    made.head()
    made.special()
    return made.parts


class _Insect(Maker):
    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__(rng)
        self.name = self.choose(*_KINDS)
        u = rng.uniform
        self.skin = self.coat("chitin", "chitin", "fur" if self.name == "spider" else "chitin")
        # Half-sizes: chest, abdomen (width, height, length), head.
        sizes = {
            "beetle": ((0.3, 0.2, 0.2), (0.42, 0.3, 0.5), 0.16),
            "stag": ((0.28, 0.17, 0.18), (0.36, 0.22, 0.5), 0.18),
            "ant": ((0.13, 0.14, 0.26), (0.22, 0.2, 0.32), 0.19),
            "wasp": ((0.2, 0.22, 0.24), (0.18, 0.18, 0.46), 0.17),
            "butterfly": ((0.1, 0.11, 0.2), (0.08, 0.08, 0.4), 0.1),
            "spider": ((0.24, 0.14, 0.26), (0.32, 0.28, 0.4), 0.13),
            "scorpion": ((0.24, 0.12, 0.22), (0.22, 0.12, 0.4), 0.14),
            "mantis": ((0.1, 0.11, 0.34), (0.15, 0.13, 0.5), 0.14),
            "crab": ((0.52, 0.2, 0.38), (0.3, 0.15, 0.16), 0.12),
        }[self.name]
        self.chest, self.rear, self.size = (
            np.array(sizes[0]) * u(0.9, 1.12, 3),
            np.array(sizes[1]) * u(0.9, 1.12, 3),
            sizes[2] * u(0.9, 1.1),
        )
        self.waist = {"ant": 0.12, "wasp": 0.1, "spider": 0.02, "mantis": 0.02}.get(self.name, -0.1)
        self.behind = -self.chest[2] - self.waist - self.rear[2]
        self.front = self.chest[2] + self.size * 0.65

    def body(self) -> None:
        """Chest and abdomen, in rings or under wing cases."""
        lie = turn(x=math.pi / 2)
        c, r = self.chest, self.rear
        self.egg((0, 0, 0), (c[0], c[2], c[1]), rotation=lie, **self.skin)
        self.tube([(0, 0, -c[2] * 0.7), (0, 0, self.behind + r[2] * 0.6)],
                  [0.05 + 0.1 * c[1], 0.05 + 0.1 * c[1]], steps=1, blend=0.04)  # fmt: skip
        sag = {"wasp": -0.12, "ant": -0.05, "mantis": -0.05}.get(self.name, 0.0)
        at = np.array([0, sag, self.behind])
        rings = (Detail(Pattern.RINGS, 0.03, 0.9 / r[2] + 2), *self.skin["details"][:1])
        self.egg(at, (r[0], r[2], r[1]), rotation=lie, blend=0.03, details=rings)
        if self.name in ("beetle", "stag"):
            for side in (-1, 1):
                case = at + (side * 0.02, r[1] * 0.12, 0.02)
                self.egg(case, (r[0] * 0.99, r[2] * 1.03, r[1]), rotation=lie,
                         **self.coat("chitin", "ornate", "metal"))  # fmt: skip
            self.box((0, r[1] + 0.1, self.behind - 0.05), (0.016, 0.22, r[2]), cut=True, blend=0.02)
            if self.name == "beetle" and self.chance(0.6):
                self.tube([(0, c[1] * 0.6, 0.05), (0, c[1] + 0.2, 0.25), (0, c[1] + 0.18, 0.6)],
                          [0.1, 0.08, 0.03], blend=0.06)  # fmt: skip

    def leg(self, side: int, root: np.ndarray, angle: float, long: float, rise: float,
            thick: float) -> None:  # fmt: skip
        """Three segments: out and up, down, a foot."""
        out = np.array([side * math.cos(angle), 0.0, math.sin(angle)])
        low = -self.drop
        knee = root + out * long * 0.42 + (0, rise, 0)
        shin = root + out * long * 0.85
        shin[1] = low + 0.08
        foot = root + out * long * 1.08
        foot[1] = low
        self.limb(root, knee, thick, thick * 0.8, blend=0.02, **self.skin)
        self.limb(knee, shin, thick * 0.8, thick * 0.55, blend=0.008, **self.skin)
        self.limb(shin, foot, thick * 0.6, thick * 0.45, blend=0.008)
        for k in (0.3, 0.6):
            at = knee + (shin - knee) * k
            self.limb(at, at + out * thick + (0, thick * 1.2, 0), thick * 0.3, 0.012, blend=0.01)

    def legs(self) -> None:
        """Six, or eight for spiders, scorpions and crabs."""
        u = self.rng.uniform
        count = 4 if self.name in ("spider", "scorpion", "crab") else 3
        if self.name == "mantis":
            count = 2
        long = {"spider": 0.8, "mantis": 0.75, "ant": 0.7, "crab": 0.55}.get(self.name, 0.52)
        long *= u(0.9, 1.1)
        rise = {"spider": 0.35, "mantis": 0.3, "crab": 0.2}.get(self.name, 0.14) * u(0.8, 1.2)
        self.drop = self.chest[1] + {"spider": 0.2, "mantis": 0.35, "ant": 0.2}.get(self.name, 0.14)
        thick = {"beetle": 0.055, "stag": 0.055, "crab": 0.065, "butterfly": 0.03}.get(
            self.name, 0.042
        )
        for side in (-1, 1):
            for k in range(count):
                t = k / (count - 1)
                place = np.array([side * self.chest[0] * 0.75, -self.chest[1] * 0.3,
                                  self.chest[2] * (0.7 - 1.4 * t)])  # fmt: skip
                self.leg(side, place, 0.75 - 1.5 * t + u(-0.12, 0.12), long, rise, thick)

    def head(self) -> None:
        """Head, eyes, jaws and feelers."""
        s, u = self.size, self.rng.uniform
        at = np.array([0, 0.0, self.front])
        if self.name == "mantis":
            at += (0, 0.1, 0.04)
            self.limb((0, 0, self.chest[2] * 0.7), at, 0.05, 0.05, blend=0.03)
        wide = 1.25 if self.name in ("mantis", "ant", "stag") else 1.0
        self.egg(at, (s * wide, s * 0.85, s), blend=0.04, **self.skin)
        big = {"wasp": 0.5, "mantis": 0.5, "butterfly": 0.5}.get(self.name, 0.3)
        for side in (-1, 1):
            eye = at + s * np.array([side * (0.8 * wide), 0.3, 0.35])
            if self.name == "crab":
                self.limb(at + (side * s, 0.05, 0), eye + (side * 0.03, 0.17, 0.05), 0.035, 0.03)
                eye = eye + (side * 0.03, 0.19, 0.05)
            self.egg(eye, (s * big, s * big * 1.25, s * big), blend=0.008,
                     details=(Detail(Pattern.STUDS, 0.008, 14),))  # fmt: skip
            root = at + s * np.array([side * 0.35, 0.55, 0.7])
            sweep, lift = u(0.15, 0.4), u(0.1, 0.35)
            if self.name not in ("spider", "crab", "scorpion"):
                tip = root + (side * sweep, lift, 0.45)
                self.tube([root, root + (side * sweep * 0.3, lift, 0.15), tip],
                          [0.032, 0.026, 0.022], blend=0.012)  # fmt: skip
                if self.name == "butterfly":
                    self.egg(tip, (0.04,) * 3, blend=0.01)
            jaw = 0.75 if self.name == "stag" else 0.2
            base = at + s * np.array([side * 0.5, -0.15, 0.75])
            self.tube([base, base + (side * jaw * 0.4, 0.02, jaw * 0.5),
                       base + (side * jaw * 0.05 - side * 0.03, 0.02, jaw)],
                      np.array([1, 0.8, 0.35]) * (0.07 if jaw > 0.5 else 0.045),
                      blend=0.015)  # fmt: skip
            if self.name == "stag":
                tooth = base + (side * jaw * 0.38, 0.02, jaw * 0.55)
                self.limb(tooth, tooth - (side * 0.13, 0, -0.03), 0.035, 0.014, blend=0.02)

    def special(self) -> None:
        """Wings, a sting, claws."""
        u = self.rng.uniform
        for side in (-1, 1):
            if self.name == "wasp":
                for k, long in enumerate((0.95, 0.65)):
                    self.wing((side * 0.1, self.chest[1] * 0.85, 0.05 - 0.15 * k), long, 0.28,
                              side * (0.45 + 0.3 * k), 0.2)  # fmt: skip
            elif self.name == "butterfly":
                self.flat_wings(side)
            elif self.name in ("scorpion", "crab"):
                self.claw(side, u(0.8, 1.15))
            elif self.name == "mantis":
                root = np.array([side * 0.1, 0.0, self.chest[2] * 0.7])
                elbow = root + (side * 0.14, -0.05, 0.3)
                hand = elbow + (side * 0.02, 0.3, 0.05)
                self.limb(root, elbow, 0.05, 0.055, blend=0.02)
                self.limb(elbow, hand, 0.06, 0.04, blend=0.01, **self.skin)
                self.limb(hand, hand + (0, -0.22, 0.16), 0.04, 0.014, blend=0.01)
                for k in range(4):
                    at = elbow + (hand - elbow) * (0.2 + 0.2 * k)
                    self.limb(at, at + (0, 0, 0.09), 0.022, 0.01, blend=0.01)
                self.wing((side * 0.07, 0.12, -0.1), 1.0, 0.24, side * 0.12, 0.0)
        if self.name == "scorpion":
            end = self.behind - self.rear[2] * 0.7
            points = [(0, 0, end), (0, 0.12, end - 0.3), (0, 0.5, end - 0.35),
                      (0, 0.75, end - 0.05), (0, 0.72, end + 0.2)]  # fmt: skip
            self.tube(points, [0.1, 0.09, 0.08, 0.07, 0.06], blend=0.03,
                      details=(Detail(Pattern.RINGS, 0.022, 7),))  # fmt: skip
            self.egg((0, 0.7, end + 0.25), (0.08, 0.075, 0.11), blend=0.02)
            self.limb((0, 0.68, end + 0.32), (0, 0.56, end + 0.46), 0.045, 0.012, blend=0.015)
        elif self.name == "wasp":
            end = self.behind - self.rear[2]
            self.limb((0, -0.13, end + 0.1), (0, -0.18, end - 0.16), 0.05, 0.012, blend=0.02)

    def wing(self, root: tuple[float, float, float], long: float, wide: float, out: float,
             lift: float) -> None:  # fmt: skip
        """A clear wing that points backwards, with veins."""
        # Leaf in xy, laid down so that its length runs backwards.
        rotation = turn(y=-out) @ turn(x=-math.pi / 2 + lift)
        self.prism(leaf(long, wide, 0.65), root, 0.022, rotation=rotation, round=0.012, blend=0.02)
        for k in (-0.3, 0.0, 0.3):
            tip = rotation @ np.array([k * wide, long * 0.85, 0.015])
            self.limb(root, np.array(root) + tip, 0.026, 0.016, blend=0.02)

    def flat_wings(self, side: int) -> None:
        """Large wings with scalloped edges, rays and spots."""
        u = np.random.default_rng(self._noise).uniform
        lift = side * u(0.1, 0.6)
        rotation = turn(z=lift) @ turn(x=-math.pi / 2)
        tall, wide = u(0.7, 0.95), u(0.8, 1.0)
        fore = [(0.0, 0.0), (0.25, -0.35 * tall), (wide, -0.75 * tall), (wide * 0.95, -0.2),
                (0.55, 0.08), (0.1, 0.1)]  # fmt: skip
        hind = [(0.02, 0.05), (0.5, 0.0), (wide * 0.8, 0.25), (0.55, tall * 0.75),
                (0.3, tall * 0.95), (0.1, 0.4)]  # fmt: skip
        for outline in (fore, hind):
            points = smooth_outline([(side * x, y) for x, y in outline][::side])
            root = (side * self.chest[0] * 0.4, self.chest[1] * 0.5, 0)
            self.prism(points * (1, -1), root, 0.026, rotation=rotation, round=0.014, blend=0.02,
                       details=(Detail(Pattern.PEBBLES, 0.014, 5),))  # fmt: skip
            middle = points.mean(axis=0)
            for at in points[::3]:
                a, b = (np.array([p[0], -p[1], 0.02]) for p in (middle * 0.12, at * 0.92))
                self.limb(np.array(root) + rotation @ a, np.array(root) + rotation @ b, 0.028,
                          0.018, blend=0.02)  # fmt: skip

    def claw(self, side: int, scale: float) -> None:
        """An arm and a pair of pincers."""
        root = np.array([side * self.chest[0] * 0.8, 0, self.chest[2] * 0.6])
        elbow = root + (side * 0.28, 0.06, 0.22)
        hand = elbow + (-side * 0.06, 0.02, 0.3)
        self.limb(root, elbow, 0.055, 0.06, blend=0.02, **self.skin)
        self.limb(elbow, hand, 0.065, 0.075, blend=0.012, **self.skin)
        self.egg(hand + (0, 0, 0.1), (0.13 * scale, 0.09 * scale, 0.17), blend=0.02, **self.skin)
        for way, thick in ((1, 0.06), (-1, 0.045)):
            base = hand + (way * 0.07 * scale, 0, 0.2)
            self.tube([base, base + (way * 0.08 * scale, 0, 0.14), base + (-way * 0.03, 0, 0.32)],
                      np.array([1, 0.8, 0.3]) * thick * scale, blend=0.012)  # fmt: skip
