"""The real steps, on a small figurine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh
from shapes import as_mesh, joined, moved

from ultrashape_cli.config.schema import Config, RenderConfig, SampleConfig, WatertightConfig
from ultrashape_cli.data.layout import STEPS, Dataset, Record, StepRecord
from ultrashape_cli.data.samples import QUERY_SETS, open_samples, restore_positions
from ultrashape_cli.files import read_json
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.geometry.normalize import Frame
from ultrashape_cli.meshfiles.load import load_mesh
from ultrashape_cli.meshfiles.save import save_mesh
from ultrashape_cli.preparation.discover import new_records
from ultrashape_cli.preparation.steps import STEP_TABLE, StepKeys, asset_seed
from ultrashape_cli.preparation.worker import run_step
from ultrashape_cli.synthetic.figurines import make_figurine

CONFIG = replace(
    Config(),
    watertight=WatertightConfig(resolution=48),
    render=RenderConfig(views=2, size=48, supersample=1, ambient_rays=0, shadow_rays=1),
    sample=SampleConfig(
        surface_points=400,
        curvature_points=300,
        contents="full",
        near_points=200,
        near_curvature_points=120,
        space_points=3000,
    ),
)


def _prepare(folder: Path, mesh: Mesh, config: Config = CONFIG) -> tuple[Dataset, Record]:
    save_mesh(mesh, folder / "models" / "a.ply")
    (record,) = new_records([folder / "models" / "a.ply"], {})
    dataset = Dataset(folder / "data")
    for name in STEPS:
        record.steps[name] = run_step(dataset, record, name, config)
    return dataset, record


@pytest.fixture(scope="module")
def figurine() -> Mesh:
    mesh = make_figurine(3, resolution=24)
    return Mesh(mesh.vertices * 7.0 + 100.0, mesh.faces)


@pytest.fixture(scope="module")
def prepared(figurine: Mesh, tmp_path_factory) -> tuple[Dataset, Record]:
    return _prepare(tmp_path_factory.mktemp("prepared"), figurine)


def test_all_steps_are_done_and_measured(prepared) -> None:
    dataset, record = prepared
    assert record.complete, record.error
    assert record.steps["watertight"].measurements["faces"] > 100
    assert record.steps["render"].measurements["views"] == 2
    assert record.steps["sample"].measurements["surface_points"] == 700
    for name, step in record.steps.items():
        assert bool(step.outputs) == (name != "quality")
        assert all((dataset.root / name).stat().st_size == n for name, n in step.outputs.items())


def test_the_mesh_is_in_the_normalised_frame_and_the_frame_leads_back(prepared, figurine) -> None:
    dataset, record = prepared
    mesh = load_mesh(dataset.mesh(record.id))
    assert np.abs(mesh.vertices).max() <= 1.0
    assert mesh.volume > 0
    frame = Frame.from_dict(record.steps["watertight"].measurements["frame"])
    # The remesher keeps the surface within one of its cells.
    cell = 2 / 48 / frame.scale
    placed = frame.to_source(mesh.vertices)
    assert np.abs(placed.min(0) - figurine.bounds[0]).max() < cell
    assert np.abs(placed.max(0) - figurine.bounds[1]).max() < cell


def test_a_rerun_gives_the_same_bytes(prepared, figurine: Mesh, tmp_path: Path) -> None:
    dataset, record = prepared
    again, other = _prepare(tmp_path, figurine)
    assert other.id == record.id
    for step in record.steps.values():
        for name in step.outputs:
            assert (again.root / name).read_bytes() == (dataset.root / name).read_bytes(), name


def test_samples_lie_on_the_mesh_and_distances_tell_inside(prepared) -> None:
    dataset, record = prepared
    samples = open_samples(dataset.samples(record.id))
    assert samples.has_distances
    with np.load(samples.path) as file:
        arrays = dict(file)
    assert {name: len(arrays[f"{name}_sdf"]) for name in QUERY_SETS} == {
        "near": 200,
        "near_curvature": 120,
        "space": 3000,
    }
    mesh = load_mesh(dataset.mesh(record.id))
    # The share of the cube [-1, 1] that is inside is the volume over 8; three deviations.
    share, expected = float((arrays["space_sdf"] < 0).mean()), mesh.volume / 8
    assert abs(share - expected) < 3 * np.sqrt(expected / 3000)
    low, high = mesh.bounds
    points = restore_positions(arrays["surface_points"])
    assert (points >= low - 2e-5).all()
    assert (points <= high + 2e-5).all()


def test_fewer_views_leave_no_stale_ones(prepared) -> None:
    dataset, record = prepared
    one = replace(CONFIG, render=replace(CONFIG.render, views=1))
    assert run_step(dataset, record, "render", one).measurements["views"] == 1
    views = sorted(path.name for path in dataset.views(record.id).iterdir())
    assert views == ["cameras.json", "view_000.png"]
    assert len(read_json(dataset.views(record.id) / "cameras.json")["views"]) == 1
    run_step(dataset, record, "render", CONFIG)


def test_a_bad_file_fails_with_its_reason_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.obj"
    path.write_text("v 0 0 0\n")
    (record,) = new_records([path], {})
    result = run_step(Dataset(tmp_path / "data"), record, "watertight", CONFIG)
    assert (result.status, result.error["cause"]) == ("failed", "error")
    assert "has no faces" in result.error["message"]
    assert not (tmp_path / "data").exists()


def test_a_file_above_the_limit_is_refused(tmp_path: Path) -> None:
    save_mesh(make_figurine(0, resolution=24), tmp_path / "a.ply")
    (record,) = new_records([tmp_path / "a.ply"], {})
    small = replace(CONFIG, watertight=WatertightConfig(max_file_gib=1e-6))
    result = run_step(Dataset(tmp_path / "data"), record, "watertight", small)
    assert "above the limit" in result.error["message"]


def test_the_key_changes_with_source_settings_and_version(monkeypatch) -> None:
    def key(name: str, config: Config, sha256: str = "s") -> str:
        return StepKeys(STEPS, config).of(Record("a", {"sha256": sha256}))[name]

    finer = replace(CONFIG, watertight=WatertightConfig(resolution=64))
    seeded = replace(CONFIG, seed=1)
    for name in STEPS:
        assert key(name, CONFIG) == key(name, CONFIG)
        assert len({key(name, CONFIG), key(name, finer), key(name, CONFIG, "t")}) == 3
        assert (key(name, seeded) == key(name, CONFIG)) == (name in ("watertight", "quality"))
    old = key("render", CONFIG)
    monkeypatch.setitem(STEP_TABLE, "render", replace(STEP_TABLE["render"], version=99))
    assert key("render", CONFIG) != old


def test_the_keys_of_later_steps_follow_the_mesh_that_exists() -> None:
    record = Record("a", {"sha256": "s"}, {"watertight": StepRecord("done", "mesh")})
    finer = replace(CONFIG, watertight=WatertightConfig(resolution=64))
    alone = [StepKeys(("render",), config).of(record) for config in (CONFIG, finer)]
    assert alone[0] == alone[1]
    whole = [StepKeys(STEPS, config).of(record)["render"] for config in (CONFIG, finer)]
    assert whole[0] != whole[1]


def test_the_seed_of_an_asset_is_its_own() -> None:
    seeds = {asset_seed(name, seed) for name in "ab" for seed in (0, 1)}
    assert len(seeds) == 4
    assert asset_seed("a", 0) == asset_seed("a", 0)


def test_what_lies_around_an_asset_is_left_out_and_its_front_is_turned(tmp_path: Path) -> None:
    ball = as_mesh(trimesh.creation.icosphere(3))
    nose = moved(ball, 0.3, (1, 0, 0))
    hull = moved(ball, 1.05).flipped()
    config = replace(CONFIG, watertight=WatertightConfig(resolution=48, front="x"))
    dataset, record = _prepare(tmp_path, joined(hull, ball, nose), config)
    measured = record.steps["watertight"].measurements
    assert measured["notes"] == ["inverted hull of 1,280 faces left out"]
    assert measured["source_faces"] == 2 * len(ball.faces)
    low, high = load_mesh(dataset.mesh(record.id)).bounds
    # From -1 to 1.3 along x of the source, which is z now.
    assert high - low == pytest.approx(np.array([2, 2, 2.3]) * 2 / 1.02 / 2.3, abs=0.03)
    assert Frame.from_dict(measured["frame"]).front == "x"
