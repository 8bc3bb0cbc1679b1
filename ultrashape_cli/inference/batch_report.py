"""What became of a batch: report.json, and report.html with the previews."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ultrashape_cli import __version__
from ultrashape_cli.files import read_json, write_atomic, write_json
from ultrashape_cli.inference.batch import failure_record
from ultrashape_cli.inference.job import Job
from ultrashape_cli.reporting import page

_STYLE = """
.previews{grid-template-columns:repeat(auto-fill,minmax(420px,1fr))}
"""


def write_batch_report(jobs: list[Job], out: Path) -> Path:
    """Writes report.json and report.html below `out`; returns the page.

    Raises:
        DiskError: The folder cannot be written.
    """
    entries = [_entry(job, out) for job in jobs]
    counts = {
        state: sum(entry["state"] == state for entry in entries)
        for state in ("made", "failed", "pending")
    }
    write_json(out / "report.json", {"version": __version__, "counts": counts, "jobs": entries})
    text = _page(out, counts, entries)
    write_atomic(out / "report.html", lambda file: file.write(text.encode(errors="replace")))
    return out / "report.html"


def _entry(job: Job, out: Path) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": job.name,
        "mesh": str(job.mesh),
        "image": str(job.image),
        "state": "pending",
    }
    failure = read_json(failure_record(out, job)) or {}
    record = read_json(job.record) or {}
    if failure.get("status") == "failed":
        entry |= {"state": "failed", "message": failure["message"], "hint": failure.get("hint")}
    elif job.target.exists() and isinstance(record.get("result"), dict):
        entry |= {"state": "made", "target": str(job.target), "result": record["result"]}
        if job.preview is not None and job.preview.exists():
            entry["preview"] = job.preview.relative_to(out).as_posix()
    return entry


def _page(out: Path, counts: dict[str, int], entries: list[dict[str, Any]]) -> str:
    kinds = {"made": "good", "failed": "bad" if counts["failed"] else "", "pending": ""}
    tiles = [(state, f"{count:,}", kinds[state]) for state, count in counts.items()]
    ordered = sorted(entries, key=lambda entry: entry["state"] != "failed")
    cards = "".join(_card(entry) for entry in ordered if "preview" in entry)
    previews = f"<div class='cards previews'>{cards}</div>" if cards else ""
    head = "<tr><th>mesh<th>state<th>faces<th>watertight<th>seconds<th>finding"
    table = f"<table>{head}{''.join(_row(entry) for entry in ordered)}</table>"
    name = out.absolute().name
    return page.page(
        f"{name} - ushape refine",
        f"<h1>{html.escape(name)}</h1><p>refined meshes</p>",
        page.tiles(tiles)
        + page.section("Previews", previews, "reference, input, result")
        + page.section("Jobs", table),
        style=_STYLE,
    )


def _card(entry: dict[str, Any]) -> str:
    result = entry["result"]
    facts = f"{result['faces']:,} faces, {sum(result['seconds'].values()):.0f} s"
    return (
        f"<figure><img src='{quote(entry['preview'])}' loading=lazy alt=''>"
        f"<figcaption><b>{html.escape(entry['name'])}</b><p>{facts}</p></figcaption></figure>"
    )


def _row(entry: dict[str, Any]) -> str:
    result = entry.get("result")
    cells = [f"<td><b>{html.escape(entry['name'])}</b>"]
    if result is None:
        kind = "bad" if entry["state"] == "failed" else "none"
        cells += [f"<td class={kind}>{entry['state']}", "<td>", "<td>", "<td>"]
        finding = " ".join(filter(None, (entry.get("message"), entry.get("hint"))))
    else:
        closed = ("ok", "yes") if result["watertight"] else ("bad", "no")
        cells += [
            "<td class=ok>made",
            f"<td>{result['faces']:,}",
            f"<td class={closed[0]}>{closed[1]}",
            f"<td>{sum(result['seconds'].values()):.1f}",
        ]
        finding = ", ".join(result["input"]["problems"])
        if not result["input"]["repaired"] and finding:
            finding = f"input: {finding}"
    return f"<tr>{''.join(cells)}<td>{html.escape(finding)}"
