"""What some animals have beside trunk, legs, head and tail: manes, horns, shells."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from ultrashape_cli.synthetic.maker import Maker
from ultrashape_cli.synthetic.outlines import leaf


class Beast(Maker):
    """An animal that has its proportions, and the extras that species have."""

    girth: float
    """radius of the trunk"""
    size: float
    """radius of the skull"""
    chest: np.ndarray
    hip: np.ndarray
    skull: np.ndarray
    ahead: np.ndarray
    """direction `[3]` of the face"""
    snout: float
    """length of the snout in skulls"""
    skin: dict[str, Any]

    def place(self, right: float, up: float, ahead: float) -> np.ndarray:
        """Returns a point of the head in units of its size, from the middle of the skull."""
        across = np.array([self.ahead[2], 0.0, -self.ahead[0]])
        across /= np.linalg.norm(across)
        top = np.cross(self.ahead, across)
        return self.skull + self.size * (right * across + up * top + ahead * self.ahead)

    def mane(self) -> None:
        """Hair along the neck."""
        crest = np.array([self.chest + (0, self.girth * 1.0, 0.0), self.place(0, 0.95, -0.5)])
        middle = crest.mean(axis=0) + (0, 0.05, -0.03)
        self.tube([crest[0], middle, crest[1]], [0.05, 0.075, 0.06], blend=0.03,
                  **self.coat("fur"))  # fmt: skip

    def ruff(self) -> None:
        """A lion's mane."""
        s, coat = self.size, self.coat("fur", deep=1.3)
        back = self.skull - self.ahead * s * 0.55
        self.egg(back - (0, s * 0.2, 0), (s * 1.55, s * 1.65, s * 0.85), blend=0.03, **coat)
        self.egg(back - (0, s * 1.2, s * 0.25), (s * 1.1, s * 1.2, s * 0.95), blend=0.05, **coat)

    def hump(self) -> None:
        """High shoulders."""
        self.egg(self.chest + (0, self.girth * 0.7, -0.02), (0.15, 0.18, 0.25), blend=0.12,
                 **self.skin)  # fmt: skip

    def antlers(self) -> None:
        """Branched, alike on both sides."""
        u = self.rng.uniform
        wide, tall = u(0.25, 0.4), u(0.35, 0.55)
        tines = [(u(0.25, 0.95), u(0.1, 0.2), u(0.0, 0.16)) for _ in range(3)]
        for side in (-1, 1):
            root = self.place(side * 0.4, 0.8, -0.2)
            beam = np.array([root, root + (side * wide * 0.6, tall * 0.4, -0.1),
                             root + (side * wide, tall * 0.8, -0.06),
                             root + (side * wide * 0.85, tall, 0.06)])  # fmt: skip
            self.tube(beam, [0.04, 0.034, 0.03, 0.02], blend=0.02, **self.coat("bark", deep=0.4))
            for at, long, ahead in tines:
                start = beam[1] + (beam[2] - beam[1]) * at
                self.limb(start, start + (-side * 0.02, long, 0.05 + ahead), 0.026, 0.014,
                          blend=0.02)  # fmt: skip

    def horns(self) -> None:
        """Out and up."""
        self._curved([(0.5, 0.6, -0.1), (1.3, 0.75, -0.1), (1.75, 1.3, 0.15), (1.7, 1.9, 0.3)])

    def curls(self) -> None:
        """Back and round."""
        self._curved([(0.35, 0.8, -0.1), (0.55, 1.5, -0.8), (0.95, 1.0, -1.7), (1.3, 0.1, -1.5),
                      (1.5, -0.1, -0.8)])  # fmt: skip

    def _curved(self, places: list[tuple[float, float, float]]) -> None:
        coat = self.coat("chitin")
        for side in (-1, 1):
            points = [self.place(side * x, y, z) for x, y, z in places]
            radii = self.size * np.linspace(0.3, 0.1, len(points))
            self.tube(points, radii, blend=0.02, **coat)

    def beard(self) -> None:
        """Below the chin."""
        chin = self.place(0, -0.75, 0.5 + self.snout)
        self.limb(chin, chin - (0, self.size * 1.1, 0), self.size * 0.28, self.size * 0.1,
                  blend=0.02, **self.coat("fur"))  # fmt: skip

    def proboscis(self) -> None:
        """An elephant's trunk."""
        s, curl, side = self.size, self.rng.uniform(-0.3, 1.2), self.rng.uniform(-0.4, 0.4)
        points = [self.place(0, -0.1, 0.7), self.place(0, -0.7, 1.25),
                  self.place(side * 0.5, -1.6, 1.35),
                  self.place(side, -2.2 + curl * 0.3, 1.5 + curl * 0.5)]  # fmt: skip
        self.tube(points, [s * 0.42, s * 0.36, s * 0.27, s * 0.2], blend=s * 0.2, **self.skin)

    def tusks(self) -> None:
        """From beside the trunk."""
        for side in (-1, 1):
            points = [self.place(side * 0.5, -0.45, 0.6), self.place(side * 0.65, -0.95, 1.2),
                      self.place(side * 0.6, -0.9, 1.75)]  # fmt: skip
            self.tube(points, [0.045, 0.038, 0.018], blend=0.015)

    def nose_horn(self) -> None:
        """One large and one small."""
        for at, long in ((1.25 + self.snout * 0.3, 1.1), (0.85, 0.5)):
            root = self.place(0, 0.15, at)
            self.limb(root, self.place(0, 0.25 + long, at + long * 0.3), self.size * 0.28, 0.012,
                      blend=0.03, **self.coat("bark", deep=0.5))  # fmt: skip

    def plates(self) -> None:
        """Folds of armour behind shoulder and before hip."""
        for z in (-0.2, 0.22):
            self.add_ring(z)

    def add_ring(self, z: float) -> None:
        """A fold around the trunk."""
        g = self.girth
        at = (self.chest + self.hip) / 2
        angle = np.linspace(-2.4, 2.4, 12)
        points = [at + (np.sin(a) * g * 0.97, np.cos(a) * g * 1.02, z) for a in angle]
        self.tube(points, [0.03] * 12, steps=2, blend=0.03)

    def crest(self) -> None:
        """Spines down the back."""
        line = [self.place(0, 0.9, -0.2), self.chest + (0, self.girth * 1.1, 0),
                self.hip + (0, self.girth, 0), self.hip + (0, self.girth * 0.5, -0.4)]  # fmt: skip
        for a, b in pairwise(line):
            for t in (0.0, 0.25, 0.5, 0.75):
                root = a + (b - a) * t
                outline = leaf(0.11, 0.1)
                self.prism(outline, root - (0, 0.03, 0), 0.022, round=0.008, blend=0.02,
                           rotation=facing(np.array([1.0, 0, 0])))  # fmt: skip

    def carapace(self) -> None:
        """A tortoise's shell."""
        at = (self.chest + self.hip) / 2
        u = self.rng.uniform
        self.egg(at + (0, 0.02, -0.02), (u(0.4, 0.48), u(0.28, 0.4), 0.56),
                 **self.coat("rubble", deep=1.2, fine=0.8))  # fmt: skip
        self.add_rim(at)

    def add_rim(self, at: np.ndarray) -> None:
        """The rim of a shell."""
        angle = np.linspace(0, 2 * np.pi, 17)
        points = [at + (np.sin(a) * 0.43, -0.03, -0.02 + np.cos(a) * 0.55) for a in angle]
        self.tube(points, [0.05] * 17, steps=2, blend=0.02, **self.coat("chitin"))


def facing(direction: np.ndarray) -> np.ndarray:
    """Returns a rotation [3, 3] that takes z to a level direction and keeps y."""
    z = np.array([direction[0], 0.0, direction[2]])
    z /= np.linalg.norm(z)
    return np.stack([np.cross([0.0, 1.0, 0.0], z), [0.0, 1.0, 0.0], z], axis=1)
