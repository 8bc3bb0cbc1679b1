"""Times `ushape data pack` on a simulated dataset, beside `tar`.

    python examples/bench/pack.py FOLDER [--assets 30000] [--kib 24] [--files 18]

Prints seconds, MB/s and peak memory of packing all of it, of packing it again unchanged, and with
30 more assets; and the seconds of `tar` and `sha256sum` over the same files. The page cache is warm
in all of them unless the dataset is larger than memory.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from ultrashape_cli.data.layout import Dataset, Record, StepRecord
from ultrashape_cli.files import write_json

_PACK = """
import re, sys, time
from pathlib import Path
from ultrashape_cli.data.layout import Dataset
from ultrashape_cli.packing.write import plan_pack, write_pack
def peak():
    return int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])
begin, before = time.perf_counter(), peak()
plan = plan_pack(Dataset(Path(sys.argv[1])), int(sys.argv[3]) << 20)
pack = write_pack(plan, Path(sys.argv[2]))
grown = peak() - before
print(time.perf_counter() - begin, grown / 1024, plan.total / 1e6, len(pack.shards))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--assets", type=int, default=30_000)
    parser.add_argument("--kib", type=int, default=24)
    parser.add_argument("--files", type=int, default=18)
    parser.add_argument("--shard-mib", type=int, default=64)
    options = parser.parse_args()
    dataset, pack = Dataset(options.folder / "data"), options.folder / "pack"
    add_assets(dataset, range(options.assets), options)
    print(f"{'what':34}{'seconds':>9}{'MB/s':>9}{'MiB grown':>11}{'new shards':>12}")
    row("pack, all of it", dataset, pack, options.shard_mib)
    row("pack again, nothing changed", dataset, pack, options.shard_mib)
    add_assets(dataset, range(options.assets, options.assets + 30), options)
    row("pack again, 30 more assets", dataset, pack, options.shard_mib)
    begin = time.perf_counter()
    command = f"tar -C {dataset.root} -cf - . | sha256sum"
    subprocess.run(["bash", "-c", command], check=True, stdout=subprocess.DEVNULL)
    print(f"{'tar | sha256sum, writes nothing':34}{time.perf_counter() - begin:9.1f}")


def row(name: str, dataset: Dataset, pack: Path, shard_mib: int) -> None:
    old = shards(pack)
    command = [sys.executable, "-c", _PACK, str(dataset.root), str(pack), str(shard_mib)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds, grown, megabytes, count = map(float, done.stdout.split())
    new = f"{len(shards(pack) - old)} of {count:.0f}"
    print(f"{name:34}{seconds:9.1f}{megabytes / seconds:9.0f}{grown:11.0f}{new:>12}")


def shards(pack: Path) -> set[str]:
    return {path.stem for path in pack.glob("shards/*.tar")}


def add_assets(dataset: Dataset, seeds: range, options: argparse.Namespace) -> None:
    """Makes assets with one mesh, one sample file and the views, of random bytes."""
    for seed in seeds:
        asset = f"asset-{seed:05d}"
        if dataset.record_path(asset).exists():
            continue
        draw = np.random.default_rng(seed)
        views = [dataset.views(asset) / f"view_{i:03d}.png" for i in range(options.files - 2)]
        steps = {}
        for step, paths in (
            ("watertight", [dataset.mesh(asset)]),
            ("render", views),
            ("sample", [dataset.samples(asset)]),
        ):
            for path in paths:
                os.makedirs(path.parent, exist_ok=True)
                path.write_bytes(draw.bytes(int(options.kib * 1024 * draw.uniform(0.5, 1.5))))
            steps[step] = StepRecord("done", "key", outputs=dataset.output_sizes(paths))
        dataset.write_record(Record(asset, {"path": f"{asset}.stl"}, steps))
    write_json(dataset.list_path("train"), [f"asset-{seed:05d}" for seed in seeds])


if __name__ == "__main__":
    main()
