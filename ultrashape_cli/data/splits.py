"""Train and validation lists that do not change when assets are added."""

from __future__ import annotations

import hashlib

from ultrashape_cli.data.layout import Dataset, Record
from ultrashape_cli.errors import DatasetError
from ultrashape_cli.files import write_json


def split_ids(ids: list[str], val: float, seed: int) -> dict[str, list[str]]:
    """Returns sorted `train` and `val` lists.

    Each id is placed by a hash of seed and id alone, so adding assets never moves another one.
    The one exception keeps tiny sets usable: where no id of two or more falls into `val`, the
    lowest hash does.
    """
    place = {asset_id: _unit_hash(asset_id, seed) for asset_id in ids}
    held_out = {asset_id for asset_id, value in place.items() if value < val}
    if val > 0 and not held_out and len(ids) > 1:
        held_out = {min(place, key=lambda asset_id: place[asset_id])}
    if held_out and len(held_out) == len(ids):
        held_out.discard(max(place, key=lambda asset_id: place[asset_id]))
    return {
        "train": sorted(set(ids) - held_out),
        "val": sorted(held_out),
    }


def write_splits(
    dataset: Dataset, val: float, seed: int, records: dict[str, Record] | None = None
) -> dict[str, list[str]]:
    """Writes data_list/*.json and render.json from the assets that are usable.

    Raises:
        DatasetError: No asset is: complete, not rejected by the filter, its source still there.
    """
    records = dataset.load_records() if records is None else records
    usable = [r.id for r in records.values() if r.usable]
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
    lists = split_ids(usable, val, seed)
    for name, ids in lists.items():
        write_json(dataset.list_path(name), ids)
    write_json(dataset.render_map, {asset_id: f"renders/{asset_id}" for asset_id in usable})
    return lists


def _unit_hash(asset_id: str, seed: int) -> float:
    digest = hashlib.sha256(f"{seed}:{asset_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
