"""report.json and report.html of a dataset: counts, failures by cause, worst measures, pictures."""

from __future__ import annotations

import base64
import html
import io
from collections import Counter
from pathlib import Path
from typing import Any

from ultrashape_cli import __version__
from ultrashape_cli.data.layout import STEPS, Dataset, Record
from ultrashape_cli.files import read_json, write_atomic, write_json

MAX_THUMBNAILS = 120
MAX_ROWS = 2000
THUMBNAIL = 160


def write_report(dataset: Dataset) -> Path:
    """Writes report.json and the self-contained report.html; returns the latter's path."""
    records = list(dataset.load_records().values())
    summary = summarise(dataset, records)
    write_json(dataset.root / "report.json", summary)
    path = dataset.root / "report.html"
    text = _page(dataset, records, summary)
    write_atomic(path, lambda file: file.write(text.encode(errors="backslashreplace")))
    return path


def summarise(dataset: Dataset, records: list[Record]) -> dict[str, Any]:
    """Returns counts per step, failures by cause and rung, seconds and the split sizes."""
    steps = {
        name: {
            "done": sum(r.done(name) for r in records),
            "failed": sum(n == name and s.status == "failed" for r in records
                          for n, s in r.steps.items()),
            "seconds": round(sum(s.seconds for r in records
                                 for n, s in r.steps.items() if n == name), 2),
        }
        for name in STEPS
    }  # fmt: skip
    rungs = Counter(
        r.steps["watertight"].measurements["rung"] for r in records if r.done("watertight")
    )
    failures = [{"id": r.id, "source": r.source["path"], **r.error} for r in records if r.error]
    lists = {name: read_json(dataset.list_path(name)) or [] for name in ("train", "val")}
    return {
        "version": __version__,
        "assets": len(records),
        "complete": sum(r.complete for r in records),
        "duplicates": sum(len(r.duplicates) for r in records),
        "steps": steps,
        "rungs": dict(rungs),
        "failures_by_cause": dict(Counter(f["cause"] for f in failures)),
        "failures": failures,
        "splits": {name: len(ids) for name, ids in lists.items()},
    }


def _page(dataset: Dataset, records: list[Record], summary: dict[str, Any]) -> str:
    failed = [r for r in records if r.error]
    fine = [r for r in records if not r.error]
    shown = [*failed, *fine][:MAX_ROWS]
    pictured = {r.id for r in [r for r in shown if r.done("render")][:MAX_THUMBNAILS]}
    cards = "".join(_card(dataset, r) for r in shown if r.id in pictured)
    rows = "".join(_row(r) for r in shown)
    tiles = "".join(
        f"<div class=tile><b>{value}</b><span>{html.escape(label)}</span></div>"
        for label, value in _tiles(summary)
    )
    left_out = len(records) - len(shown)
    more = f"<p>{left_out} further assets are in report.json.</p>" if left_out > 0 else ""
    return _TEMPLATE.format(
        title=html.escape(dataset.root.absolute().name),
        tiles=tiles,
        cards=cards,
        rows=rows,
        more=more,
        version=__version__,
    )


def _tiles(summary: dict[str, Any]) -> list[tuple[str, Any]]:
    tiles = [("assets", summary["assets"]), ("complete", summary["complete"])]
    tiles.append(("failed", len(summary["failures"])))
    tiles += [(f"watertight by {rung}", n) for rung, n in sorted(summary["rungs"].items())]
    tiles += [(name, n) for name, n in summary["splits"].items()]
    tiles.append(("core seconds", round(sum(s["seconds"] for s in summary["steps"].values()))))
    return tiles


def _card(dataset: Dataset, record: Record) -> str:
    picture = _thumbnail(dataset.views(record.id) / "view_000.png")
    if picture is None:
        return ""
    measured = record.steps["watertight"].measurements
    caption = f"{measured.get('rung')}, {measured.get('faces', 0):,} faces"
    return (
        f"<figure><img alt='' src='data:image/webp;base64,{picture}'>"
        f"<figcaption><b>{html.escape(record.id)}</b><br>{html.escape(caption)}</figcaption>"
        "</figure>"
    )


def _thumbnail(path: Path) -> str | None:
    from PIL import Image

    try:
        with Image.open(path) as image:
            small = image.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    except (OSError, SyntaxError, ValueError):  # Pillow raises all three for damaged files
        return None
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=80)
    return base64.b64encode(buffer.getvalue()).decode()


def _row(record: Record) -> str:
    cells = [f"<td><b>{html.escape(record.id)}</b><br><small>{html.escape(_source(record))}"
             "</small></td>"]  # fmt: skip
    for name in STEPS:
        step = record.steps.get(name)
        if step is None:
            cells.append("<td class=none>not run</td>")
        elif step.status == "done":
            cells.append(f"<td class=ok>done<br><small>{step.seconds:.1f} s</small></td>")
        else:
            cells.append(f"<td class=bad>{html.escape(str((step.error or {}).get('cause')))}</td>")
    error = record.error
    detail = str(error["message"]) if error else _measures(record)
    cells.append(f"<td>{html.escape(detail)}</td>")
    return f"<tr>{''.join(cells)}</tr>"


def _source(record: Record) -> str:
    return Path(record.source["path"]).name


def _measures(record: Record) -> str:
    if not record.done("watertight"):
        return ""
    measured = record.steps["watertight"].measurements
    plain = {k: v for k, v in measured.items() if isinstance(v, int | float | str | bool)}
    return ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}"
                     for k, v in plain.items())  # fmt: skip


_TEMPLATE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title} - ushape dataset</title>
<meta name="viewport" content="width=device-width">
<style>
:root {{ color-scheme: light dark; --line: #8883; --soft: #8881; }}
body {{ font: 14px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 1180px;
  padding: 0 1rem; }}
h1 {{ font-weight: 600; }} h2 {{ margin-top: 2.2rem; font-weight: 600; }}
.tiles {{ display: flex; flex-wrap: wrap; gap: .6rem; }}
.tile {{ background: var(--soft); border-radius: 10px; padding: .7rem 1.1rem;
  min-width: 6.5rem; }}
.tile b {{ display: block; font-size: 1.6rem; }} .tile span {{ opacity: .7; }}
.cards {{ display: grid; gap: .6rem;
  grid-template-columns: repeat(auto-fill, minmax(170px, 1fr)); }}
figure {{ margin: 0; background: var(--soft); border-radius: 10px; padding: .6rem;
  overflow-wrap: anywhere; font-size: 12px; }}
figure img {{ width: 100%; }}
table {{ border-collapse: collapse; width: 100%; }}
td, th {{ border-top: 1px solid var(--line); padding: .4rem .6rem; text-align: left;
  vertical-align: top; overflow-wrap: anywhere; }}
th, td.ok, td.bad, td.none {{ white-space: nowrap; }}
td small {{ opacity: .65; }} .ok {{ color: #2b9348; }} .bad {{ color: #d00; font-weight: 600; }}
.none {{ opacity: .5; }} footer {{ margin: 2rem 0; opacity: .6; }}
</style>
<h1>{title}</h1><div class="tiles">{tiles}</div>
<h2>Assets</h2><div class="cards">{cards}</div>
<h2>Records</h2><table><tr><th>asset</th><th>watertight</th><th>render</th><th>sample</th>
<th>cause or measurements</th></tr>{rows}</table>{more}
<footer>ushape {version}</footer></html>
"""
