"""What makers of families build with: parts from points and outlines, and materials."""

from __future__ import annotations

from typing import Any

import numpy as np

from ultrashape_cli.synthetic.blends import Detail, Pattern, Shape
from ultrashape_cli.synthetic.figurine_gear import Builder
from ultrashape_cli.synthetic.outlines import Points, gem_planes, tube_table

P = Pattern
Layer = tuple[tuple[Pattern, ...], tuple[float, float], tuple[float, float], float]

MATERIALS: dict[str, tuple[Layer, ...]] = {
    "skin": (
        ((P.WRINKLES,), (0.006, 0.014), (6, 11), 0.8),
        ((P.NOISE,), (0.006, 0.012), (4, 8), 0.7),
        ((P.PEBBLES,), (0.004, 0.008), (14, 20), 0.4),
    ),
    "hide": (
        ((P.WRINKLES,), (0.012, 0.022), (6, 10), 1.0),
        ((P.CRACKS, P.PEBBLES), (0.006, 0.012), (8, 14), 0.7),
    ),
    "fur": (
        ((P.FUR,), (0.016, 0.032), (8, 14), 1.0),
        ((P.NOISE,), (0.008, 0.018), (3, 5), 0.6),
        ((P.FUR,), (0.005, 0.009), (18, 24), 0.5),
    ),
    "scales": (
        ((P.SHINGLES, P.PEBBLES, P.SCALES), (0.014, 0.024), (6, 11), 1.0),
        ((P.NOISE,), (0.006, 0.014), (3, 5), 0.6),
    ),
    "feathers": (
        ((P.SHINGLES,), (0.016, 0.026), (5, 9), 1.0),
        ((P.FUR,), (0.005, 0.009), (14, 22), 0.6),
    ),
    "chitin": (
        ((P.RINGS, P.PEBBLES, P.HAMMERED), (0.01, 0.022), (5, 11), 0.9),
        ((P.NOISE,), (0.006, 0.014), (5, 10), 0.7),
    ),
    "stone": (
        ((P.NOISE,), (0.012, 0.03), (2.5, 5), 1.0),
        ((P.CRACKS, P.HAMMERED), (0.008, 0.016), (4, 8), 0.6),
        ((P.NOISE,), (0.004, 0.008), (12, 18), 0.7),
    ),
    "masonry": (
        ((P.BRICKS,), (0.014, 0.022), (2.6, 5), 1.0),
        ((P.NOISE,), (0.004, 0.01), (8, 14), 0.8),
    ),
    "rubble": (
        ((P.PEBBLES,), (0.016, 0.026), (4, 8), 1.0),
        ((P.NOISE,), (0.004, 0.008), (10, 16), 0.7),
    ),
    "tiles": (((P.SHINGLES,), (0.016, 0.026), (5, 9), 1.0),),
    "wood": (
        ((P.FUR,), (0.008, 0.014), (7, 14), 1.0),
        ((P.NOISE,), (0.004, 0.01), (4, 8), 0.5),
    ),
    "planks": (
        ((P.PLANKS,), (0.012, 0.02), (4, 8), 1.0),
        ((P.NOISE,), (0.004, 0.008), (5, 9), 0.5),
    ),
    "bark": (
        ((P.FUR, P.CRACKS), (0.016, 0.032), (5, 9), 1.0),
        ((P.NOISE,), (0.008, 0.016), (4, 8), 0.7),
        ((P.FUR,), (0.005, 0.009), (14, 20), 0.5),
    ),
    "metal": (
        ((P.HAMMERED, P.NOISE, P.KNURL, P.ENGRAVING), (0.006, 0.013), (5, 10), 0.6),
        ((P.NOISE,), (0.003, 0.006), (12, 20), 0.6),
    ),
    "plates": (
        ((P.PANELS,), (0.008, 0.014), (2, 4), 0.9),
        ((P.NOISE, P.HAMMERED), (0.003, 0.006), (8, 16), 0.5),
    ),
    "ornate": (
        (
            (P.ENGRAVING, P.KNURL, P.SHINGLES, P.FLUTES, P.WEAVE, P.STUDS, P.SCALES),
            (0.012, 0.022),
            (4, 8),
            1.0,
        ),
        ((P.NOISE, P.HAMMERED), (0.003, 0.008), (8, 16), 0.6),
    ),
    "clay": (
        ((P.RINGS, P.NOISE), (0.005, 0.01), (8, 16), 0.8),
        ((P.NOISE, P.HAMMERED), (0.005, 0.01), (3, 6), 0.7),
    ),
    "cloth": (
        ((P.WEAVE,), (0.006, 0.011), (9, 14), 0.8),
        ((P.WRINKLES,), (0.01, 0.02), (3, 6), 0.7),
    ),
}
"""Layers of a surface: patterns to choose from, depth, waves per unit, share that has the layer."""


