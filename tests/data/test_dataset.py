from __future__ import annotations

import itertools
import pickle
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ultrashape_cli.data.dataset import (
    SampleOrder,
    ShapeDataset,
    make_loader,
    sample_generator,
    to_device,
)
from ultrashape_cli.data.layout import Dataset
from ultrashape_cli.data.samples import (
    QUERY_SETS,
    encode_normals,
    quantise_positions,
    write_samples,
)
from ultrashape_cli.errors import AssetError, DatasetError, LoaderError


@pytest.fixture
def folder(tmp_path: Path) -> Dataset:
    dataset = Dataset(tmp_path)
    for index, name in enumerate("abc"):
        rng = np.random.default_rng(index)
        arrays = {
            "surface_points": quantise_positions(rng.uniform(-1, 1, (64, 3))),
            "surface_normals": rng.integers(-60, 60, (64, 2)).astype(np.int8),
        }
        for query in QUERY_SETS:
            arrays[f"{query}_points"] = quantise_positions(rng.uniform(-1, 1, (64, 3)))
            arrays[f"{query}_sdf"] = rng.normal(size=64).astype(np.float16)
        meta = {"contents": "full", "num_uniform": 32}
        write_samples(dataset.samples(name), meta, arrays)
        dataset.views(name).mkdir(parents=True)
        for view in range(3):
            pixels = np.zeros((32, 32, 4), np.uint8)
            pixels[8:24, 8:24] = (80 * index, 80 * view, 9, 255)
            Image.fromarray(pixels).save(dataset.views(name) / f"view_{view:03d}.png")
    return dataset


def _sixteen_pixels(counter: int) -> int:
    return 16


def _items(folder: Dataset, **options) -> ShapeDataset:
    options = {
        "seed": 5,
        "surface_points": 16,
        "image_size": _sixteen_pixels,
        "query_points": 8,
        **options,
    }
    return ShapeDataset(folder, ["a", "b", "c"], **options)


def _order(**options) -> SampleOrder:
    defaults = {"seed": 0, "start": 0, "microbatch": 1, "rank": 0, "world": 1}
    return SampleOrder(options.pop("num_items", 7), **{**defaults, **options})


def _take(order: SampleOrder, count: int) -> list[list[tuple[int, int]]]:
    return list(itertools.islice(order, count))


def _equal(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
        for a, b in zip(first.values(), second.values(), strict=True)
    )


