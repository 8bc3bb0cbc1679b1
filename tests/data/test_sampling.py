from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import trimesh
from shapes import as_mesh, moved

from ultrashape_cli.config.schema import SampleConfig
from ultrashape_cli.data.samples import NEAR_REACH, decode_normals, restore_positions
from ultrashape_cli.data.sampling import jitter, reference_frame, sample_mesh
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.geometry.normalize import fit_frame

SMALL = SampleConfig(
    surface_points=3000,
    curvature_points=2000,
    contents="full",
    near_points=4000,
    near_curvature_points=1200,
    space_points=3000,
)


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def ball() -> Mesh:
    return moved(as_mesh(trimesh.creation.icosphere(subdivisions=4)), 1 / 1.02)


@pytest.fixture(scope="module")
def box() -> Mesh:
    return moved(as_mesh(trimesh.creation.box(extents=(2, 2, 2))), 1 / 1.02)


def test_near_points_have_the_spread_of_their_group() -> None:
    surface = np.zeros((3000, 3))
    moves = jitter(surface, 60_000, (0.01, 0.1), _rng(), 0.5)
    # The standard deviation of 90,000 draws is known to a quarter of a per cent.
    assert moves[:30_000].std() == pytest.approx(0.01, rel=0.01)
    assert moves[30_000:].std() == pytest.approx(0.1, rel=0.01)


def test_noise_beyond_the_limit_is_drawn_again_not_clipped() -> None:
    moves = np.abs(jitter(np.zeros((10, 3)), 30_000, (1.0,), _rng(), 0.5))
    assert moves.max() <= 0.5
    assert not (moves == 0.5).any()
    # Standard deviation of a normal cut at half of its own: 0.2840.
    assert moves.ravel().std(ddof=0) < 0.2
    assert np.sqrt((moves**2).mean()) == pytest.approx(0.2840, abs=0.003)


def test_every_surface_point_is_used_equally_often() -> None:
    surface = np.arange(300.0).reshape(100, 3)
    used = np.unique(jitter(surface, 250, (0.0,), _rng())[:, 0], return_counts=True)[1]
    assert len(used) == 100
    assert set(used) == {2, 3}


def test_a_ball_has_its_samples_and_distances(ball: Mesh) -> None:
    arrays, measurements = sample_mesh(ball, SMALL, _rng())
    assert measurements["query_points"] == 8200
    points = restore_positions(arrays["surface_points"])
    radius = np.linalg.norm(points, axis=1)
    # Faces of the ball cut up to 0.3 % off.
    assert radius == pytest.approx(1 / 1.02, abs=4e-3)
    normals = decode_normals(arrays["surface_normals"])
    assert np.einsum("ij,ij->i", points, normals).min() > 0.95
    for name, reach in (("near", NEAR_REACH), ("near_curvature", NEAR_REACH), ("space", 1.0)):
        at = restore_positions(arrays[f"{name}_points"], reach)
        expected = np.linalg.norm(at, axis=1) - 1 / 1.02
        assert arrays[f"{name}_sdf"] == pytest.approx(expected, abs=4e-3)
    assert np.abs(restore_positions(arrays["near_points"], NEAR_REACH)).max() > 1


def test_the_reference_format_has_its_names_types_and_cube(ball: Mesh) -> None:
    arrays, _ = sample_mesh(ball, replace(SMALL, format="reference"), _rng())
    assert {name: (array.shape, array.dtype) for name, array in arrays.items()} == {
        "clean_surface_points": ((5000, 3), np.float32),
        "clean_surface_normals": ((5000, 3), np.float32),
        "uniform_near_points": ((4000, 3), np.float32),
        "uniform_near_sdf": ((4000,), np.float32),
        "curvature_near_points": ((1200, 3), np.float32),
        "curvature_near_sdf": ((1200,), np.float32),
        "space_points": ((3000, 3), np.float32),
        "space_sdf": ((3000,), np.float32),
    }
    compact, _ = sample_mesh(ball, SMALL, _rng())
    same = restore_positions(compact["surface_points"]) / 2 + 0.5
    assert arrays["clean_surface_points"] == pytest.approx(same, abs=1e-5)
    distance = np.linalg.norm(arrays["space_points"] - 0.5, axis=1) - 0.5 / 1.02
    assert arrays["space_sdf"] == pytest.approx(distance, abs=2e-3)


