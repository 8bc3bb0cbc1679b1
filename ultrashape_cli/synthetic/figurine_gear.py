"""What figurines wear and carry: heads, horns, shoulder plates, weapons."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ultrashape_cli.synthetic.blends import Part, Pattern, Shape, limb, turn

Point = NDArray[np.float64]

TEXTURES = (Pattern.RINGS, Pattern.SCALES, Pattern.STUDS)


class Builder:
    """The parts of one figurine as they are added, and what draws its choices."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.parts: list[Part] = []

    def add(self, shape: Shape, centre: Any, size: Any, **options: Any) -> None:
        """Joins a primitive; the options are those of `Part`."""
        self.parts.append(Part(shape=shape, centre=tuple(centre), size=tuple(size), **options))

    def limb(self, start: Point, end: Point, radius: float, tip: float, **options: Any) -> None:
        """Joins a capsule between two points."""
        self.parts.append(Part(**limb(start, end, radius, tip), **options))

    def pattern(
        self,
        kinds: tuple[Pattern, ...],
        *,
        depth: tuple[float, float],
        frequency: tuple[float, float],
        share: float = 1.0,
    ) -> dict[str, Any]:
        """Returns a drawn pattern for `share` of the calls, and none for the others."""
        kind = kinds[self.rng.integers(len(kinds))]
        values = {"depth": self.rng.uniform(*depth), "frequency": self.rng.uniform(*frequency)}
        return {"pattern": kind, **values} if self.rng.random() < share else {}


def add_head(builder: Builder, at: Point, size: float, *, beast: bool) -> None:
    """Skull, face, and hair, a helmet or horns."""
    rng = builder.rng
    u = rng.uniform
    tall = u(1.0, 1.25)
    builder.add(Shape.ELLIPSOID, at, (size, size * tall, size * u(0.95, 1.1)), blend=0.05)
    _add_face(builder, at, size, beast=beast)
    style = rng.choice(["hair", "helmet", "bald"], p=(0.4, 0.35, 0.25))
    if style == "hair":
        _add_hair(builder, at, size)
    elif style == "helmet":
        _add_helmet(builder, at, size)
    if rng.random() < 0.35:
        _add_horns(builder, at, size)
    if not beast and rng.random() < 0.3:
        builder.limb(
            at + size * np.array([0, -0.6, 0.7]),
            at + size * np.array([0, -u(1.3, 2.2), 0.8]),
            size * 0.5,
            size * 0.14,
            blend=0.03,
            pattern=Pattern.STRANDS,
            depth=0.014,
            frequency=8.0,
        )


def _add_face(builder: Builder, at: Point, size: float, *, beast: bool) -> None:
    rng = builder.rng
    u = rng.uniform
    for side in (-1, 1):
        eye = at + size * np.array([side * 0.42, 0.15, 0.82])
        builder.add(
            Shape.ELLIPSOID, eye, (size * 0.2,) * 3, cut=bool(rng.random() < 0.5), blend=0.01
        )
    nose = size * u(0.12, 0.3)
    builder.add(
        Shape.ELLIPSOID,
        at + size * np.array([0, -0.1, 0.98]),
        (nose * 0.7, nose * 1.3, nose),
        blend=0.02,
    )
    if beast:
        builder.add(
            Shape.ELLIPSOID,
            at + size * np.array([0, -0.35, 0.8]),
            (size * 0.55, size * 0.4, size * u(0.5, 0.9)),
            blend=0.04,
        )


def _add_hair(builder: Builder, at: Point, size: float) -> None:
    rng = builder.rng
    u = rng.uniform
    builder.add(
        Shape.ELLIPSOID,
        at + size * np.array([0, 0.25, -0.22]),
        (size * 1.15, size * u(1.0, 1.3), size * 1.1),
        blend=0.01,
        pattern=Pattern.STRANDS,
        depth=u(0.015, 0.03),
        frequency=u(3, 7),
    )
    if rng.random() < 0.5:
        tail = at + np.array([0, -size * u(1.0, 2.2), -size * 1.2])
        builder.limb(
            at + size * np.array([0, 0.3, -0.9]),
            tail,
            size * 0.55,
            size * 0.2,
            blend=0.03,
            pattern=Pattern.STRANDS,
            depth=0.016,
            frequency=6.0,
        )


