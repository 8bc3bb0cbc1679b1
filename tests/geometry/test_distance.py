import numpy as np
import pytest
from shapes import joined, moved

from ultrashape_cli.errors import MeshError
from ultrashape_cli.geometry.distance import DistanceField
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.geometry.rays import RayScene


def random_points(count: int, reach: float = 1.5, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-reach, reach, (count, 3))


def exact_distances(points: np.ndarray, mesh: Mesh) -> np.ndarray:
    """Plain float64 twin: the closest of plane projection, edges and corners of every face."""
    a, b, c = (mesh.triangles[:, k] for k in range(3))
    best = np.full(len(points), np.inf)
    for start, end in ((a, b), (b, c), (c, a)):
        along = end - start
        t = np.einsum("pfk,fk->pf", points[:, None] - start, along)
        t = np.clip(t / np.square(along).sum(axis=1), 0, 1)
        nearest = start + t[..., None] * along
        best = np.minimum(best, np.linalg.norm(points[:, None] - nearest, axis=2).min(axis=1))
    normal = mesh.face_normals
    height = np.einsum("pfk,fk->pf", points[:, None] - a, normal)
    foot = points[:, None] - height[..., None] * normal
    within = np.ones(height.shape, bool)
    for start, end in ((a, b), (b, c), (c, a)):
        turn = np.cross(np.broadcast_to(end - start, foot.shape), foot - start, axis=2)
        within &= np.einsum("pfk,fk->pf", turn, normal) >= 0
    return np.minimum(best, np.where(within, np.abs(height), np.inf).min(axis=1))


def test_distances_match_the_plain_twin(torus: Mesh) -> None:
    mesh = torus.with_faces(torus.faces[::20])
    points = random_points(300)
    distance, face = DistanceField(mesh).unsigned(points)
    assert distance == pytest.approx(exact_distances(points, mesh), abs=1e-12)
    own = [exact_distances(p[None], mesh.with_faces(mesh.faces[[f]]))[0]
           for p, f in zip(points[:50], face[:50], strict=True)]  # fmt: skip
    assert distance[:50] == pytest.approx(own, abs=1e-12)


@pytest.mark.parametrize(("scale", "shift"), [(1e-6, 0.0), (1e6, 0.0), (1.0, 1000.0)])
def test_distances_of_tiny_huge_and_distant_meshes(torus: Mesh, scale: float, shift: float) -> None:
    placed = moved(torus, scale, (shift, -shift, shift))
    points = random_points(400)
    expected, _ = DistanceField(torus).unsigned(points)
    found, _ = DistanceField(placed).unsigned(points * scale + np.array([shift, -shift, shift]))
    # Positions near 1000 are themselves rounded by 1e-13.
    assert found / scale == pytest.approx(expected, abs=1e-11)


def test_far_points_find_the_exact_face_of_a_fine_mesh(sphere: Mesh) -> None:
    # Far away, many nodes are almost as near as the nearest: bounds that cut too much show here.
    points = random_points(60, reach=8.0)
    assert DistanceField(sphere).unsigned(points)[0] == pytest.approx(
        exact_distances(points, sphere), abs=1e-12
    )


def test_needles_and_points_have_distances_too() -> None:
    vertices = np.array([[0.0, 0, 0], [1, 0, 0], [2, 0, 0], [1, 1e-14, 0]])
    for faces in ([[0, 1, 2]], [[0, 0, 2]], [[0, 2, 3]], [[2, 3, 0]]):
        field = DistanceField(Mesh.from_arrays(vertices, faces))
        assert field.unsigned(np.array([[0.7, 3, 4]]))[0] == pytest.approx(5, rel=1e-9)


def test_signed_distance_of_a_sphere(sphere: Mesh) -> None:
    points = random_points(20_000)
    signed = DistanceField(sphere).signed(points)
    # The faces cut up to 7e-4 off the sphere.
    assert signed == pytest.approx(np.linalg.norm(points, axis=1) - 1, abs=8e-4)


