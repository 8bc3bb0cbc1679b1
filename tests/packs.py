"""Small datasets as prepare leaves them, but for what is in their files."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ultrashape_cli.data.layout import Dataset, Record, StepRecord
from ultrashape_cli.files import write_json


def fill(dataset: Dataset, seeds: Iterable[int]) -> Dataset:
    """Adds assets and lists."""
    for seed in seeds:
        add_asset(dataset, f"asset-{seed:03d}", seed)
    ids = sorted(path.stem for path in (dataset.root / "records").glob("*.json"))
    write_json(dataset.list_path("train"), ids)
    write_json(dataset.list_path("val"), ids[:1])
    dataset.settings.write_text("[render]\nviews = 2\n")
    return dataset


def add_asset(dataset: Dataset, asset: str, seed: int) -> None:
    draw = np.random.default_rng(seed)
    steps = {}
    outputs = {
        "watertight": [dataset.mesh(asset)],
        "render": [dataset.views(asset) / name for name in ("view_000.png", "cameras.json")],
        "sample": [dataset.samples(asset)],
    }
    for step, paths in outputs.items():
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(draw.bytes(int(draw.integers(0, 4000))))
        sizes = dataset.output_sizes(paths)
        steps[step] = StepRecord("done", "key", outputs=sizes, time=1.0)
    dataset.write_record(Record(asset, {"path": f"{asset}.stl"}, steps))
