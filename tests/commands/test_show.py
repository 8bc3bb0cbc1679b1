"""`ushape show`: a picture and a table of what was read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.meshfiles.save import save_mesh

SMALL = ("--size", 48)


@pytest.fixture
def sculpt(tmp_path: Path, torus: Mesh) -> Path:
    """A torus that is red where x > 0 and blue elsewhere."""
    colours = np.where(torus.vertices[:, :1] > 0, (255, 0, 0), (0, 0, 255)).astype(np.uint8)
    save_mesh(torus, tmp_path / "models" / "sculpt.glb", colours)
    return tmp_path / "models" / "sculpt.glb"


def _red_and_blue(path: Path) -> tuple[int, int]:
    """Returns how many pixels of the left and of the right half are more red than blue."""
    with Image.open(path) as image:
        rgb = np.asarray(image.convert("RGBA"), int)
    red = (rgb[..., 3] > 128) & (rgb[..., 0] > rgb[..., 2] + 40)
    half = rgb.shape[1] // 2
    return int(red[:, :half].sum()), int(red[:, half:].sum())


def test_a_mesh_is_shown_in_its_colours_and_described(ushape, sculpt: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.png"
    result = ushape("show", sculpt, "-o", out, *SMALL, "--json")
    assert result.code == 0
    (row,) = json.loads(result.out)["meshes"]
    assert (row["parts"], row["open_edges"], row["colours"]) == (1, 0, "colours")
    left, right = _red_and_blue(out)
    assert right > 50 > left


def test_clay_leaves_the_colours_out(ushape, sculpt: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.png"
    assert ushape("show", sculpt, "-o", out, *SMALL, "--clay").code == 0
    assert _red_and_blue(out) == (0, 0)


def test_the_front_is_the_side_named(ushape, sculpt: Path, tmp_path: Path) -> None:
    for front, red in (("x", True), ("-x", False)):
        out = tmp_path / f"{front}.png"
        assert ushape("show", sculpt, "-o", out, *SMALL, "--front", front).code == 0
        assert (sum(_red_and_blue(out)) > 100) is red


def test_a_folder_is_one_sheet_and_a_bad_file_stops_nothing(ushape, sculpt: Path) -> None:
    (sculpt.parent / "bad.glb").write_bytes(b"glTF")
    out = sculpt.parent.parent / "all.png"
    result = ushape("show", sculpt.parent, "-o", out, *SMALL, "--views", 3, "--json")
    found = json.loads(result.out)
    assert (result.code, found["status"]) == (1, "failed")
    assert (found["counts"], len(found["failures"])) == ({"shown": 1, "failed": 1}, 1)
    assert out.exists()


def test_a_turntable_is_animated(ushape, sculpt: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("ultrashape_cli.commands.show._TURN_STEPS", 3)
    out = tmp_path / "a.webp"
    assert ushape("show", sculpt, "--turntable", "-o", out, *SMALL).code == 0
    with Image.open(out) as image:
        assert image.n_frames == 3
    assert ushape("show", sculpt, "--turntable", "-o", tmp_path / "a.png").code == 2


def test_nothing_is_overwritten_unasked(ushape, sculpt: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("mine")
    assert ushape("show", sculpt, "-o", tmp_path / "a.png", *SMALL).code == 2
    assert (tmp_path / "a.png").read_text() == "mine"
    assert ushape("show", sculpt, "-o", tmp_path / "a.png", *SMALL, "--force").code == 0


def test_a_texture_of_a_mesh_is_no_place_for_its_picture(ushape, tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), (255, 0, 0)).save(tmp_path / "skin.png")
    (tmp_path / "a.mtl").write_text("newmtl m\nmap_Kd skin.png\n")
    lines = ["mtllib a.mtl", "usemtl m", "v 0 0 0", "v 1 0 0", "v 0 1 0", "vt 0 0", "f 1/1 2/1 3/1"]
    (tmp_path / "a.obj").write_text("\n".join(lines))
    before = (tmp_path / "skin.png").read_bytes()
    for given in (tmp_path / "a.obj", tmp_path):
        found = ushape("show", given, "-o", tmp_path / "skin.png", "--force", *SMALL)
        assert found.code == 2
        assert "skin.png" in found.err
    assert (tmp_path / "skin.png").read_bytes() == before
