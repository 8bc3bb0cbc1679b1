"""Which views a sample shows, and where their cameras were."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ultrashape_cli.data.dataset import SampleOrder, ShapeDataset, make_loader, to_device
from ultrashape_cli.data.layout import Dataset
from ultrashape_cli.data.posed_views import draw_views, read_directions, require_views
from ultrashape_cli.data.samples import encode_normals, quantise_positions, write_samples
from ultrashape_cli.errors import AssetError, DatasetError
from ultrashape_cli.rendering.cameras import view_directions, view_set

NUM_VIEWS = 5


@pytest.fixture
def folder(tmp_path: Path) -> Dataset:
    dataset = Dataset(tmp_path)
    rng = np.random.default_rng(0)
    for name in "ab":
        arrays = {
            "surface_points": quantise_positions(rng.uniform(-1, 1, (64, 3))),
            "surface_normals": encode_normals(np.eye(3)[rng.integers(3, size=64)]),
        }
        write_samples(dataset.samples(name), {"contents": "dit", "num_uniform": 32}, arrays)
        dataset.views(name).mkdir(parents=True)
        for view in range(NUM_VIEWS):
            pixels = np.zeros((32, 32, 4), np.uint8)
            pixels[8:24, 8:24] = (90, 40 * view, 9, 255)
            Image.fromarray(pixels).save(dataset.views(name) / f"view_{view:03d}.png")
        rows = [camera.to_dict() for camera in view_set(NUM_VIEWS, seed=3)]
        (dataset.views(name) / "cameras.json").write_text(json.dumps({"views": rows}))
    return dataset


def items(folder: Dataset, **options) -> ShapeDataset:
    settings = {"seed": 5, "surface_points": 16, "image_size": lambda counter: 16, "views": 3}
    return ShapeDataset(folder, ["a", "b"], **{**settings, **options})  # type: ignore[arg-type]


def test_half_of_the_samples_show_the_front_alone_and_all_show_it_first() -> None:
    drawn = [draw_views(7, counter, 8, 4) for counter in range(4000)]
    counts = Counter(len(views) for views in drawn)
    assert counts.keys() == {1, 2, 3, 4}
    assert counts[1] == pytest.approx(2000, abs=150)
    assert all(counts[n] == pytest.approx(667, abs=100) for n in (2, 3, 4))
    assert all(views[0] == 0 and len(set(views)) == len(views) for views in drawn)
    others = Counter(view for views in drawn for view in views[1:])
    assert others.keys() == set(range(1, 8))
    assert drawn == [draw_views(7, counter, 8, 4) for counter in range(4000)]
    assert drawn != [draw_views(8, counter, 8, 4) for counter in range(4000)]
    # Of fewer views than a sample may show, all.
    assert {len(draw_views(0, counter, 2, 4)) for counter in range(50)} == {1, 2}
    assert {len(draw_views(0, counter, 1, 4)) for counter in range(50)} == {1}


def test_directions_are_those_of_the_renders(folder: Dataset) -> None:
    found = read_directions(folder, "a", folder.view_files("a"))
    # Lights, zoom and roll differ between views; where a camera stands does not.
    assert found == pytest.approx(np.array(view_directions(NUM_VIEWS)), abs=1e-4)


def test_a_sample_has_its_views_with_their_cameras(folder: Dataset) -> None:
    data = items(folder, checksums=True)
    for counter in range(20):
        item = data[counter, counter % 2]
        count = item["num_views"]
        assert item["image"].shape == (count, 3, 16, 16)
        assert item["mask"].shape == (count, 1, 16, 16)
        assert item["checksum"].shape == (count,)
        assert item["view"].tolist() == draw_views(5, counter, NUM_VIEWS, 3)
        wanted = np.array(view_directions(NUM_VIEWS))[item["view"].tolist()]
        assert item["camera"].numpy() == pytest.approx(wanted, abs=1e-4)
        greens = item["image"][:, 1].amin(dim=(1, 2))
        assert greens.tolist() == pytest.approx(
            [(40 * view / 255) * 2 - 1 for view in item["view"].tolist()], abs=0.02
        )
    fixed = items(folder, fixed_view=True)
    assert all(fixed[counter, 0]["view"].tolist() == [0, 1, 2] for counter in range(9))


def test_all_else_of_a_sample_is_as_with_one_view(folder: Dataset) -> None:
    one, several = items(folder, views=1), items(folder)
    for counter in range(8):
        assert torch.equal(one[counter, 0]["surface"], several[counter, 0]["surface"])
    assert one[0, 0]["image"].ndim == 3
    assert "camera" not in one[0, 0]


def test_microbatches_go_on_after_a_resume_whoever_loads_them(folder: Dataset) -> None:
    def batches(start: int, count: int, num_workers: int = 0) -> list[dict]:
        order = SampleOrder(2, seed=5, start=start, microbatch=4, rank=0, world=1)
        loader = make_loader(items(folder), order, num_workers=num_workers, pin_memory=False)
        return list(itertools.islice(loader, count))

    first = batches(0, 4)
    for batch in first:
        assert len(batch["image"]) == len(batch["camera"]) == int(batch["num_views"].sum())
        assert batch["surface"].shape == (4, 16, 7)
        assert to_device(batch, torch.device("meta"))["num_views"].device.type == "cpu"
    assert len({int(batch["num_views"].sum()) for batch in first}) > 1
    again = batches(8, 2)
    for ours, theirs in zip(again, first[2:], strict=True):
        assert torch.equal(ours["image"], theirs["image"])
        assert torch.equal(ours["view"], theirs["view"])


def test_a_dataset_of_one_view_is_told_before_the_work(folder: Dataset) -> None:
    require_views(folder, ["a", "b"])
    (folder.views("b") / "cameras.json").unlink()
    with pytest.raises(DatasetError, match=r"no cameras for 1 of 2 assets .* such as `b`"):
        require_views(folder, ["a", "b"])
    for path in folder.view_files("a")[1:]:
        path.unlink()
    with pytest.raises(DatasetError, match=r"has 1 views, and train\.views shows"):
        require_views(folder, ["a", "b"])


@pytest.mark.parametrize("damage", ["absent", "text", "fewer", "no matrix"])
def test_views_without_their_cameras_are_refused(folder: Dataset, damage: str) -> None:
    path = folder.views("a") / "cameras.json"
    rows = json.loads(path.read_text())["views"]
    if damage == "absent":
        path.unlink()
    elif damage == "text":
        path.write_text("no")
    elif damage == "fewer":
        path.write_text(json.dumps({"views": rows[1:]}))
    else:
        path.write_text(json.dumps({"views": [{"file": "view_000.png"}] * NUM_VIEWS}))
    data = items(folder)
    counter = next(n for n in range(50) if len(draw_views(5, n, NUM_VIEWS, 3)) > 1)
    with pytest.raises(AssetError, match=r"asset `a`: .*cameras\.json") as caught:
        data[counter, 0]
    assert caught.value.hint is not None
    assert "ushape render" in caught.value.hint
    # A run with one view needs none.
    assert items(folder, views=1)[counter, 0]["image"].shape == (3, 16, 16)
