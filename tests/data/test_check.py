from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ultrashape_cli.data.check import check_dataset
from ultrashape_cli.data.layout import Dataset, Record, StepRecord
from ultrashape_cli.data.samples import encode_normals, quantise_positions, write_samples
from ultrashape_cli.data.splits import SplitRule, write_splits
from ultrashape_cli.files import file_hash, write_json
from ultrashape_cli.rendering.output import save_png


def _samples(path: Path, **changes: np.ndarray) -> None:
    normals = np.random.default_rng(0).normal(size=(80, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    arrays = {
        "surface_points": quantise_positions(0.9 * normals),
        "surface_normals": encode_normals(normals),
    }
    for name in ("near", "near_curvature", "space"):
        arrays[f"{name}_points"] = quantise_positions(0.5 * normals)
        arrays[f"{name}_sdf"] = np.full(80, -0.4, np.float16)
    write_samples(path, {"contents": "full", "num_uniform": 40}, {**arrays, **changes})


def _record(dataset: Dataset, name: str) -> None:
    views = [dataset.views(name) / f"view_{n:03d}.png" for n in range(2)]
    samples = dataset.samples(name)
    digest = {"sha256": file_hash(samples)}
    steps = {
        "watertight": StepRecord("done", "k"),
        "render": StepRecord("done", "k", outputs=dataset.output_sizes(views)),
        "sample": StepRecord("done", "k", measurements=digest,
                             outputs=dataset.output_sizes([samples])),
    }  # fmt: skip
    dataset.write_record(Record(name, {"path": name, "sha256": name}, steps))


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    dataset = Dataset(tmp_path)
    image = np.zeros((16, 16, 4), np.uint8)
    image[4:12, 4:12] = 200
    for name in ("a", "b", "c"):
        _samples(dataset.samples(name))
        for view in range(2):
            save_png(image, dataset.views(name) / f"view_{view:03d}.png")
        _record(dataset, name)
    write_splits(dataset, SplitRule(0.3, 0))
    return dataset


def test_a_whole_dataset_has_no_problems(dataset: Dataset) -> None:
    seen: list[int] = []
    assert check_dataset(dataset, on_progress=seen.append) == {}
    assert seen == [1, 2, 3]


@pytest.mark.slow
def test_processes_find_the_same(dataset: Dataset) -> None:
    dataset.samples("b").unlink()
    assert check_dataset(dataset, workers=2) == check_dataset(dataset)


def _bad_shape(dataset: Dataset) -> None:
    _samples(dataset.samples("b"), surface_normals=np.zeros((80, 3), np.int8))


def _bad_range(dataset: Dataset) -> None:
    _samples(dataset.samples("b"), surface_points=np.full((80, 3), 32768, np.uint16))


def _bad_count(dataset: Dataset) -> None:
    _samples(dataset.samples("b"), near_sdf=np.zeros(3, np.float16))


def _not_finite(dataset: Dataset) -> None:
    _samples(dataset.samples("b"), space_sdf=np.full(80, np.nan, np.float16))


def _flipped_byte(dataset: Dataset) -> None:
    data = bytearray(dataset.samples("b").read_bytes())
    data[data.index(b"surface_points.npy") + 300] ^= 255
    dataset.samples("b").write_bytes(data)


def _transparent(dataset: Dataset) -> None:
    save_png(np.zeros((16, 16, 4), np.uint8), dataset.views("b") / "view_000.png")


def _other_size(dataset: Dataset) -> None:
    save_png(np.full((8, 8, 4), 200, np.uint8), dataset.views("b") / "view_001.png")


def _cut_image(dataset: Dataset) -> None:
    path = dataset.views("b") / "view_000.png"
    path.write_bytes(path.read_bytes()[:40])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_bad_shape, "`surface_normals` is int8 (80, 3)"),
        (_bad_range, "do not fill the cube"),
        (_bad_count, "other counts"),
        (_not_finite, "`space_sdf` is not finite"),
        (_flipped_byte, "cannot be read"),
        (_transparent, "transparent"),
        (_other_size, "different sizes"),
        (_cut_image, "is no image that can be read"),
    ],
)
def test_damage_is_named(dataset: Dataset, damage, message: str) -> None:
    damage(dataset)
    _record(dataset, "b")
    problems = check_dataset(dataset)
    assert problems.keys() == {"b"}
    assert message in "; ".join(problems["b"])


def test_another_file_than_the_recorded_one_is_found(dataset: Dataset) -> None:
    near = np.full(80, -0.3, np.float16)
    _samples(dataset.samples("b"), near_sdf=near)
    assert "not the file its record describes" in "; ".join(check_dataset(dataset)["b"])


def test_an_asset_in_two_lists_or_without_record_is_found(dataset: Dataset) -> None:
    write_json(dataset.list_path("train"), ["a", "b", "c"])
    write_json(dataset.list_path("val"), ["a"])
    dataset.record_path("c").unlink()
    problems = check_dataset(dataset)
    assert problems == {"a": ["is in train and val"], "c": ["has no record"]}