def test_the_frame_of_the_reference_leads_to_its_cube() -> None:
    mesh = Mesh.from_arrays([[3.0, 5, 7], [13, 9, 8], [13, 5, 8]], [[0, 1, 2]])
    frame = reference_frame(fit_frame(mesh))
    assert frame["center"] == pytest.approx([8, 7, 7.5])
    assert frame["scale"] == pytest.approx(10 * 1.02)
    assert frame["scale"].dtype == frame["center"].dtype == np.float32
    assert frame["scale"].shape == ()


def test_sharp_points_lie_on_edges_or_fall_back_to_the_surface(box: Mesh, ball: Mesh) -> None:
    settings = replace(SMALL, contents="dit", sharp_points=500)
    arrays, measurements = sample_mesh(box, settings, _rng())
    assert measurements["sharp_edges"]
    points = np.sort(np.abs(restore_positions(arrays["sharp_points"])), axis=1)
    at_side = np.abs(points - 1 / 1.02) < 2e-5
    assert at_side[:, 2].all()
    # The diagonals of the sides join sharp vertices too: the edges have 24 of 24 + 6 sqrt(8).
    # Three deviations of 500 draws are 0.066.
    assert at_side[:, 1].mean() == pytest.approx(24 / (24 + 6 * 8**0.5), abs=0.066)
    arrays, measurements = sample_mesh(ball, settings, _rng())
    assert not measurements["sharp_edges"]
    assert len(arrays["sharp_points"]) == len(arrays["sharp_normals"]) == 500


def test_coarse_points_lie_near_the_mesh_and_not_on_it(ball: Mesh) -> None:
    settings = replace(SMALL, contents="dit", coarse_points=400)
    arrays, _ = sample_mesh(ball, settings, _rng())
    radius = np.linalg.norm(restore_positions(arrays["coarse_points"]), axis=1)
    assert radius == pytest.approx(1 / 1.02, abs=0.08)
    assert np.abs(radius - 1 / 1.02).mean() > 1e-3
    normals = decode_normals(arrays["coarse_normals"])
    assert len(normals) == 400
    outward = (normals * restore_positions(arrays["coarse_points"])).sum(1) / radius
    assert outward.mean() > 0.95


def test_coarse_versions_differ_from_asset_to_asset_where_asked(ball: Mesh) -> None:
    def points(spread: float, seed: int) -> np.ndarray:
        settings = replace(SMALL, contents="dit", coarse_points=400, coarse_spread=spread)
        found = sample_mesh(ball, settings, np.random.default_rng(seed))[0]["coarse_points"]
        return np.sort(np.linalg.norm(restore_positions(found), axis=1))

    # Few cells smoothed much shrink a ball's bumps differently from many smoothed little.
    alike = np.abs(points(0.0, 1) - points(0.0, 2)).mean()
    varied = max(np.abs(points(0.5, seed) - points(0.0, seed)).mean() for seed in range(4))
    assert varied > 2 * alike


def test_a_tetrahedron_is_enough() -> None:
    # Three and four faces made cross products without an axis go wrong in the reference.
    tetrahedron = Mesh.from_arrays([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]],
                                   [[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]])  # fmt: skip
    arrays, _ = sample_mesh(tetrahedron, SMALL, _rng())
    points = restore_positions(arrays["surface_points"]).astype(np.float64)
    slack = np.minimum(points.min(axis=1), np.abs(points.sum(axis=1) - 1))
    assert slack.max() < 1e-4
    assert np.isfinite(arrays["space_sdf"]).all()