def test_every_epoch_is_another_order_of_all_items() -> None:
    keys = [key for batch in _take(_order(), 21) for key in batch]
    assert [counter for counter, _ in keys] == list(range(21))
    epochs = [tuple(index for _, index in keys[n : n + 7]) for n in (0, 7, 14)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len(set(epochs)) == 3


@pytest.mark.parametrize(("world", "microbatch"), [(1, 4), (2, 2), (4, 1), (2, 5), (3, 3)])
def test_all_processes_together_see_the_same_stream(world: int, microbatch: int) -> None:
    count = world * microbatch * 6
    expected = [key for batch in _take(_order(), count) for key in batch]
    shares = [
        _take(_order(world=world, microbatch=microbatch, rank=rank), 6) for rank in range(world)
    ]
    found = [key for step in zip(*shares, strict=True) for batch in step for key in batch]
    assert found == expected


@pytest.mark.parametrize("start", [3, 7, 20])
def test_a_resumed_stream_goes_on_where_it_was(start: int) -> None:
    whole = [key for batch in _take(_order(), 40) for key in batch]
    rest = [key for batch in _take(_order(start=start), 40 - start) for key in batch]
    assert rest == whole[start:]


def test_the_seed_changes_the_order() -> None:
    assert _take(_order(), 7) != _take(_order(seed=1), 7)


def test_an_empty_list_cannot_be_trained_on() -> None:
    with pytest.raises(DatasetError, match="empty"):
        _order(num_items=0)


def test_an_item_depends_on_seed_counter_and_asset_only(folder: Dataset) -> None:
    item = _items(folder)[(4, 1)]
    _items(folder)[(3, 0)]
    assert _equal(item, _items(folder)[(4, 1)])
    assert not _equal(item, _items(folder, seed=6)[(4, 1)])
    other = _items(folder)[(5, 1)]
    assert other["uid"] == item["uid"]
    assert not torch.equal(item["surface"], other["surface"])


def test_an_item_holds_what_its_stage_needs(folder: Dataset) -> None:
    item = _items(folder)[(0, 2)]
    shapes = {key: tuple(v.shape) for key, v in item.items() if isinstance(v, torch.Tensor)}
    queries = dict.fromkeys(QUERY_SETS, (8, 4))
    assert shapes == {"surface": (16, 7), "image": (3, 16, 16), "mask": (1, 16, 16), **queries}
    assert (item["uid"], item["counter"]) == ("c", 0)
    assert all(v.dtype == torch.float32 for v in item.values() if isinstance(v, torch.Tensor))
    assert _items(folder, image_size=None, query_points=0)[(0, 0)].keys() == {
        "uid",
        "counter",
        "variant",
        "surface",
    }


def test_all_views_are_drawn(folder: Dataset) -> None:
    items = _items(folder, query_points=0)
    greens = {float(items[(counter, 0)]["image"][1].min()) for counter in range(30)}
    assert len(greens) == 3


@pytest.mark.parametrize("damage", ["samples", "views", "image"])
def test_a_broken_asset_is_named(folder: Dataset, damage: str) -> None:
    if damage == "samples":
        folder.samples("b").write_bytes(b"PK")
    for path in folder.views("b").glob("*.png"):
        if damage == "views":
            path.unlink()
        elif damage == "image":
            path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(AssetError, match="asset `b`: "):
        _items(folder)[(0, 1)]


def _batches(folder: Dataset, num_workers: int, count: int, **options) -> list[dict]:
    order = _order(num_items=3, microbatch=2, **options)
    loader = make_loader(_items(folder), order, num_workers=num_workers, pin_memory=False)
    try:
        return list(itertools.islice(loader, count))
    finally:
        loader.close()


def test_batches_do_not_depend_on_the_number_of_loader_processes(folder: Dataset) -> None:
    here, there = _batches(folder, 0, 5), _batches(folder, 2, 5)
    assert all(_equal(a, b) for a, b in zip(here, there, strict=True))
    assert here[0]["surface"].shape == (2, 16, 7)
    assert _equal(_batches(folder, 0, 3, start=4)[0], here[2])


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_broken_asset_arrives_whole_from_a_loader_process(folder, num_workers: int) -> None:
    folder.samples("b").unlink()
    with pytest.raises(AssetError) as caught:
        _batches(folder, num_workers, 2)
    assert caught.value.message.startswith("asset `b`: ")
    assert "Traceback" not in caught.value.message
    assert caught.value.hint == f"ushape sample {folder.root} --force"


def test_loader_processes_leave_signals_to_the_training_process(folder: Dataset) -> None:
    import psutil

    order = _order(num_items=3)
    loader = make_loader(_items(folder), order, num_workers=1, pin_memory=False)
    next(loader)
    python = [p for p in psutil.Process().children() if "spawn_main" in " ".join(p.cmdline())]
    assert python
    for process in python:
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            process.send_signal(number)
    assert next(itertools.islice(loader, 12, None))["counter"].tolist() == [13]
    # By TERM the training process ends them; one that ignored it would keep it from leaving.
    for process in python:
        process.send_signal(signal.SIGTERM)
    psutil.wait_procs(python, timeout=30)
    with pytest.raises(LoaderError):
        list(itertools.islice(loader, 12))


def test_errors_cross_processes_with_their_hint() -> None:
    error = pickle.loads(pickle.dumps(AssetError("m", hint="h")))  # noqa: S301
    assert (type(error), error.message, error.hint) == (AssetError, "m", "h")


def test_the_draws_of_a_sample_are_its_own() -> None:
    draws = [torch.rand(4, generator=sample_generator(*key)) for key in ((0, 1), (0, 1), (0, 2),
                                                                         (1, 1))]  # fmt: skip
    assert torch.equal(draws[0], draws[1])
    assert len({tuple(draw.tolist()) for draw in draws}) == 3
    sample_generator(2**63 - 1, 10**12)


def test_only_tensors_move_to_the_device() -> None:
    batch = to_device({"x": torch.ones(2), "uid": ["a"]}, torch.device("meta"))
    assert batch["x"].device.type == "meta"
    assert batch["uid"] == ["a"]


def test_augmentation_changes_the_image_and_nothing_else(folder: Dataset) -> None:
    plain = _items(folder, fixed_view=True)[(0, 1)]
    for options in ({"colour_jitter": 0.2}, {"crop_jitter": 0.5}):
        changed = _items(folder, fixed_view=True, **options)[(0, 1)]
        assert not torch.equal(changed["image"], plain["image"])
        assert torch.equal(changed["surface"], plain["surface"])
        again = _items(folder, fixed_view=True, **options)[(0, 1)]
        assert _equal(changed, again)


def test_colour_jitter_keeps_the_background_white(folder: Dataset) -> None:
    items = _items(folder, fixed_view=True, colour_jitter=0.3)
    for counter in range(5):
        item = items[(counter, 1)]
        clear = (item["mask"] == -1).expand(3, -1, -1)
        assert (item["image"][clear] == 1).all()


def test_crop_jitter_only_shrinks_the_object(folder: Dataset) -> None:
    def shown(**options) -> float:
        items = _items(folder, fixed_view=True, image_size=_sixteen_pixels, **options)
        return float((items[(3, 0)]["mask"] > 0).float().mean())

    assert shown(crop_jitter=0.9) < shown()


def test_coarse_points_are_drawn_where_asked(folder: Dataset) -> None:
    with pytest.raises(AssetError, match="no coarse points"):
        _items(folder, coarse_points=5)[(0, 0)]
    arrays = {
        "surface_points": quantise_positions(np.zeros((64, 3))),
        "surface_normals": np.zeros((64, 2), np.int8),
        "coarse_points": quantise_positions(np.full((20, 3), 0.5)),
    }
    write_samples(folder.samples("a"), {"contents": "dit", "num_uniform": 32}, arrays)
    coarse = _items(folder, coarse_points=5, query_points=0)[(0, 0)]["coarse"]
    assert coarse.shape == (5, 3)
    assert coarse.numpy() == pytest.approx(0.5, abs=1.6e-5)
    with pytest.raises(AssetError, match="no coarse normals") as refused:
        _items(folder, coarse_points=5, coarse_normals=True, query_points=0)[(0, 0)]
    assert "--force" in str(refused.value.hint)
    arrays["coarse_normals"] = encode_normals(np.tile([0.0, 0.0, 1.0], (20, 1)))
    write_samples(folder.samples("a"), {"contents": "dit", "num_uniform": 32}, arrays)
    items = _items(folder, coarse_points=6, coarse_normals=True, query_points=0)
    coarse = items[(0, 0)]["coarse"]
    assert coarse.shape == (6, 7)
    assert coarse[:, 5].numpy() == pytest.approx(1.0)
    assert coarse[:, 6].tolist() == [0, 0, 0, 1, 1, 1]
