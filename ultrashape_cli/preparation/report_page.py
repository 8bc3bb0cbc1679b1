"""The self-contained page of a dataset's report: plain HTML and SVG, no script, no other file."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ultrashape_cli import __version__
from ultrashape_cli.data.layout import STEPS, Dataset

if TYPE_CHECKING:
    from ultrashape_cli.preparation.report import Entry

THUMBNAIL = 176
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
        histograms: Measure and its values `[N]`.
    """
    left_out = summary["assets"] - len(rows)
    more = f"{left_out:,} further assets are in records/." if left_out > 0 else ""
    charts = "".join(_histogram(name, values) for name, values in histograms if len(values) > 1)
    sections = [
        _section("Failures by cause", _causes(summary)),
        _section("Rejected by rule", _rules(summary)),
        _section("Look at these first", _cards(dataset, worst), "worst first"),
        _section("Near-duplicates", _twins(dataset, twins), "left: stays; right: its twin"),
        _section("Random sample", _cards(dataset, sample), "of assets without a finding"),
        _section("Measures", f"<div class=charts>{charts}</div>" if charts else ""),
        _section("Records", _table(rows), more),
    ]
    tiles = "".join(
        f"<div class='tile {kind}'><b>{value:,}</b><span>{html.escape(label)}</span></div>"
        for label, value, kind in _tiles(summary)
    )
    name = html.escape(dataset.root.absolute().name)
    return (
        f"<!doctype html>\n<html lang=en><meta charset=utf-8><title>{name} - ushape dataset</title>"
        f"<meta name=viewport content='width=device-width'><style>{_STYLE}</style>"
        f"<header><h1>{name}</h1><p>filter: {html.escape(str(summary['filter']))}</p></header>"
        f"<div class=tiles>{tiles}</div>{''.join(sections)}"
        f"<footer>ushape {__version__}</footer></html>\n"
    )


def _tiles(summary: dict[str, Any]) -> list[tuple[str, int, str]]:
    tiles = [
        ("assets", summary["assets"], ""),
        ("usable", summary["usable"], "good"),
        ("failed", len(summary["failures"]), "bad" if summary["failures"] else ""),
        ("rejected", len(summary["rejected"]), "warn" if summary["rejected"] else ""),
        ("near-duplicates", summary["near_duplicates"], ""),
        ("source gone", sum(summary["stale"].values()), ""),
        ("retried steps", summary["retried"], ""),
    ]
    tiles += [(f"watertight: {rung}", n, "") for rung, n in sorted(summary["rungs"].items())]
    tiles += [(name, n, "") for name, n in summary["splits"].items()]
    seconds = sum(step["seconds"] for step in summary["steps"].values())
    tiles.append(("core minutes", round(seconds / 60), ""))
    # The first four always; of the others only what says something.
    return tiles[:4] + [tile for tile in tiles[4:] if tile[1]]


def _section(title: str, body: str, note: str = "") -> str:
    if not body:
        return ""
    small = f" <small>{html.escape(note)}</small>" if note else ""
    return f"<section><h2>{html.escape(title)}{small}</h2>{body}</section>"


def _bars(counts: dict[str, int], notes: dict[str, str], kind: str) -> str:
    most = max(counts.values(), default=1)
    return "".join(
        f"<div class=bar><span>{html.escape(name)}</span>"
        f"<i class={kind} style='width:{40 * count / most:.1f}%'></i><b>{count:,}</b>"
        f"<small>{html.escape(notes.get(name, ''))}</small></div>"
        for name, count in sorted(counts.items(), key=lambda item: -item[1])
    )


def _causes(summary: dict[str, Any]) -> str:
    example = {f["cause"]: f"e.g. {f['id']}: {f['message']}"[:160] for f in summary["failures"]}
    return _bars(summary["failures_by_cause"], example, "bad")


def _rules(summary: dict[str, Any]) -> str:
    return _bars(summary["rejected_by_rule"], {}, "warn")


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
    data = _thumbnail(dataset.views(asset_id) / "view_000.png")
    return f"<img alt='' src='data:image/webp;base64,{data}'>" if data else ""


