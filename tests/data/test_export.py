from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh
from shapes import as_mesh, moved

from ultrashape_cli.config.schema import SampleConfig
from ultrashape_cli.data.export import REFERENCE_VIEWS, export_reference
from ultrashape_cli.data.layout import Dataset, Record, StepRecord
from ultrashape_cli.data.samples import NEAR_REACH, open_samples, write_arrays, write_samples
from ultrashape_cli.data.sampling import sample_mesh
from ultrashape_cli.errors import DatasetError
from ultrashape_cli.files import read_json
from ultrashape_cli.geometry.normalize import fit_frame
from ultrashape_cli.rendering.output import save_png

SETTINGS = SampleConfig(contents="full", near_points=60, near_curvature_points=60, space_points=60)
LISTS = {"train": ["a"], "val": ["b"], "test": ["c"]}


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """`a` has compact samples, `b` those of the reference; `c` is a test asset with nothing."""
    dataset = Dataset(tmp_path / "data")
    box = moved(as_mesh(trimesh.creation.box(extents=(2, 2, 2))), 1 / 1.02)
    arrays, _ = sample_mesh(box, SETTINGS, np.random.default_rng(0))
    meta = {"contents": "full", "num_uniform": 300_000, "near_reach": NEAR_REACH}
    write_samples(dataset.samples("a"), meta, arrays)
    float32 = replace(SETTINGS, format="reference", contents="dit")
    write_arrays(dataset.samples("b"), sample_mesh(box, float32, np.random.default_rng(0))[0])
    frame = fit_frame(moved(box, 5)).as_dict()
    for index, name in enumerate("ab"):
        step = StepRecord("done", "k", measurements={"frame": frame})
        dataset.write_record(Record(name, {"path": name}, {"watertight": step}))
        for view in range(REFERENCE_VIEWS + 1):
            image = np.full((4, 4, 4), 10 * view + index, np.uint8)
            save_png(image, dataset.views(name) / f"view_{view:03d}.png")
    return dataset


def test_the_folder_is_what_the_reference_reads(dataset: Dataset, tmp_path: Path) -> None:
    target = tmp_path / "out"
    counts = export_reference(dataset, LISTS, target)
    assert counts == {"linked": 2 * REFERENCE_VIEWS + 1, "written": 1}
    assert read_json(target / "data_list" / "train.json") == ["a"]
    assert read_json(target / "data_list" / "val.json") == ["b"]
    folders = read_json(target / "render.json")
    assert folders.keys() == {"a", "b"}
    for name, folder in folders.items():
        rgba = Path(folder) / Path(folder).name / "rgba"
        views = sorted(path.name for path in rgba.iterdir())
        assert views == [f"{n:03d}.png" for n in range(REFERENCE_VIEWS)]
        assert (rgba / "003.png").samefile(dataset.views(name) / "view_003.png")
    with np.load(target / "samples" / "a.npz") as file:
        found = dict(file)
    assert {name: array.dtype for name, array in found.items()} == dict.fromkeys(found, np.float32)
    assert found["clean_surface_points"].shape == (600_000, 3)
    assert found["clean_surface_points"].min() == pytest.approx(0.5 - 0.5 / 1.02, abs=2e-5)
    assert found["scale"] == pytest.approx(10 / 1.02 * 1.02)
    # Distances to the box, at the points beside them.
    beyond = np.abs(found["uniform_near_points"] - 0.5) - 0.5 / 1.02
    exact = np.linalg.norm(np.maximum(beyond, 0), axis=1) + np.minimum(beyond.max(axis=1), 0)
    assert found["uniform_near_sdf"] == pytest.approx(exact, abs=1e-4)


def test_both_formats_give_the_same_batch(dataset: Dataset, tmp_path: Path) -> None:
    export_reference(dataset, LISTS, tmp_path / "out")
    draws = [
        open_samples(path).draw_surface(100, np.random.default_rng(1))
        for path in (dataset.samples("a"), tmp_path / "out" / "samples" / "a.npz")
    ]
    assert draws[0] == pytest.approx(draws[1], abs=1e-6)


def test_a_repeated_export_replaces_the_files(dataset: Dataset, tmp_path: Path) -> None:
    first = export_reference(dataset, LISTS, tmp_path / "out")
    assert export_reference(dataset, LISTS, tmp_path / "out") == first
    folder = tmp_path / "out" / "renders" / "a" / "a" / "rgba"
    assert len(list(folder.iterdir())) == REFERENCE_VIEWS


def test_too_few_views_are_refused_with_the_command(dataset: Dataset, tmp_path: Path) -> None:
    for view in dataset.view_files("b")[:3]:
        view.unlink()
    with pytest.raises(DatasetError, match="1 of 2 assets have fewer than 16 views") as caught:
        export_reference(dataset, LISTS, tmp_path / "out")
    assert "--set render.views=16" in caught.value.hint
    assert not (tmp_path / "out").exists()


def test_other_counts_of_points_are_refused_with_the_command(dataset, tmp_path: Path) -> None:
    arrays = {"surface_points": np.zeros((10, 3), np.uint16),
              "surface_normals": np.zeros((10, 2), np.int8)}  # fmt: skip
    write_samples(dataset.samples("a"), {"contents": "dit", "num_uniform": 5}, arrays)
    with pytest.raises(DatasetError, match="exactly 600000 points") as caught:
        export_reference(dataset, LISTS, tmp_path / "out")
    assert "sample.surface_points=300000" in caught.value.hint
