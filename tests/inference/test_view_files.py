from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ultrashape_cli.errors import UsageError
from ultrashape_cli.geometry.directions import direction_of
from ultrashape_cli.inference.view_files import ViewFile, parse_views
from ultrashape_cli.rendering.cameras import camera_at, view_set
from ultrashape_cli.rendering.output import write_views


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b=c.png"):
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def test_sides_degrees_and_bare_files_are_told_apart(folder: Path) -> None:
    found = parse_views(["back=a.png", "-30,15=a.png", "a.png", "b=c.png", "left=b=c.png"], folder)
    assert [view.direction for view in found] == [(180, 0), (330, 15), None, None, (270, 0)]
    assert found[3] == ViewFile(folder / "b=c.png")
    assert found[4].path == folder / "b=c.png"


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("behind=a.png", "`behind` is no side"),
        ("10,95=a.png", "elevation from -90 to 90"),
        ("inf,0=a.png", "is no direction"),
        ("back=none.png", "none.png` does not exist"),
        (".", "has no views.json or cameras.json"),
        ("bad.json", "is no list of views"),
    ],
)
def test_what_is_no_view_is_told(folder: Path, spec: str, told: str) -> None:
    (folder / "bad.json").write_text('{"views": 3}')
    with pytest.raises(UsageError, match=told):
        parse_views([spec], folder)


def test_a_folder_of_our_renders_says_where_its_views_are(tmp_path: Path) -> None:
    cameras = view_set(6, size=16, seed=4)
    write_views(tmp_path, cameras, [np.full((16, 16, 4), 255, np.uint8)] * 6)
    found = parse_views([str(tmp_path)])
    assert [view.path.name for view in found] == [f"view_{k:03d}.png" for k in range(6)]
    wanted = [(0, 0), (90, 0), (180, 0), (270, 0), (45, 35), (225, 35)]
    assert np.allclose([view.direction for view in found], wanted, atol=1e-6)


def test_a_list_of_views_has_angles_or_cameras_and_stays_in_its_folder(folder: Path) -> None:
    camera = camera_at(200, -10, orthographic=True).to_dict()
    rows = [{"file": "a.png", "azimuth": 370}, {"file": "b=c.png", **camera}]
    path = folder / "views.json"
    path.write_text(json.dumps({"views": rows}))
    found = parse_views([str(path)])
    assert found[0].direction == (10, 0)
    assert found[1].direction == pytest.approx((200, -10))
    path.write_text(json.dumps({"views": [{"file": "../a.png", "azimuth": 0}]}))
    with pytest.raises(UsageError, match="not below its folder"):
        parse_views([str(path)])


def test_a_missing_file_may_be_left_to_its_reader(folder: Path) -> None:
    assert parse_views(["top=none.png"], folder, must_exist=False)[0].direction == (0, 90)


def test_direction_is_the_inverse_of_the_camera() -> None:
    assert direction_of(camera_at(123, 45).position) == pytest.approx((123, 45))
