from __future__ import annotations

import numpy as np
import pytest
import trimesh

from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.inference.gate import inspect_input
from ultrashape_cli.synthetic.figurines import make_figurine


def sphere(radius: float, inward: bool = False) -> Mesh:
    ball = trimesh.creation.icosphere(3, radius)
    mesh = Mesh.from_arrays(ball.vertices, ball.faces)
    return mesh.flipped() if inward else mesh


def joined(*meshes: Mesh) -> Mesh:
    starts = np.cumsum([0] + [len(mesh.vertices) for mesh in meshes])
    return Mesh(
        np.concatenate([mesh.vertices for mesh in meshes]),
        np.concatenate([mesh.faces + n for mesh, n in zip(meshes, starts, strict=False)]),
    )


@pytest.mark.parametrize("mesh", [sphere(1.0), make_figurine(0, resolution=32)])
def test_a_whole_mesh_has_no_problems(mesh: Mesh) -> None:
    report = inspect_input(mesh)
    assert report.problems == []
    assert report.boundary_edges == report.nonmanifold_edges == 0
    assert report.largest_component > 0.5
    assert report.double_wall_share < 0.02


def test_a_thin_shell_has_double_walls() -> None:
    report = inspect_input(joined(sphere(1.0), sphere(0.97, inward=True)))
    assert report.double_wall_share > 0.4
    assert any("double walls" in problem for problem in report.problems)


def test_a_thin_plate_has_none() -> None:
    box = trimesh.creation.box((1, 1, 0.01))
    assert inspect_input(Mesh.from_arrays(box.vertices, box.faces)).double_wall_share < 0.02


def test_holes_are_counted_as_edges_and_loops() -> None:
    ball = sphere(1.0)
    centres = ball.triangles.mean(axis=1)
    open_ = ball.with_faces(ball.faces[np.abs(centres[:, 2]) < 0.8])
    report = inspect_input(open_)
    assert report.boundary_loops == 2
    assert report.boundary_edges > 20
    assert any("open edges" in problem for problem in report.problems)


def test_many_pieces_are_a_problem_and_a_few_crumbs_are_not() -> None:
    rng = np.random.default_rng(0)
    bits = [sphere(0.02) for _ in range(60)]
    scattered = [Mesh(b.vertices + rng.uniform(-1, 1, 3), b.faces) for b in bits]
    assert any("pieces" in problem for problem in inspect_input(joined(*scattered)).problems)
    assert inspect_input(joined(sphere(1.0), *scattered)).problems == []
