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


def margins(
    groups: Mapping[str, Sequence[Values | None]], weights: Mapping[str, float]
) -> dict[str, float]:
    """Returns how far the best of each group is above its worst, in the spread that groups have.

    In its own spread every group has at least 2: a range is never less than two standard
    deviations. The unit is therefore the standard deviation within a group, the mean (of squares)
    over all groups; below 1 a pair differs by less than is usual. Infinite where the worst has no
    mesh.

    Args:
        groups: Rewards of the members, by group.
        weights: By reward, above 0.
    """
    known = {key: [values for values in group if values is not None]
             for key, group in groups.items()}  # fmt: skip
    sums = {key: np.zeros(len(found)) for key, found in known.items()}
    for name, weight in weights.items():
        numbers = {key: _filled(found, name) for key, found in known.items() if found}
        spread = _pooled(list(numbers.values()))
        for key, values in numbers.items():
            if spread >= FLAT:
                sums[key] += weight * values / spread
    unit = _pooled([values for values in sums.values() if len(values)])
    gaps = {}
    for key, group in groups.items():
        if len(known[key]) < len(group):
            gaps[key] = np.inf if known[key] else 0.0
        else:
            gaps[key] = float(np.ptp(sums[key]) / unit) if unit > 0 else 0.0
    return gaps


def _pooled(groups: Sequence[NDArray[np.float64]]) -> float:
    """Returns the root of the mean variance within groups; 0 without any."""
    return float(np.sqrt(np.mean([values.var() for values in groups]))) if groups else 0.0


def _filled(members: Sequence[Values], name: str) -> NDArray[np.float64]:
    """Returns a reward of members; one that has none of it counts as the lowest, 0 if none has."""
    found = np.array([_value(values, name) for values in members])
    known = found[np.isfinite(found)]
    return np.where(np.isfinite(found), found, known.min() if len(known) else 0.0)


def _value(values: Values | None, name: str) -> float:
    value = None if values is None else values[name]
    return np.nan if value is None else value
