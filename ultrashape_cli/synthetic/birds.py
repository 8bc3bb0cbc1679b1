"""Birds: perched, standing or in flight."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ultrashape_cli.synthetic.blends import Part, turn
from ultrashape_cli.synthetic.maker import Maker
from ultrashape_cli.synthetic.outlines import Points, leaf


@dataclass(frozen=True, slots=True)
class _Species:
    """Sizes in units of half the body's length."""

    girth: float
    neck: float
    leg: float
    beak: float
    beak_shape: str
    tail: float
    upright: float
    """angle of the body above level"""
    crest: str = "none"


_SPECIES = {
    "songbird": _Species(0.42, 0.1, 0.28, 0.22, "cone", 0.6, 0.5, "tuft"),
    "eagle": _Species(0.44, 0.2, 0.24, 0.3, "hook", 0.7, 0.8),
    "owl": _Species(0.52, 0.05, 0.15, 0.16, "hook", 0.4, 1.25, "horns"),
    "parrot": _Species(0.4, 0.12, 0.16, 0.28, "hook", 1.1, 0.95, "fan"),
    "heron": _Species(0.32, 0.8, 0.75, 0.65, "spear", 0.35, 0.6, "tuft"),
    "duck": _Species(0.46, 0.35, 0.18, 0.32, "bill", 0.35, 0.15),
    "rooster": _Species(0.45, 0.4, 0.36, 0.2, "cone", 0.0, 0.45, "comb"),
    "penguin": _Species(0.44, 0.12, 0.08, 0.25, "spear", 0.2, 1.45),
    "toucan": _Species(0.42, 0.14, 0.2, 0.75, "bow", 0.6, 0.8),
}


def bird(rng: np.random.Generator) -> list[Part]:
    """Returns the parts of a bird that faces z."""
    made = _Bird(rng)
    made.body()
    made.head()
    made.wings()
    made.tail()
    made.legs()
    return made.parts


