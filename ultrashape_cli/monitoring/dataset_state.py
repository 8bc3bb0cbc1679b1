"""The present state of a dataset that is being prepared, read from its records alone."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ultrashape_cli.data.layout import STEPS, TRAINING_STEPS, Dataset
from ultrashape_cli.files import read_json

READ_BUDGET_S = 0.4
"""Time one look may spend on records; of a large dataset the rest comes with the next looks."""
SCAN_SHARE = COUNT_SHARE = 0.008
"""Shares of the time that listing and counting the records may take."""
RATE_WINDOW_S = 600.0
IDLE_AFTER_S = 180.0
MAX_FAILURES = 200


@dataclass(slots=True)
class _Asset:
    """What is kept of a record: little, there are tens of thousands."""

    changed: tuple[int, int]
    """Modification time in ns and inode of the record."""
    steps: dict[str, bool]
    """Step -> done or failed."""
    finished: float
    """Time of the last step's result."""
    failure: tuple[str, str, str] | None
    """Cause, step and message."""
    source: str
    rejected: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetState:
    """One reading of a dataset."""

    dataset: str
    state: str
    """`preparing`, or `idle` where nothing was written for some minutes."""
    assets: int
    read: int
    """Records looked at; less than `assets` only in the first moments of a large dataset."""
    steps: dict[str, dict[str, int]]
    """Step -> counts of `done` and `failed`."""
    complete: int
    """Assets with everything that training reads."""
    failed: int
    waiting: int
    """Assets that are not at their end."""
    rejected: int
    per_minute: float
    """Assets that came to their end, over the last minutes of work."""
    seconds_left: float | None
    failures_by_cause: dict[str, int]
    failures: tuple[dict[str, str], ...] = field(default=())
    """The newest ones: `id`, `source`, `step`, `cause`, `message`."""
    splits: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """Returns plain values."""
        return asdict(self)