def test_signed_distance_of_a_cube_is_exact(cube: Mesh) -> None:
    points = random_points(5000)
    beyond = np.abs(points) - 1
    exact = np.linalg.norm(np.maximum(beyond, 0), axis=1) + np.minimum(beyond.max(axis=1), 0)
    assert DistanceField(cube).signed(points) == pytest.approx(exact, abs=1e-14)


def test_rays_through_edges_and_corners_do_not_fool_the_sign(cube: Mesh) -> None:
    lattice = np.stack(np.meshgrid(*[np.linspace(-2, 2, 17)] * 3), axis=-1).reshape(-1, 3)
    lattice = lattice[np.abs(np.abs(lattice).max(axis=1) - 1) > 1e-9]
    inside = np.abs(lattice).max(axis=1) < 1
    assert np.array_equal(DistanceField(cube).contains(lattice), inside)


def test_signs_agree_with_the_solid_angle(torus: Mesh) -> None:
    """The winding number by van Oosterom and Strackee, 1983, as an independent truth."""
    points = random_points(500)
    a, b, c = (torus.triangles[:, k][None] - points[:, None] for k in range(3))
    la, lb, lc = (np.linalg.norm(v, axis=2) for v in (a, b, c))
    above = np.einsum("pfk,pfk->pf", a, np.cross(b, c, axis=2))
    below = la * lb * lc + (a * b).sum(2) * lc + (b * c).sum(2) * la + (c * a).sum(2) * lb
    winding = np.arctan2(above, below).sum(axis=1) / (2 * np.pi)
    assert np.array_equal(DistanceField(torus).contains(points), winding > 0.5)


def test_overlapping_bodies_count_as_their_union(cube: Mesh) -> None:
    both = joined(cube, moved(cube, shift=(1, 0, 0)))
    field = DistanceField(both)
    probes = np.array([[-0.5, 0.1, 0.2], [0.5, 0.1, 0.2], [1.5, 0.1, 0.2], [2.5, 0.1, 0.2]])
    assert field.contains(probes).tolist() == [True, True, True, False]


def test_a_cavity_is_outside(sphere: Mesh) -> None:
    hollow = joined(sphere, moved(sphere, 0.5).flipped())
    field = DistanceField(hollow)
    assert field.contains(np.array([[0.1, 0, 0], [0.7, 0, 0]])).tolist() == [False, True]


def test_open_and_inconsistent_meshes_get_a_majority(punctured_sphere: Mesh, soup: Mesh) -> None:
    points = random_points(2000, reach=1.2)
    radius = np.linalg.norm(points, axis=1)
    clear = np.abs(radius - 1) > 0.01
    found = DistanceField(soup).contains(points)
    assert np.array_equal(found[clear], (radius < 1)[clear])
    found = DistanceField(punctured_sphere).contains(points)
    assert (found[clear] == (radius < 1)[clear]).mean() > 0.98


def test_a_mesh_without_faces_has_no_distances() -> None:
    with pytest.raises(MeshError, match="without faces"):
        DistanceField(Mesh.from_arrays(np.zeros((0, 3)), np.zeros((0, 3))))


def test_rays_hit_where_they_should(cube: Mesh) -> None:
    scene = RayScene(moved(cube, 10.0, (500, 0, 0)))
    origins = np.array([[470.0, 1, 2], [470.0, 1, 2], [470.0, 50, 2]])
    directions = np.array([[1.0, 0, 0], [4, 0, 0], [1, 0, 0]])
    distance, face, uv = scene.first_hit(origins, directions)
    assert distance == pytest.approx([20, 5, np.inf], rel=1e-6)
    assert (face >= 0).tolist() == [True, True, False]
    corners = cube.triangles[face[0]] * 10 + [500, 0, 0]
    weights = np.array([1 - uv[0].sum(), *uv[0]])
    assert weights @ corners == pytest.approx([490, 1, 2], abs=1e-3)
    assert scene.occluded(origins, directions).tolist() == [True, True, False]
    assert scene.occluded(origins, directions, 19.9).tolist() == [False, False, False]
    assert scene.occluded(origins, directions, np.array([20.1, 20.1, 99])).tolist() == [
        True,
        True,
        False,
    ]
