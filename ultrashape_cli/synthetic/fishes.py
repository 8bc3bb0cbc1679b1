"""Fish and whales, and the shells beside them."""

from __future__ import annotations

import math

import numpy as np

from ultrashape_cli.synthetic.blends import Detail, Part, Pattern, turn
from ultrashape_cli.synthetic.maker import Maker
from ultrashape_cli.synthetic.outlines import profile, smooth_outline

_BODIES = {
    # height, width, length of the body; where it is highest, how blunt the head is
    "trout": (0.24, 0.15, 0.9, 0.35, 0.5),
    "carp": (0.36, 0.22, 0.85, 0.35, 0.6),
    "angelfish": (0.55, 0.13, 0.62, 0.45, 0.35),
    "tuna": (0.30, 0.22, 0.95, 0.4, 0.3),
    "puffer": (0.5, 0.46, 0.62, 0.45, 0.8),
    "angler": (0.46, 0.36, 0.66, 0.35, 0.9),
    "shark": (0.24, 0.22, 1.0, 0.35, 0.35),
    "eel": (0.14, 0.12, 1.0, 0.25, 0.7),
}


def fish(rng: np.random.Generator) -> list[Part]:
    """Returns the parts of a fish that faces z."""
    made = _Fish(rng)
    made.body()
    made.fins()
    made.head()
    if made.chance(0.25):
        made.stand()
    return made.parts