def _add_helmet(builder: Builder, at: Point, size: float) -> None:
    rng = builder.rng
    u = rng.uniform
    builder.add(
        Shape.ELLIPSOID,
        at + np.array([0, size * 0.35, -0.01]),
        (size * 1.18, size * 1.05, size * 1.18),
        blend=0.0,
        **builder.pattern(TEXTURES, depth=(0.008, 0.016), frequency=(7, 14), share=0.6),
    )
    builder.add(
        Shape.TORUS,
        at + np.array([0, size * 0.2, -0.01]),
        (size * 1.15, 0.022),
        blend=0.006,
    )
    if rng.random() < 0.5:
        builder.add(
            Shape.BOX,
            at + np.array([0, size * 1.3, -0.02]),
            (0.025, size * u(0.3, 0.6), size * 1.1),
            round=0.012,
            blend=0.015,
            pattern=Pattern.RINGS,
            depth=0.01,
            frequency=12.0,
        )


def add_weapon(builder: Builder, hand: Point, side: int) -> None:
    """A sword, staff, shield or orb in a hand."""
    rng = builder.rng
    kind = rng.choice(["sword", "staff", "shield", "orb"])
    tilt = rng.uniform(-0.35, 0.35)
    turned = turn(x=rng.uniform(0.0, 0.5), z=tilt)
    up = turned @ np.array([0.0, 1.0, 0.0])
    if kind == "sword":
        length = rng.uniform(0.18, 0.3)
        builder.add(
            Shape.BOX,
            hand + up * (length + 0.06),
            (0.045, length, 0.022),
            rotation=turned,
            round=0.012,
        )
        builder.add(Shape.BOX, hand + up * 0.07, (0.11, 0.022, 0.03), rotation=turned, round=0.012)
        builder.limb(hand - up * 0.1, hand + up * 0.07, 0.028, 0.028)
    elif kind == "staff":
        top, bottom = hand + up * rng.uniform(0.25, 0.45), hand - up * 0.45
        bottom[1] = max(bottom[1], -0.84)
        builder.limb(
            bottom,
            top,
            0.03,
            0.03,
            **builder.pattern((Pattern.RINGS,), depth=(0.006, 0.01), frequency=(6, 12), share=0.5),
        )
        builder.add(
            Shape.ELLIPSOID,
            top,
            (rng.uniform(0.05, 0.09),) * 3,
            blend=0.02,
            **builder.pattern(
                (Pattern.STUDS, Pattern.RINGS), depth=(0.008, 0.014), frequency=(8, 14)
            ),
        )
    elif kind == "shield":
        disc = turn(x=np.pi / 2, y=side * 0.5)
        size = rng.uniform(0.15, 0.24)
        front = hand + np.array([0, 0, 0.09])
        builder.add(Shape.CYLINDER, front, (size, 0.035), rotation=disc, round=0.02)
        builder.add(
            Shape.TORUS,
            front + np.array([0, 0, 0.03]),
            (size * 0.92, 0.022),
            rotation=disc,
            blend=0.01,
        )
        builder.add(
            Shape.ELLIPSOID,
            front + np.array([0, 0, 0.03]),
            (size * 0.4, 0.06, size * 0.4),
            rotation=disc,
            blend=0.01,
        )
    else:
        builder.add(
            Shape.ELLIPSOID,
            hand + np.array([0, 0.1, 0.02]),
            (rng.uniform(0.07, 0.1),) * 3,
            blend=0.02,
            **builder.pattern(TEXTURES, depth=(0.008, 0.014), frequency=(7, 12)),
        )


def add_plate(builder: Builder, shoulder: Point, side: int, pattern: dict[str, Any]) -> None:
    """A shoulder plate."""
    at = shoulder + np.array([side * 0.02, 0.03, 0])
    builder.add(
        Shape.ELLIPSOID, at, (0.14, 0.10, 0.14), rotation=turn(z=-side * 0.4), blend=0.0, **pattern
    )


def _add_horns(builder: Builder, head_at: Point, size: float) -> None:
    u = builder.rng.uniform
    out, up, length = u(0.4, 1.0), u(0.4, 1.0), u(0.12, 0.26)
    for side in (-1, 1):
        root = head_at + size * np.array([side * 0.6, 0.65, 0.0])
        middle = root + length * np.array([side * out, up * 0.6, 0.1])
        tip = middle + length * np.array([side * 0.1, up, 0.15])
        builder.limb(
            root,
            middle,
            0.055,
            0.042,
            blend=0.025,
            pattern=Pattern.RINGS,
            depth=0.01,
            frequency=16.0,
        )
        builder.limb(middle, tip, 0.042, 0.018, blend=0.02)
