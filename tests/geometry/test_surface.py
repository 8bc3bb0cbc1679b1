import numpy as np
import pytest
import trimesh
from shapes import as_mesh, moved

from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.geometry.metrics import (
    chamfer,
    compare_meshes,
    f_score,
    normal_consistency,
)
from ultrashape_cli.geometry.surface import (
    curvature_weights,
    sample_faces,
    sample_sharp_edges,
    sharp_edges,
    vertex_curvature,
)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_samples_lie_on_their_faces(sphere: Mesh) -> None:
    points, normals, faces = sample_faces(sphere, 5000, rng())
    corner = sphere.vertices[sphere.faces[faces, 0]]
    assert np.einsum("ij,ij->i", points - corner, normals) == pytest.approx(0, abs=1e-12)
    assert normals == pytest.approx(sphere.face_normals[faces])
    assert points.mean(axis=0) == pytest.approx(0, abs=0.03)


def test_samples_are_uniform_by_area(cube: Mesh) -> None:
    stretched = Mesh(cube.vertices * [1, 1, 5], cube.faces)
    _, normals, _ = sample_faces(stretched, 60_000, rng())
    ends = (np.abs(normals[:, 2]) > 0.5).mean()
    assert ends == pytest.approx(8 / 88, abs=0.01)
    points, _, _ = sample_faces(cube, 60_000, rng())
    top = points[points[:, 2] == 1]
    histogram = np.histogram2d(top[:, 0], top[:, 1], bins=4)[0]
    assert histogram / len(top) == pytest.approx(1 / 16, abs=0.01)


def test_faces_without_weight_are_never_drawn(cube: Mesh) -> None:
    weights = np.zeros(len(cube.faces))
    weights[3] = 2.0
    assert set(sample_faces(cube, 100, rng(), weights)[2].tolist()) == {3}
    with pytest.raises(ValueError, match="do not sum"):
        sample_faces(cube, 10, rng(), np.zeros(len(cube.faces)))
    with pytest.raises(ValueError, match="shape"):
        sample_faces(cube, 10, rng(), np.ones(3))


def test_the_same_seed_gives_the_same_samples(torus: Mesh) -> None:
    first, second = (sample_faces(torus, 100, rng())[0] for _ in range(2))
    assert np.array_equal(first, second)


def test_constant_curvature_gives_uniform_samples() -> None:
    ball = as_mesh(trimesh.creation.icosahedron())
    assert curvature_weights(ball) == pytest.approx(ball.area_faces)


def test_curvature_prefers_the_tight_side_of_a_torus(torus: Mesh) -> None:
    weights = curvature_weights(torus)
    assert np.isfinite(weights).all()
    assert weights.min() >= 0
    spread = vertex_curvature(torus)
    assert (spread.min(), spread.max()) == (0, 1)


def test_curvature_and_areas_match_the_reference(golden: dict[str, np.ndarray]) -> None:
    mesh = Mesh.from_arrays(golden["vertices"], golden["faces"])
    assert mesh.area_faces == pytest.approx(golden["face_areas"], rel=1e-5)
    assert vertex_curvature(mesh) == pytest.approx(golden["vertex_curvature"], abs=1e-5)


def distance_to_segments(points: np.ndarray, mesh: Mesh, edges: np.ndarray) -> np.ndarray:
    a, b = mesh.vertices[edges[:, 0]], mesh.vertices[edges[:, 1]]
    along = b - a
    t = np.einsum("pek,ek->pe", points[:, None] - a, along) / np.square(along).sum(axis=1)
    nearest = a + np.clip(t, 0, 1)[..., None] * along
    return np.linalg.norm(points[:, None] - nearest, axis=2).min(axis=1)


def test_recorded_sharp_samples_lie_on_our_sharp_edges(golden: dict[str, np.ndarray]) -> None:
    mesh = Mesh.from_arrays(golden["infer_normalized_vertices"], golden["faces"])
    distance = distance_to_segments(golden["sharp_samples"], mesh, sharp_edges(mesh))
    assert distance.max() < 1e-3


def test_sharp_samples_lie_on_creases(cube: Mesh) -> None:
    points, normals = sample_sharp_edges(cube, 1000, rng()) or pytest.fail("no sharp edge")
    assert points.shape == normals.shape == (1000, 3)
    assert distance_to_segments(points, cube, sharp_edges(cube)).max() < 1e-12


def test_a_smooth_surface_has_no_sharp_samples(sphere: Mesh) -> None:
    assert sample_sharp_edges(sphere, 10, rng()) is None


def test_chamfer_and_f_score_of_shifted_points() -> None:
    a = np.stack(np.meshgrid(*[np.arange(5.0)] * 3), axis=-1).reshape(-1, 3)
    b = a + np.array([0.1, 0, 0])
    assert chamfer(a, b) == pytest.approx((0.1, 0.01))
    assert f_score(a, b, 0.11) == 1
    assert f_score(a, b, 0.09) == 0
    normals = np.tile([0.0, 0, 1], (len(a), 1))
    assert normal_consistency(a, normals, b, -normals) == pytest.approx(1)


def test_f_score_is_the_harmonic_mean() -> None:
    a, b = np.array([[0.0, 0, 0], [9, 0, 0]]), np.array([[0.0, 0, 0]])
    assert f_score(a, b, 0.5) == pytest.approx(2 * 0.5 * 1 / 1.5)


def test_comparing_spheres_of_two_sizes(sphere: Mesh) -> None:
    figures = compare_meshes(sphere, moved(sphere, 1.1), num_points=20_000, taus=(0.05, 0.2))
    assert figures["chamfer_l1"] == pytest.approx(0.1, rel=0.02)
    assert figures["chamfer_l2"] == pytest.approx(0.01, rel=0.04)
    assert figures["f_score@0.05"] == 0
    assert figures["f_score@0.2"] == 1
    assert figures["normal_consistency"] > 0.995
