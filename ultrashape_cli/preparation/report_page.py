"""The self-contained page of a dataset's report: plain HTML and SVG, no script, no other file."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ultrashape_cli.data.layout import STEPS, Dataset
from ultrashape_cli.preparation.filters import MEASURES
from ultrashape_cli.preparation.ranking import Entry
from ultrashape_cli.reporting import page

THUMBNAIL = 176
MAX_FILES = 200
"""File names listed for each cause of failures."""
_BARS = 28
_WORD = {"failed": "failed", "rejected": "rejected", "stale": "no source", "twin": "twin"}


def render(
    dataset: Dataset,
    summary: dict[str, Any],
    *,
    worst: Sequence[Entry],
    sample: Sequence[Entry],
    twins: Sequence[Entry],
    rows: Sequence[Entry],
    extremes: Sequence[tuple[str, Sequence[Entry]]],
    histograms: Sequence[tuple[str, np.ndarray]],
) -> str:
    """Returns the page.

    Args:
        dataset: For its name and pictures.
        summary: From `report.summarise`.
        worst: Assets with a picture, worst first.
        sample: A random sample of the others.
        twins: Near-duplicates, nearest first.
        rows: Assets of the table, worst first.
        extremes: Measure and the assets that are worst in it.
        histograms: Measure and its values `[N]`.
    """
    left_out = summary["assets"] - len(rows)
    more = f"{left_out:,} further assets are in records/." if left_out > 0 else ""
    charts = "".join(_histogram(name, values) for name, values in histograms if len(values) > 1)
    sections = [
        page.section("Failures by cause", _causes(summary)),
        page.section("Rejected by rule", _rules(summary)),
        page.section("Look at these first", _cards(dataset, worst), "worst first"),
        page.section("Worst by measure", _extremes(dataset, extremes)),
        page.section("Near-duplicates", _twins(dataset, twins), "left: stays; right: its twin"),
        page.section("Random sample", _cards(dataset, sample), "of assets without a finding"),
        page.section("Measures", f"<div class=charts>{charts}</div>" if charts else ""),
        page.section("Records", _table(rows), more),
    ]
    name = dataset.root.absolute().name
    header = f"<h1>{html.escape(name)}</h1><p>filter: {html.escape(str(summary['filter']))}</p>"
    body = page.tiles(_tiles(summary)) + "".join(sections)
    return page.page(f"{name} - ushape dataset", header, body)


def _tiles(summary: dict[str, Any]) -> list[page.Tile]:
    tiles = [
        ("assets", summary["assets"], ""),
        ("usable", summary["usable"], "good"),
        ("failed", len(summary["failures"]), "bad" if summary["failures"] else ""),
        ("rejected", len(summary["rejected"]), "warn" if summary["rejected"] else ""),
        ("near-duplicates", summary["near_duplicates"], ""),
        ("colours lost", summary["colours_lost"], "warn"),
        ("source gone", sum(summary["stale"].values()), ""),
        ("retried steps", summary["retried"], ""),
    ]
    tiles += [(f"watertight: {rung}", n, "") for rung, n in sorted(summary["rungs"].items())]
    tiles += [(name, n, "") for name, n in summary["splits"].items()]
    seconds = sum(step["seconds"] for step in summary["steps"].values())
    tiles.append(("core minutes", round(seconds / 60), ""))
    # The first four always; of the others only what says something.
    shown = tiles[:4] + [tile for tile in tiles[4:] if tile[1]]
    return [(label, f"{value:,}", kind) for label, value, kind in shown]


def _causes(summary: dict[str, Any]) -> str:
    failures: list[dict[str, Any]] = summary["failures"]
    example = {f["cause"]: f"e.g. {f['id']}: {f['message']}"[:160] for f in failures}
    lists = ""
    for cause, count in sorted(summary["failures_by_cause"].items(), key=lambda item: -item[1]):
        found = [f for f in failures if f["cause"] == cause]
        rows = "".join(
            f"<li><b>{html.escape(Path(f['source']).name)}</b> {html.escape(f['step'])}: "
            f"{html.escape(str(f['message'])[:300])}"
            for f in found[:MAX_FILES]
        )
        more = f", the first {MAX_FILES:,}" if count > MAX_FILES else ""
        lists += (
            f"<details><summary>{html.escape(cause)}: {count:,} files{more}</summary>"
            f"<ul>{rows}</ul></details>"
        )
    return page.bars(summary["failures_by_cause"], example, "bad") + lists


def _rules(summary: dict[str, Any]) -> str:
    return page.bars(summary["rejected_by_rule"], {}, "warn")


def _cards(dataset: Dataset, entries: Sequence[Entry]) -> str:
    cards = "".join(_card(dataset, entry) for entry in entries)
    return f"<div class=cards>{cards}</div>" if cards else ""


def _card(dataset: Dataset, entry: Entry) -> str:
    picture = _picture(dataset, entry.record.id)
    if not picture:
        return ""
    badge = _WORD.get(entry.state)
    mark = f"<em class={entry.state}>{badge}</em>" if badge else ""
    faces = entry.measured.get("faces", 0)
    facts = f"{entry.measured.get('rung')}, {faces:,} faces"
    reason = f"<p>{html.escape(entry.reason[:140])}</p>" if entry.reason else ""
    return (
        f"<figure>{mark}{picture}<figcaption><b>{html.escape(entry.record.id)}</b>{reason}"
        f"<small>{html.escape(facts)}</small></figcaption></figure>"
    )


def _extremes(dataset: Dataset, extremes: Sequence[tuple[str, Sequence[Entry]]]) -> str:
    rows = ""
    for name, entries in extremes:
        cards = "".join(
            f"<figure>{picture}<figcaption><b>{entry.measured[name]:.4g}</b> "
            f"<small>{html.escape(entry.record.id)}</small></figcaption></figure>"
            for entry in entries
            if (picture := _picture(dataset, entry.record.id))
        )
        meaning = html.escape(MEASURES.get(name, ""))
        if cards:
            rows += (
                f"<div class=extreme><p><b>{html.escape(name)}</b><br><small>{meaning}</small></p>"
                f"<div class=cards>{cards}</div></div>"
            )
    return rows


def _twins(dataset: Dataset, entries: Sequence[Entry]) -> str:
    cards = ""
    for entry in entries:
        verdict = entry.record.verdict
        pictures = _picture(dataset, verdict["twin"]) + _picture(dataset, entry.record.id)
        names = f"{verdict['twin']} / {entry.record.id}"
        cards += (
            f"<figure class=pair>{pictures}<figcaption><b>{html.escape(names)}</b>"
            f"<p>distance {verdict['twin_distance']:.3f}</p></figcaption></figure>"
        )
    return f"<div class='cards pairs'>{cards}</div>" if cards else ""


def _picture(dataset: Dataset, asset_id: str) -> str:
    return page.picture(dataset.views(asset_id) / "view_000.png", THUMBNAIL)


def _histogram(name: str, values: np.ndarray) -> str:
    """Returns a small chart; values are spread by logarithm where they span much."""
    low, high = float(values.min()), float(values.max())
    # Copies of one shape measure alike but for rounding.
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        return ""
    logarithmic = low > 0 and high / low > 100
    scaled = np.log(values) if logarithmic else values
    counts, _ = np.histogram(scaled, _BARS)
    heights = 44 * np.sqrt(counts / counts.max())
    bars = "".join(
        f"<rect x='{4 * i}' y='{44 - h:.1f}' width='3.2' height='{h:.1f}'/>"
        for i, h in enumerate(heights)
        if h > 0
    )
    middle = float(np.median(values))
    scale = ", logarithmic" if logarithmic else ""
    return (
        f"<figure class=chart><figcaption><b>{html.escape(name)}</b></figcaption>"
        f"<svg viewBox='0 0 {4 * _BARS} 45' preserveAspectRatio=none>{bars}</svg>"
        f"<small>{low:.3g} to {high:.3g}, median {middle:.3g}{scale}</small></figure>"
    )


def _table(entries: Sequence[Entry]) -> str:
    head = "".join(f"<th>{name}" for name in ("asset", *STEPS, "finding"))
    return f"<table><tr>{head}{''.join(_row(entry) for entry in entries)}</table>"


def _row(entry: Entry) -> str:
    record = entry.record
    source = html.escape(Path(record.source["path"]).name)
    cells = [f"<td><b>{html.escape(record.id)}</b><br><small>{source}</small>"]
    for name in STEPS:
        step = record.steps.get(name)
        if step is None:
            cells.append("<td class=none>not run")
        elif step.status == "done":
            cells.append(f"<td class=ok>done<br><small>{step.seconds:.1f} s</small>")
        else:
            cells.append(f"<td class=bad>{html.escape(str((step.error or {}).get('cause')))}")
    word = _WORD.get(entry.state)
    mark = f"<em class={entry.state}>{word}</em> " if word else ""
    cells.append(f"<td>{mark}{html.escape(entry.reason)}")
    return f"<tr>{''.join(cells)}"
