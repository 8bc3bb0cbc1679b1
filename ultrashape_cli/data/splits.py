"""Train, validation and test lists that do not change when assets are added."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ultrashape_cli.data.attribution import (
    dataset_attribution,
    origin_of,
    works_of,
    write_works,
)
from ultrashape_cli.data.layout import Dataset, Record
from ultrashape_cli.errors import DatasetError, UsageError
from ultrashape_cli.files import read_json, write_json

LISTS = ("train", "val", "test")
_STRATA = 4
# What file names of one sculpt's variants end in: numbers, and words such as `v2` or `copy`.
_VARIANT = re.compile(
    r"(?:[\s_.()\-]+|\d+|(?<![a-z])(?:v|ver|version|var|variant|copy|final|lod|pose)(?![a-z]))$"
)


@dataclass(frozen=True, slots=True)
class SplitRule:
    """How assets are placed.

    Attributes:
        val, test: Shares held out.
        train: Share that trains; 0 is all the rest.
        seed: Changes the places.
        group_by: `none`, `folder` (name of the source's folder), `prefix` (file name without
            number and variant), `duplicates` (near-duplicates by the quality step), `series` or
            `author` (of what was imported; the rest stays alone).
        stratify: Measure that every list gets alike; empty for none.
    """

    val: float
    seed: int
    test: float = 0.0
    train: float = 0.0
    group_by: str = "none"
    stratify: str = ""

    def __post_init__(self) -> None:
        if self.train + self.val + self.test > 1 + 1e-9:
            total = self.train + self.val + self.test
            raise UsageError(f"the shares of the lists sum to {total:g}, above 1",
                             hint="lower --train, --val or --test")  # fmt: skip

    def shares(self) -> dict[str, float]:
        """Returns the share of each list."""
        rest = max(1 - self.val - self.test, 0.0)
        return {"train": self.train or rest, "val": self.val, "test": self.test}

    def place(self, value: float) -> str:
        """Returns the list of a hash in [0, 1), empty where it belongs to none."""
        if value < self.val:
            return "val"
        if value >= 1 - self.test:
            return "test"
        return "train" if value < self.val + self.shares()["train"] else ""


def split_records(
    records: list[Record], rule: SplitRule, known: dict[str, str] | None = None
) -> dict[str, str]:
    """Returns asset id -> list, where empty means none.

    Without strata, a group of assets is placed by a hash of seed and group alone. With strata,
    groups are placed in the order of their hash, each in the list that its stratum lacks most.
    Assets that already have a place keep it, and others follow those of their group.

    Args:
        records: Usable assets.
        rule: How to place them.
        known: Places of an earlier split by the same rule.
    """
    known = known or {}
    groups: dict[str, list[Record]] = defaultdict(list)
    for record, key in zip(records, group_keys(records, rule.group_by), strict=True):
        groups[key].append(record)
    named = ("folder", "prefix", "series", "author")
    if rule.group_by in named and len(groups) == 1 < len(records):
        raise DatasetError(
            f"every asset has the same {rule.group_by}, so all would be in one list",
            hint="--group-by none, or another grouping",
        )
    places: dict[str, str] = {}
    fixed: dict[str, str] = {}
    for key, members in groups.items():
        placed = [known[r.id] for r in sorted(members, key=lambda r: r.id) if r.id in known]
        if placed:
            fixed[key] = placed[0]
    hashes = {key: _unit_hash(key, rule.seed) for key in groups}
    if rule.stratify:
        fixed = _fill_strata(groups, hashes, fixed, rule)
    else:
        free = sorted(groups.keys() - fixed.keys(), key=hashes.__getitem__)
        fixed |= {key: rule.place(hashes[key]) for key in free}
        _keep_both(fixed, free, rule)
    for key, members in groups.items():
        for record in members:
            places[record.id] = known.get(record.id, fixed[key])
    return places


def as_lists(places: dict[str, str]) -> dict[str, list[str]]:
    """Returns the sorted lists of places; `test` only where it has assets."""
    lists: dict[str, list[str]] = {"train": [], "val": []}
    for asset_id in sorted(places):
        if places[asset_id]:
            lists.setdefault(places[asset_id], []).append(asset_id)
    return lists


def group_keys(records: list[Record], group_by: str) -> list[str]:
    """Returns a key per record, the same for those that stay together."""
    if group_by == "none":
        return [record.id for record in records]
    if group_by == "duplicates":
        return _duplicate_keys(records)
    paths = [Path(record.source["path"]) for record in records]
    if group_by == "folder":
        return [path.parent.name for path in paths]
    if group_by == "prefix":
        return [name_prefix(path.stem) for path in paths]
    if group_by in ("series", "author"):
        return [origin_group(origin_of(record), group_by) or record.id for record in records]
    raise UsageError(f"unknown grouping `{group_by}`",
                     hint="none, folder, prefix, duplicates, series or author")  # fmt: skip


def origin_group(origin: dict[str, Any], group_by: str) -> str:
    """Returns the series or author of an imported mesh; empty where it has none."""
    name = origin.get(group_by)
    return f"{origin.get('source', '')}/{name}" if name else ""


def name_prefix(stem: str) -> str:
    """Returns a file name without what tells the variants of one sculpt apart."""
    whole = prefix = stem.lower()
    while (shorter := _VARIANT.sub("", prefix)) != prefix:
        prefix = shorter
    return prefix or whole


def write_splits(
    dataset: Dataset, rule: SplitRule, records: dict[str, Record] | None = None
) -> dict[str, list[str]]:
    """Writes data_list/*.json, render.json and the attribution from the assets that are usable.

    Args:
        dataset: Where.
        rule: How to place assets.
        records: All records, where they are read already.

    Raises:
        DatasetError: No asset is: complete, not rejected by the filter, its source still there.
            Or files of one are gone.
    """
    places, known, usable = _plan(dataset, rule, records)
    lists = as_lists(places)
    for name in LISTS:
        if name in lists:
            write_json(dataset.list_path(name), lists[name])
        else:
            dataset.list_path(name).unlink(missing_ok=True)
    # Assets that are left out for now keep their place for when they come back.
    write_json(dataset.list_path("split"), {"rule": asdict(rule), "places": {**known, **places}})
    write_json(dataset.render_map, {record.id: f"renders/{record.id}" for record in usable})
    listed = {asset_id for ids in lists.values() for asset_id in ids}
    works = works_of(record for record in usable if record.id in listed)
    write_works(dataset_attribution(dataset), works)
    return lists


def plan_splits(
    dataset: Dataset, rule: SplitRule, records: dict[str, Record] | None = None
) -> dict[str, list[str]]:
    """Returns the lists that `write_splits` would write, and writes nothing."""
    return as_lists(_plan(dataset, rule, records)[0])


def read_places(dataset: Dataset) -> tuple[SplitRule | None, dict[str, str]]:
    """Returns the rule of the lists and the place of each asset; None and {} without lists."""
    value = read_json(dataset.list_path("split"))
    try:
        return SplitRule(**value["rule"]), dict(value["places"])
    except (TypeError, LookupError, ValueError):
        return None, {}


def _plan(
    dataset: Dataset, rule: SplitRule, records: dict[str, Record] | None
) -> tuple[dict[str, str], dict[str, str], list[Record]]:
    """Returns the places of the usable assets, those of earlier by this rule, and the assets."""
    usable = usable_records(dataset, records)
    earlier, known = read_places(dataset)
    known = known if earlier == rule else {}
    return split_records(usable, rule, known), known, usable


def usable_records(dataset: Dataset, records: dict[str, Record] | None = None) -> list[Record]:
    """Returns the records that belong in the lists.

    Raises:
        DatasetError: There are none, or the files of some are gone.
    """
    records = dataset.load_records() if records is None else records
    usable = [r for r in records.values() if r.usable]
    if not usable and any(r.complete for r in records.values()):
        raise DatasetError(
            f"every complete asset of `{dataset.root}` is rejected by the filter or has lost its "
            "source",
            hint=f"ushape prepare --review -o {dataset.root} --filter none",
        )
    if not usable:
        raise DatasetError(
            f"no asset of `{dataset.root}` has both renders and samples",
            hint=f"ushape render {dataset.root} && ushape sample {dataset.root}",
        )
    for step in ("render", "sample"):
        gone = [r.id for r in usable if not dataset.is_current(r, step, r.steps[step].key)]
        if gone:
            raise DatasetError(
                f"files of step `{step}` are gone or changed for {len(gone)} of {len(usable)} "
                f"assets, such as `{gone[0]}`",
                hint=f"ushape {step} {dataset.root}",
            )
    return usable


def _keep_both(places: dict[str, str], free: list[str], rule: SplitRule) -> None:
    """Moves one of the new groups, sorted by hash, where train or validation would be empty."""
    if rule.val > 0 and "val" not in places.values() and len(places) > 1 and free:
        places[free[0]] = "val"
    if "train" not in places.values() and free:
        places[free[-1]] = "train"


def _fill_strata(
    groups: dict[str, list[Record]],
    hashes: dict[str, float],
    fixed: dict[str, str],
    rule: SplitRule,
) -> dict[str, str]:
    values = {key: _measure(members, rule.stratify) for key, members in groups.items()}
    known = [value for value in values.values() if value is not None]
    if not known:
        raise DatasetError(
            f"no record has the measure `{rule.stratify}`",
            hint="`detail` and `faces` are two; report.json of the dataset has all",
        )
    edges = np.quantile(known, np.arange(1, _STRATA) / _STRATA)
    strata: dict[int, list[str]] = defaultdict(list)
    for key, value in values.items():
        strata[-1 if value is None else int(np.searchsorted(edges, value))].append(key)
    places = dict(fixed)
    shares = rule.shares()
    shares[""] = max(1 - sum(shares.values()), 0.0)
    for _, keys in sorted(strata.items()):
        have = dict.fromkeys(shares, 0)
        for key in keys:
            if key in fixed:
                have[fixed[key]] += len(groups[key])
        for key in sorted((k for k in keys if k not in fixed), key=hashes.__getitem__):
            total = sum(have.values()) + len(groups[key])
            places[key] = max(shares, key=lambda name: shares[name] * total - have[name])
            have[places[key]] += len(groups[key])
    return places


def _measure(members: list[Record], name: str) -> float | None:
    found = [
        float(value)
        for record in members
        for step in record.steps.values()
        if isinstance(value := step.measurements.get(name), (int, float))
    ]
    return float(np.mean(found)) if found else None


def _duplicate_keys(records: list[Record]) -> list[str]:
    """Returns the lowest id of each set of near-duplicates that the review has joined."""
    if not any(record.verdict for record in records):
        raise DatasetError(
            "near-duplicates have not been looked for",
            hint="`ushape prepare --review -o DATA` looks for them",
        )
    parent = {record.id: record.id for record in records}

    def root(asset_id: str) -> str:
        while parent[asset_id] != asset_id:
            asset_id = parent[asset_id]
        return asset_id

    for record in records:
        twin = record.verdict.get("twin")
        if twin in parent:
            low, high = sorted((root(record.id), root(twin)))
            parent[high] = low
    return [root(record.id) for record in records]


def _unit_hash(key: str, seed: int) -> float:
    digest = hashlib.sha256(f"{seed}:{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
