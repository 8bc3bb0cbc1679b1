"""Vertices that share a place in single precision are moved apart."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh
from shapes import joined, moved

from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.geometry.places import in_own_places, shared_places
from ultrashape_cli.watertight.ladder import make_watertight


def _as_read(mesh: Mesh) -> trimesh.Trimesh:
    """Returns a mesh as a loader has it that merges equal positions of single precision."""
    return trimesh.Trimesh(mesh.vertices.astype(np.float32), mesh.faces, process=True)


@pytest.mark.parametrize("shift", [(2, 2, 0), (2, 0, 0), (2, 2, 2), (2, 2 + 1e-9, 0)])
def test_solids_that_touch_stay_solids_for_everyone(cube: Mesh, shift: tuple) -> None:
    pair = joined(cube, moved(cube, 1.0, shift))
    assert len(shared_places(pair.vertices)) in (1, 2, 4)
    apart = in_own_places(pair)
    assert len(shared_places(apart.vertices)) == 0
    assert np.abs(apart.vertices - pair.vertices).max() < 1e-5
    read = _as_read(apart)
    assert read.is_watertight
    assert len(read.vertices) == 16
    assert (read.area_faces > 0).all()
    assert read.volume == pytest.approx(16, rel=1e-5)


def test_many_in_one_place_all_find_their_own(cube: Mesh) -> None:
    many = joined(*(cube for _ in range(5)))
    assert len(shared_places(many.vertices)) == 32
    assert len(_as_read(in_own_places(many)).vertices) == 40


def test_an_edge_without_length_gets_one() -> None:
    octahedron = trimesh.creation.icosphere(0)
    vertices, faces = np.array(octahedron.vertices), np.array(octahedron.faces)
    a, b = faces[0, :2]
    vertices[b] = vertices[a]
    read = _as_read(in_own_places(Mesh.from_arrays(vertices, faces)))
    assert read.is_watertight
    assert (read.area_faces > 0).all()


def test_a_mesh_without_any_is_returned_as_it_is(sphere: Mesh) -> None:
    assert in_own_places(sphere) is sphere
    empty = Mesh.from_arrays(np.zeros((0, 3)), np.zeros((0, 3)))
    assert in_own_places(empty) is empty


@pytest.mark.parametrize("scale", [1e-80, 1e-3, 1.0, 1e80])
def test_the_size_does_not_matter(cube: Mesh, scale: float) -> None:
    pair = in_own_places(joined(moved(cube, scale), moved(cube, scale, (2 * scale, 0, 0))))
    assert len(shared_places(pair.vertices)) == 0
    assert pair.vertices.max() == 3 * scale


def test_a_place_too_far_away_for_single_precision_is_left_alone(sphere: Mesh) -> None:
    far = moved(sphere, 1.0, (1e6, 0, 0))
    assert len(shared_places(far.vertices)) > 0
    assert in_own_places(far) is far


def test_a_watertight_result_has_no_shared_places(sphere: Mesh, cube: Mesh) -> None:
    twice = make_watertight(joined(sphere, sphere), 64)
    assert (twice.rung, len(twice.mesh.faces)) == ("repair", len(sphere.faces))
    touching = make_watertight(joined(cube, moved(cube, 1.0, (2, 2, 0))), 64)
    assert touching.measurements["shared_places"] == 0
    assert _as_read(touching.mesh).is_watertight
    assert make_watertight(sphere, 64).mesh is sphere
