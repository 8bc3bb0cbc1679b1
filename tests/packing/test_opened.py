"""Training items from a pack: the same as from the dataset, whatever the cache holds."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from s3_server import BUCKET, s3_server

import ultrashape_cli.packing.opened as opened
from ultrashape_cli.data.ahead import ReadAhead
from ultrashape_cli.data.dataset import SampleOrder, ShapeDataset, make_loader
from ultrashape_cli.data.layout import Dataset, Record, StepRecord
from ultrashape_cli.data.samples import encode_normals, quantise_positions, write_samples
from ultrashape_cli.errors import AssetError, UShapeError
from ultrashape_cli.files import write_json
from ultrashape_cli.packing.layout import read_index, read_pack
from ultrashape_cli.packing.location import Location, StorageError
from ultrashape_cli.packing.transfer import push_pack
from ultrashape_cli.packing.write import plan_pack, write_pack


def image_size(counter: int) -> int:
    return 32


SIZES = {"seed": 3, "surface_points": 64, "image_size": image_size, "checksums": True}


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    dataset = Dataset(tmp_path / "data")
    for index in range(10):
        _add(dataset, f"asset.{index}", np.random.default_rng(index))
    ids = [f"asset.{index}" for index in range(10)]
    write_json(dataset.list_path("train"), ids[1:])
    write_json(dataset.list_path("val"), ids[:1])
    return dataset


def _add(dataset: Dataset, asset: str, draw: np.random.Generator) -> None:
    normals = draw.normal(size=(100, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    arrays = {
        "surface_points": quantise_positions(0.9 * normals),
        "surface_normals": encode_normals(normals),
    }
    write_samples(dataset.samples(asset), {"contents": "dit", "num_uniform": 50}, arrays)
    views = [dataset.views(asset) / f"view_{view:03d}.png" for view in range(3)]
    views[0].parent.mkdir(parents=True)
    for view in views:
        Image.fromarray(draw.integers(1, 255, (24, 24, 4), np.uint8)).save(view)
    dataset.mesh(asset).parent.mkdir(exist_ok=True)
    dataset.mesh(asset).write_bytes(draw.bytes(3000))
    steps = {
        step: StepRecord("done", "key", outputs=dataset.output_sizes(paths))
        for step, paths in (
            ("watertight", [dataset.mesh(asset)]),
            ("render", views),
            ("sample", [dataset.samples(asset)]),
        )
    }
    dataset.write_record(Record(asset, {"path": asset}, steps))


@pytest.fixture
def root(dataset: Dataset, tmp_path: Path) -> Path:
    write_pack(plan_pack(dataset, 20_000), tmp_path / "pack")
    return tmp_path / "pack"


def batches(dataset: Dataset, count: int = 30, num_workers: int = 0) -> list[dict]:
    items = ShapeDataset(dataset, dataset.read_split("train"), **SIZES)
    order = SampleOrder(len(items), seed=3, start=0, microbatch=2, rank=0, world=1)
    loader = make_loader(items, order, num_workers=num_workers, pin_memory=False)
    return list(islice(loader, count))


def same(one: list[dict], other: list[dict]) -> bool:
    return all(
        a.keys() == b.keys()
        and all(torch.equal(a[k], b[k]) if torch.is_tensor(a[k]) else a[k] == b[k] for k in a)
        for a, b in zip(one, other, strict=True)
    )


def test_a_folder_is_opened_as_it_is(dataset: Dataset) -> None:
    assert opened.open_dataset(str(dataset.root)) == dataset


def test_items_of_a_pack_are_those_of_the_dataset(
    dataset: Dataset, root: Path, tmp_path: Path
) -> None:
    packed = opened.open_dataset(str(root), str(tmp_path / "cache"))
    wanted = batches(dataset)
    assert same(batches(packed), wanted)
    # Again, now that all is there; and by a process of its own.
    assert same(batches(packed), wanted)
    again = opened.open_dataset(str(root), str(tmp_path / "other"))
    assert same(batches(again, 4), wanted[:4])
    # No more was brought than training used.
    names = {path.parts[-3] for path in again.root.rglob("*") if path.is_file()
             and path.parts[-3] in ("renders", "meshes")}  # fmt: skip
    assert names == {"renders"}


def test_samples_come_before_they_are_asked_for(
    dataset: Dataset, root: Path, tmp_path: Path
) -> None:
    asked: list[list[tuple[int, int]]] = []
    order = SampleOrder(9, seed=3, start=0, microbatch=2, rank=0, world=1)
    found = list(islice(ReadAhead(order, asked.append), 5))
    assert found == list(islice(order, 5))
    deadline = time.monotonic() + 10
    while len(asked) < 13 and time.monotonic() < deadline:
        time.sleep(0.01)
    # Five that were given out, and eight more.
    assert sorted(asked) == sorted(islice(order, 13))


def test_what_cannot_be_read_ahead_is_told_by_who_reads_it(
    dataset: Dataset, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opened, "_WAITS_S", ())
    packed = opened.open_dataset(str(root), str(tmp_path / "cache"))
    for shard in read_pack(root).shards:
        if shard.bits != "common":
            (root / shard.tar).write_bytes(bytes(shard.size))
    with pytest.raises(AssetError, match="is damaged in"):
        batches(packed, 1)


def test_two_that_want_one_file_bring_it_once(
    dataset: Dataset, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = opened.open_dataset(str(root), str(tmp_path / "cache"))
    read, count = opened._read, []

    def slowly(*args: object) -> bytes:
        count.append(1)
        time.sleep(0.1)
        return read(*args)

    monkeypatch.setattr(opened, "_read", slowly)
    with ThreadPoolExecutor(4) as pool:
        path = packed.samples("asset.1")
        assert set(pool.map(packed.fetched, [path] * 4)) == {path}
    assert len(count) == 1


def test_loader_processes_bring_them_too(dataset: Dataset, root: Path, tmp_path: Path) -> None:
    packed = opened.open_dataset(str(root), str(tmp_path / "cache"))
    assert same(batches(packed, 6, num_workers=1), batches(dataset, 6))


def test_a_cache_smaller_than_the_data_gives_the_same(
    dataset: Dataset, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opened, "_RECENT_S", -1.0)
    limit = 20_000 / 2**30
    packed = opened.open_dataset(str(root), str(tmp_path / "cache"), limit)
    assert same(batches(packed, 40), batches(dataset, 40))
    held = sum(p.stat().st_size for name in ("samples", "renders")
               for p in (packed.root / name).rglob("*") if p.is_file())  # fmt: skip
    assert held <= 1.2 * 20_000
    # What was used in the last minute stays even so.
    monkeypatch.setattr(opened, "_RECENT_S", 60.0)
    fresh = opened.open_dataset(str(root), str(tmp_path / "fresh"), limit)
    batches(fresh, 40)
    assert len(list(fresh.root.glob("samples/*"))) == 9


def test_from_s3_they_are_the_same(
    dataset: Dataset, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with s3_server(monkeypatch):
        address = f"s3://{BUCKET}/set"
        push_pack(root, read_pack(root), Location(address))
        packed = opened.open_dataset(address, str(tmp_path / "cache"))
        assert same(batches(packed), batches(dataset))
        opened._location.cache_clear()


def test_another_pack_at_the_address_is_not_mixed_with_the_former(
    dataset: Dataset, root: Path, tmp_path: Path
) -> None:
    batches(opened.open_dataset(str(root), str(tmp_path / "cache")))
    dataset.samples("asset.3").write_bytes(dataset.samples("asset.4").read_bytes())
    record = dataset.read_record("asset.3")
    assert record is not None
    record.steps["sample"].outputs = dataset.output_sizes([dataset.samples("asset.3")])
    dataset.write_record(record)
    write_pack(plan_pack(dataset, 20_000), root)
    assert same(batches(opened.open_dataset(str(root), str(tmp_path / "cache"))), batches(dataset))


def test_what_is_damaged_or_not_there_is_named(
    dataset: Dataset, root: Path, tmp_path: Path
) -> None:
    packed = opened.open_dataset(str(root), str(tmp_path / "cache"))
    shard = packed.pack.shard_of("asset.3")
    member = next(m for m in read_index(root / shard.index) if m.name == "samples/asset.3.npz")
    data = bytearray((root / shard.tar).read_bytes())
    data[member.offset] ^= 1
    (root / shard.tar).write_bytes(data)
    with pytest.raises(AssetError, match=r"samples/asset\.3\.npz` is damaged"):
        packed.fetched(packed.samples("asset.3"))
    assert not packed.samples("asset.3").exists()
    with pytest.raises(AssetError, match=r"samples/nobody\.npz` is not in the pack"):
        packed.fetched(packed.samples("nobody"))
    assert packed.has(packed.mesh("asset.2"))
    assert not packed.has(packed.mesh("nobody"))


def test_a_network_that_comes_back_is_waited_for(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = opened.open_dataset(str(root), str(tmp_path / "cache"))
    slept: list[float] = []
    monkeypatch.setattr(opened.time, "sleep", slept.append)
    real, tries = opened._read, iter(range(99))

    def fail_at_first(*arguments: object) -> bytes:
        if next(tries) < 3:
            raise StorageError("down")
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(opened, "_read", fail_at_first)
    packed.fetched(packed.samples("asset.1"))
    assert slept == [1, 2, 4]
    monkeypatch.setattr(opened, "_read", lambda *_: (_ for _ in ()).throw(StorageError("down")))
    with pytest.raises(AssetError, match="cannot be read: down"):
        packed.fetched(packed.samples("asset.2"))


def test_no_pack_no_training(tmp_path: Path) -> None:
    with pytest.raises(UShapeError, match="no packed dataset"):
        opened.open_dataset(f"file://{tmp_path}/nothing", str(tmp_path / "cache"))
