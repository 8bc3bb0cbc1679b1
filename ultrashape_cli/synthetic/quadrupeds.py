"""Four-legged animals: a drawn species sets proportions, everything else varies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ultrashape_cli.synthetic.beast_extras import Beast, facing
from ultrashape_cli.synthetic.blends import Part
from ultrashape_cli.synthetic.outlines import ellipse


@dataclass(frozen=True, slots=True)
class _Species:
    """Proportions in units of half the body's length, unless said otherwise."""

    girth: float
    leg: float
    thick: float
    """radius of a thigh"""
    neck: float
    neck_up: float
    """sine of the neck's angle"""
    head: float
    snout: float
    """length in heads"""
    ears: str
    tail: str
    foot: str
    coats: tuple[str, ...]
    extras: tuple[str, ...] = ()


_SPECIES = {
    "horse": _Species(0.23, 0.62, 0.12, 0.42, 0.8, 0.12, 1.5, "point", "brush", "hoof",
                      ("fur", "skin"), ("mane",)),
    "wolf": _Species(0.20, 0.44, 0.10, 0.22, 0.6, 0.13, 1.0, "point", "brush", "paw",
                     ("fur",)),
    "cat": _Species(0.19, 0.38, 0.10, 0.18, 0.55, 0.14, 0.4, "point", "rope", "paw",
                    ("fur", "skin")),
    "lion": _Species(0.23, 0.40, 0.12, 0.2, 0.45, 0.17, 0.6, "round", "tuft", "paw",
                     ("fur",), ("ruff",)),
    "bear": _Species(0.30, 0.36, 0.15, 0.2, 0.35, 0.18, 0.7, "round", "stub", "paw",
                     ("fur",)),
    "deer": _Species(0.19, 0.66, 0.09, 0.36, 0.85, 0.11, 1.1, "long", "stub", "hoof",
                     ("fur", "skin"), ("antlers",)),
    "bull": _Species(0.29, 0.44, 0.13, 0.22, 0.3, 0.17, 0.9, "side", "tuft", "hoof",
                     ("fur", "hide"), ("horns", "hump")),
    "goat": _Species(0.24, 0.44, 0.09, 0.24, 0.7, 0.12, 1.0, "side", "stub", "hoof",
                     ("fur",), ("curls", "beard")),
    "pig": _Species(0.30, 0.27, 0.11, 0.14, 0.2, 0.19, 0.8, "flop", "curl", "hoof",
                    ("skin", "hide"), ()),
    "elephant": _Species(0.36, 0.48, 0.15, 0.16, 0.35, 0.23, 0.3, "fan", "rope", "pad",
                         ("hide",), ("proboscis", "tusks")),
    "rhino": _Species(0.34, 0.36, 0.15, 0.2, 0.1, 0.2, 1.0, "round", "rope", "pad",
                      ("hide",), ("nose_horn", "plates")),
    "rabbit": _Species(0.26, 0.20, 0.12, 0.1, 0.7, 0.17, 0.4, "hare", "stub", "paw",
                       ("fur",)),
    "lizard": _Species(0.17, 0.20, 0.08, 0.16, 0.15, 0.14, 0.9, "none", "long", "claw",
                       ("scales",), ("crest",)),
    "tortoise": _Species(0.2, 0.22, 0.11, 0.3, 0.3, 0.12, 0.5, "none", "stub", "claw",
                         ("hide", "scales"), ("carapace",)),
}  # fmt: skip


def quadruped(rng: np.random.Generator) -> list[Part]:
    """Returns the parts of a four-legged animal that faces z."""
    animal = _Quadruped(rng)
    animal.trunk()
    animal.legs()
    animal.head()
    animal.tail()
    for extra in animal.kind.extras:
        if extra not in ("antlers", "horns") or animal.chance(0.85):
            getattr(animal, extra)()
    return animal.parts