class DatasetReader:
    """Follows a dataset; only records that changed are read again."""

    def __init__(self, dataset: Dataset, budget_s: float = READ_BUDGET_S) -> None:
        """Follows a dataset; a look reads records for at most `budget_s` seconds."""
        self.dataset = dataset
        self._budget_s = budget_s
        self._assets: dict[str, _Asset] = {}
        self._waiting: dict[str, tuple[int, int]] = {}
        self._folder_time = 0
        self._next_scan = 0.0
        self._counted: DatasetState | None = None
        self._changed = False
        self._next_count = 0.0
        self._latest = 0.0

    def read(self, now: float | None = None) -> DatasetState:
        """Returns the present state; `now` is the wall clock, seconds since 1970.

        Of a large dataset neither the listing nor the counting is done at every call.
        """
        now = time.time() if now is None else now
        started = time.monotonic()
        self._scan(started)
        self._changed |= self._read_changed()
        if self._counted is None or (self._changed and started >= self._next_count):
            before = time.perf_counter()
            self._counted = self._count()
            self._next_count = started + (time.perf_counter() - before) / COUNT_SHARE
            self._changed = False
        if self._counted.waiting and now - self._latest < IDLE_AFTER_S:
            return replace(self._counted, state="preparing")
        return replace(self._counted, seconds_left=None)

    def _count(self) -> DatasetState:
        assets = self._assets
        total = len(assets.keys() | self._waiting.keys())
        counts = {name: {"done": 0, "failed": 0} for name in STEPS}
        for asset in assets.values():
            for name, done in asset.steps.items():
                counts.setdefault(name, {"done": 0, "failed": 0})["done" if done else "failed"] += 1
        ran = [name for name in counts if sum(counts[name].values())]
        ended = [a for a in assets.values() if a.failure or all(name in a.steps for name in ran)]
        latest = max((a.finished for a in assets.values()), default=0.0)
        pace = _per_second([a.finished for a in ended], latest)
        self._latest = latest
        left = total - len(ended)
        failed = {name: a for name, a in assets.items() if a.failure}
        return DatasetState(
            dataset=str(self.dataset.root),
            state="idle",
            assets=total,
            read=total - len(self._waiting.keys() - assets.keys()),
            steps=counts,
            complete=sum(
                all(a.steps.get(name) for name in TRAINING_STEPS) for a in assets.values()
            ),
            failed=len(failed),
            waiting=left,
            rejected=sum(a.rejected for a in assets.values()),
            per_minute=60 * pace,
            seconds_left=left / pace if left and pace else None,
            failures_by_cause=dict(
                Counter(a.failure[0] for a in failed.values() if a.failure).most_common()
            ),
            failures=tuple(_failures(failed)),
            splits=self._splits(),
        )

    def _scan(self, clock: float) -> None:
        """Finds records that are new or changed, unless the folder is as it was."""
        folder = self.dataset.root / "records"
        try:
            changed = folder.stat().st_mtime_ns
            if clock < self._next_scan or (changed == self._folder_time and self._assets):
                return
            started = time.perf_counter()
            seen = set()
            with os.scandir(folder) as entries:
                for entry in entries:
                    name = entry.name
                    if not name.endswith(".json") or name.startswith("."):
                        continue
                    stat = entry.stat()
                    asset_id, mark = name[:-5], (stat.st_mtime_ns, stat.st_ino)
                    seen.add(asset_id)
                    known = self._assets.get(asset_id)
                    if known is None or known.changed != mark:
                        self._waiting[asset_id] = mark
        except OSError:  # the folder vanished or its server did; the next look tries again
            return
        self._folder_time = changed
        self._next_scan = clock + (time.perf_counter() - started) / SCAN_SHARE
        for gone in self._assets.keys() - seen:
            del self._assets[gone]
            self._counted = None

    def _read_changed(self) -> bool:
        """Reads records that changed, as far as the time goes; says whether there were some."""
        waiting = bool(self._waiting)
        deadline = time.perf_counter() + self._budget_s
        folder = str(self.dataset.root / "records")
        for asset_id in list(self._waiting):
            mark = self._waiting.pop(asset_id)
            try:
                value = read_json(f"{folder}/{asset_id}.json")
            except OSError:
                continue
            # Records of other versions, or none at all, do not count.
            with suppress(AttributeError, KeyError, TypeError):
                self._assets[asset_id] = _summarise(value, mark)
            if time.perf_counter() > deadline:
                break
        return waiting

    def _splits(self) -> dict[str, int]:
        found = {}
        for name in ("train", "val", "test"):
            try:
                ids = read_json(self.dataset.list_path(name))
            except OSError:
                continue
            if isinstance(ids, list):
                found[name] = len(ids)
        return found


def _summarise(value: Any, mark: tuple[int, int]) -> _Asset:
    """Returns what counts of a record; AttributeError, KeyError or TypeError where it is none."""
    steps, failure = value["steps"], None
    for name, step in steps.items():
        error = step["error"]
        if step["status"] == "failed" and error:
            failure = (str(error["cause"]), name, str(error["message"]))
            break
    return _Asset(
        changed=mark,
        steps={name: step["status"] == "done" for name, step in steps.items()},
        finished=max((float(step["time"]) for step in steps.values()), default=0.0),
        failure=failure,
        source=str(value["source"]["path"]),
        rejected=bool(value.get("verdict", {}).get("rejected")),
    )


def _per_second(times: list[float], latest: float) -> float:
    """Returns the pace over the last minutes before the latest result."""
    recent = sorted(t for t in times if latest - t <= RATE_WINDOW_S)
    span = latest - recent[0] if recent else 0.0
    return (len(recent) - 1) / span if len(recent) > 1 and span > 0 else 0.0


def _failures(failed: Mapping[str, _Asset]) -> Iterator[dict[str, str]]:
    newest = sorted(failed.items(), key=lambda item: -item[1].finished)[:MAX_FAILURES]
    for asset_id, asset in newest:
        assert asset.failure is not None
        cause, step, message = asset.failure
        yield {
            "id": asset_id,
            "source": asset.source,
            "step": step,
            "cause": cause,
            "message": message,
        }
