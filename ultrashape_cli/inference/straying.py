"""How far a result strays from the coarse mesh that it was made from.

A refiner adds detail to a surface that is there. A result that is far from it is of another shape:
the model does not know this kind, or image and mesh do not belong together.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.geometry.metrics import compare_meshes

NEAR = 2 / 32
"""Distance in the cube of side 2 that a refined surface keeps: a cell of the usual coarse mesh."""
ALLOWED = 0.1
"""Share of the result beyond it that counts as strayed. Of 49 results of the packaged model
(`examples/bench/acceptance.py`) none has that much; the three with more than 0.04 were 6 to 11 %
further from the truth than their input was, 45 with less than 0.02 were 5 % nearer on average. A
lower limit would accuse what is right: of a coarse version of 32 cells, five times smoothed, the
truth itself is up to 0.5 beyond, and more than 0.1 in 17 of 27 families."""
_SAMPLES = 50_000


@dataclass(frozen=True, slots=True)
class Straying:
    """Distances in the cube of side 2."""

    mean: float
    """Chamfer-L1, of both directions."""
    beyond: float
    """Share of the result's surface further than `NEAR` from the input."""
    lost: float
    """Share of the input's surface further than `NEAR` from the result."""

    @property
    def strayed(self) -> bool:
        """Says whether the result is of another shape than its input."""
        return max(self.beyond, self.lost) > ALLOWED

    def as_dict(self) -> dict[str, Any]:
        """Returns the figures as plain values."""
        return {**{k: round(v, 5) for k, v in asdict(self).items()}, "strayed": self.strayed}


def measure_straying(result: Mesh, coarse: Mesh) -> Straying:
    """Compares a result with its input, both in the normalised frame."""
    found = compare_meshes(result, coarse, _SAMPLES, taus=(NEAR,))
    return Straying(
        mean=found["chamfer_l1"],
        beyond=1 - found[f"precision@{NEAR:g}"],
        lost=1 - found[f"recall@{NEAR:g}"],
    )
