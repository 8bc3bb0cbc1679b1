"""Procedural figurines: test, example and training data without downloads.

Warriors, mages, beasts and busts with limbs, robes, armour, hair, horns, wings, weapons and
engraved bases. Every choice comes from the seed.
"""

from __future__ import annotations

import numpy as np

from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.synthetic.blends import Part, Pattern, Shape, blend_mesh, turn
from ultrashape_cli.synthetic.figurine_gear import (
    TEXTURES,
    Builder,
    add_head,
    add_plate,
    add_weapon,
)


def make_figurine(seed: int, resolution: int = 128) -> Mesh:
    """Returns a closed figurine of about two units' height, y up, facing z.

    Args:
        seed: Chooses the kind, proportions, pose, parts and patterns.
        resolution: Cells of the extraction grid along one side.
    """
    return blend_mesh(figurine_parts(np.random.default_rng(seed)), resolution)


def figurine_parts(rng: np.random.Generator) -> list[Part]:
    """Returns the parts of a figurine, in the order in which they are joined."""
    figure = _Figure(rng)
    figure.trunk()
    if figure.kind == "robed":
        figure.robe()
    elif figure.kind != "bust":
        figure.legs()
    figure.arms()
    add_head(figure, figure.head_at, figure.head_size, beast=figure.kind == "beast")
    figure.extras()
    figure.base()
    return figure.parts


