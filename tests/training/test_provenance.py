"""A run knows its data by content."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from ultrashape_cli.config.resolve import resolve
from ultrashape_cli.data.attribution import Work, dataset_attribution, read_works, write_works
from ultrashape_cli.data.layout import Dataset
from ultrashape_cli.data.samples import encode_normals, quantise_positions, write_samples
from ultrashape_cli.errors import UsageError
from ultrashape_cli.files import write_json
from ultrashape_cli.runs import RunFolder
from ultrashape_cli.training.objectives.tokens import TokenCache, View
from ultrashape_cli.training.provenance import record_data
from ultrashape_cli.training.worker import train_run


@pytest.fixture
def data(ball_data: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(ball_data, tmp_path / "data"))


def _prepare_anew(data: Path, asset: str) -> None:
    rng = __import__("numpy").random.default_rng(7)
    normals = rng.normal(size=(1200, 3))
    normals /= (normals**2).sum(axis=1, keepdims=True) ** 0.5
    arrays = {
        "surface_points": quantise_positions(0.3 * normals),
        "surface_normals": encode_normals(normals),
    }
    write_samples(Dataset(data).samples(asset), {"contents": "dit", "num_uniform": 600}, arrays)


def _train(run: RunFolder) -> list[float]:
    assert train_run(run, resolve(file=run.config, environ={}).config) == 0
    return [json.loads(line)["loss"] for line in run.metrics.read_text().splitlines()]


def test_a_moved_data_set_and_another_spelling_are_the_same(make_run, data: Path) -> None:
    make_run(data=str(data))
    moved = data.rename(data.with_name("moved"))
    for spelling in (str(moved), os.path.relpath(moved), f"{moved}/../moved"):
        run, config = make_run(data=spelling)
        assert record_data(run, config) == []


def test_what_has_changed_is_told(make_run, data: Path) -> None:
    run, config = make_run(data=str(data))
    dataset = Dataset(data)
    _prepare_anew(data, "ball-1")
    shutil.copyfile(dataset.samples("ball-2"), dataset.samples("new"))
    write_json(dataset.list_path("train"), ["ball-1", "ball-2", "ball-3", "new"])
    assert record_data(run, config) == [
        "train data: 1 added (new)",
        "train data: 1 gone (ball-0)",
        "train data: 1 prepared anew (ball-1)",
    ]
    assert record_data(run, config) == []


def test_other_data_is_refused(make_run, data: Path) -> None:
    run, config = make_run(data=str(data))
    dataset = Dataset(data)
    shutil.copyfile(dataset.samples("ball-2"), dataset.samples("new"))
    write_json(dataset.list_path("train"), ["new"])
    with pytest.raises(UsageError, match="none of its 4 assets"):
        record_data(run, config)


def test_image_tokens_of_assets_prepared_anew_are_dropped(make_run, data: Path) -> None:
    run, config = make_run(data=str(data))
    cache = TokenCache(run.root / "tokens")
    views = [View(f"ball-{index}", 0, 7, 56) for index in range(2)]
    for view in views:
        cache.write(view, torch.zeros(3, 4))
    _prepare_anew(data, "ball-1")
    record_data(run, config)
    assert [cache.read(view) is None for view in views] == [False, True]


def test_latents_of_assets_prepared_anew_are_encoded_again(make_run, data: Path) -> None:
    settings = {"data": str(data), "latent_variants": 1}
    run, _ = make_run("run", steps=4, **settings)
    _train(run)
    _prepare_anew(data, "ball-1")
    make_run("run", steps=8, **settings)
    going_on = _train(run)[4:]
    shutil.rmtree(run.root / "latents")
    for path in run.checkpoints.glob("step-*8"):
        shutil.rmtree(path)
    assert _train(run)[4:] == going_on


def test_whose_works_were_learned_from_stays_named(make_run, data: Path) -> None:
    run, config = make_run(data=str(data))
    assert not (run.root / "ATTRIBUTION.md").exists()
    path = dataset_attribution(Dataset(data))
    one, two = (Work(name, "maker", "CC-BY-4.0", "objaverse", "x") for name in ("one", "two"))
    for works in ([one], [two], []):
        write_works(path, works)
        record_data(run, config)
    assert read_works(run.root / "ATTRIBUTION.md") == {one, two}
    # A run that starts from what another one has learned names its works too.
    later, config = make_run("later", data=str(data), init=str(run.root))
    assert later.root != run.root
    record_data(later, config)
    assert read_works(later.root / "ATTRIBUTION.md") >= {one, two}
