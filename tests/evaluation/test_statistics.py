"""Intervals and paired tests against known distributions."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ultrashape_cli.evaluation.statistics import Estimate, compare, estimate


def test_the_interval_has_the_width_of_the_standard_error() -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, 400)
    found = estimate(values.tolist())
    error = values.std(ddof=1) / math.sqrt(400)
    assert found.mean == pytest.approx(values.mean())
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.1)
    assert found.count == 400


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        found = estimate(rng.normal(size=40).tolist())
        covered += found.low <= 0 <= found.high
    assert 0.88 <= covered / 200 <= 0.99


def test_no_values_have_no_mean_and_one_has_no_interval() -> None:
    with pytest.raises(ValueError, match="no mean"):
        estimate([])
    assert estimate([3.0]) == Estimate(3.0, None, None, 1)
    alone = compare([2.0], [1.0], sign=1)
    assert (alone.difference, alone.p_value) == (Estimate(1.0, None, None, 1), None)
    assert not alone.difference.holds_zero


@pytest.mark.parametrize(("sign", "better"), [(1, 0.75), (-1, 0.25)])
def test_a_comparison_counts_the_assets_that_gained(sign: int, better: float) -> None:
    found = compare([2.0, 3.0, 4.0, 1.0], [1.0, 2.0, 3.0, 2.0], sign=sign)
    assert found.better == better
    assert found.difference.mean == pytest.approx(0.5)
    assert found.relative == pytest.approx(0.25)


def test_a_clear_gain_is_significant_and_noise_is_not() -> None:
    rng = np.random.default_rng(0)
    base = rng.uniform(1, 2, 40)
    gained = compare((base * 0.8).tolist(), base.tolist(), sign=-1)
    assert gained.p_value < 1e-6
    assert gained.difference.high < 0
    noise = compare((base + rng.normal(0, 0.1, 40)).tolist(), base.tolist(), sign=-1)
    assert noise.p_value > 0.05
    assert compare(base.tolist(), base.tolist(), sign=-1).p_value == 1


def test_rows_of_different_length_are_no_pairs() -> None:
    with pytest.raises(ValueError, match="equal lengths"):
        compare([1.0], [1.0, 2.0], sign=1)