class _Quadruped(Beast):
    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__(rng)
        self.name = self.choose(*_SPECIES)
        self.kind = _SPECIES[self.name]
        u = rng.uniform
        self.girth = self.kind.girth * u(0.88, 1.15)
        self.leg = self.kind.leg * u(0.85, 1.15)
        self.skin = self.coat(*self.kind.coats)
        self.size = self.kind.head * u(0.92, 1.12)
        self.snout = self.kind.snout
        self.low = u(-0.12, 0.1)
        """What the front is higher than the back."""
        self.chest = np.array([0, self.leg + self.girth * 0.75 + self.low * 0.3, 0.36])
        self.hip = np.array([0, self.leg + self.girth * 0.75 - self.low * 0.3, -0.36])
        angle = np.arcsin(np.clip(self.kind.neck_up + u(-0.25, 0.2), -0.3, 0.95))
        # Grazing now and then.
        if self.kind.neck > 0.2 and self.chance(0.15):
            angle = -0.7
        self.up = np.array([u(-0.2, 0.2), np.sin(angle), np.cos(angle)])
        root = self.chest + (0, self.girth * 0.3, self.girth * 0.45)
        self.neck_end = root + self.up * self.kind.neck
        self.nod = float(np.clip(angle, -0.6, 0.4)) - u(0.2, 0.5)
        ahead = np.array([self.up[0], np.sin(self.nod), np.cos(self.nod)])
        self.ahead = ahead / np.linalg.norm(ahead)
        self.skull = self.neck_end + self.ahead * self.size * 0.45

    def trunk(self) -> None:
        """Hips, belly, chest and neck."""
        g, u = self.girth, self.rng.uniform
        blend = g * 0.6
        wide = u(0.8, 0.95)
        self.egg(self.hip, (g * wide, g * 0.98, 0.34), **self.skin)
        belly = (self.chest + self.hip) / 2 - (0, g * u(-0.05, 0.12), 0)
        self.egg(belly, (g * wide, g * u(0.85, 1.02), 0.42), blend=blend, **self.skin)
        self.egg(self.chest, (g * wide * 1.03, g * 1.1, 0.3), blend=blend, **self.skin)
        root = self.chest + (0, g * 0.15, g * 0.1)
        middle = (root + self.neck_end) / 2 + (0, self.kind.neck * 0.1, 0)
        radii = [g * 0.78, (g * 0.6 + self.size * 0.75) / 2, self.size * 0.8]
        self.tube([root, middle, self.neck_end], radii, blend=g * 0.35, **self.skin)

    def legs(self) -> None:
        """Legs in a stride, thighs and feet."""
        rng, g = self.rng, self.girth
        stride = rng.uniform(0.0, 0.16) if self.leg > 0.3 else rng.uniform(0, 0.08)
        sprawl = 0.16 if self.name in ("lizard", "tortoise") else 0.0
        for front in (0, 1):
            for side in (-1, 1):
                top = (self.chest if front else self.hip) + (side * g * 0.52, -g * 0.25, 0)
                swing = stride * side * (1 if front else -1) * rng.uniform(0.6, 1.1)
                thick = self.kind.thick * (0.85 if front else 1.0)
                foot = np.array([top[0] + side * (0.02 + sprawl), 0.0, top[2] + swing])
                bend = self.leg * (0.1 if front else 0.16)
                knee = foot + (top - foot) * 0.6 + (side * sprawl * 0.6, sprawl * 0.3, bend)
                ankle = foot + (top - foot) * (0.2 if front else 0.3)
                ankle[2] -= 0.01 if front else bend * 0.9
                thin = thick * (0.75 if self.kind.foot == "pad" else 0.4)
                end = foot + (0, thin * 0.9, 0)
                points = [top, knee, ankle, end]
                radii = [thick * 1.15, thick * 0.8, thin * 1.05, thin]
                self.tube(points, radii, blend=g * 0.35, **self.skin)
                if not front:
                    self.egg(top - (0, g * 0.15, 0), (thick, thick * 1.7, thick * 1.6),
                             blend=g * 0.35, **self.skin)  # fmt: skip
                self.foot(foot, thin)

    def foot(self, at: np.ndarray, thin: float) -> None:
        """A hoof, paw, pad or claws, on the ground."""
        kind = self.kind.foot
        if kind == "hoof":
            self.cone(at + (0, thin * 0.6, 0.01), thin * 1.5, thin * 0.7, thin * 1.0, blend=0.008)
            self.box(at + (0, thin * 0.4, thin * 1.4), (0.012, thin, thin), cut=True, blend=0.01)
        elif kind == "pad":
            self.cone(at + (0, thin * 0.4, 0.0), thin * 1.25, thin * 0.5, thin, blend=0.03)
            for k in (-1, 0, 1):
                nail = at + (k * thin * 0.7, thin * 0.2, thin * (1.15 - 0.25 * abs(k)))
                self.egg(nail, (thin * 0.3, thin * 0.28, thin * 0.2), blend=0.006)
        else:
            paw = float(thin) * (1.5 if kind == "paw" else 1.0)
            self.egg(at + (0, paw * 0.55, paw * 0.4), (paw, paw * 0.6, paw * 1.25), blend=0.02)
            for across in (-1.5, -0.5, 0.5, 1.5):
                toe = at + (across * paw * 0.5, paw * 0.35, paw * (1.5 - 0.12 * across * across))
                self.egg(toe, (paw * 0.3, paw * 0.34, paw * 0.5), blend=0.008)
                claw = toe + (across * 0.01, 0, paw * 0.4)
                self.limb(claw, claw + (0, -paw * 0.2, paw * 0.4), paw * 0.16, 0.006, blend=0.004)

    def head(self) -> None:
        """Skull, snout, jaw, eyes, nose and ears."""
        s, snout, u = self.size, self.kind.snout, self.rng.uniform
        # Blunt snouts for cats, pigs and elephants, fine ones for deer.
        blunt = {"pig": 0.62, "bear": 0.55, "bull": 0.7, "horse": 0.55, "rhino": 0.75}.get(
            self.name, 0.45
        ) * u(0.92, 1.1)
        fine: dict[str, Any] = {
            "details": tuple(d._replace(depth=d.depth * 0.5) for d in self.skin["details"])
        }
        self.egg(self.skull, (s * 0.85, s * 0.9, s * 0.95), blend=s * 0.5, **fine)
        tip = self.place(0, -0.28, 0.75 + snout)
        self.tube([self.place(0, -0.1, 0.3), tip], [s * 0.72, s * blunt], steps=1,
                  blend=s * 0.35, **fine)  # fmt: skip
        mouth = self.rng.random() < 0.35
        drop = 0.45 if mouth else 0.22
        jaw = self.place(0, -0.3 - drop, 0.6 + snout * 0.92)
        self.tube([self.place(0, -0.45, 0.2), jaw], [s * 0.45, s * blunt * 0.6], steps=1,
                  blend=s * (0.1 if mouth else 0.25), **fine)  # fmt: skip
        for side in (-1, 1):
            eye = self.place(side * 0.62, 0.28, 0.5)
            self.egg(eye, (s * 0.26,) * 3, cut=True, blend=s * 0.12)
            self.egg(eye - (0, 0.02 * s, 0), (s * 0.2,) * 3)
            brow = [self.place(side * 0.35, 0.56, 0.72), self.place(side * 0.85, 0.5, 0.35)]
            self.limb(brow[0], brow[1], s * 0.13, s * 0.09, blend=s * 0.12)
            hole = self.place(side * blunt * 0.45, -0.12, 0.72 + snout + blunt * 0.85)
            self.egg(hole, (s * 0.09,) * 3, cut=True, blend=s * 0.04)
            self.ear(side)
        line = [self.place(x, -0.5 - 0.1 * x * x, 0.75 + snout + blunt * (0.9 - x * x))
                for x in np.linspace(-0.6, 0.6, 5) * blunt * 1.4]  # fmt: skip
        self.tube(line, [s * 0.05] * 5, steps=3, cut=True, blend=s * 0.06)

    def ear(self, side: int) -> None:
        """One ear, hollowed on its front."""
        s, kind = self.size, self.kind.ears
        shape = {"point": (0.65, 0.5, 0.95, 0.3), "long": (0.95, 0.4, 0.8, 0.9),
                 "hare": (1.9, 0.45, 0.95, 0.25), "round": (0.5, 0.62, 0.8, 0.55),
                 "side": (0.75, 0.4, 0.25, 1.0), "flop": (0.8, 0.6, 0.55, 0.8)}  # fmt: skip
        if kind == "fan":
            root = self.place(side * 0.7, 0.1, -0.1)
            outline = ellipse(s * 0.75, s * 1.1) * [1, 1]
            outline[:, 0] *= 1 + 0.3 * outline[:, 1] / s
            turned = facing(np.array([side * 0.9, 0.0, 0.5]))
            self.prism(outline, root + (side * s * 0.7, -s * 0.1, -s * 0.2), s * 0.11,
                       rotation=turned, round=s * 0.1, blend=s * 0.2, **self.skin)  # fmt: skip
        elif kind in shape:
            long, wide, up, out = shape[kind]
            root = self.place(side * 0.55, 0.6, -0.1)
            end = self.place(side * (0.55 + long * out), 0.6 + long * up, -0.2)
            middle = (root + end) / 2
            self.tube([root, middle, end], np.array([0.7, 1.0, 0.15]) * wide * s * 0.55,
                      blend=s * 0.12)  # fmt: skip
            front = self.ahead * s * wide * 0.42
            self.tube([root + front, middle + front, end + front],
                      np.array([0.5, 0.8, 0.1]) * wide * s * 0.45, cut=True,
                      blend=0.02)  # fmt: skip

    def tail(self) -> None:
        """A tail of the kind of the species, in a drawn swing."""
        u, g = self.rng.uniform, self.girth
        root = self.hip + (0, g * 0.45, -0.26)
        sway, kind = u(-0.25, 0.25), self.kind.tail
        length = {"stub": 0.16, "curl": 0.22, "long": 1.1, "tuft": 0.5}.get(kind, 0.55)
        drop = -0.25 if kind == "long" else u(-0.8, 0.5) if kind == "rope" else -0.7
        if kind == "long":
            root = self.hip + (0, -g * 0.1, -0.2)
        steps = np.linspace(0, 1, 5)[:, None]
        points = root + steps * (0, drop * length, -length * 0.6)
        points[:, 0] += sway * np.sin(steps[:, 0] * 2.5) * length
        points[1:3, 2] -= 0.12 * length
        points[:, 1] = np.maximum(points[:, 1], 0.05)
        thick = {"long": g * 0.7, "brush": 0.06, "stub": 0.07}.get(kind, 0.042)
        radii = thick * np.array([1, 0.8, 0.62, 0.45, 0.25])
        if kind == "brush":
            radii = thick * np.array([0.7, 1.0, 1.3, 1.2, 0.4])
        elif kind in ("rope", "tuft"):
            radii = thick * np.array([1, 0.85, 0.75, 0.7, 0.6])
        coat = self.coat("fur") if kind in ("brush", "stub") else self.skin
        self.tube(points, radii, blend=g * 0.25, **coat)
        if kind == "tuft":
            self.egg(points[-1] - (0, 0.03, 0), (0.06, 0.11, 0.06), blend=0.02,
                     **self.coat("fur"))  # fmt: skip
