"""Quality against passes through the network: solvers, and students, at equal cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch

from ultrashape_cli.config.choices import Solver
from ultrashape_cli.config.distilled import for_distilled
from ultrashape_cli.config.resolve import Resolved
from ultrashape_cli.config.schema import EvaluateConfig, RefineConfig
from ultrashape_cli.diffusion.sampler import SOLVERS
from ultrashape_cli.evaluation.rows import Row, refine_row
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


def curve_rows(
    resolved: Resolved, sources: Mapping[str, WeightSource], device: torch.device
) -> list[Row]:
    """Returns a row per weights, solver and number of evaluations.

    Students that step are only asked in their own steps; settings of steps, solver and guidance
    do not count otherwise.
    """
    config = resolved.config
    return [
        refine_row(
            f"{name} {solver} {count}",
            source,
            replace(refine, solver=solver, steps=_steps(solver, count)),
            config.evaluate,
            device,
            config.seed,
            note=f"{solver}, {count} evaluations, guidance {refine.guidance_scale:g}",
        )
        for name, source in sources.items()
        for refine in (_refine(resolved, source),)
        for solver, count in _ways(source, config.evaluate)
    ]


def curve_comparisons(
    names: list[str], sources: Mapping[str, WeightSource]
) -> dict[str, list[str]]:
    """Returns what each student's rows are compared with: others of as many evaluations or twice.

    Args:
        names: Of all rows.
        sources: Weights by the beginning of the names.
    """
    students = {name for name, source in sources.items() if source.distilled}
    teachers = [name for name in sources if name not in students]
    found: dict[str, list[str]] = {}
    for row, (weights, _, count) in _parsed(names, sources):
        if weights in students:
            found[row] = [
                other
                for other, (of, solver, many) in _parsed(names, sources)
                if of in teachers and solver != "heun" and many in (count, 2 * count)
            ]
    return found


def curve_charts(rows: list[dict[str, Any]], sources: Mapping[str, WeightSource]) -> str:
    """Returns a chart per measure: its mean with the 95 % interval against passes.

    Args:
        rows: Of `summary`.
        sources: Weights by the beginning of the names.
    """
    means = {row["name"]: row["means"] for row in rows}
    charts = ""
    for measure, title in _CHARTS:
        curves: dict[str, list[tuple[float, float, float, float]]] = {}
        for row, (weights, solver, _) in _parsed(list(means), sources):
            value = means[row].get(measure)
            if value and "passes" in means[row]:
                low, high = (value[k] if value[k] is not None else value["mean"]
                             for k in ("low", "high"))  # fmt: skip
                passes = means[row]["passes"]["mean"]
                curves.setdefault(f"{weights} {solver}", []).append(
                    (passes, value["mean"], low, high)
                )
        series = [
            Series(
                name,
                [(x, y) for x, y, *_ in sorted(points)],
                index % 8,
                "dots",
                tuple((low, high) for _, _, low, high in sorted(points)),
            )
            for index, (name, points) in enumerate(curves.items())
        ]
        charts += line_chart(title, series, note="against passes through the network")
    return f"<div class=plots>{charts}</div>" if charts else ""


def _refine(resolved: Resolved, source: WeightSource) -> RefineConfig:
    return for_distilled(resolved, source.distilled).config.refine


def _ways(source: WeightSource, settings: EvaluateConfig) -> Iterator[tuple[Solver, int]]:
    if source.distilled and source.distilled.evaluations:
        yield "euler", source.distilled.evaluations
        return
    for solver in settings.curve_solvers:
        for count in settings.curve_evaluations:
            if count % SOLVERS[solver] == 0:
                yield solver, count


def _steps(solver: str, evaluations: int) -> int:
    # The schedule's last point adds no step.
    return evaluations // SOLVERS[solver] + 1


def _parsed(
    names: list[str], sources: Mapping[str, WeightSource]
) -> Iterator[tuple[str, tuple[str, str, int]]]:
    for row in names:
        weights, _, way = row.rpartition(" ")[0].rpartition(" ")
        if weights in sources and row.rsplit(" ", 1)[1].isdecimal():
            yield row, (weights, way, int(row.rsplit(" ", 1)[1]))
