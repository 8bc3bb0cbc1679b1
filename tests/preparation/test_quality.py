"""Measures of shapes whose values are known."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation

from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.preparation.quality import detail, measure_source, measure_surface
from ultrashape_cli.synthetic.figurines import make_figurine

TURN = Rotation.from_euler("xyz", [0.3, 0.7, 1.1]).as_matrix()


def _mesh(shape: trimesh.Trimesh, turned: bool = True) -> Mesh:
    return Mesh.from_arrays(shape.vertices @ (TURN.T if turned else np.eye(3)), shape.faces)


BOX = trimesh.creation.box((1, 2, 3))
BALL = trimesh.creation.icosphere(subdivisions=4)
CYLINDER = trimesh.creation.cylinder(1, 3, sections=96)
TORUS = trimesh.creation.torus(1, 0.3)
PLATE = trimesh.creation.box((1, 1, 0.01))


def test_the_detail_of_a_ball_is_one_and_of_a_cube_three_pi_over_root() -> None:
    assert detail(_mesh(BALL)) == pytest.approx(1, rel=2e-3)
    cube = _mesh(trimesh.creation.box())
    assert detail(cube) == pytest.approx(3 * np.pi / np.sqrt(4 * np.pi * 6))
    assert detail(Mesh(cube.vertices * 50, cube.faces)) == pytest.approx(detail(cube))


def test_patterns_are_detail() -> None:
    assert detail(make_figurine(0, 48)) > 3


def test_volume_over_the_rest_of_the_box() -> None:
    ball = measure_surface(_mesh(BALL), 0)
    assert ball["interior_ratio"] == pytest.approx(np.pi / 6 / (1 - np.pi / 6), rel=0.02)
    # Twice the volume over the area is a third of the diameter.
    assert ball["wall_thickness"] == pytest.approx(1 / 3, rel=0.01)
    plate = measure_surface(_mesh(PLATE, turned=False), 0)
    assert plate["wall_thickness"] == pytest.approx(0.01, rel=0.05)


def test_components_and_genus_are_counted() -> None:
    two = trimesh.util.concatenate([TORUS, BALL.copy().apply_translation((5, 0, 0))])
    measured = measure_surface(_mesh(two), 0)
    assert (measured["components"], measured["genus"]) == (2, 1)


@pytest.mark.parametrize("shape", [BOX, BALL, CYLINDER, PLATE], ids=["box", "ball", "can", "plate"])
def test_primitives_are_recognised_in_any_pose(shape: trimesh.Trimesh) -> None:
    assert measure_surface(_mesh(shape), 0)["primitive_share"] > 0.97


def test_other_shapes_are_no_primitives() -> None:
    assert measure_surface(_mesh(TORUS), 0)["primitive_share"] < 0.5
    assert measure_surface(make_figurine(1, 48), 0)["primitive_share"] < 0.6


def test_a_sheet_is_flat_and_a_ball_is_not() -> None:
    assert measure_surface(_mesh(PLATE), 0)["flatness"] < 0.05
    assert measure_surface(_mesh(BALL), 0)["flatness"] > 0.95


def test_holes_and_size_of_the_source_are_measured() -> None:
    ball = _mesh(BALL, turned=False)
    # Vertices far from each other, each with its fan of faces taken out.
    hubs = [int(ball.vertices[:, axis].argmax()) for axis in range(3)]
    open_ball = Mesh(ball.vertices * 7, ball.faces[~np.isin(ball.faces, hubs).any(axis=1)])
    soup = Mesh.from_arrays(open_ball.triangles, np.arange(3 * len(open_ball.faces)))
    measured = measure_source(soup)
    assert measured["boundary_loops"] == 3
    assert measured["source_size"] == pytest.approx(14, rel=0.01)
    assert measured["source_flatness"] == pytest.approx(1, rel=0.01)
