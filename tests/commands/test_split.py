"""`ushape sample` and `ushape split` on a small prepared dataset."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ultrashape_cli.data.layout import Dataset
from ultrashape_cli.data.samples import open_samples
from ultrashape_cli.meshfiles.save import save_mesh
from ultrashape_cli.synthetic.figurines import make_figurine

SMALL = (
    *("--set", "watertight.resolution=32", "--set", "render.views=1", "--set", "render.size=32"),
    *("--set", "render.ambient_rays=0", "--set", "render.supersample=1", "--workers", "1"),
    *("--set", "sample.surface_points=200", "--set", "sample.curvature_points=200"),
)
QUERIES = (
    *("--set", "sample.near_points=100", "--set", "sample.near_curvature_points=60"),
    *("--set", "sample.space_points=400"),
)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from ultrashape_cli.cli import run

    folder = tmp_path_factory.mktemp("split")
    for seed, name in enumerate(("one/a.ply", "one/b.ply", "two/c.ply")):
        save_mesh(make_figurine(seed, resolution=24), folder / "models" / name)
    assert run(["prepare", str(folder / "models"), "-o", str(folder / "data"), *SMALL]) == 0
    return folder / "data"


def _result(outcome, code: int = 0) -> dict:
    assert outcome.code == code, outcome.err
    return json.loads(outcome.out)


def test_shares_and_groups_are_flags(ushape, prepared: Path) -> None:
    body = _result(ushape("split", prepared, "--val", "0.4", "--group-by", "folder", "--json"))
    assert body["counts"]["train"] + body["counts"]["val"] == 3
    dataset = Dataset(prepared)
    one = {r.id for r in dataset.load_records().values() if "/one/" in r.source["path"]}
    lists = [set(dataset.read_split(name)) for name in ("train", "val")]
    assert one in lists
    assert ushape("split", prepared, "--val", "0.6", "--train", "0.6").code == 2
    assert ushape("split", prepared, "--group-by", "size").code == 2
    assert ushape("split", prepared, "--stratify", "beauty").code == 1


def test_a_dry_run_keeps_the_lists(ushape, prepared: Path) -> None:
    ushape("split", prepared)
    before = (prepared / "data_list" / "split.json").read_bytes()
    body = _result(ushape("split", prepared, "--dry-run", "--test", "0.5", "--json"))
    assert sum(body["counts"].values()) == 3
    assert (prepared / "data_list" / "split.json").read_bytes() == before


def test_the_check_passes_and_finds_damage(ushape, prepared: Path) -> None:
    ushape("split", prepared)
    assert _result(ushape("split", prepared, "--check", "--workers", "1", "--json"))["counts"] == {
        "checked": 3,
        "bad": 0,
    }
    dataset = Dataset(prepared)
    asset_id = dataset.read_split("train")[0]
    path = dataset.samples(asset_id)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    body = _result(ushape("split", prepared, "--check", "--workers", "1", "--json"), 1)
    assert list(body["problems"]) == [asset_id]
    path.write_bytes(whole)


def test_an_export_says_what_to_run_first(ushape, prepared: Path, tmp_path: Path) -> None:
    outcome = ushape("split", prepared, "--layout", "reference", tmp_path / "out")
    assert outcome.code == 1
    assert f"ushape render {prepared} --set render.views=16" in " ".join(outcome.err.split())
    assert ushape("split", prepared, "--layout", "other", tmp_path / "out").code == 2


def test_samples_of_both_formats_are_asked_for_by_flags(ushape, prepared: Path) -> None:
    dataset = Dataset(prepared)
    asset_id = dataset.read_split("train")[0]
    settings = (*SMALL[-6:], *QUERIES, "--workers", "1", "--contents", "full")
    draws = []
    for kind in ("compact", "reference"):
        assert ushape("sample", prepared, *settings, "--format", kind).code == 0
        samples = open_samples(dataset.samples(asset_id))
        assert samples.has_distances
        assert samples.reference == (kind == "reference")
        draws.append(samples.draw_queries("space", 400, np.random.default_rng(0)))
    assert draws[0][:, :3] == pytest.approx(draws[1][:, :3], abs=2e-5)
    assert draws[0][:, 3] == pytest.approx(draws[1][:, 3], abs=1e-3)