def _thumbnail(path: Path) -> str | None:
    from PIL import Image

    try:
        with Image.open(path) as image:
            small = image.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX, reducing_gap=2.0)
    except (OSError, SyntaxError, ValueError):  # Pillow raises all three for damaged files
        return None
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=80)
    return base64.b64encode(buffer.getvalue()).decode()


def _histogram(name: str, values: np.ndarray) -> str:
    """Returns a small chart; values are spread by logarithm where they span much."""
    low, high = float(values.min()), float(values.max())
    if low == high:
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


_STYLE = """
:root{color-scheme:light dark;--bg:#f6f6f3;--card:#fff;--ink:#22242a;--soft:#6b7079;--line:#0001;
--good:#26734d;--bad:#b3261e;--warn:#8a5a00;--shade:#e9e9e4}
@media(prefers-color-scheme:dark){:root{--bg:#17181b;--card:#212327;--ink:#e8e8e6;--soft:#9aa0aa;
--line:#fff2;--good:#6cc598;--bad:#ff8a80;--warn:#f0b95a;--shade:#2c2f35}}
body{font:14px/1.45 system-ui,sans-serif;margin:0 auto;max-width:1240px;padding:2rem 1.5rem;
background:var(--bg);color:var(--ink)}
h1{font-size:1.9rem;font-weight:650;margin:0}header p{margin:.1rem 0 1.2rem;color:var(--soft)}
h2{font-size:1.15rem;font-weight:650;margin:2.4rem 0 .8rem}
small,h2 small{color:var(--soft);font-weight:400;font-size:12px}
.tiles{display:flex;flex-wrap:wrap;gap:.6rem}
.tile{background:var(--card);border-radius:12px;padding:.7rem 1.1rem;min-width:6.2rem;
box-shadow:0 1px 2px var(--line)}
.tile b{display:block;font-size:1.55rem;font-variant-numeric:tabular-nums}
.tile span{color:var(--soft)}.tile.good b{color:var(--good)}.tile.bad b{color:var(--bad)}
.tile.warn b{color:var(--warn)}
.bar{display:flex;align-items:center;gap:.6rem;padding:.15rem 0}.bar span{flex:0 0 9rem}
.bar i{height:.8rem;border-radius:4px;min-width:3px;flex-shrink:0}.bar i.bad{background:var(--bad)}
.bar i.warn{background:var(--warn)}.bar small{overflow:hidden;white-space:nowrap;
text-overflow:ellipsis}
.cards{display:grid;gap:.7rem;grid-template-columns:repeat(auto-fill,minmax(165px,1fr))}
.pairs{grid-template-columns:repeat(auto-fill,minmax(320px,1fr))}
figure{margin:0;background:var(--card);border-radius:12px;overflow:hidden;position:relative;
box-shadow:0 1px 2px var(--line);font-size:12px;overflow-wrap:anywhere}
figure img{width:100%;display:block;background:linear-gradient(var(--shade),var(--card))}
.pair{display:flex;flex-wrap:wrap}.pair img{width:50%}
figcaption{padding:.5rem .7rem .7rem}figcaption p{margin:.2rem 0;color:var(--soft)}
em{font-style:normal;font-size:11px;font-weight:600;padding:.08rem .5rem;border-radius:99px;
background:var(--shade);color:var(--soft)}figure em{position:absolute;top:.5rem;left:.5rem}
em.failed{color:var(--bad)}em.rejected{color:var(--warn)}
.charts{display:grid;gap:.7rem;grid-template-columns:repeat(auto-fill,minmax(200px,1fr))}
.chart{padding:.3rem .2rem .6rem}.chart svg{width:calc(100% - 1.4rem);height:64px;margin:0 .7rem}
.chart rect{fill:var(--soft)}.chart small{display:block;padding:0 .7rem}
.chart figcaption{padding-bottom:.2rem}
table{border-collapse:collapse;width:100%;background:var(--card);border-radius:12px}
td,th{border-top:1px solid var(--line);padding:.4rem .7rem;text-align:left;vertical-align:top;
overflow-wrap:anywhere}tr{content-visibility:auto}
th,td.ok,td.bad,td.none{white-space:nowrap}.ok{color:var(--good)}
td.bad{color:var(--bad);font-weight:600}.none{color:var(--soft)}
footer{margin:2rem 0;color:var(--soft)}
"""
