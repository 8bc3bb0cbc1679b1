"""Dragons: a long spine, legs, wings of skin between fingers, horns and spines."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from ultrashape_cli.synthetic.blends import Part
from ultrashape_cli.synthetic.maker import Maker
from ultrashape_cli.synthetic.outlines import smooth_curve


def dragon(rng: np.random.Generator) -> list[Part]:
    """Returns the parts of a dragon that faces z: four legs, two, or none."""
    made = _Dragon(rng)
    made.spine()
    if made.name != "serpent":
        made.legs()
    if made.name != "serpent" or made.chance(0.5):
        made.wings()
    made.head()
    made.crest()
    if made.name != "serpent" and made.chance(0.3):
        made.rock()
    return made.parts


class _Dragon(Maker):
    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__(rng)
        u = rng.uniform
        self.name = self.choose("dragon", "dragon", "wyvern", "serpent")
        self.girth = u(0.15, 0.21) * (0.8 if self.name == "serpent" else 1.0)
        self.skin = self.coat("scales", deep=1.15)
        self.size = u(0.11, 0.14)
        turn, lift = u(-0.3, 0.3), u(0.15, 0.6)
        if self.name == "serpent":
            coil = u(0.25, 0.4)
            knots = [(coil * math.sin(2.3 * k), 0.12 + 0.035 * k, -0.35 + coil * math.cos(2.3 * k))
                     for k in range(6)]  # fmt: skip
            knots += [(0.05, 0.55, -0.15), (0, 0.8, 0.05), (turn * 0.3, 0.92, 0.3)]
            self.line = np.array(knots)
            self.radii = self.girth * np.array([0.15, 0.4, 0.65, 0.85, 1, 1, 0.95, 0.8, 0.65])
        else:
            sway = u(-0.5, 0.5)
            self.line = np.array(
                [(sway, 0.12, -1.15), (sway * 0.9, 0.08, -0.85), (sway * 0.1, 0.2, -0.6),
                 (0, 0.42, -0.3), (0, 0.46, 0.0), (0, 0.5, 0.25),
                 (turn * 0.3, 0.55 + lift * 0.6, 0.45), (turn * 0.8, 0.62 + lift, 0.5),
                 (turn, 0.62 + lift * 1.15, 0.68)])  # fmt: skip
            self.radii = self.girth * np.array([0.12, 0.25, 0.5, 1.0, 1.0, 1.15, 0.7, 0.55, 0.55])
        end = self.line[-1] - self.line[-2]
        ahead = np.array([end[0], min(end[1], 0.0) - 0.1, max(end[2], 0.15)])
        self.ahead = ahead / np.linalg.norm(ahead)
        self.skull = self.line[-1] + self.ahead * self.size * 0.5

    def spine(self) -> None:
        """Tail, trunk and neck in one, and plates along the belly."""
        self.tube(self.line, self.radii, **self.skin)
        if self.name != "serpent":
            self.egg((0, 0.46, 0.18), (self.girth * 1.05, self.girth * 1.2, 0.28), blend=0.1,
                     **self.skin)  # fmt: skip
            for k in range(5):
                at = self.line[5] + (self.line[7] - self.line[5]) * k / 5
                self.egg(at + (0, -0.02 - 0.004 * k, self.girth * (0.8 - 0.1 * k)),
                         (self.girth * 0.55, 0.05, 0.07), blend=0.012)  # fmt: skip
        # A blade or a club at the tail's end.
        tip, way = self.line[0], self.line[0] - self.line[1]
        if self.chance(0.6):
            self.tube([tip, tip + way * 0.35, tip + way * 0.8], [0.03, 0.075, 0.02], blend=0.02)
        else:
            self.egg(tip, (0.07, 0.07, 0.09), blend=0.03, **self.coat("stone", "scales"))

    def legs(self) -> None:
        """Two or four, with claws."""
        g, u = self.girth, self.rng.uniform
        for front in (0, 1) if self.name == "dragon" else (0,):
            for side in (-1, 1):
                hip = np.array([side * g * 0.75, 0.4, 0.28 if front else -0.26])
                foot = np.array([side * (g + u(0.08, 0.18)), 0.0, hip[2] + u(-0.1, 0.2)])
                knee = hip + (side * 0.1, -0.12, 0.14 if not front else -0.06)
                heel = foot + (0, 0.13, -0.1 if not front else -0.01)
                thick = g * (0.72 if not front else 0.5)
                self.tube([hip, knee, heel, foot + (0, 0.03, 0)],
                          [thick, thick * 0.75, thick * 0.42, thick * 0.45], blend=0.06,
                          **self.skin)  # fmt: skip
                for k in (-1, 0, 1):
                    toe = foot + (k * 0.06, 0.03, 0.12 - 0.02 * abs(k))
                    self.limb(foot + (0, 0.04, 0), toe, 0.045, 0.036, blend=0.02)
                    self.limb(toe, toe + (k * 0.015, -0.03, 0.09), 0.03, 0.012, blend=0.01)

    def place(self, right: float, up: float, ahead: float) -> np.ndarray:
        """Returns a point of the head in units of its size."""
        across = np.array([self.ahead[2], 0.0, -self.ahead[0]])
        across /= np.linalg.norm(across)
        top = np.cross(self.ahead, across)
        return self.skull + self.size * (right * across + up * top + ahead * self.ahead)

    def head(self) -> None:
        """Skull, jaws with teeth, brows, horns and frills."""
        s, u = self.size, self.rng.uniform
        self.egg(self.skull, (s * 0.8, s * 0.75, s * 0.9), blend=0.05)
        long, gape = u(1.4, 2.0), u(0.1, 0.6)
        self.tube([self.place(0, 0.1, 0.2), self.place(0, 0.05, long * 0.6),
                   self.place(0, 0.0, long)], s * np.array([0.7, 0.5, 0.42]), blend=0.03,
                  **self.coat("scales", deep=0.4))  # fmt: skip
        low = [self.place(0, -0.4, 0.1), self.place(0, -0.5 - gape * 0.7, long * 0.55),
               self.place(0, -0.45 - gape * 1.5, long * 0.92)]  # fmt: skip
        self.tube(low, s * np.array([0.5, 0.34, 0.24]), blend=0.02)
        for side in (-1, 1):
            eye = self.place(side * 0.6, 0.35, 0.55)
            self.egg(eye, (s * 0.22,) * 3, cut=True, blend=0.02)
            self.egg(eye - (side * s * 0.05, 0, 0), (s * 0.18,) * 3)
            self.limb(self.place(side * 0.4, 0.6, 0.95), self.place(side * 0.95, 0.7, 0.0),
                      s * 0.18, s * 0.12, blend=0.02)  # fmt: skip
            nose = self.place(side * 0.22, 0.35, long * 0.97)
            self.egg(nose, (s * 0.16,) * 3, blend=0.02)
            self.egg(self.place(side * 0.3, 0.38, long * 1.05), (s * 0.1,) * 3, cut=True)
            for k in range(4):
                root = self.place(side * (0.42 - 0.03 * k), -0.2, 0.7 + 0.27 * k * (long - 0.5))
                self.limb(root, root - (0, s * 0.35, 0), s * 0.1, s * 0.04)
            bend, up = u(0.1, 0.6), u(0.3, 0.9)
            horn = [self.place(side * 0.5, 0.5, -0.3), self.place(side * 0.7, 0.6 + up, -1.1),
                    self.place(side * (0.7 + bend), 0.6 + up * 1.2, -2.0)]  # fmt: skip
            self.tube(horn, s * np.array([0.3, 0.22, 0.08]), blend=0.02, **self.coat("chitin"))
            for k in range(3):
                root = self.place(side * 0.65, 0.1 - 0.35 * k, -0.3)
                self.limb(root, root + s * np.array([side * 0.8, 0.1 - 0.2 * k, 0])
                          - self.ahead * s * 0.7, s * 0.16, s * 0.05, blend=0.015)  # fmt: skip

    def crest(self) -> None:
        """Spines from neck to tail, each leaning back."""
        line = smooth_curve(np.column_stack([self.line, self.radii]), 6)
        tall = self.rng.uniform(0.06, 0.13)
        for k in range(4, len(line) - 3, 2):
            at, way = line[k, :3], line[k + 1, :3] - line[k - 1, :3]
            way /= np.linalg.norm(way)
            up = np.array([0, 1.0, 0]) - way * way[1]
            up /= max(float(np.linalg.norm(up)), 1e-6)
            root = at + up * line[k, 3] * 0.9
            share = 0.5 + 0.5 * math.sin(math.pi * k / len(line))
            self.limb(root, root + (up - way * 0.6) * tall * share, 0.04, 0.014, blend=0.015)

    def wings(self) -> None:
        """An arm, fingers, and skin between them."""
        u, g = self.rng.uniform, self.girth
        lift, back, long = u(0.2, 0.9), u(0.1, 0.6), u(0.75, 1.0)
        count = int(self.rng.integers(3, 5))
        for side in (-1, 1):
            base = self.line[5] if self.name != "serpent" else self.line[6]
            shoulder = base + (side * g * 0.6, g * 0.6, -0.02)
            elbow = shoulder + np.array([side * 0.28, 0.18 + 0.2 * lift, -0.18])
            wrist = elbow + np.array([side * 0.28, 0.2 + 0.2 * lift, 0.16])
            self.tube([shoulder, elbow, wrist], [0.07, 0.05, 0.042], steps=3, blend=0.05,
                      **self.skin)  # fmt: skip
            self.limb(wrist, wrist + (side * 0.02, 0.1, 0.06), 0.035, 0.012, blend=0.01)
            tips = []
            for k in range(count):
                a = 0.15 + 1.25 * k / (count - 1)
                way = np.array(
                    [
                        side * math.cos(a),
                        0.25 * lift - 0.55 * k / count,
                        -math.sin(a) * (0.6 + back),
                    ]
                )
                reach = long * (1.0 - 0.1 * k)
                tip = wrist + way / np.linalg.norm(way) * reach
                middle = (wrist + tip) / 2 + (0, 0.07, 0)
                self.tube([wrist, middle, tip], [0.036, 0.03, 0.018], blend=0.02)
                tips.append((middle, tip))
            root = base + (side * g * 0.6, g * 0.1, -0.42)
            tips.append(((elbow + root) / 2, root))
            for (m1, t1), (m2, t2) in pairwise(tips):
                self.skin_between(wrist if t2 is not root else elbow, m1, t1, m2, t2)
            self.sheet(wrist, elbow, tips[-2][0])
            self.sheet(elbow, shoulder, root)

    def skin_between(self, top: np.ndarray, m1: np.ndarray, t1: np.ndarray, m2: np.ndarray,
                     t2: np.ndarray) -> None:  # fmt: skip
        """Skin between two fingers: its edge sags inwards."""
        sag = (t1 + t2) / 2 * 0.72 + top * 0.28
        self.sheet(top, m1, m2)
        self.sheet(m1, m2, sag)
        self.sheet(m1, t1, sag)
        self.sheet(m2, t2, sag)

    def sheet(self, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> None:
        """A thin triangle with round edges."""
        y = b - a
        y /= max(float(np.linalg.norm(y)), 1e-9)
        z = np.cross(y, c - a)
        if np.linalg.norm(z) < 1e-6:
            return
        z /= np.linalg.norm(z)
        x = np.cross(y, z)
        outline = np.array([[(p - a) @ x, (p - a) @ y] for p in (a, b, c)])
        self.prism(outline, a, 0.02, rotation=np.stack([x, y, z], axis=1), round=-0.006,
                   blend=0.012, **self.coat("skin", deep=0.6))  # fmt: skip

    def rock(self) -> None:
        """What it stands on."""
        for _ in range(4):
            at = self.rng.uniform((-0.3, -0.22, -0.4), (0.3, -0.08, 0.4))
            self.gem(at, self.rng.uniform(0.22, 0.42, 3) * (1, 0.6, 1), 24, 0.25, blend=0.05,
                     **self.coat("stone"))  # fmt: skip
