"""report.json and the facts behind report.html: counts, causes, verdicts, worst assets first."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

from ultrashape_cli import __version__
from ultrashape_cli.data.layout import STEPS, Dataset, Record
from ultrashape_cli.files import read_json, write_atomic, write_json
from ultrashape_cli.preparation import report_page
from ultrashape_cli.preparation.ranking import (
    WORSE_WHEN,
    values_of,
    worst_by_measure,
    worst_first,
)

MAX_WORST, MAX_SAMPLE, MAX_TWINS = 96, 48, 16
"""Pictures are read for these only, however many assets there are."""
MAX_ROWS = 3000


def write_report(
    dataset: Dataset, records: list[Record] | None = None, *, out: Path | None = None
) -> Path:
    """Writes report.json and the self-contained report.html; returns the latter's path.

    Args:
        dataset: To report on.
        records: Its records; None reads them.
        out: Where only the page goes instead, and nothing into the dataset.
    """
    if records is None:
        records = list(dataset.load_records().values())
    summary = summarise(dataset, records)
    if out is None:
        write_json(dataset.root / "report.json", summary)
    entries = worst_first(records)
    worst = [e for e in entries if e.record.done("render")][:MAX_WORST]
    shown = {e.record.id for e in worst}
    fine = [e for e in entries if e.state == "fine" and e.record.done("render")]
    fine = [e for e in fine if e.record.id not in shown]
    sample = random.Random(0).sample(fine, min(MAX_SAMPLE, len(fine)))
    twins = sorted((e for e in entries if e.record.verdict.get("twin")),
                   key=lambda e: e.record.verdict["twin_distance"])[:MAX_TWINS]  # fmt: skip
    page = report_page.render(
        dataset,
        summary,
        worst=worst,
        sample=sample,
        twins=twins,
        rows=entries[:MAX_ROWS],
        extremes=worst_by_measure(entries),
        histograms=[(name, values_of(entries, name)) for name in WORSE_WHEN],
    )
    path = out or dataset.root / "report.html"
    write_atomic(path, lambda file: file.write(page.encode(errors="backslashreplace")))
    return path


def problems_of(record: Record) -> list[str]:
    """Returns what of the colours of an asset could not be shown, one line each."""
    return _lines(record, "render", "problems")


def notes_of(record: Record) -> list[str]:
    """Returns what a source lacks, and what of it is not the asset, one line each."""
    return _lines(record, "watertight", "notes")


def _lines(record: Record, name: str, measurement: str) -> list[str]:
    step = record.steps.get(name)
    return list(step.measurements.get(measurement, ())) if step else []


def summarise(dataset: Dataset, records: list[Record]) -> dict[str, Any]:
    """Returns counts per step, cause, rule and rung, all failures, and the split sizes."""
    done, failed, retried = Counter[str](), Counter[str](), 0
    seconds = Counter[str]()
    for record in records:
        for name, step in record.steps.items():
            (done if step.status == "done" else failed)[name] += 1
            seconds[name] += step.seconds  # type: ignore[assignment]
            retried += step.attempts > 1
    steps = {
        name: {"done": done[name], "failed": failed[name], "seconds": round(seconds[name], 2)}
        for name in dict.fromkeys((*STEPS, *done, *failed))
    }
    rungs = Counter(
        r.steps["watertight"].measurements.get("rung", "unknown")
        for r in records
        if r.done("watertight")
    )
    failures = [{"id": r.id, "source": r.source["path"], **r.error} for r in records if r.error]
    rejected = {r.id: r.rejected for r in records if r.rejected}
    lists = {name: read_json(dataset.list_path(name)) or [] for name in ("train", "val")}
    return {
        "version": __version__,
        "assets": len(records),
        "complete": sum(r.complete for r in records),
        "usable": sum(r.usable for r in records),
        "duplicates": sum(len(r.duplicates) for r in records),
        "near_duplicates": sum("twin" in r.verdict for r in records),
        "noted": sum(bool(notes_of(r)) for r in records),
        "colours_lost": sum(bool(problems_of(r)) for r in records),
        "stale": dict(Counter(r.stale for r in records if r.stale)),
        "steps": steps,
        "retried": retried,
        "rungs": dict(rungs),
        "filter": next((r.verdict["filter"] for r in records if r.verdict), "none"),
        "rejected_by_rule": dict(Counter(rule for rules in rejected.values() for rule in rules)),
        "rejected": rejected,
        "failures_by_cause": dict(Counter(f["cause"] for f in failures)),
        "failures": failures,
        "splits": {name: len(ids) for name, ids in lists.items()},
    }
