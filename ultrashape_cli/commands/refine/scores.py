"""How a refined mesh compares with its ground truth: a table and a verdict."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ultrashape_cli.evaluation.verdict import Verdict
    from ultrashape_cli.ui import UI

PAIRS = {
    "input_to_ground_truth": "input to truth",
    "to_ground_truth": "refined to truth",
    "to_input": "refined to input",
}


def show_scores(ui: UI, metrics: dict[str, dict[str, float]]) -> None:
    """Shows the scores of a result that was measured, red where it is worse than its input."""
    from rich.text import Text

    from ultrashape_cli.evaluation.verdict import LEGEND, MEASURES, show_mean

    if not metrics:
        return
    found = _verdict(metrics)
    names = [name for name in MEASURES if any(name in scores for scores in metrics.values())]
    lines = []
    for pair in (pair for pair in PAIRS if pair in metrics):
        cells = [Text(PAIRS[pair])]
        for name in names:
            worse = pair == "to_ground_truth" and found is not None and name in found.worse
            cells.append(Text(show_mean({"mean": metrics[pair][name]}), "red" if worse else ""))
        lines.append(cells)
    ui.table(("", *(MEASURES[name][0] for name in names)), lines)
    ui.info(LEGEND)
    if found:
        ui.verdict(found.text, found.good)


def verdict_of(metrics: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Returns `verdict` of a result that was measured against a ground truth, else nothing."""
    found = _verdict(metrics)
    return {"verdict": asdict(found)} if found else {}


def _verdict(metrics: dict[str, dict[str, float]]) -> Verdict | None:
    from ultrashape_cli.evaluation.verdict import judge

    ours, theirs = metrics.get("to_ground_truth", {}), metrics.get("input_to_ground_truth", {})
    return judge({n: (ours[n], theirs[n]) for n in ours if n in theirs}, "the input")