class _Fish(Maker):
    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__(rng)
        u = rng.uniform
        self.name = self.choose(*_BODIES)
        tall, wide, long, self.peak, self.blunt = _BODIES[self.name]
        self.tall, self.wide, self.long = tall * u(0.85, 1.15), wide * u(0.85, 1.2), long
        self.stout = self.tall > 0.3 * long
        self.bend = u(-0.25, 0.25) * (2.2 if self.name == "eel" else 1.0)
        if self.stout:
            self.bend = 0.0
        smooth = self.name in ("shark", "eel", "angler")
        self.skin = self.coat("skin") if smooth else self.coat("scales", deep=1.1)

    def middle(self, t: float) -> np.ndarray:
        """Returns the point of the spine at t, 0 at the snout and 1 at the tail."""
        sway = self.bend * math.sin(3.2 * t) * t
        if self.name == "eel":
            sway = self.bend * math.sin(7 * t) * 0.8
        return np.array([sway, 0.0, self.long * (1 - 2 * t)])

    def half(self, t: float) -> float:
        """Returns the relative half-height of the body at t."""
        if t < self.peak:
            return (1 - (1 - t / self.peak) ** (2 + 2 * self.blunt)) ** 0.5
        x = (t - self.peak) / (1 - self.peak)
        return 0.16 + 0.84 * math.cos(0.5 * math.pi * x) ** (0.6 if self.name == "eel" else 1.1)

    def body(self) -> None:
        """One tube from snout to tail, flat at the sides; of tall fish, a turned body."""
        steps = np.concatenate([np.linspace(0.03, 0.2, 6), np.linspace(0.27, 1.0, 10)])
        if self.stout:
            heights = [self.long * (1 - 2 * t) for t in steps[::-1]]
            section = profile(heights, [self.tall * self.half(t) for t in steps[::-1]])
            self.revolve(section, squash=self.tall / self.wide, rotation=turn(x=math.pi / 2),
                         **self.skin)  # fmt: skip
            return
        # From the tail, so that scales overlap towards it.
        spine = [self.middle(t) for t in steps[::-1]]
        radii = [self.tall * max(self.half(t), 0.1) for t in steps[::-1]]
        self.tube(spine, radii, squash=self.tall / self.wide, **self.skin)

    def flank(self, t: float, angle: float, side: int = 1) -> np.ndarray:
        """Returns the point of the skin at t, `angle` above the middle of a side."""
        half = self.half(t)
        out = (side * self.wide * half * math.cos(angle), self.tall * half * math.sin(angle), 0)
        return self.middle(t) + out

    def fin(self, root: np.ndarray, outline: list[tuple[float, float]], flat: np.ndarray,
            thick: float = 0.03) -> None:  # fmt: skip
        """A fin in the plane that a rotation `flat` turns xy to, with rays."""
        rays = (Detail(Pattern.FLUTES, 0.012, self.rng.uniform(8, 13)),)
        self.prism(smooth_outline(outline), root, thick, rotation=flat, round=0.016, blend=0.035,
                   details=rays)  # fmt: skip

    def fins(self) -> None:
        """Tail, back, belly and breast fins."""
        u = self.rng.uniform
        t, upright = self.tall, turn(y=math.pi / 2)
        end = self.middle(0.97)
        spread, fork = u(0.22, 0.42), u(-0.05, 0.2)
        turned = turn(y=math.pi / 2 + self.bend * 0.8)
        # In this plane x runs backwards and y up.
        self.fin(end, [(-0.06, 0.05), (0.1, spread * 0.6), (0.3, spread), (0.3 - fork, 0.0),
                       (0.3, -spread), (0.1, -spread * 0.6), (-0.06, -0.05)], turned)  # fmt: skip
        first, last, rise = u(0.2, 0.4), u(0.55, 0.8), u(0.12, 0.3)
        if self.name == "shark":
            first, last, rise = 0.36, 0.52, 0.34
        elif self.name == "angelfish":
            rise = u(0.3, 0.55)
        length = 2 * self.long * (last - first)
        for side, share in ((1, 1.0), (-1, u(0.4, 0.9))):
            at = first if side > 0 else max(first, 0.5)
            where = self.middle(at) + (0, side * (t * self.half(at) - 0.06), 0)
            tall, long = rise * share, length * (1.0 if side > 0 else 0.6)
            lean = long * u(0.3, 0.6)
            fall = t * (self.half(at) - self.half(at + long / 2 / self.long))
            points = [(0, -0.05), (lean * 0.5, tall * 0.75), (lean, tall),
                      (long * 0.9, tall * 0.45 - fall), (long, -fall - 0.04)]  # fmt: skip
            self.fin(where, [(x, side * y) for x, y in points], upright)
        for side in (-1, 1):
            where = self.middle(0.33) + (side * self.wide * self.half(0.33) * 0.85, -t * 0.3, 0)
            long, out = u(0.22, 0.34), turn(y=math.pi / 2 + side * u(0.5, 1.0), x=side * 0.2)
            self.fin(where, [(-0.05, 0.04), (long * 0.6, 0.08), (long, -0.06), (long * 0.7, -0.2),
                             (0.05, -0.08)], out, 0.025)  # fmt: skip

    def head(self) -> None:
        """Eyes, mouth, gills; spines and a lure for those that have them."""
        t, w = self.tall, self.wide
        for side in (-1, 1):
            size = 0.085 if self.name == "angelfish" else 0.07
            at = self.flank(0.14, 0.4, side) - (side * size * 0.5, 0, 0)
            self.egg(at, (size, size * 1.4, size * 1.4), blend=0.03)
            ring = at + (side * size * 0.75, 0, 0)
            self.egg(ring, (size * 0.55, size * 0.85, size * 0.85), cut=True, blend=0.012)
            self.egg(ring - (side * size * 0.25, 0, 0), (size * 0.5, size * 0.6, size * 0.6))
            gill = [self.flank(0.24 + 0.04 * math.cos(2 * a), a, side)
                    for a in (-0.9, -0.5, 0, 0.5, 0.9)]  # fmt: skip
            self.tube(gill, [0.014] * 5, cut=True, blend=0.03)
            plate = [point + (0, 0, 0.035) for point in gill]
            self.tube(plate, np.array([0.2, 0.8, 1, 0.8, 0.2]) * 0.03, blend=0.04)
        open_mouth = self.name == "angler" or self.chance(0.4)
        jaw = self.middle(0.0) + (0, -t * 0.12, -0.02)
        gape = (w * 0.5, t * (0.3 if open_mouth else 0.08), 0.16)
        self.egg(jaw, gape, cut=True, blend=0.02)
        for side in (-1, 1):
            lip = [self.middle(0.06) + (side * w * 0.42, -t * 0.14, 0),
                   self.middle(0.0) + (0, -t * 0.12 + side * gape[1] * 0.9, -0.01),
                   self.middle(0.06) + (-side * w * 0.42, -t * 0.14, 0)]  # fmt: skip
            self.tube(lip, [0.022] * 3, blend=0.025)
        if self.name == "puffer":
            self.spines()
        if self.name == "angler":
            root = self.middle(0.2) + (0, t * 0.8, 0)
            self.tube([root, root + (0, 0.3, 0.1), root + (0, 0.34, 0.4), root + (0, 0.2, 0.55)],
                      [0.035, 0.028, 0.026, 0.026], blend=0.02)  # fmt: skip
            self.egg(root + (0, 0.15, 0.57), (0.07,) * 3, blend=0.02)

    def spines(self) -> None:
        """Short cones all over."""
        for k in range(46):
            y = 1 - 2 * (k + 0.5) / 46
            ring, angle = math.sqrt(1 - y * y), k * 2.39996
            way = np.array([ring * math.sin(angle), y, ring * math.cos(angle)])
            if abs(way[2]) < 0.75:
                root = self.middle(0.45) + way * (self.wide, self.tall, self.long * 0.6) * 0.9
                self.limb(root, root + way * 0.17, 0.035, 0.012, blend=0.02)

    def stand(self) -> None:
        """A wave that carries it."""
        low = -self.tall - 0.22
        self.tube([(0.3, low, -0.3), (0.1, low + 0.1, 0), (0, -self.tall * 0.6, 0.05)],
                  [0.14, 0.1, 0.09], blend=0.08, **self.coat("skin"))  # fmt: skip
        self.cylinder((0.15, low - 0.08, -0.15), 0.4, 0.07, round=0.02, blend=0.05,
                      **self.coat("stone", "ornate"))  # fmt: skip


