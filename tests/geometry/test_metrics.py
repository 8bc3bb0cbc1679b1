"""Mesh metrics against analytic truth and independent implementations."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh
from scipy.spatial import cKDTree

from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.geometry.metrics import (
    chamfer,
    compare_meshes,
    earth_movers_distance,
    edge_f_score,
    volume_iou,
)
from ultrashape_cli.geometry.roughness import dihedral_percentiles, laplacian_roughness


def _sphere(radius: float = 1.0, subdivisions: int = 4) -> Mesh:
    ball = trimesh.creation.icosphere(subdivisions, radius)
    return Mesh.from_arrays(ball.vertices, ball.faces)


def _box(*, side: float = 1.0, shift: float = 0.0) -> Mesh:
    box = trimesh.creation.box((side,) * 3)
    return Mesh.from_arrays(box.vertices + np.array([shift, 0, 0]), box.faces)


def _plane(height: float, turned: float = 0.0) -> Mesh:
    corners = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], float)
    rise = np.tan(turned) * corners[:, 0]
    corners[:, 2] = height + rise
    return Mesh.from_arrays(corners, np.array([[0, 1, 2], [0, 2, 3]]))


def test_parallel_planes_are_their_distance_apart() -> None:
    figures = compare_meshes(_plane(0.0), _plane(0.2), 50_000, taus=(0.19, 0.22))
    assert figures["chamfer_l1"] == pytest.approx(0.2, rel=2e-3)
    assert figures["chamfer_l2"] == pytest.approx(0.04, rel=4e-3)
    assert figures["hausdorff_95"] == pytest.approx(0.2, rel=4e-3)
    assert figures["f_score@0.19"] == 0
    assert figures["f_score@0.22"] == 1
    assert figures["normal_consistency"] == pytest.approx(1)
    assert figures["angular_error"] == pytest.approx(0, abs=1e-5)


def test_the_angular_error_is_the_angle_between_planes() -> None:
    figures = compare_meshes(_plane(0.0), _plane(0.0, np.radians(10)), 20_000)
    assert figures["angular_error"] == pytest.approx(10, rel=1e-6)
    assert figures["normal_consistency"] == pytest.approx(np.cos(np.radians(10)))


def test_equal_surfaces_are_half_the_sample_spacing_apart() -> None:
    # The floor that the module states: 0.5 * sqrt(area / N).
    figures = compare_meshes(_sphere(), _sphere(), 50_000)
    assert figures["chamfer_l1"] == pytest.approx(0.5 * np.sqrt(4 * np.pi / 50_000), rel=0.05)


def test_precision_and_recall_tell_what_is_missing() -> None:
    whole = _sphere()
    upper = whole.with_faces(whole.faces[whole.triangles[..., 2].min(1) >= 0])
    figures = compare_meshes(upper, whole, 20_000, taus=(0.05,))
    assert figures["precision@0.05"] == 1
    assert figures["recall@0.05"] == pytest.approx(0.5 + 0.05 / 2, abs=0.02)


def test_distances_agree_with_plain_trees_on_the_same_points() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(3000, 3)), rng.normal(size=(2000, 3)) + 0.3
    ab, ba = cKDTree(b).query(a)[0], cKDTree(a).query(b)[0]
    expected = (ab.mean() + ba.mean()) / 2, (np.square(ab).mean() + np.square(ba).mean()) / 2
    assert chamfer(a, b) == pytest.approx(expected)


def test_the_sampled_distance_to_a_mesh_agrees_with_an_exact_one() -> None:
    # Against trimesh's point-to-triangle distance, whose floor is zero.
    a, b = _sphere(1.0, 3), _box(side=1.7)
    rng = np.random.default_rng(1)
    exact = []
    for one, other in ((a, b), (b, a)):
        target = trimesh.Trimesh(other.vertices, other.faces, process=False)
        points = trimesh.sample.sample_surface(
            trimesh.Trimesh(one.vertices, one.faces, process=False), 2000, seed=rng
        )[0]
        exact.append(trimesh.proximity.closest_point_naive(target, points)[1].mean())
    assert compare_meshes(a, b)["chamfer_l1"] == pytest.approx(np.mean(exact), rel=0.03)


def test_overlapping_boxes_have_a_known_volume_ratio() -> None:
    # Half of each box is shared: 0.5 of 1.5.
    assert volume_iou(_box(), _box(shift=0.5)) == pytest.approx(1 / 3, abs=0.005)
    assert volume_iou(_box(), _box(shift=3.0)) == 0
    assert volume_iou(_sphere(0.5), _sphere(1.0)) == pytest.approx(0.125, abs=0.005)


def test_an_open_mesh_has_no_volume_ratio() -> None:
    assert volume_iou(_plane(0.0), _box()) is None


def test_the_earth_mover_carries_a_shift() -> None:
    far = earth_movers_distance(_box(side=0.2), _box(side=0.2, shift=5.0), 256)
    assert far == pytest.approx(5.0, rel=0.01)
    floor = earth_movers_distance(_sphere(), _sphere(), 1024)
    assert floor < 2 * np.sqrt(4 * np.pi / 1024)


def test_sharp_edges_are_matched_by_place() -> None:
    assert edge_f_score(_box(), _box()) == 1
    # Edges along x keep their place but for the ends, the others are off.
    assert edge_f_score(_box(), _box(shift=0.1)) == pytest.approx(0.3, abs=0.04)
    assert edge_f_score(_sphere(), _box()) == 0
    assert edge_f_score(_sphere(), _sphere()) is None


def test_a_box_bends_at_its_edges_only() -> None:
    # Per face of side 1: edges 4 * 1 shared by two faces, and one flat diagonal of sqrt(2).
    share = 12 / (12 + 6 * np.sqrt(2))
    assert share > 0.5
    assert dihedral_percentiles(_box()) == {
        f"dihedral_p{p}": pytest.approx(90) for p in (50, 95, 99)
    }


def test_noise_is_rougher_than_a_sphere() -> None:
    ball = _sphere()
    noise = np.random.default_rng(0).normal(scale=0.01, size=ball.vertices.shape)
    noisy = Mesh.from_arrays(ball.vertices + noise, ball.faces)
    assert laplacian_roughness(noisy) > 3 * laplacian_roughness(ball)
