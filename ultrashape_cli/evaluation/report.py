"""The page of an evaluation: means, comparisons, and every asset sorted by what it gained."""

from __future__ import annotations

import csv
import html
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ultrashape_cli.evaluation.evaluate import Evaluation
from ultrashape_cli.evaluation.scores import sign_of
from ultrashape_cli.files import write_atomic
from ultrashape_cli.reporting import run_style
from ultrashape_cli.reporting.page import page, picture, section, table

KEY_SCORES = (
    *("chamfer_l1", "f_score@0.01", "f_score@0.02", "normal_consistency", "volume_iou"),
    *("normal_psnr", "silhouette_iou", "psnr", "ssim", "edge_f_score", "seconds"),
)
"""What the first tables show; all others are in the long table and in results.json."""
SHOWN_ASSETS = 60
_STYLE = """
.sheet{display:grid;gap:6px;grid-auto-flow:column;justify-content:start;margin:10px 0}
.sheet figure{margin:0;text-align:center}.sheet figcaption{font-size:12px;color:#666}
.sheet img{border-radius:6px;display:block}.gain{color:#17803d}.loss{color:#b42318}
"""


def write_report(
    result: Evaluation,
    found: dict[str, Any],
    out: Path,
    *,
    subject: str,
    base: str,
    about: str,
    charts: str = "",
) -> Path:
    """Writes report.html and returns its path.

    Args:
        result: From `evaluate`.
        found: From `summary`.
        out: Folder of the evaluation.
        subject: Row whose assets are sorted.
        base: Row it is compared with.
        about: A line on data and settings.
        charts: Of `curve_charts`.
    """
    names = [name for name in KEY_SCORES if any(name in r["means"] for r in found["rows"])]
    long = [name for name in result.names() if name not in {"surface", *names}]
    body = section("Quality against passes", charts, "means with 95 % intervals") if charts else ""
    body += section("Means over assets, with 95 % intervals", _means(found, names))
    body += section("Rows", _notes(found))
    for comparison in found["comparisons"]:
        title = f"{comparison['row']} against {comparison['against']}"
        body += section(title, _comparison(comparison, names), "the same assets, paired")
    body += section("Assets", _assets(result, out, subject, base), "largest losses first")
    body += section("All other scores", _means(found, long))
    rows = [(f["row"], f["asset"], f["error"]) for f in found["failures"]]
    body += section("Not made", table(("row", "asset", "why"), rows) if rows else "")
    head = f"<h1>Evaluation</h1><p>{html.escape(about)}</p>"
    target = out / "report.html"
    style, script = (run_style.STYLE + _STYLE, run_style.SCRIPT) if charts else (_STYLE, "")
    text = page("ushape evaluate", head, body, style=style, script=script)
    write_atomic(target, lambda file: file.write(text.encode()))
    return target


def write_csv(result: Evaluation, out: Path) -> Path:
    """Writes one line per row and asset and returns the file's path."""
    names = result.names()
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["row", "asset", *names])
    for row, assets in result.scores.items():
        for asset, scores in assets.items():
            writer.writerow([row, asset, *(scores.get(name, "") for name in names)])
    target = out / "results.csv"
    write_atomic(target, lambda file: file.write(text.getvalue().encode()))
    return target


def show(value: float) -> str:
    """Returns a number with four significant digits."""
    return "-" if not math.isfinite(value) else f"{value:.4g}"


def show_share(value: float | None) -> str:
    """Returns a relative difference in per cent."""
    return "-" if value is None else f"{value:+.1%}"


def show_estimate(value: dict[str, Any]) -> str:
    """Returns a mean with its interval, where it has one."""
    if value["low"] is None:
        return show(value["mean"])
    return f"{show(value['mean'])} ({show(value['low'])} to {show(value['high'])})"


def arrow(name: str) -> str:
    """Returns a score's name with the direction that is better."""
    return f"{name} {({1: '(higher)', -1: '(lower)'}).get(sign_of(name), '')}".strip()


def _means(found: dict[str, Any], names: Sequence[str]) -> str:
    """Returns a line per score and a column per row of the evaluation."""
    lines = [
        [arrow(name)]
        + [
            show_estimate(row["means"][name]) if name in row["means"] else "-"
            for row in found["rows"]
        ]
        for name in names
    ]
    return table(("score", *(row["name"] for row in found["rows"])), lines) if names else ""


def _notes(found: dict[str, Any]) -> str:
    return table(("row", "what"), [(row["name"], row["note"]) for row in found["rows"]])


def _comparison(comparison: dict[str, Any], names: Sequence[str]) -> str:
    rows = []
    for name in names:
        if name in comparison["scores"]:
            c = comparison["scores"][name]
            rows.append(
                (
                    arrow(name),
                    show_estimate(c["difference"]),
                    show_share(c["relative"]),
                    f"{c['better']:.0%}",
                    "-" if c["p_value"] is None else f"{c['p_value']:.2g}",
                )
            )
    head = ("score", "difference of the means", "relative", "assets better", "p (Wilcoxon)")
    verdict = comparison["verdict"]
    kind = "gain" if verdict and verdict["good"] else "loss"
    text = f"<p class={kind}>{html.escape(verdict['text'])}</p>" if verdict else ""
    return text + table(head, rows) if rows else ""


def _assets(result: Evaluation, out: Path, subject: str, base: str) -> str:
    name = "chamfer_l1"
    ours, theirs = result.scores.get(subject, {}), result.scores.get(base, {})
    gains = {
        asset: 1 - ours[asset][name] / theirs[asset][name]
        for asset in result.assets
        if name in ours.get(asset, {}) and theirs.get(asset, {}).get(name)
    }
    order = sorted(gains, key=lambda asset: gains[asset])
    half = SHOWN_ASSETS // 2
    shown = order if len(order) <= SHOWN_ASSETS else order[:half] + order[-half:]
    parts = []
    for asset in shown:
        kind = "gain" if gains[asset] > 0 else "loss"
        parts.append(
            f"<h3>{html.escape(asset)} <span class={kind}>{gains[asset]:+.1%} "
            f"{name} against {html.escape(base)}</span></h3><div class=sheet>"
        )
        for row in ("reference", *result.rows, "truth"):
            image = picture(out / "pictures" / row / f"{asset}.png", 160, alt=row)
            if image:
                value = result.scores.get(row, {}).get(asset, {}).get(name)
                text = row if value is None else f"{row} {show(value)}"
                parts.append(
                    f"<figure>{image}<figcaption>{html.escape(text)}</figcaption></figure>"
                )
        parts.append("</div>")
    return "".join(parts)
