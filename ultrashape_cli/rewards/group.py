"""Rewards of a group: several meshes of one asset, which are only better or worse than each other.

Legend: G members of a group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ultrashape_cli.rewards.table import Values

FLAT = 1e-3
"""Spread of a reward below which a group does not differ in it: what is left is the samples'."""
EPSILON = 1e-4
"""Added to the spread that advantages are divided by."""
LARGEST_ADVANTAGE = 5.0


@dataclass(frozen=True, slots=True)
class GroupRewards:
    """What the members of a group are worth."""

    totals: NDArray[np.float64]  # [G]
    """Weighted sums of normalised rewards."""
    means: dict[str, float]
    """Mean of each reward as it was measured, over the members that have it."""
    failed: int
    """Members without a mesh."""

    @property
    def flat(self) -> bool:
        """Says whether no member is better than another, so that nothing is to be learned."""
        return float(self.totals.std()) < FLAT

    @property
    def best(self) -> int:
        """Index of the best member; the first of several."""
        return int(self.totals.argmax())

    @property
    def worst(self) -> int:
        """Index of the worst member; the last of several, so that it differs from the best."""
        return int(len(self.totals) - 1 - self.totals[::-1].argmin())

    @property
    def margin(self) -> float:
        """How far the best is above the worst, in standard deviations of the group; 0 if flat."""
        gap = float(self.totals[self.best] - self.totals[self.worst])
        return 0.0 if self.flat else gap / float(self.totals.std())

    def advantages(self) -> NDArray[np.float64]:  # [G]
        """Returns (r - mean) / (std + 1e-4), clipped to +-5; zeros of a flat group."""
        if self.flat:
            return np.zeros_like(self.totals)
        spread = (self.totals - self.totals.mean()) / (self.totals.std() + EPSILON)
        clipped: NDArray[np.float64] = spread.clip(-LARGEST_ADVANTAGE, LARGEST_ADVANTAGE)
        return clipped


def weigh(members: Sequence[Values | None], weights: Mapping[str, float]) -> GroupRewards:
    """Returns the worth of the members of a group.

    Each reward is normalised over the group before it is weighted, so that none outweighs the
    others by its unit. A reward that a member has none of counts as the lowest that another has,
    and a member without a mesh is worse than all that have one.

    Args:
        members: Rewards of each, None of one without a mesh.
        weights: By reward, above 0.
    """
    totals = np.zeros(len(members))
    has_mesh = np.array([values is not None for values in members])
    means: dict[str, float] = {}
    for name, weight in weights.items():
        found = np.array([_value(values, name) for values in members])
        known = np.isfinite(found)
        if not known.any():
            continue
        means[name] = float(found[known].mean())
        filled = np.where(known, found, found[known].min())[has_mesh]
        if filled.std() >= FLAT:
            totals[has_mesh] += weight * (filled - filled.mean()) / filled.std()
    if has_mesh.any():
        totals[~has_mesh] = totals[has_mesh].min() - sum(weights.values())
    return GroupRewards(totals, means, int((~has_mesh).sum()))


def _value(values: Values | None, name: str) -> float:
    value = None if values is None else values[name]
    return np.nan if value is None else value
