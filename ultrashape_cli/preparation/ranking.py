"""Which assets of a dataset to look at first, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ultrashape_cli.data.layout import Record
from ultrashape_cli.preparation.filters import measurements

MAX_PER_MEASURE = 6
"""Assets that are named for each measure."""

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
            what = "in other colours" if "other_colours" in record.verdict else "near-duplicate"
            state, reason = "twin", f"{what}: {record.verdict['twin']}"
        elif values.get("problems"):
            reason = str(values["problems"][0])
        elif values.get("notes"):
            reason = str(values["notes"][0])
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


def values_of(entries: Sequence[Entry], name: str) -> np.ndarray:
    """Returns the finite values `[N]` of a measure."""
    values = np.array([_number(entry.measured.get(name)) for entry in entries])
    return values[np.isfinite(values)]


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")
