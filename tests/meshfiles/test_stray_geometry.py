"""Points and faces that are no surface: unused vertices, faces without area, numbers that are none.

They would be part of the box that a mesh is scaled by.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ultrashape_cli.errors import MeshError
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.meshfiles.load import load_mesh, mesh_of, read_contents
from ultrashape_cli.meshfiles.save import save_mesh

FAR = 40.0


def _with(mesh: Mesh, points: list[tuple[float, ...]], faces: list[tuple[int, ...]]) -> Mesh:
    """Adds points, and faces by index from the end of the vertices."""
    count = len(mesh.vertices)
    vertices = np.concatenate([mesh.vertices, np.array(points, float)])
    more = np.array(faces, int).reshape(-1, 3)
    return Mesh.from_arrays(vertices, np.concatenate([mesh.faces, more + count]))


STRAY = {
    "unused": ([(FAR, 0, 0)], []),
    "a point three times": ([(FAR, 0, 0)], [(0, 0, 0)]),
    "three equal points": ([(FAR, 0, 0)] * 3, [(0, 1, 2)]),
    "a needle": ([(FAR, 0, 0), (FAR, 1, 0), (FAR, 2, 0)], [(0, 1, 2)]),
    "a spike to an edge": ([(FAR, 0, 0), (FAR, 1, 0)], [(0, 1, 0)]),
}


@pytest.mark.parametrize("kind", STRAY)
@pytest.mark.parametrize("suffix", [".ply", ".off", ".obj", ".glb"])
def test_what_is_no_surface_is_left_out(
    tmp_path: Path, sphere: Mesh, kind: str, suffix: str
) -> None:
    save_mesh(_with(sphere, *STRAY[kind]), tmp_path / f"a{suffix}")
    found = load_mesh(tmp_path / f"a{suffix}")
    assert len(found.vertices) == len(sphere.vertices)
    assert found.extents == pytest.approx(sphere.extents, rel=1e-6)


def test_points_at_infinity_take_their_faces_along(tmp_path: Path, sphere: Mesh) -> None:
    save_mesh(_with(sphere, [(np.inf, 0, 0)], [(0, -1, -2)]), tmp_path / "a.ply")
    contents = read_contents(tmp_path / "a.ply", colours=False)
    found = mesh_of(tmp_path / "a.ply", contents)
    assert len(found.vertices) == len(sphere.vertices)
    assert contents.notes == [
        f"1 of {len(sphere.faces) + 1:,} faces left out: their coordinates are not finite"
    ]


def test_a_flat_face_between_others_stays(tmp_path: Path) -> None:
    # It closes the gap of no width between a long edge and its two halves.
    vertices = [(0, 0, 0), (2, 0, 0), (1, 0, 0), (1, 1, 0), (1, -1, 0)]
    faces = [(0, 4, 1), (0, 2, 3), (2, 1, 3), (0, 1, 2)]
    save_mesh(Mesh.from_arrays(vertices, faces), tmp_path / "a.ply")
    assert len(load_mesh(tmp_path / "a.ply").faces) == 4


def test_a_file_of_flat_faces_only_is_refused(tmp_path: Path) -> None:
    mesh = Mesh.from_arrays([(0, 0, 0), (1, 0, 0), (2, 0, 0)], [(0, 1, 2)])
    save_mesh(mesh, tmp_path / "a.ply")
    with pytest.raises(MeshError, match="no face has an area"):
        load_mesh(tmp_path / "a.ply")
