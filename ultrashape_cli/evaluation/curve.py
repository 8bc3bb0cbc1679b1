"""Quality against passes through the network: solvers, and students, at equal cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from ultrashape_cli.config.choices import Solver
from ultrashape_cli.config.resolve import Resolved
from ultrashape_cli.config.schema import EvaluateConfig
from ultrashape_cli.diffusion.sampler import SOLVERS
from ultrashape_cli.evaluation.rows import Row, as_trained, refine_row
from ultrashape_cli.models.sources import WeightSource
from ultrashape_cli.reporting.charts import Series, line_chart

_CHARTS = (
    ("chamfer_l1", "Chamfer-L1, lower is better"),
    ("f_score@0.02", "F-score at 0.02"),
    ("normal_consistency", "Normal consistency"),
    ("components", "Components"),
    ("genus", "Genus"),
    ("seconds", "Seconds"),
)


class Way(NamedTuple):
    """How a row of the curve is sampled."""

    weights: str
    student: bool
    """Of distilled weights."""
    solver: Solver
    evaluations: int

    @property
    def curve(self) -> str:
        """Name of the curve that the row is a point of."""
        return f"{self.weights} {self.solver}"


def curve_ways(resolved: Resolved, sources: Mapping[str, WeightSource]) -> dict[str, Way]:
    """Returns the rows by name: every solver at every number of evaluations.

    Students that step are only asked in their own steps.
    """
    ways = [
        Way(name, source.distilled is not None, solver, count)
        for name, source in sources.items()
        for solver, count in _asked(source, resolved.config.evaluate)
    ]
    return {f"{way.curve} {way.evaluations}": way for way in ways}


def curve_rows(
    resolved: Resolved,
    sources: Mapping[str, WeightSource],
    ways: Mapping[str, Way],
    device: torch.device,
) -> list[Row]:
    """Returns what makes the meshes; settings of steps, solver and guidance do not count."""
    config = resolved.config
    refine = {name: as_trained(resolved, source) for name, source in sources.items()}
    return [
        refine_row(
            name,
            sources[way.weights],
            replace(
                refine[way.weights],
                solver=way.solver,
                # The schedule's last point adds no step.
                steps=way.evaluations // SOLVERS[way.solver] + 1,
            ),
            config.evaluate,
            device,
            config.seed,
            note=f"{way.solver}, {way.evaluations} evaluations, guidance "
            f"{refine[way.weights].guidance_scale:g}",
        )
        for name, way in ways.items()
    ]


def curve_comparisons(ways: Mapping[str, Way]) -> dict[str, list[str]]:
    """Returns what each student's rows are compared with: as many evaluations, or twice as many."""
    return {
        name: [
            other
            for other, its in ways.items()
            if not its.student
            and its.solver != "heun"
            and its.evaluations in (way.evaluations, 2 * way.evaluations)
        ]
        for name, way in ways.items()
        if way.student
    }


def curve_charts(rows: list[dict[str, Any]], ways: Mapping[str, Way]) -> str:
    """Returns a chart per measure: its mean with the 95 % interval against passes.

    Args:
        rows: Of `summary`.
        ways: From `curve_ways`.
    """
    means = {row["name"]: row["means"] for row in rows}
    charts = ""
    for measure, title in _CHARTS:
        curves: dict[str, list[tuple[float, float, float, float]]] = {}
        for name, way in ways.items():
            value = means.get(name, {}).get(measure)
            if value and "passes" in means[name]:
                low, high = (value[k] if value[k] is not None else value["mean"]
                             for k in ("low", "high"))  # fmt: skip
                passes = means[name]["passes"]["mean"]
                curves.setdefault(way.curve, []).append((passes, value["mean"], low, high))
        series = [
            Series(
                name,
                [(x, y) for x, y, *_ in sorted(points)],
                index % 8,
                "dots",
                [(low, high) for _, _, low, high in sorted(points)],
            )
            for index, (name, points) in enumerate(curves.items())
        ]
        charts += line_chart(title, series, note="against passes through the network")
    return f"<div class=plots>{charts}</div>" if charts else ""


def _asked(source: WeightSource, settings: EvaluateConfig) -> Iterator[tuple[Solver, int]]:
    if source.distilled and source.distilled.evaluations:
        yield "euler", source.distilled.evaluations
        return
    for solver in settings.curve_solvers:
        for count in settings.curve_evaluations:
            if count % SOLVERS[solver] == 0:
                yield solver, count
