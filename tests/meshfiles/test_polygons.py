"""Polygons to triangles: nothing outside, nothing turned, no corner lost."""

import numpy as np
import pytest

from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.meshfiles.parts import Unreadable
from ultrashape_cli.meshfiles.polygons import triangulate


def cut(outline, *more) -> tuple[Mesh, np.ndarray]:
    """Triangles of polygons given by their points, and the polygon of each."""
    polygons = [np.asarray(points, float) for points in (outline, *more)]
    vertices = np.concatenate(polygons)
    corners = np.arange(len(vertices))
    triangles = triangulate(vertices, corners, np.array([len(p) for p in polygons]))
    return Mesh.from_arrays(vertices, triangles.faces), triangles.polygon


def flat(points) -> np.ndarray:
    return np.column_stack([points, np.zeros(len(points))])


def star(points: int, inner: float = 0.4, turn: int = 0) -> np.ndarray:
    angle = np.arange(2 * points) * np.pi / points + 0.1
    radius = np.where(np.arange(2 * points) % 2 == 0, 1.0, inner)
    ring = flat(np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1))
    return np.roll(ring, turn, axis=0)


def area(ring: np.ndarray) -> float:
    x, y = ring[:, 0], ring[:, 1]
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


SHAPES = {
    "triangle": flat([(0, 0), (1, 0), (0, 1)]),
    "square": flat([(0, 0), (1, 0), (1, 1), (0, 1)]),
    "dart": flat([(0, 0), (2, 1), (0, 2), (0.5, 1)]),
    "dart from its tip": flat([(2, 1), (0, 2), (0.5, 1), (0, 0)]),
    "square with a corner on an edge": flat([(0, 0), (1, 0), (2, 0), (2, 2), (0, 2)]),
    "triangle with corners on all edges": flat(
        [(0, 0), (1, 0), (2, 0), (3, 0), (2, 1), (1, 2), (0, 3), (0, 2), (0, 1)]
    ),
    "quad that is a triangle": flat([(0, 0), (1, 0), (2, 0), (0, 2)]),
    "star": star(5),
    "star from a dent": star(5, turn=1),
    "many points": star(300, 0.9),
    "comb": flat([(0, -1), (40, -1), *((x, x % 2) for x in range(40, -1, -1))]),
    "frame with a cut to its hole": flat(
        [(0, 0), (3, 0), (3, 3), (0, 3), (0, 0), (1, 1), (1, 2), (2, 2), (2, 1), (1, 1)]
    ),
}


@pytest.mark.parametrize("place", ["flat", "tilted", "far away"])
@pytest.mark.parametrize("name", SHAPES)
def test_triangles_fill_the_outline_and_face_its_way(name: str, place: str) -> None:
    ring = SHAPES[name]
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    turn = np.eye(3) if place == "flat" else turn * np.sign(np.linalg.det(turn))
    shift = 5e5 if place == "far away" else 0.0
    mesh, _ = cut(ring @ turn.T + shift)
    assert len(mesh.faces) == len(ring) - 2
    heights = mesh.area_vectors @ turn[:, 2]
    assert heights.sum() == pytest.approx(area(ring), rel=1e-7)
    assert mesh.area_faces.sum() == pytest.approx(area(ring), rel=1e-7)
    assert heights.min() > -1e-9
    edges = np.sort(mesh.faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    outline = np.sort(np.stack([np.arange(len(ring)), np.roll(np.arange(len(ring)), -1)], 1))
    assert {tuple(e) for e in outline} <= {tuple(e) for e in edges}
    if name != "frame with a cut to its hole":
        assert mesh.area_faces.min() > 1e-9, "a corner on an edge was cut off flat"


@pytest.mark.parametrize("sizes", [[3, 3], [4, 3], [2, 5]])
def test_faces_are_vertices_of_their_corners(sizes: list[int]) -> None:
    corners = np.array([4, 2, 0, 1, 3, 5, 6])[: sum(sizes)]
    triangles = triangulate(star(4), corners, np.array(sizes))
    assert np.array_equal(triangles.faces, corners[triangles.positions])
    assert np.bincount(triangles.polygon, minlength=2).tolist() == [size - 2 for size in sizes]


def test_a_polygon_out_of_its_plane_keeps_its_corners() -> None:
    ring = star(8)
    ring[:, 2] = 0.1 * np.sin(np.arange(16))
    mesh, _ = cut(ring)
    assert mesh.area_vectors[:, 2].min() > 0
    assert mesh.area_vectors[:, 2].sum() == pytest.approx(area(ring))


def test_triangles_know_their_polygon_and_lines_are_left_out() -> None:
    line = flat([(0, 0), (1, 0)])
    mesh, polygon = cut(line, SHAPES["square"], line[:1], star(5), SHAPES["triangle"])
    assert polygon.tolist() == [1, 1, *[3] * 8, 4]
    assert mesh.area_faces.sum() == pytest.approx(1 + area(star(5)) + 0.5)


@pytest.mark.parametrize("shape", ["bow tie", "twice around", "a point", "a line", "nan"])
def test_polygons_that_are_none_end(shape: str) -> None:
    rings = {
        "bow tie": [(0, 0), (1, 1), (1, 0), (0, 1)],
        "twice around": [*star(3, 0.9)[:, :2], *star(3, 0.8)[:, :2]],
        "a point": [(1, 1)] * 6,
        "a line": [(k % 3, 0) for k in range(7)],
        "nan": [(0, 0), (1, 0), (1, np.nan), (0, 1), (-1, 0)],
    }
    mesh, _ = cut(flat(rings[shape]))
    assert len(mesh.faces) == len(rings[shape]) - 2


def test_a_vertex_that_does_not_exist_is_named() -> None:
    with pytest.raises(Unreadable, match="vertex 7, the file has 3"):
        triangulate(np.zeros((3, 3)), np.array([0, 1, 7]), np.array([3]))
    triangles = triangulate(np.zeros((0, 3)), np.zeros(0, int), np.zeros(0, int))
    assert triangles.faces.shape == triangles.positions.shape == (0, 3)
    assert len(triangles.polygon) == 0
