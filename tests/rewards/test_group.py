"""Groups: what counts is the order and the spread, not the unit."""

from __future__ import annotations

import numpy as np
import pytest

from ultrashape_cli.rewards.group import margins, weigh


def test_units_do_not_decide() -> None:
    small = [{"a": 0.1, "b": 300.0}, {"a": 0.2, "b": 200.0}, {"a": 0.3, "b": 100.0}]
    found = weigh(small, {"a": 1.0, "b": 1.0})
    assert np.allclose(found.totals, 0)
    assert found.flat
    found = weigh(small, {"a": 2.0, "b": 1.0})
    assert (found.best, found.worst) == (2, 0)
    # A thousandfold unit weighs the same.
    scaled = [{"a": 1000 * m["a"], "b": m["b"]} for m in small]
    assert np.allclose(weigh(scaled, {"a": 2.0, "b": 1.0}).totals, found.totals)
    assert found.means == pytest.approx({"a": 0.2, "b": 200.0})


def test_no_mesh_is_the_worst_of_the_group() -> None:
    found = weigh([{"a": 5.0}, None, {"a": -1e9}, {"a": 4.0}], {"a": 1.0})
    assert found.worst == 1
    assert found.failed == 1
    assert found.totals[1] < found.totals[2]
    # Also where the others are equal, and then only that it failed is learned.
    found = weigh([{"a": 1.0}, None, {"a": 1.0}], {"a": 1.0})
    assert found.worst == 1
    assert not found.flat
    assert weigh([None, None], {"a": 1.0}).flat


def test_what_cannot_be_measured_counts_as_the_lowest() -> None:
    found = weigh([{"a": 1.0}, {"a": None}, {"a": 2.0}], {"a": 1.0})
    assert found.totals[1] == found.totals[0] < found.totals[2]
    assert weigh([{"a": None}, {"a": None}], {"a": 1.0}).flat


def test_advantages_are_of_unit_spread_and_bounded() -> None:
    values = np.r_[np.zeros(63), 1.0]
    found = weigh([{"a": float(v)} for v in values], {"a": 1.0})
    advantages = found.advantages()
    assert advantages.max() == 5.0
    assert advantages[0] == pytest.approx(-0.126, abs=1e-3)
    flat = weigh([{"a": 1.0}, {"a": 1.0009}], {"a": 1.0})
    assert flat.flat
    assert not flat.advantages().any()


def test_a_pair_is_as_clear_as_groups_are_wide() -> None:
    wide = [{"a": 0.0}, {"a": 10.0}]
    narrow = [{"a": 0.0}, {"a": 1.0}]
    found = margins({"wide": wide, "narrow": narrow, "failed": [{"a": 0.0}, None]}, {"a": 1.0})
    # Variances 25, 0.25 and 0: the unit is the root of their mean.
    unit = (25.25 / 3) ** 0.5
    assert found["wide"] == pytest.approx(10 / unit)
    assert found["narrow"] == pytest.approx(1 / unit)
    assert found["narrow"] < 1 < found["wide"]
    assert found["failed"] == np.inf
    assert margins({"none": [None, None]}, {"a": 1.0}) == {"none": 0.0}
