import json
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from ultrashape_cli.errors import DiskError, MeshError
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.rendering.cameras import view_set
from ultrashape_cli.rendering.maps import view_maps
from ultrashape_cli.rendering.output import save_png, write_views
from ultrashape_cli.rendering.scene import Scene


@pytest.fixture
def grey() -> np.ndarray:
    image = np.zeros((32, 32, 4), np.uint8)
    image[8:24, 8:24] = (90, 120, 150, 255)
    return image


def test_a_png_is_written_in_one_step(tmp_path: Path, grey: np.ndarray) -> None:
    save_png(grey, tmp_path / "views" / "000.png")
    with Image.open(tmp_path / "views" / "000.png") as loaded:
        assert np.array_equal(np.asarray(loaded), grey)
    assert [p.name for p in (tmp_path / "views").iterdir()] == ["000.png"]
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError):
        save_png(grey, tmp_path / "file" / "000.png")


def test_maps_hold_depth_normals_and_mask(tmp_path: Path) -> None:
    ball = trimesh.creation.icosphere(subdivisions=4)
    scene = Scene(Mesh.from_arrays(ball.vertices, ball.faces))
    (camera,) = cameras = view_set(1, size=128)
    empty = np.full((128, 128, 4), 255, np.uint8)
    maps = (view_maps(scene, c, 2) for c in cameras)
    names = ("depth", "normal", "mask")
    _, paths = write_views(tmp_path, cameras, [empty], maps, map_names=names, contact_sheet=True)
    assert [p.name for p in paths] == [
        "view_000.png", "depth_000.png", "normal_000.png", "mask_000.png", "contact_sheet.png",
        "cameras.json",
    ]  # fmt: skip
    step = json.loads((tmp_path / "cameras.json").read_text())["views"][0]["depth_step"]
    depth = np.asarray(Image.open(tmp_path / "depth_000.png"))
    # The front of the ball is one radius before its centre.
    assert depth[64, 64] * step == pytest.approx(camera.position[2] - 1, abs=2e-3)
    assert depth[0, 0] == 0
    normal = np.asarray(Image.open(tmp_path / "normal_000.png")).astype(int)
    assert normal[64, 64].tolist() == pytest.approx([128, 128, 255, 255], abs=3)
    assert normal[20, 64, 1] > 200
    assert normal[64, 110, 0] > 200
    mask = np.asarray(Image.open(tmp_path / "mask_000.png"))
    assert (mask == 255).sum() == pytest.approx(np.pi / 4 * (0.88 * 128) ** 2, rel=0.01)
    assert set(np.unique(mask)) == {0, 255}


def test_a_failure_leaves_what_was_there(tmp_path: Path, grey: np.ndarray) -> None:
    cameras = view_set(2, size=32)
    write_views(tmp_path, cameras, [grey, grey])
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def broken():
        yield grey // 2
        raise MeshError("no more")

    with pytest.raises(MeshError, match="no more"):
        write_views(tmp_path, cameras, broken(), contact_sheet=True)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_files_that_are_no_longer_asked_for_go(tmp_path: Path, grey: np.ndarray) -> None:
    (tmp_path / "mask_000.png").write_bytes(b"")
    write_views(tmp_path, view_set(3, size=32), [grey] * 3, contact_sheet=True)
    measured, _ = write_views(tmp_path, view_set(1, size=32), [grey])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cameras.json", "view_000.png"]
    assert measured == {"views": 1, "filled": 0.25, "clipped": 0.0}


def test_an_invisible_mesh_is_an_error_and_an_edge_on_sheet_is_not(
    tmp_path: Path, grey: np.ndarray
) -> None:
    nothing = np.zeros_like(grey)
    with pytest.raises(MeshError, match="thinner than a pixel"):
        write_views(tmp_path, view_set(2, size=32), [nothing, nothing])
    assert list(tmp_path.iterdir()) == []
    measured, _ = write_views(tmp_path, view_set(2, size=32), [grey, nothing])
    assert measured["empty_views"] == [1]


def test_maps_of_nothing_are_empty() -> None:
    face = Mesh.from_arrays([[9, 9, 9], [9.1, 9, 9], [9, 9.1, 9.0]], [[0, 1, 2]])
    maps, _ = view_maps(Scene(face), view_set(1, radius=0.01, size=16, orthographic=True)[0], 2)
    assert not any(values.any() for values in maps.values())