def shell(rng: np.random.Generator) -> list[Part]:
    """Returns the parts of a snail's shell, a scallop or a nautilus."""
    made = Maker(rng)
    u = rng.uniform
    kind = made.choose("whelk", "turban", "nautilus", "scallop", "urchin")
    if kind == "scallop":
        _scallop(made)
    elif kind == "urchin":
        _urchin(made)
    else:
        _coil(made, kind, u(0.8, 1.2))
    return made.parts


def _coil(made: Maker, kind: str, stretch: float) -> None:
    """A tube that grows along a logarithmic spiral."""
    u = made.rng.uniform
    turns = {"whelk": u(5, 6.5), "turban": u(3.2, 4.2), "nautilus": u(2.2, 2.8)}[kind]
    rise = {"whelk": 1.5, "turban": 0.75, "nautilus": 0.0}[kind] * stretch
    # How much wider each turn is than the one before; more, and turns would not touch.
    grow = {"whelk": u(1.5, 1.7), "turban": u(1.75, 2.1), "nautilus": u(2.2, 2.8)}[kind]
    angles = np.linspace(-turns * 2 * math.pi, 0, int(turns * 22))
    scale = 0.55 * grow ** (angles / (2 * math.pi))
    points = np.column_stack([scale * np.sin(angles), -rise * 1.35 * scale, scale * np.cos(angles)])
    radii = scale * (0.68 if kind != "nautilus" else 0.62)
    kinds = (Pattern.RINGS, Pattern.STUDS, Pattern.FLUTES, Pattern.KNURL)
    ribs = Detail(kinds[made.rng.integers(4)], u(0.012, 0.026), u(3, 7))
    fine = Detail(Pattern.NOISE, u(0.004, 0.01), u(6, 12))
    turned = turn(x=math.pi / 2, y=0) if kind == "nautilus" else None
    if turned is not None:
        points = points @ turned.T
    made.tube(points, radii, steps=1, details=(ribs, fine))
    if made.chance(0.5) and kind == "whelk":
        for k in range(5, int(turns * 22), 5):
            out = points[k] * (1, 0, 1)
            out = out / max(float(np.linalg.norm(out)), 1e-6)
            root = points[k] + out * radii[k] * 0.8 + (0, radii[k] * 0.35, 0)
            made.limb(root, root + out * radii[k] * 0.7, radii[k] * 0.3, radii[k] * 0.06,
                      blend=0.02)  # fmt: skip
    # The mouth, and its lip.
    end, way = points[-1], points[-1] - points[-2]
    way /= np.linalg.norm(way)
    lip = [end + radii[-1] * 0.95 * _around(way, a) for a in np.linspace(0, 2 * math.pi, 17)]
    made.egg(end + way * radii[-1] * 0.6, (radii[-1] * 0.8,) * 3, cut=True, blend=0.02)
    made.tube(lip, [radii[-1] * 0.2] * 17, steps=2, blend=0.04)