class Maker(Builder):
    """The parts of one shape as they are added; each gets noise of its own."""

    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__(rng)
        self._noise = int(rng.integers(9000))

    def add(self, shape: Shape, centre: Any, size: Any, **options: Any) -> None:
        """Joins a primitive; the options are those of `Part`."""
        options.setdefault("seed", self._noise + 17 * len(self.parts))
        super().add(shape, centre, size, **options)

    def limb(self, start: Any, end: Any, radius: float, tip: float, **options: Any) -> None:
        """Joins a straight tapered limb with round ends."""
        self.tube([start, end], [radius, tip], steps=1, **options)

    def tube(
        self,
        points: Any,
        radii: Any,
        *,
        steps: int = 5,
        squash: float = 1.0,
        **options: Any,
    ) -> None:
        """Joins a tube through points `[N, 3]` with radii `[N]`.

        Steps 1 keeps its corners; it is `squash` times thinner along x.
        """
        radii = np.asarray(radii, float)
        table = tube_table(np.asarray(points, float) * (squash, 1, 1), radii, steps)
        options.setdefault("taper", squash - 1.0)
        size = (radii.mean(), max(table[-1, 7], 0.01), radii.mean())
        self.add(Shape.TUBE, (0, 0, 0), size, table=table, **options)

    def egg(self, centre: Any, size: Any, **options: Any) -> None:
        """Joins an ellipsoid, tapered or not."""
        self.add(Shape.EGG, centre, size, **options)

    def box(self, centre: Any, size: Any, **options: Any) -> None:
        """Joins a box of half-sides `size`."""
        self.add(Shape.BOX, centre, size, **options)

    def cylinder(self, centre: Any, radius: float, half: float, **options: Any) -> None:
        """Joins a cylinder around y."""
        self.add(Shape.CYLINDER, centre, (radius, half, radius), **options)

    def cone(self, centre: Any, low: float, half: float, high: float, **options: Any) -> None:
        """Joins a cone around y, radius `low` below and `high` above."""
        self.add(Shape.CONE, centre, (low, half, high), **options)

    def ring(self, centre: Any, size: Any, **options: Any) -> None:
        """Joins a torus around y: its radius and that of its tube."""
        self.add(Shape.TORUS, centre, size, **options)

    def prism(self, outline: Points, centre: Any, depth: float, **options: Any) -> None:
        """Joins a polygon in xy of half-depth `depth` along z."""
        half = np.abs(outline).max(axis=0)
        self.add(Shape.PRISM, centre, (*half, depth), table=outline, **options)

    def revolve(
        self, section: Points, centre: Any = (0, 0, 0), *, squash: float = 1.0, **options: Any
    ) -> None:
        """Joins a section of radius and height, turned around y, `squash` times thinner in x."""
        options.setdefault("taper", squash - 1.0)
        radius, height = np.abs(section).max(axis=0)
        self.add(Shape.REVOLVED, centre, (radius, height, radius), table=section, **options)

    def gem(self, centre: Any, size: Any, planes: int, spread: float, **options: Any) -> None:
        """Joins a convex block with flat faces inside an ellipsoid's box."""
        table = gem_planes(self.rng, planes, size, spread)
        self.add(Shape.GEM, centre, size, table=table, **options)

    def relief(
        self, heights: Points, centre: Any, side: float, depth: float, **options: Any
    ) -> None:
        """Joins ground (or a sheet, `taper=1`) with heights `[n, n]`, x first."""
        step = 2 * side / (len(heights) - 1)
        steepest = float(np.hypot(*(np.abs(np.diff(heights, axis=k)).max() for k in (0, 1)))) / step
        self.add(
            Shape.RELIEF, centre, (side, depth, side), table=heights, round=steepest, **options
        )

    def coat(self, *names: str, fine: float = 1.0, deep: float = 1.0) -> dict[str, Any]:
        """Returns the drawn details of one of these materials, at least one.

        They are `fine` times as fine and `deep` times as deep.
        """
        layers, drawn = [], []
        for patterns, depth, frequency, share in MATERIALS[self.choose(*names)]:
            kind = patterns[self.rng.integers(len(patterns))]
            layer = Detail(
                kind, deep * self.rng.uniform(*depth), fine * self.rng.uniform(*frequency)
            )
            drawn.append(layer)
            if self.rng.random() < share:
                layers.append(layer)
        return {"details": tuple(layers or drawn[:1])}

    def choose(self, *names: str) -> str:
        """Returns one of the names."""
        return names[self.rng.integers(len(names))]

    def chance(self, share: float) -> bool:
        """Returns True for a share of the calls."""
        return bool(self.rng.random() < share)
