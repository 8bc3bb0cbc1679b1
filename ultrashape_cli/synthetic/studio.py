"""One hand: figurines, animals, heads and vases cut in planes, with engraved bands and studs.

A style to fine-tune on. The subjects are those of other families; only how they are made differs.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ultrashape_cli.synthetic.birds import bird
from ultrashape_cli.synthetic.blends import (
    Detail,
    Part,
    Pattern,
    Shape,
    blend_mesh,
    find_frame,
)
from ultrashape_cli.synthetic.figurines import figurine_parts
from ultrashape_cli.synthetic.heads import head
from ultrashape_cli.synthetic.maker import Maker
from ultrashape_cli.synthetic.outlines import gem_planes, tube_table
from ultrashape_cli.synthetic.quadrupeds import quadruped
from ultrashape_cli.synthetic.turned import vase

BAND = (Detail(Pattern.ENGRAVING, 0.028, 4.0),)
RAISED = (Detail(Pattern.ENGRAVING, -0.022, 4.0),)
STUDS = (Detail(Pattern.STUDS, 0.034, 5.0),)
PLANES, SIDES = 26, 6
_SMALL = 0.06
"""Parts thinner than this stay as they are: planes would not be seen."""


def studio(rng: np.random.Generator) -> list[Part]:
    """Returns the parts of a subject in the style, on a trimmed plinth."""
    makers = (figurine_parts, figurine_parts, quadruped, bird, head, vase)
    chosen = makers[rng.integers(len(makers))]
    return _on_plinth([_cut_in_planes(part, rng) for part in chosen(rng)], rng)


def _cut_in_planes(part: Part, rng: np.random.Generator) -> Part:
    """Returns a part with flat sides, sharper joints, and bands or studs or nothing on it."""
    banded = rng.random() < 0.25
    bare = replace(part, pattern=Pattern.NONE, details=(), blend=part.blend * 0.45)
    size = np.array(part.size, float)
    if part.cut or part.keep:
        return bare
    if part.shape == Shape.TORUS:
        return replace(bare, details=STUDS if size[1] > 0.03 else ())
    thick = max(size[0], size[-1]) if part.shape in (Shape.CAPSULE, Shape.TUBE) else size.min()
    if thick < _SMALL:
        return bare
    if part.shape in (Shape.EGG, Shape.ELLIPSOID):
        table = gem_planes(rng, PLANES, size.tolist(), 0.04)
        return replace(bare, shape=Shape.GEM, table=table, details=BAND if banded else ())
    if part.shape == Shape.CAPSULE:
        radius, length, tip = size
        table = tube_table([(0, 0, 0), (0, length, 0)], [radius, tip], 1)
        return replace(bare, shape=Shape.TUBE, table=table, sides=SIDES)
    if part.shape in (Shape.CYLINDER, Shape.CONE, Shape.REVOLVED, Shape.TUBE):
        rims = STUDS if part.shape == Shape.CYLINDER else BAND
        sides = SIDES if part.shape == Shape.TUBE else 8
        engraved = banded or part.shape == Shape.REVOLVED
        # Raised on what may be hollow or have a thin stem.
        rims = RAISED if part.shape == Shape.REVOLVED else rims
        return replace(bare, sides=sides, details=rims if engraved else ())
    return replace(bare, details=BAND if banded else ())


def _on_plinth(subject: list[Part], rng: np.random.Generator) -> list[Part]:
    """Returns the subject above an eight-sided foot with an engraved band and studded rims."""
    frame = find_frame(subject)
    x, _, z = frame.centre
    low = float(blend_mesh(subject, 32, frame).bounds[0, 1])
    wide = frame.half * 0.6
    made = Maker(rng)
    made.parts = subject
    made.cylinder((x, low - 0.1, z), wide, 0.16, sides=8, round=0.02, details=BAND)
    for y in (low + 0.02, low - 0.25):
        made.cylinder((x, y, z), wide * 1.08, 0.045, sides=8, round=0.015, details=STUDS)
    return made.parts