def _around(way: np.ndarray, angle: float) -> np.ndarray:
    """Returns a unit vector across a direction at an angle."""
    x = np.cross(way, [0.0, 1.0, 0.0] if abs(way[1]) < 0.9 else [1.0, 0.0, 0.0])
    x /= np.linalg.norm(x)
    return math.cos(angle) * x + math.sin(angle) * np.cross(way, x)


def _scallop(made: Maker) -> None:
    """Ribs that fan out over a bowl."""
    u, count = made.rng.uniform, int(made.rng.integers(9, 15))
    bulge = u(0.2, 0.4)
    made.egg((0, 0, 0), (0.8, 0.8, bulge), details=(Detail(Pattern.NOISE, 0.012, 6),
                                                   Detail(Pattern.RINGS, 0.008, 7)))  # fmt: skip
    for k in range(count):
        angle = (k / (count - 1) - 0.5) * 2.5
        way = np.array([math.sin(angle), math.cos(angle)])
        # From the hinge to the edge of the disc.
        long = 0.72 * way[1] + math.sqrt(0.64 - (0.72 * way[0]) ** 2)
        ends = []
        for r in (0.12, 0.35, 0.6, 0.8, 0.98):
            x, y = np.array([0, -0.72]) + way * long * r
            ends.append((x, y, bulge * 0.94 * math.sqrt(max(0.0, 1 - (x * x + y * y) / 0.64))))
        made.tube(ends, long * np.array([0.02, 0.034, 0.048, 0.055, 0.05]), blend=0.03,
                  details=(Detail(Pattern.RINGS, 0.014, 9),))  # fmt: skip
    made.box((0, -0.72, 0), (0.32, 0.1, bulge * 0.5), round=0.03, blend=0.05)
    made.egg((0, 0.05, -bulge * 0.75), (0.7, 0.7, bulge * 0.9), cut=True, blend=0.02)


def _urchin(made: Maker) -> None:
    """A ball of rows of knobs, with spines or without."""
    u = made.rng.uniform
    spiny, tall = made.chance(0.5), u(0.35, 0.55)
    made.egg((0, 0, 0), (0.6, tall, 0.6), details=(Detail(Pattern.STUDS, 0.025, 4.5),
                                                  Detail(Pattern.FLUTES, 0.014, 2.2)))  # fmt: skip
    made.egg((0, tall, 0), (0.12, 0.12, 0.12), cut=True, blend=0.03)
    for k in range(60 if spiny else 0):
        y = 1 - 1.9 * (k + 0.5) / 60
        ring, angle = math.sqrt(1 - y * y), k * 2.39996
        way = np.array([ring * math.sin(angle), y, ring * math.cos(angle)])
        root = way * (0.58, tall - 0.02, 0.58)
        made.limb(root, root + way * u(0.25, 0.42), 0.04, 0.022, blend=0.02)
