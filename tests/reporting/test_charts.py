from __future__ import annotations

import html
import json
import math
import re

import pytest

from ultrashape_cli.reporting.charts import (
    MAX_POINTS,
    Series,
    columns,
    line_chart,
    nice_ticks,
    stacked_bar,
    thin,
)


def _data(chart: str) -> list[dict]:
    return json.loads(html.unescape(re.search(r"data-series='([^']*)'", chart)[1]))


def test_a_chart_carries_its_numbers_and_their_places() -> None:
    chart = line_chart("Loss", [Series("a", [(0, 1.0), (10, 3.0)], 2)], marks=[5])
    (curve,) = _data(chart)
    assert [point[:2] for point in curve["p"]] == [[0, 1.0], [10, 3.0]]
    assert curve["p"][0][2] < curve["p"][1][2]
    assert curve["p"][0][3] > curve["p"][1][3]
    assert chart.count("class=mark") == 1
    assert "s2 line" in chart


def test_hostile_names_are_text() -> None:
    chart = line_chart("<b>'", [Series("'<i>", [(0, 1.0), (1, 2.0)], 0)] * 2)
    assert "<i>" not in chart
    assert _data(chart)[0]["n"] == "'<i>"


@pytest.mark.parametrize("points", [[], [(0, 1.0)], [(0, math.nan), (1, 1.0)]])
def test_too_few_points_are_no_chart(points) -> None:
    assert line_chart("x", [Series("a", points, 0)]) == ""


@pytest.mark.parametrize("values", [(0.0, 0.0), (-1.0, 1.0), (1e-9, 1e9), (5.0, 5.0), (-2.0, -2.0)])
def test_any_range_is_drawn_inside_the_chart(values: tuple[float, float]) -> None:
    (curve,) = _data(line_chart("x", [Series("a", list(enumerate(values)), 0)]))
    assert all(0 <= y <= 230 for _, _, _, y in curve["p"])


def test_long_curves_are_thinned_and_keep_their_peaks() -> None:
    points = [(step, 100.0 if step == 54_321 else step % 7) for step in range(100_000)]
    kept = thin(points)
    assert len(kept) <= MAX_POINTS
    assert (54_321, 100.0) in kept
    assert kept == sorted(kept)
    assert thin(points[:10]) == points[:10]


def test_ticks_are_round() -> None:
    assert nice_ticks(0.0, 10.0) == [0, 2, 4, 6, 8, 10]
    assert nice_ticks(0.13, 0.41) == pytest.approx([0.2, 0.3, 0.4])


def test_columns_and_bars_show_their_values() -> None:
    assert columns("x", [("a", None)]) == columns("x", [("a", 0.0)]) == ""
    chart = columns("x", [("a", 0.5), ("b", None), ("c", 1.0)])
    assert chart.count("<rect") == 2
    assert "width:25.00%" in stacked_bar([("data", 0.25), ("rest", 0.75)])