class _Bird(Maker):
    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__(rng)
        u = rng.uniform
        self.name = self.choose(*_SPECIES)
        self.kind = _SPECIES[self.name]
        self.flying = self.name not in ("penguin", "rooster") and self.chance(0.4)
        angle = u(0.0, 0.3) if self.flying else self.kind.upright + u(-0.15, 0.15)
        self.along = np.array([0, np.sin(angle), np.cos(angle)])
        self.back = np.array([0, np.cos(angle), -np.sin(angle)])
        self.frame = np.stack([[1.0, 0, 0], self.along, -self.back], axis=1)
        """Of the body: y towards the head, z towards the belly."""
        self.girth = self.kind.girth * u(0.9, 1.1)
        self.plumage = self.coat("feathers")

    def body(self) -> None:
        """Trunk, breast and neck."""
        g = self.girth
        size = (g, 0.62, g * 0.92)
        self.egg((0, 0, 0), size, rotation=self.frame, taper=0.15, **self.plumage)
        breast = self.along * 0.25 - self.back * g * 0.25
        self.egg(breast, (g * 0.85, g * 0.9, g * 0.8), rotation=self.frame, blend=0.15,
                 **self.plumage)  # fmt: skip
        root = self.along * 0.38 + self.back * g * 0.1
        neck, side = self.kind.neck * self.rng.uniform(0.85, 1.15), self.rng.uniform(-0.1, 0.1)
        self.size = g * self.rng.uniform(0.5, 0.62) * (1.35 if self.name == "owl" else 1.0)
        if self.name in ("heron", "duck"):
            self.size *= 0.8
        top = root + (side, neck * 0.9 + self.size * 0.35, neck * 0.3 + self.size * 0.15)
        bow = (root + top) / 2 + (side, 0, (0.16 if neck > 0.5 else -0.03))
        low = root + (0, neck * 0.15, neck * 0.22)
        radii = [g * 0.7, g * 0.45, self.size * 0.75, self.size * 0.8]
        self.tube([root - self.along * 0.1, low, bow, top], radii, blend=0.12, **self.plumage)
        self.skull = top + (0, self.size * 0.3, self.size * 0.1)

    def head(self) -> None:
        """Skull, eyes, beak and crest."""
        s = self.size
        fine = {"details": tuple(d._replace(depth=d.depth * 0.6) for d in self.plumage["details"])}
        self.egg(self.skull, (s * 0.92, s * 0.9, s * 1.02), blend=0.06, **fine)
        front = self.name == "owl"
        for side in (-1, 1):
            spot = (side * 0.4, 0.15, 0.88) if front else (side * 0.78, 0.2, 0.48)
            eye = self.skull + s * np.array(spot)
            if front:
                self.egg(eye - (0, 0, s * 0.1), (s * 0.48, s * 0.52, s * 0.2), blend=0.02,
                         **self.coat("fur", deep=0.5))  # fmt: skip
            self.egg(eye, (s * 0.27,) * 3, cut=True, blend=0.03)
            self.egg(self.skull + (eye - self.skull) * 0.88, (s * 0.24,) * 3)
        self.beak(self.skull + s * np.array([0, -0.08, 0.75]))
        self.crest()

    def beak(self, at: np.ndarray) -> None:
        """Two halves, a little open now and then."""
        s, long = self.size, self.kind.beak * self.rng.uniform(0.85, 1.15)
        gape = self.choose("shut", "shut", "open") == "open"
        shape = self.kind.beak_shape
        wide = s * {"bow": 0.5, "spear": 0.3, "bill": 0.42}.get(shape, 0.42)
        if self.name == "owl":
            wide, long = s * 0.2, long * 1.2
        drop = {"hook": 0.55, "bow": 0.4, "bill": 0.1}.get(shape, 0.05)
        middle = at + (0, long * 0.12 if drop > 0.2 else 0, long * 0.55)
        tip = at + (0, -long * drop, long * (0.85 if shape == "hook" else 1.1))
        thin = 0.5 if shape == "bill" else 0.12
        self.tube([at, middle, tip], wide * np.array([1, 0.75, thin]), blend=0.015)
        low = np.array([0, -wide * 0.8, 0])
        end = at + low + (0, -long * (0.3 if gape else 0.05 + drop * 0.35), long * 0.65)
        self.limb(at + low * 0.6, end, wide * 0.6, wide * max(0.15, thin), blend=0.01)
        if shape == "bill":
            self.egg(tip - (0, 0.01, long * 0.1), (wide * 1.1, wide * 0.4, wide), blend=0.03)

    def crest(self) -> None:
        """A comb, tuft, fan or feather horns."""
        s, kind = self.size, self.kind.crest
        top = self.skull + (0, s * 0.75, 0)
        if kind == "comb":
            for k in range(5):
                at = top + (0, s * (0.15 - 0.06 * abs(k - 2)), s * (0.6 - 0.32 * k))
                self.egg(at, (s * 0.11, s * 0.42, s * 0.2), blend=0.02)
            for side in (-1, 1):
                wattle = self.skull + s * np.array([side * 0.18, -0.95, 0.85])
                self.egg(wattle, (s * 0.14, s * 0.4, s * 0.22), blend=0.02)
        elif kind == "horns":
            for side in (-1, 1):
                root = self.skull + s * np.array([side * 0.5, 0.6, 0.2])
                self.limb(root, root + s * np.array([side * 0.35, 0.7, -0.1]), s * 0.22, s * 0.05,
                          blend=0.03, **self.coat("fur"))  # fmt: skip
        elif kind in ("tuft", "fan") and self.chance(0.7):
            for k in range(4):
                lean = 0.5 + 0.35 * k if kind == "fan" else 1.2 + 0.1 * k
                end = top + s * np.array([0, np.cos(lean) * 1.1, -np.sin(lean) * 1.3])
                self.limb(top - (0, s * 0.15, s * 0.1 * k), end, s * 0.16, s * 0.05, blend=0.015)

    def feather(self, root: np.ndarray, along: np.ndarray, flat: np.ndarray, long: float,
                wide: float) -> None:  # fmt: skip
        """One long feather: flat, ribbed, along a direction."""
        y = along / np.linalg.norm(along)
        x = np.cross(y, flat)
        x /= np.linalg.norm(x)
        rotation = np.stack([x, y, np.cross(x, y)], axis=1)
        self.prism(leaf(long, wide, 0.65), root, 0.022, rotation=rotation, round=0.014)
        self.limb(root, root + y * long * 0.92, 0.026, 0.016, blend=0.015)

    def wings(self) -> None:
        """Folded along the body, or spread."""
        g, u = self.girth, self.rng.uniform
        lift, sweep = u(-0.1, 0.7), u(-0.1, 0.45)
        for side in (-1, 1):
            shoulder = self.along * 0.3 + self.back * g * 0.3 + (side * g * 0.7, 0, 0)
            if self.flying:
                self.spread(shoulder, side, lift, sweep)
            elif self.name == "penguin":
                end = shoulder + (side * 0.16, -0.75, 0.05)
                self.egg((shoulder + end) / 2, (0.05, 0.42, 0.13), blend=0.05, **self.plumage,
                         rotation=turn(z=side * 0.2))  # fmt: skip
            else:
                self.folded(shoulder, side)

    def folded(self, shoulder: np.ndarray, side: int) -> None:
        """A wing that lies along the flank."""
        g = self.girth
        middle = -self.along * 0.05 + self.back * g * 0.15 + (side * g * 0.88, 0, 0)
        tilt = self.frame @ turn(z=side * 0.12)
        self.egg(middle, (g * 0.22, 0.46, g * 0.62), rotation=tilt, taper=0.2, blend=0.02,
                 **self.coat("feathers", deep=1.2))  # fmt: skip
        for k in range(5):
            root = shoulder - self.along * (0.25 + 0.05 * k) + self.back * g * (0.15 - 0.16 * k)
            along = -self.along + self.back * (0.1 + 0.05 * k) + np.array([-side * 0.22, 0, 0])
            flat = np.array([side, 0, 0]) + self.back * 0.5
            self.feather(root, along, flat, 0.78 - 0.06 * k, 0.15)

    def spread(self, shoulder: np.ndarray, side: int, lift: float, sweep: float) -> None:
        """A wing in flight: arm, coverts and long feathers."""
        across = np.array([side, 0.0, 0.0])
        elbow = shoulder + across * 0.42 + (0, lift * 0.4, 0.1)
        wrist = elbow + across * 0.42 + (0, lift * 0.35, 0.12 - sweep * 0.2)
        tip = wrist + across * 0.35 + (0, lift * 0.25, -sweep * 0.5)
        arm = np.array([shoulder - across * self.girth * 0.3, elbow, wrist, tip])
        self.tube(arm, [0.12, 0.085, 0.065, 0.035], blend=0.06, **self.plumage)
        count = 12
        for k in range(count):
            t = k / (count - 1)
            at = t * 2.999
            i = int(at)
            root = arm[i] + (arm[i + 1] - arm[i]) * (at - i)
            fan = max(0.0, t - 0.45) * 2.0
            along = np.array([0, 0.05, -1.0]) + across * (0.1 + fan) + (0, lift * fan * 0.5, 0)
            flat = np.array([-side * lift * 0.7, 1.0, 0.1])
            self.feather(root, along, flat, 0.5 + 0.28 * t, 0.17)
        for i in (0, 1):
            middle = (arm[i] + arm[i + 1]) / 2 - (0, 0, 0.09)
            self.egg(middle, (0.3, 0.055, 0.16), rotation=turn(z=side * lift * 0.8), blend=0.03,
                     **self.coat("feathers"))  # fmt: skip

    def tail(self) -> None:
        """A fan of feathers; a rooster's stand up and bend."""
        root = -self.along * 0.45 + self.back * 0.02
        if self.name == "rooster":
            for k in range(7):
                lift, side = 0.5 + 0.12 * k, 0.12 * (k % 3 - 1)
                points = [root, root + (side * 0.5, lift * 0.6, -0.25),
                          root + (side, lift * 0.75, -0.5),
                          root + (side, lift * 0.3, -0.75)]  # fmt: skip
                self.tube(points, [0.06, 0.055, 0.05, 0.02], blend=0.02, **self.coat("fur"))
            return
        long = max(self.kind.tail * self.rng.uniform(0.8, 1.2), 0.15)
        for k in range(-3, 4):
            along = -self.along + np.array([k * self.rng.uniform(0.1, 0.14), 0, 0])
            flat = self.back + np.array([0.02 * k, 0, 0])
            start = root + self.along * 0.06 - self.back * 0.02 * abs(k)
            self.feather(start, along, flat, long + 0.15 - 0.03 * abs(k), 0.16)

    def legs(self) -> None:
        """Shanks and toes; on a branch, stump or the ground."""
        g, u = self.girth, self.rng.uniform
        perch = not self.flying and self.kind.leg < 0.3 and self.name not in ("duck", "penguin")
        for side in (-1, 1):
            hip = -self.along * 0.12 - self.back * g * 0.55 + (side * g * 0.42, 0, 0)
            self.egg(hip, (g * 0.3, 0.26, g * 0.34), rotation=self.frame, blend=0.06,
                     **self.plumage)  # fmt: skip
            length = self.kind.leg + 0.12
            direction = np.array([0, -0.35, -0.94]) if self.flying else np.array([0, -1.0, 0.05])
            ankle = hip + direction * (length + g * 0.3)
            self.limb(hip, ankle, 0.055, 0.036, blend=0.04, **self.coat("scales", deep=0.4))
            ahead = -self.back if self.flying else np.array([0, 0.0, 1.0])
            for k in (-1, 0, 1, 2):
                spread = ahead * (-0.7 if k == 2 else 1.0) + np.array([0.5 * (k % 2 * k), 0, 0])
                end = ankle + spread * 0.15 - (0, 0.015, 0)
                self.tube([ankle, (ankle + end) / 2 + (0, 0.02, 0), end], [0.034, 0.03, 0.018],
                          blend=0.015)  # fmt: skip
            if self.name == "duck" and not self.flying:
                self.egg(ankle + (0, 0, 0.1), (0.12, 0.02, 0.12), blend=0.02)
        if perch:
            low = -self.back * g * 0.55 - self.along * 0.12 - (0, self.kind.leg + 0.12 + g * 0.3, 0)
            bend = u(-0.1, 0.1)
            points: Points = low + np.array([[-0.75, bend, 0], [-0.25, -0.04, 0.03],
                                             [0.3, -0.05, -0.02], [0.8, -bend, 0.05]])  # fmt: skip
            self.tube(points, [0.075, 0.07, 0.065, 0.05], blend=0.01, **self.coat("bark"))
