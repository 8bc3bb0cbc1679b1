"""What a run trains on, known by content: a moved data set is the same, a changed one is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ultrashape_cli.config.schema import Config
from ultrashape_cli.data.attribution import NAME as ATTRIBUTION
from ultrashape_cli.data.attribution import (
    add_works,
    attribution_of_weights,
    dataset_attribution,
)
from ultrashape_cli.data.layout import Dataset
from ultrashape_cli.errors import UsageError
from ultrashape_cli.files import read_json, write_json
from ultrashape_cli.packing.opened import open_dataset
from ultrashape_cli.runs import RunFolder
from ultrashape_cli.training.generations import find_picks, generation_digests
from ultrashape_cli.training.objectives.latents import LatentCache
from ultrashape_cli.training.objectives.tokens import TokenCache

_NAMED = 3


def open_training_data(config: Config) -> Dataset:
    """Returns the dataset that a run trains on, wherever it lies."""
    settings = config.train
    return open_dataset(settings.data, settings.cache, settings.cache_gib)


def record_data(run: RunFolder, config: Config) -> list[str]:
    """Writes which assets a run trains and validates on, by digests of their samples, and by whom.

    Latents and image tokens kept of assets whose samples have changed since are dropped.

    Returns:
        A line per kind of change since the run began or was continued last.

    Raises:
        UsageError: None of the assets trained on is there any more.
    """
    dataset = open_training_data(config)
    now = {
        "train": _digests(dataset, dataset.read_split("train")[: config.train.overfit or None]),
        "val": _digests(dataset, dataset.read_split("val")),
    }
    picks = find_picks(config)
    if picks is not None:
        now["generations"] = generation_digests(picks)
    # What the weights it starts from have learned from, it has too.
    start = attribution_of_weights(Path(config.train.init)) if config.train.init else None
    add_works(run.root / ATTRIBUTION, dataset_attribution(dataset), start)
    before = read_json(run.data)
    if before == now:
        return []
    told = []
    if isinstance(before, dict):
        if before["train"] and not before["train"].keys() & now["train"].keys():
            raise UsageError(
                f"`{run.root}` was trained on other data: none of its {len(before['train'])} "
                f"assets is in `{dataset.root}`",
                hint="choose another --out, or redo the run with --force",
            )
        told = [line for name in now for line in _changes(name, before.get(name, {}), now[name])]
        again = [asset for asset, digest in now["train"].items()
                 if _differ(before["train"].get(asset, digest), digest)]  # fmt: skip
        LatentCache(run.root / "latents").forget(again)
        TokenCache(run.root / "tokens").forget(again)
    write_json(run.data, now)
    return told


def _digests(dataset: Dataset, ids: list[str]) -> dict[str, str]:
    return {asset: dataset.sample_digest(asset) for asset in ids}


def _differ(before: str, now: str) -> bool:
    """Says whether two digests tell of a change: a pack has others than the dataset it is of."""
    return before != now and before.startswith("shard:") == now.startswith("shard:")


def _changes(name: str, before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    kinds = {
        "added": sorted(now.keys() - before.keys()),
        "gone": sorted(before.keys() - now.keys()),
        "prepared anew": sorted(
            a for a in now.keys() & before.keys() if _differ(before[a], now[a])
        ),
    }
    return [
        f"{name} data: {len(ids)} {kind} ({', '.join(ids[:_NAMED])}"
        f"{', ...' if len(ids) > _NAMED else ''})"
        for kind, ids in kinds.items()
        if ids
    ]
