from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image
from shapes import as_mesh, moved

from ultrashape_cli.config.refine import RefineConfig
from ultrashape_cli.errors import DependencyError, MeshError, UsageError
from ultrashape_cli.finishing import native
from ultrashape_cli.finishing.finish import finish
from ultrashape_cli.finishing.native import run_native
from ultrashape_cli.finishing.surface import to_quads
from ultrashape_cli.finishing.write import check_finish, files_beside, save_finished
from ultrashape_cli.geometry.check import topology
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.geometry.metrics import compare_meshes
from ultrashape_cli.meshfiles.load import load_mesh

CONFIG = RefineConfig(faces=1000)


@pytest.fixture(scope="module")
def full() -> Mesh:
    return moved(as_mesh(trimesh.creation.icosphere(5, 1.0)), 20.0, (300, 0, 0))


@pytest.fixture(scope="module")
def reduced() -> Mesh:
    return moved(as_mesh(trimesh.creation.icosphere(3, 1.0)), 20.0, (300, 0, 0))


def test_quads_follow_the_shape_in_its_own_place(full: Mesh) -> None:
    found = to_quads(full, 1000)
    assert found.quads is not None
    assert 500 < len(found.quads) < 2000
    assert topology(found.mesh).watertight
    assert topology(found.mesh).volume > 0
    centre = Mesh((found.mesh.vertices - (300, 0, 0)) / 20, found.mesh.faces)
    ball = Mesh((full.vertices - (300, 0, 0)) / 20, full.faces)
    assert compare_meshes(centre, ball, 20_000)["chamfer_l1"] < 0.03


@pytest.mark.parametrize("suffix", [".obj", ".ply", ".off"])
def test_quads_are_written_as_quads(full: Mesh, reduced: Mesh, tmp_path: Path, suffix) -> None:
    surface, figures = finish(reduced, full, replace(CONFIG, topology="quads"))
    path = tmp_path / f"a{suffix}"
    colours = np.full((len(surface.mesh.vertices), 3), 200, np.uint8)
    save_finished(surface, path, colours)
    assert figures["quad_share"] == 1
    assert figures["open_edges"] == 0
    back = load_mesh(path)
    assert len(back.faces) == 2 * figures["faces"]
    assert np.allclose(np.sort(back.vertices, 0), np.sort(surface.mesh.vertices, 0), rtol=1e-6)
    text = path.read_text()
    ends = {".obj": "f ", ".ply": "4 ", ".off": "4 "}[suffix]
    lines = [line for line in text.splitlines() if line.startswith(ends)]
    assert sum(len(line.split()) == 5 for line in lines) >= figures["faces"]


def test_glb_holds_texture_coordinates_and_the_map(full: Mesh, reduced: Mesh, tmp_path) -> None:
    settings = replace(CONFIG, bake="normal", bake_size=128)
    surface, figures = finish(reduced, full, settings)
    path = tmp_path / "a.glb"
    save_finished(surface, path)
    assert files_beside(settings, path) == []
    assert figures["coverage"] > 0.98
    data = path.read_bytes()
    length = int.from_bytes(data[12:16], "little")
    table = json.loads(data[20 : 20 + length])
    primitive = table["meshes"][0]["primitives"][0]
    assert set(primitive["attributes"]) == {"POSITION", "NORMAL", "TANGENT", "TEXCOORD_0"}
    assert table["materials"][0]["normalTexture"] == {"index": 0}
    view = table["bufferViews"][table["images"][0]["bufferView"]]
    start = 20 + length + 8 + view["byteOffset"]
    assert data[start : start + 4] == b"\x89PNG"
    scene = trimesh.load(path)
    mesh = next(iter(scene.geometry.values()))  # type: ignore[union-attr]
    assert mesh.visual.material.normalTexture.size == (128, 128)
    assert mesh.visual.uv.shape == (len(surface.uv), 2)  # type: ignore[arg-type]
    assert len(load_mesh(path).faces) == len(reduced.faces)


def test_obj_has_its_material_and_map_beside_it(full: Mesh, reduced: Mesh, tmp_path: Path) -> None:
    settings = replace(CONFIG, topology="quads", bake="normal", bake_size=128)
    surface, _ = finish(reduced, full, settings)
    path = tmp_path / "a.obj"
    save_finished(surface, path)
    material, picture = files_beside(settings, path)
    assert picture.name in material.read_text()
    with Image.open(picture) as image:
        assert image.size == (128, 128)
    text = path.read_text()
    assert f"mtllib {material.name}" in text
    assert text.count("\nvt ") == len(surface.uv)  # type: ignore[arg-type]
    assert load_mesh(path).faces.shape[0] == len(surface.mesh.faces)


@pytest.mark.parametrize(
    ("changes", "name", "told"),
    [
        ({"topology": "quads"}, "a.glb", "holds no quads"),
        ({"uv": True}, "a.stl", "holds no texture coordinates"),
        ({"bake": "normal"}, "a.ply", "holds no texture coordinates"),
        ({"uv": True, "faces": 0}, "a.glb", "--faces 20000"),
        ({"uv": True, "region": "side=x"}, "a.glb", "a region keeps the faces"),
    ],
)
def test_what_a_format_cannot_hold_is_told(changes: dict, name: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_finish(replace(CONFIG, **changes), Path(name))
    assert told in f"{caught.value.message} {caught.value.hint}"


def test_native_code_that_fails_is_told(full: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"vertices": full.vertices, "faces": full.faces, "count": np.asarray(1000)}
    with pytest.raises(MeshError, match=r"not ready after 0\.01 s"):
        run_native("quads", given, timeout=0.01)
    bad = {**given, "faces": np.full((4, 3), 2**31)}
    with pytest.raises(MeshError, match="pynanoinstantmeshes failed"):
        run_native("quads", bad)
    monkeypatch.setattr(native, "PACKAGES", {"unwrap": "xatlas"})
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(MeshError, match="xatlas failed"):
        run_native("unwrap", given)


def test_a_missing_package_is_told_with_the_command(full, tmp_path, monkeypatch) -> None:
    (tmp_path / "xatlas.py").write_text("raise ImportError('no xatlas here')")
    root = str(Path(native.__file__).parents[2])
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{root}")
    given = {"vertices": full.vertices, "faces": full.faces, "size": np.asarray(64)}
    with pytest.raises(DependencyError, match="xatlas does not load") as caught:
        run_native("unwrap", given)
    assert "[output]" in str(caught.value.hint)
