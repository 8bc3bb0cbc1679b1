"""Quality against passes: which rows there are, and what the page shows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ultrashape_cli.config.distilled import Distilled
from ultrashape_cli.config.resolve import resolve
from ultrashape_cli.evaluation.curve import (
    Way,
    curve_charts,
    curve_comparisons,
    curve_rows,
    curve_ways,
)
from ultrashape_cli.models.sources import WeightSource
from ultrashape_cli.reporting.charts import Series, line_chart

FEW = {"evaluate.curve_evaluations": (3, 6), "evaluate.curve_solvers": ("dpm", "heun")}


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, WeightSource]:
    file = tmp_path / "weights.safetensors"
    file.touch()
    plain = WeightSource("ultrashape-1.0", {"dit": file})
    return {
        "my teacher": plain,
        "guided": WeightSource("ultrashape-1.0", {"dit": file}, distilled=Distilled(0, 5, "t")),
        "student": WeightSource("ultrashape-1.0", {"dit": file}, distilled=Distilled(6, 5, "t")),
    }


def test_rows_cost_what_they_say(sources) -> None:
    import torch

    resolved = resolve(environ={}, flags=FEW)
    rows = curve_rows(resolved, sources, curve_ways(resolved, sources), torch.device("cpu"))
    assert [row.name for row in rows] == [
        *("my teacher dpm 3", "my teacher dpm 6", "my teacher heun 6"),
        *("guided dpm 3", "guided dpm 6", "guided heun 6", "student euler 6"),
    ]
    refine = {row.name: row.inputs["refine"] for row in rows}
    assert [refine[f"my teacher {way}"]["steps"] for way in ("dpm 3", "dpm 6", "heun 6")] == [
        4,
        7,
        4,
    ]
    guidance = [found["guidance_scale"] for found in refine.values()]
    assert guidance == [5, 5, 5, 0, 0, 0, 0]
    assert (refine["student euler 6"]["steps"], refine["student euler 6"]["solver"]) == (7, "euler")


def ways(*names: str) -> dict[str, Way]:
    found = {}
    for name in names:
        weights, solver, count = name.rsplit(" ", 2)
        found[name] = Way(weights, weights != "my teacher", solver, int(count))
    return found


def test_students_meet_what_costs_as_much() -> None:
    names = ["my teacher dpm 3", "my teacher dpm 6", "my teacher ab2 12",
             "my teacher heun 6", "guided dpm 6", "student euler 6"]  # fmt: skip
    assert curve_comparisons(ways(*names)) == {
        "guided dpm 6": ["my teacher dpm 6", "my teacher ab2 12"],
        "student euler 6": ["my teacher dpm 6", "my teacher ab2 12"],
    }


def test_the_charts_show_means_and_intervals() -> None:
    def row(name: str, passes: float, mean: float) -> dict:
        value = {"mean": mean, "low": mean - 0.01, "high": mean + 0.01}
        return {"name": name, "means": {"chamfer_l1": value, "passes": {"mean": passes}}}

    rows = [row("my teacher dpm 3", 6, 0.3), row("my teacher dpm 6", 12, 0.2),
            row("student euler 6", 6, 0.1), {"name": "coarse", "means": {}}]  # fmt: skip
    chart = curve_charts(rows, ways(*(row["name"] for row in rows[:-1])))
    assert chart.count("<svg") == 1
    shown = json.loads(chart.split("data-series='")[1].split("'")[0].replace("&quot;", '"'))
    assert [(each["n"], [point[:2] for point in each["p"]]) for each in shown] == [
        ("my teacher dpm", [[6, 0.3], [12, 0.2]]),
        ("student euler", [[6, 0.1]]),
    ]
    assert chart.count("faint' d=") == 3


def test_an_interval_fits_into_its_chart() -> None:
    chart = line_chart("x", [Series("a", [(1, 2.0)], 0, "dots", ((-5.0, 9.0),))])
    low, high = (
        float(y) for y in chart.split("faint' d='M")[1].split("'")[0].split(" ")[1].split("V")
    )
    assert 0 < high < low < 230