class _Figure(Builder):
    """Proportions of one figurine, and its parts as they are added."""

    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__(rng)
        kinds = ("warrior", "robed", "beast", "bust")
        self.kind = str(rng.choice(kinds, p=(0.4, 0.25, 0.25, 0.1)))
        u = rng.uniform
        self.girth = u(0.16, 0.27) * (1.25 if self.kind == "beast" else 1.0)
        self.depth = self.girth * u(0.65, 0.95)
        self.chest_y = u(0.12, 0.24)
        self.torso = u(0.22, 0.30)
        self.hip_y = self.chest_y - self.torso * u(1.0, 1.25)
        self.lean = u(-0.08, 0.10)
        self.head_size = u(0.13, 0.21)
        neck = self.chest_y + self.torso * 0.85
        self.head_at = np.array([u(-0.04, 0.04), neck + self.head_size * 0.8, self.lean + 0.03])
        self.texture = self.pattern(TEXTURES, depth=(0.006, 0.016), frequency=(7, 16), share=0.65)

    def trunk(self) -> None:
        """Belly, chest, and a breastplate or belt."""
        girth, depth, rng = self.girth, self.depth, self.rng
        self.add(
            Shape.ELLIPSOID,
            (0, self.hip_y, 0),
            (girth * rng.uniform(0.75, 1.05), self.torso * 0.75, depth),
            blend=0.0,
            **self.texture,
        )
        self.add(
            Shape.ELLIPSOID,
            (0, self.chest_y, self.lean * 0.6),
            (girth * rng.uniform(0.95, 1.25), self.torso * 0.85, depth * 1.05),
            blend=0.10,
            **self.texture,
        )
        if rng.random() < 0.6:
            self.add(
                Shape.TORUS,
                (0, self.hip_y + 0.03, 0),
                (girth * 0.97, rng.uniform(0.025, 0.05)),
                blend=0.008,
                **self.pattern(
                    (Pattern.STUDS, Pattern.RINGS, Pattern.NONE),
                    depth=(0.006, 0.014),
                    frequency=(6, 14),
                ),
            )
        if self.kind == "warrior" and rng.random() < 0.7:
            self.add(
                Shape.ELLIPSOID,
                (0, self.chest_y + 0.02, self.lean * 0.6 + 0.02),
                (girth * 1.22, self.torso * 0.62, depth * 1.15),
                blend=0.0,
                **self.pattern(TEXTURES, depth=(0.008, 0.018), frequency=(6, 13)),
            )
        neck = np.array([0, self.chest_y + self.torso * 0.5, self.lean * 0.6])
        self.limb(neck, self.head_at, 0.085, 0.075, blend=0.06)

    def robe(self) -> None:
        """A folded skirt down to the base."""
        rng = self.rng
        hem = rng.uniform(0.34, 0.5)
        top, bottom = np.array([0, self.hip_y + 0.08, 0]), np.array([0, -0.84, 0.0])
        self.limb(
            bottom,
            top,
            hem * 0.72,
            self.girth * 0.95,
            blend=0.07,
            pattern=Pattern.FOLDS,
            depth=rng.uniform(0.03, 0.07),
            frequency=rng.uniform(3, 7),
        )
        if rng.random() < 0.5:
            self.add(
                Shape.BOX,
                (0, -0.42, self.girth * 0.95),
                (0.07, 0.3, 0.05),
                round=0.015,
                rotation=turn(x=-0.22),
                blend=0.01,
                **self.pattern(TEXTURES, depth=(0.008, 0.014), frequency=(9, 16)),
            )

    def legs(self) -> None:
        """Thighs, shins and feet; two or four."""
        rng = self.rng
        girth = self.girth
        pairs = 2 if self.kind == "beast" and rng.random() < 0.4 else 1
        guard = self.pattern(TEXTURES, depth=(0.006, 0.014), frequency=(7, 14), share=0.5)
        for back in range(pairs):
            if back:
                haunch = (0, self.hip_y - 0.02, -0.28)
                self.add(
                    Shape.ELLIPSOID, haunch, (girth * 0.95, 0.2, 0.3), blend=0.1, **self.texture
                )
            for side in (-1, 1):
                hip = np.array([side * girth * 0.5, self.hip_y - 0.08, -0.38 * back])
                foot = np.array(
                    [
                        side * girth * rng.uniform(0.6, 1.35),
                        -0.80,
                        rng.uniform(-0.14, 0.16) - 0.38 * back,
                    ]
                )
                knee = (hip + foot) / 2 + np.array([side * 0.03, 0.03, rng.uniform(0.02, 0.12)])
                thick = rng.uniform(0.085, 0.12)
                self.limb(hip, knee, thick, thick * 0.8, blend=0.07)
                self.limb(knee, foot, thick * 0.85, thick * 0.6, blend=0.03, **guard)
                self.add(
                    Shape.ELLIPSOID,
                    foot + np.array([0, -0.015, 0.06]),
                    (0.07, 0.05, rng.uniform(0.10, 0.15)),
                    blend=0.03,
                )

    def arms(self) -> None:
        """Arms in a drawn pose, shoulder plates, and what the hands hold."""
        rng = self.rng
        plates = rng.random() < 0.5
        rim = self.pattern(TEXTURES, depth=(0.006, 0.014), frequency=(7, 14))
        bracer = self.pattern(TEXTURES, depth=(0.006, 0.012), frequency=(8, 16), share=0.5)
        for side in (-1, 1):
            shoulder = np.array(
                [side * self.girth * 1.05, self.chest_y + self.torso * 0.4, self.lean]
            )
            reach = rng.uniform((0.10, -0.34, -0.10), (0.26, 0.02, 0.16)) * (side, 1, 1)
            elbow = shoulder + reach
            if self.kind == "bust":
                self.limb(shoulder, elbow, 0.10, 0.085, blend=0.08)
                if plates:
                    add_plate(self, shoulder, side, rim)
                continue
            turned = rng.uniform((-0.14, -0.24, 0.02), (0.16, 0.28, 0.26)) * (side, 1, 1)
            hand = elbow + turned
            self.limb(shoulder, elbow, 0.085, 0.07, blend=0.06)
            self.limb(elbow, hand, 0.072, 0.06, blend=0.02, **bracer)
            self.add(Shape.ELLIPSOID, hand, (0.065, 0.07, 0.065), blend=0.03)
            if plates:
                add_plate(self, shoulder, side, rim)
            if rng.random() < 0.5:
                add_weapon(self, hand, side)

    def extras(self) -> None:
        """A cape, wings or a tail."""
        rng = self.rng
        u = rng.uniform
        back = -self.depth * 0.95
        if rng.random() < 0.35:
            self.add(
                Shape.ELLIPSOID,
                (0, self.chest_y - 0.38, back - 0.06),
                (u(0.26, 0.40), u(0.5, 0.62), u(0.05, 0.08)),
                rotation=turn(x=u(0.05, 0.2)),
                blend=0.03,
                pattern=Pattern.FOLDS,
                depth=u(0.015, 0.035),
                frequency=u(3, 7),
            )
        elif rng.random() < 0.3:
            for side in (-1, 1):
                self.add(
                    Shape.ELLIPSOID,
                    (side * u(0.36, 0.42), self.chest_y + 0.16, back - 0.06),
                    (u(0.14, 0.2), u(0.34, 0.46), 0.04),
                    rotation=turn(z=-side * u(0.4, 0.8)),
                    blend=0.03,
                    pattern=Pattern.RINGS,
                    depth=0.014,
                    frequency=u(6, 10),
                )
        if self.kind == "beast" and rng.random() < 0.6:
            at = np.array([0, self.hip_y - 0.1, back])
            thick = 0.09
            for _ in range(4):
                step = np.array([u(-0.14, 0.14), u(-0.16, 0.06), -0.13])
                end = at + step
                end[1] = max(end[1], -0.76)
                self.limb(at, end, thick, thick * 0.75, blend=0.04, **self.texture)
                at, thick = end, thick * 0.75

    def base(self) -> None:
        """The stand, round or square, engraved or plain; a bust gets a column."""
        rng = self.rng
        u = rng.uniform
        pattern = self.pattern(
            (*TEXTURES, Pattern.FOLDS), depth=(0.008, 0.018), frequency=(5, 12), share=0.6
        )
        if self.kind == "bust":
            self.add(
                Shape.CYLINDER,
                (0, (self.hip_y - 0.8) / 2, 0),
                (u(0.14, 0.2), (self.hip_y + 0.8) / 2 + 0.05),
                round=0.02,
                blend=0.05,
                **self.pattern(
                    (Pattern.FOLDS, Pattern.RINGS), depth=(0.01, 0.02), frequency=(4, 9)
                ),
            )
        radius, height = u(0.42, 0.6), u(0.05, 0.10)
        if rng.random() < 0.65:
            self.add(
                Shape.CYLINDER, (0, -0.88, 0), (radius, height), round=0.02, blend=0.012, **pattern
            )
        else:
            self.add(
                Shape.BOX,
                (0, -0.88, 0),
                (radius * 0.9, height, radius * 0.9),
                round=0.02,
                blend=0.012,
            )
        for _ in range(rng.integers(0, 4)):
            # Rocks.
            angle, size = u(0, 2 * np.pi), u(0.05, 0.12)
            spot = (0.8 * radius * np.cos(angle), -0.8, 0.8 * radius * np.sin(angle))
            self.add(
                Shape.BOX,
                spot,
                (size, size * 0.8, size),
                rotation=turn(*u(-0.6, 0.6, 3)),
                round=size * 0.3,
                blend=0.02,
            )
        # What hangs below the stand goes: it has a flat foot, inside the cube.
        self.add(Shape.BOX, (0, -1.95, 0), (2, 1, 2), cut=True)
