"""Means with intervals, and paired comparisons, over assets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import wilcoxon

RESAMPLES = 2000
LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over assets and its bootstrap interval, which one asset alone does not have."""

    mean: float
    low: float | None
    high: float | None
    count: int

    @property
    def holds_zero(self) -> bool:
        """Says whether zero lies in the interval."""
        return self.low is not None and self.high is not None and self.low <= 0 <= self.high


@dataclass(frozen=True, slots=True)
class Comparison:
    """How one row differs from another on the same assets."""

    difference: Estimate
    """Of the means, ours minus theirs."""
    means: tuple[float, float]
    """Ours and theirs, over the same assets."""
    relative: float | None
    """Difference of the means over their mean; None where that is zero."""
    better: float
    """Share of assets on which ours is strictly better."""
    p_value: float | None
    """Wilcoxon signed-rank test, two-sided; 1 where all differences are zero, None for one asset,
    which tests nothing."""


def estimate(values: Sequence[float], *, seed: int = 0) -> Estimate:
    """Returns the mean with its percentile-bootstrap interval at 95 %.

    Args:
        values: One per asset, at least one.
        seed: Of the resampling.
    """
    array = np.asarray(values, np.float64)
    if len(array) == 0:
        raise ValueError("no values have no mean")
    if len(array) == 1:
        return Estimate(float(array[0]), None, None, 1)
    means = _resampled_means(array, seed)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(array.mean()), float(low), float(high), len(array))


def compare(
    ours: Sequence[float], theirs: Sequence[float], *, sign: int, seed: int = 0
) -> Comparison:
    """Returns the paired comparison of two rows.

    Args:
        ours: One value per asset.
        theirs: The other row's, of the same assets in the same order.
        sign: 1 where higher is better, -1 where lower is.
        seed: Of the resampling.
    """
    a, b = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    if a.shape != b.shape or a.ndim != 1 or len(a) == 0:
        raise ValueError(f"paired rows need equal lengths above 0, got {a.shape} and {b.shape}")
    gap = a - b
    p_value = None
    if len(gap) > 1:
        p_value = float(wilcoxon(gap).pvalue) if np.any(gap != 0) else 1.0
    mean = float(b.mean())
    return Comparison(
        estimate(gap.tolist(), seed=seed),
        (float(a.mean()), mean),
        float(gap.mean() / abs(mean)) if mean else None,
        float((gap * sign > 0).mean()),
        p_value,
    )


def _resampled_means(values: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    chosen = rng.integers(len(values), size=(RESAMPLES, len(values)))
    return values[chosen].mean(axis=1)
