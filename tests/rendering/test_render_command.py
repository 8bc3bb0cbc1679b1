"""`ushape render` from the command line to the files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from ultrashape_cli.data.layout import Dataset, Record, StepRecord
from ultrashape_cli.files import read_json
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.geometry.normalize import fit_frame
from ultrashape_cli.meshfiles.save import save_mesh

SMALL = ("--set", "render.size=48", "--workers", "1", "--no-progress")


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """One asset whose source is a red box with the rear side missing its texture."""
    box = trimesh.creation.box(extents=(2, 1, 1))
    source = tmp_path / "models" / "a.obj"
    source.parent.mkdir()
    lines = ["mtllib a.mtl", *(f"v {x} {y} {z}" for x, y, z in box.vertices), "vt 0.5 0.5"]
    for faces, name in ((box.faces[:-2], "red"), (box.faces[-2:], "lost")):
        lines += [f"usemtl {name}", *(f"f {a + 1}/1 {b + 1}/1 {c + 1}/1" for a, b, c in faces)]
    source.write_text("\n".join(lines))
    mtl = "newmtl red\nKd 0.8 0.02 0.02\nnewmtl lost\nmap_Kd lost.png\n"
    (source.parent / "a.mtl").write_text(mtl)
    data = Dataset(tmp_path / "data")
    frame = fit_frame(box)
    mesh = Mesh.from_arrays(frame.to_normalised(box.vertices), box.faces)
    save_mesh(mesh, data.mesh("a"))
    made = StepRecord("done", "k", measurements={"frame": frame.as_dict()})
    data.write_record(Record("a", {"path": str(source), "sha256": "s"}, {"watertight": made}))
    return data


def test_views_take_the_colours_of_the_source(dataset: Dataset, ushape) -> None:
    result = ushape("render", dataset.root, "--views", "4", "--contact-sheet", *SMALL)
    assert result.code == 0, result.err
    folder = dataset.views("a")
    assert sorted(p.name for p in folder.iterdir()) == [
        "cameras.json", "contact_sheet.png", *(f"view_{k:03d}.png" for k in range(4)),
    ]  # fmt: skip
    image = np.asarray(Image.open(folder / "view_000.png")).astype(int)
    assert image[24, 24, 0] > image[24, 24, 1] + 60
    record = dataset.read_record("a")
    assert record is not None
    measured = record.steps["render"].measurements
    assert measured["surface"] == "colours"
    assert len(measured["problems"]) == 1
    assert "lost.png" in measured["problems"][0]
    assert ushape("render", dataset.root, "--set", "render.textures=false", *SMALL).code == 0
    image = np.asarray(Image.open(folder / "view_000.png")).astype(int)
    assert image[24, 24, 0] == image[24, 24, 1]


def test_options_reach_cameras_and_files(dataset: Dataset, ushape) -> None:
    options = ("--views", "3", "--elevations", "10,-20", "--ortho", "--maps", "depth,normal,mask",
               "--quality", "preview", "--lights", "soft")  # fmt: skip
    result = ushape("render", dataset.root, *options, *SMALL)
    assert result.code == 0, result.err
    names = {p.name for p in dataset.views("a").iterdir()}
    kinds = ("view", "depth", "normal", "mask")
    assert names == {f"{kind}_00{k}.png" for kind in kinds for k in range(3)} | {"cameras.json"}
    views = read_json(dataset.views("a") / "cameras.json")["views"]
    assert {view["model"] for view in views} == {"orthographic"}
    heights = [-np.array(v["world_to_camera"])[:3, :3].T @ np.array(v["world_to_camera"])[:3, 3]
               for v in views]  # fmt: skip
    elevations = [np.degrees(np.arcsin(p[1] / np.linalg.norm(p))) for p in heights]
    assert elevations == pytest.approx([10, 10, -20])
    # What is not given stays: without --no-ortho the views would be orthographic again.
    pinhole = ("--fov", "20", "--views", "1", "--no-ortho")
    assert ushape("render", dataset.root, *pinhole, *SMALL).code == 0
    view = read_json(dataset.views("a") / "cameras.json")["views"][0]
    assert view["fx"] == pytest.approx(24 / np.tan(np.radians(10)))


def test_random_lights_follow_the_seed(dataset: Dataset, ushape) -> None:
    def first(*options: str) -> bytes:
        assert ushape("render", dataset.root, "--views", "1", "--lights", "random", "--force",
                      *options, *SMALL).code == 0  # fmt: skip
        return (dataset.views("a") / "view_000.png").read_bytes()

    assert first() != first("--seed", "1")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--views", "0"), "greater than or equal to 1"),
        (("--set", "render.views=0"), "must be above 0"),
        (("--maps", "colour"), "`colour` is not one of depth, normal, mask"),
        (("--elevations", "100"), "must be from -90 to 90"),
        (("--elevations", "high"), "`high` is not a finite number"),
        (("--fov", "0"), "must be above 0"),
        (("--fov", "170"), "must be from 1 to 120"),
        (("--lights", "disco"), "disco"),
        (("--quality", "best"), "best"),
    ],
)
def test_bad_options_touch_nothing(dataset: Dataset, ushape, options, words: str) -> None:
    result = ushape("render", dataset.root, *options, *SMALL)
    assert result.code == 2
    assert words in " ".join(result.err.replace("│", " ").split())
    assert not dataset.views("a").exists()


def test_a_missing_blender_stops_before_the_first_asset(
    dataset: Dataset, ushape, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    missing = ("--set", "render.blender=/no/blender")
    result = ushape("render", dataset.root, "--renderer", "blender", *missing, "--json", *SMALL)
    assert result.code == 1
    assert "`/no/blender` is not a program" in json.loads(result.out)["error"]["message"]
    assert not dataset.views("a").exists()


def test_a_source_that_is_gone_leaves_clay(dataset: Dataset, ushape, tmp_path: Path) -> None:
    (tmp_path / "models" / "a.obj").unlink()
    assert ushape("render", dataset.root, "--views", "1", *SMALL).code == 0
    record = dataset.read_record("a")
    assert record is not None
    assert record.steps["render"].measurements["surface"] == "clay"
    assert "is gone" in record.steps["render"].measurements["problems"][0]


def test_a_mesh_thinner_than_a_pixel_fails_with_words(dataset: Dataset, ushape) -> None:
    needle = Mesh.from_arrays(
        [[-1, 0, 0], [1, 0, 0], [0, 1e-7, 0], [0, 0, 1e-7]],
        [[0, 1, 2], [0, 2, 3], [1, 3, 2], [0, 3, 1]],
    )
    save_mesh(needle, dataset.mesh("a"))
    result = ushape("render", dataset.root, "--views", "2", *SMALL)
    assert result.code == 1
    assert "thinner than a pixel" in result.err
    assert not list(dataset.views("a").iterdir())


def test_one_sided_sheets_and_single_faces_are_drawn(dataset: Dataset, ushape) -> None:
    sheet = Mesh.from_arrays([[-1, -1, 0], [1, -1, 0], [0, 1, 0.0]], [[0, 1, 2]])
    save_mesh(sheet, dataset.mesh("a"))
    assert ushape("render", dataset.root, "--views", "4", *SMALL).code == 0
    record = dataset.read_record("a")
    assert record is not None
    assert record.steps["render"].measurements["empty_views"] == [1, 3]
