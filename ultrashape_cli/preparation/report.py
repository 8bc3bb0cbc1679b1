"""report.json and the facts behind report.html: counts, causes, verdicts, worst assets first."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ultrashape_cli import __version__
from ultrashape_cli.data.layout import STEPS, Dataset, Record
from ultrashape_cli.files import read_json, write_atomic, write_json
from ultrashape_cli.preparation import report_page
from ultrashape_cli.preparation.filters import measurements

MAX_WORST, MAX_SAMPLE, MAX_TWINS, MAX_PER_MEASURE = 96, 48, 16, 6
"""Pictures are read for these only, however many assets there are."""
MAX_ROWS = 3000

WORSE_WHEN = {
    "lost_share": "high",
    "distance_mean": "high",
    "components": "high",
    "boundary_loops": "high",
    "genus": "high",
    "primitive_share": "high",
    "interior_ratio": "low",
    "wall_thickness": "low",
    "flatness": "low",
    "detail": "low",
    "vae_f_score": "low",
}
"""Measures that order the assets no rule rejects, and which end of them is suspicious."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One asset as the report shows it."""

    record: Record
    measured: dict[str, Any]
    state: str
    """`failed`, `rejected`, `stale`, `twin` or `fine`."""
    reason: str
    """What to look at."""
    badness: float
    """Orders assets of one state."""


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
        histograms=[(name, _column(entries, name)) for name in WORSE_WHEN],
    )
    path = out or dataset.root / "report.html"
    write_atomic(path, lambda file: file.write(page.encode(errors="backslashreplace")))
    return path


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


def worst_first(records: Sequence[Record]) -> list[Entry]:
    """Returns the assets: failed, rejected (most rules first), stale, twins, then outliers.

    Among the rest an asset stands where its most extreme measure puts it.
    """
    measured = [measurements(record) for record in records]
    extremes = _extremes(measured)
    entries = []
    for record, values, (share, name) in zip(records, measured, extremes, strict=True):
        state, reason, badness = "fine", "", share
        if record.error:
            state, reason = "failed", f"{record.error['cause']}: {record.error['message']}"
        elif record.rejected:
            state, reason = "rejected", ", ".join(record.rejected)
            badness += len(record.rejected)
        elif record.stale:
            state, reason = "stale", f"source {record.stale}"
        elif "twin" in record.verdict:
            state, reason = "twin", f"near-duplicate of {record.verdict['twin']}"
        elif share > 0:
            part = max(100 * (1 - share), 100 / len(records))
            reason = f"{name} {values[name]:.4g}: {WORSE_WHEN[name]}est {part:.2g} %"
        entries.append(Entry(record, values, state, reason, badness))
    order = ("failed", "rejected", "stale", "twin", "fine")
    return sorted(entries, key=lambda e: (order.index(e.state), -e.badness, e.record.id))


def worst_by_measure(entries: Sequence[Entry]) -> list[tuple[str, list[Entry]]]:
    """Returns, for each measure in which assets differ, those with pictures that are worst in it.

    Assets as good as the median are not among them.
    """
    shown = [entry for entry in entries if entry.record.done("render")]
    found = []
    for name, end in WORSE_WHEN.items():
        sign = -1 if end == "high" else 1
        placed = [(sign * value, index) for index, entry in enumerate(shown)
                  if np.isfinite(value := _number(entry.measured.get(name)))]  # fmt: skip
        middle = float(np.median([value for value, _ in placed])) if placed else 0.0
        worst = [shown[index] for value, index in sorted(placed) if value < middle]
        if worst:
            found.append((name, worst[:MAX_PER_MEASURE]))
    return found


def _extremes(measured: Sequence[dict[str, Any]]) -> list[tuple[float, str]]:
    """Returns, for each asset, the share of assets that are better in its worst measure."""
    best = np.zeros(len(measured))
    names = np.full(len(measured), "", object)
    for name, end in WORSE_WHEN.items():
        values = np.array([_number(item.get(name)) for item in measured])
        there = np.isfinite(values)
        signed = values[there] if end == "high" else -values[there]
        # Strictly better ones only: where all are equal, nobody stands out.
        share = np.zeros(len(measured))
        share[there] = np.searchsorted(np.sort(signed), signed) / max(len(signed), 1)
        more = share > best
        best[more], names[more] = share[more], name
    return list(zip(best.tolist(), names.tolist(), strict=True))


def _column(entries: Sequence[Entry], name: str) -> np.ndarray:
    values = np.array([_number(entry.measured.get(name)) for entry in entries])
    return values[np.isfinite(values)]


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")
