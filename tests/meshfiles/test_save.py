"""What is written is what was there: far from the origin, tiny, huge."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ultrashape_cli.errors import MeshError
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.meshfiles.load import load_mesh
from ultrashape_cli.meshfiles.save import WRITABLE_SUFFIXES, save_mesh

PLACES = {"survey": (4.5e5, 5.1e6, 300.0), "far": (1e7, 0.0, 0.0), "here": (0.0, 0.0, 0.0)}


@pytest.fixture(params=[*PLACES, "micro", "giant"])
def placed(request: pytest.FixtureRequest, torus: Mesh) -> Mesh:
    scale = {"micro": 1e-6, "giant": 1e6}.get(request.param, 1.0)
    return Mesh(torus.vertices * scale + PLACES.get(request.param, (0, 0, 0)), torus.faces)


@pytest.mark.parametrize("suffix", [s for s in WRITABLE_SUFFIXES if s != ".stl"])
def test_a_mesh_comes_back_wherever_it_lies(tmp_path: Path, placed: Mesh, suffix: str) -> None:
    save_mesh(placed, tmp_path / f"a{suffix}")
    found = load_mesh(tmp_path / f"a{suffix}")
    assert np.array_equal(found.faces, placed.faces)
    error = np.abs(found.vertices - placed.vertices).max()
    assert error <= (1e-7 if suffix == ".glb" else 0.0) * placed.extents.max()


def test_stl_refuses_what_it_would_round_away(tmp_path: Path, torus: Mesh) -> None:
    save_mesh(torus, tmp_path / "a.stl")
    far = Mesh(torus.vertices + np.array(PLACES["survey"]), torus.faces)
    with pytest.raises(MeshError, match="STL holds seven digits") as error:
        save_mesh(far, tmp_path / "b.stl")
    assert "b.ply" in str(error.value.hint)
    assert not (tmp_path / "b.stl").exists()


def test_a_glb_of_ours_is_read_by_others(tmp_path: Path, torus: Mesh) -> None:
    import trimesh

    far = Mesh(torus.vertices + np.array((100.0, 0.0, 0.0)), torus.faces)
    for name, mesh in (("near", torus), ("far", far)):
        save_mesh(mesh, tmp_path / f"{name}.glb")
        found = trimesh.load_scene(tmp_path / f"{name}.glb", process=False).to_geometry()
        assert np.abs(found.triangles - mesh.triangles).max() < 1e-6
