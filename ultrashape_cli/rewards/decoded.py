"""Rewards of latents, by the mesh that a decoder makes of them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ultrashape_cli.inference.cleanup import surface_mesh
from ultrashape_cli.inference.refiner import Refiner
from ultrashape_cli.rewards.table import Evidence, Values, measure


def measure_decoded(
    refiner: Refiner,
    latents: Tensor,  # [M, C], scaled
    names: Sequence[str],
    evidence: Evidence,
) -> Values:
    """Returns the named rewards of a mesh as it is decoded, before loose parts are removed.

    Raises:
        MeshError: There is none.
    """
    grid = refiner.decode(latents[None], lambda stage, done, total: None)
    return measure(surface_mesh(grid), names, evidence)
