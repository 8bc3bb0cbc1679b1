"""Families of shapes by name: what `make_shape` makes of a seed."""

from __future__ import annotations

from collections.abc import Callable
from zlib import crc32

import numpy as np

from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.synthetic.arms import weapon
from ultrashape_cli.synthetic.birds import bird
from ultrashape_cli.synthetic.blends import Part
from ultrashape_cli.synthetic.buildings import building
from ultrashape_cli.synthetic.chains import chain, lattice
from ultrashape_cli.synthetic.dragons import dragon
from ultrashape_cli.synthetic.fabric import cloth, thin
from ultrashape_cli.synthetic.figurines import figurine_parts
from ultrashape_cli.synthetic.fishes import fish, shell
from ultrashape_cli.synthetic.furniture import furniture
from ultrashape_cli.synthetic.hands import hand
from ultrashape_cli.synthetic.heads import head
from ultrashape_cli.synthetic.insects import insect
from ultrashape_cli.synthetic.machines import bracket, fastener
from ultrashape_cli.synthetic.plants import plant
from ultrashape_cli.synthetic.quadrupeds import quadruped
from ultrashape_cli.synthetic.rocks import rock, terrain
from ultrashape_cli.synthetic.ruins import ruin
from ultrashape_cli.synthetic.solids import fit, solid_mesh, varied_mesh
from ultrashape_cli.synthetic.studio import studio
from ultrashape_cli.synthetic.tools import tool
from ultrashape_cli.synthetic.turned import column, vase
from ultrashape_cli.synthetic.vehicles import vehicle
from ultrashape_cli.synthetic.wheels import gears

Make = Callable[[np.random.Generator], list[Part]]

FAMILIES: dict[str, Make] = {
    "figurine": figurine_parts,
    "quadruped": quadruped,
    "bird": bird,
    "fish": fish,
    "dragon": dragon,
    "insect": insect,
    "head": head,
    "hand": hand,
    "vase": vase,
    "column": column,
    "gear": gears,
    "fastener": fastener,
    "bracket": bracket,
    "vehicle": vehicle,
    "tool": tool,
    "weapon": weapon,
    "furniture": furniture,
    "building": building,
    "ruin": ruin,
    "plant": plant,
    "rock": rock,
    "terrain": terrain,
    "shell": shell,
    "chain": chain,
    "lattice": lattice,
    "cloth": cloth,
    "thin": thin,
}
"""What `all` takes in turn."""
STYLES: dict[str, Make] = {"studio": studio}
"""Families that look as if one hand had made them: to fine-tune on, so not among `all`."""


def make_shape(family: str, seed: int, resolution: int = 128, *, vary: bool = False) -> Mesh:
    """Returns a closed shape of a family, y up, facing z, in a cube of half-side `HALF_SIDE`.

    Args:
        family: A name of `FAMILIES` or `STYLES`.
        seed: Chooses everything about the shape.
        resolution: Cells of the extraction grid along one side.
        vary: Cut, stretch, turn and shrink it at random too.
    """
    # A seed of two families must not draw the same numbers.
    rng = np.random.default_rng([seed, crc32(family.encode())])
    parts = family_maker(family)(rng)
    return varied_mesh(parts, rng, resolution) if vary else fit(solid_mesh(parts, resolution))


def family_maker(family: str) -> Make:
    """Returns the maker of a family by its name."""
    known = FAMILIES | STYLES
    if family not in known:
        raise ValueError(f"no family {family!r}; there are {', '.join(known)}")
    return known[family]
