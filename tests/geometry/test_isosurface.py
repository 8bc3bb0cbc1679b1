import numpy as np
import pytest

from ultrashape_cli.geometry.bricks import BrickGrid
from ultrashape_cli.geometry.check import topology
from ultrashape_cli.geometry.isosurface import extract_isosurface
from ultrashape_cli.geometry.mesh import Mesh


def all_nodes(num_cells: int) -> np.ndarray:
    return np.argwhere(np.ones((num_cells + 1,) * 3, bool))


def extracted(num_cells: int, values: np.ndarray, **options) -> Mesh:
    grid = BrickGrid.from_nodes(num_cells, all_nodes(num_cells), values)
    return Mesh(*extract_isosurface(grid, **options))


def test_values_come_back_from_their_nodes_and_nan_from_elsewhere() -> None:
    nodes = np.array([[0, 0, 0], [17, 3, 30], [32, 32, 32]])
    grid = BrickGrid.from_nodes(32, nodes, np.array([1.0, 2.0, 3.0]))
    assert grid.index.shape == (5, 5, 5)
    assert grid.get(nodes).tolist() == [1, 2, 3]
    assert np.isnan(grid.get(np.array([[0, 0, 1], [20, 20, 20], [99, 0, 0], [-1, 0, 0]]))).all()
    found = grid.nodes(~np.isnan(grid.values))
    assert sorted(map(tuple, found.tolist())) == sorted(map(tuple, nodes.tolist()))


def test_nodes_outside_the_grid_are_refused() -> None:
    with pytest.raises(ValueError, match="must lie in"):
        BrickGrid.from_nodes(8, np.array([[9, 0, 0]]), np.array([0.0]))
    grid = BrickGrid.from_nodes(32, np.array([[0, 0, 0]]), np.array([0.0]))
    with pytest.raises(ValueError, match="not allocated"):
        grid.set(np.array([[20, 0, 0]]), np.array([0.0]))


@pytest.mark.parametrize("num_cells", [12, 31, 32, 63])
@pytest.mark.parametrize("inside", ["negative", "positive"])
def test_a_sphere_is_closed_centred_and_outward(num_cells: int, inside: str) -> None:
    centre, radius = num_cells / 2, num_cells / 3
    distance = np.linalg.norm(all_nodes(num_cells) - centre, axis=1) - radius
    mesh = extracted(num_cells, distance if inside == "negative" else -distance, inside=inside)
    state = topology(mesh)
    assert state.watertight
    assert state.genus == 0
    assert state.volume == pytest.approx(4 / 3 * np.pi * radius**3, rel=3 / radius**2)
    assert mesh.bounds.mean(axis=0) == pytest.approx([centre] * 3, abs=1e-4)
    # A chord of one cell leaves a sphere by 1 / (8 R); a linear field error adds as much.
    error = np.abs(np.linalg.norm(mesh.vertices - centre, axis=1) - radius)
    assert error.max() < 0.3 / radius


def test_a_level_offsets_the_surface() -> None:
    distance = np.linalg.norm(all_nodes(40) - 20.0, axis=1) - 10
    radius = np.linalg.norm(extracted(40, distance, level=3.0).vertices - 20, axis=1)
    assert radius == pytest.approx(13, abs=0.05)


def test_a_torus_keeps_its_hole() -> None:
    x, y, z = (all_nodes(48) - 24.0).T
    state = topology(extracted(48, np.hypot(np.hypot(x, y) - 14, z) - 6))
    assert state.watertight
    assert state.genus == 1


@pytest.mark.parametrize("rounded", [False, True])
def test_noise_gives_a_closed_manifold(rounded: bool) -> None:
    """Noise meets every case of the table; rounding puts many nodes exactly on the level."""
    nodes = all_nodes(30)
    values = np.random.default_rng(0).normal(size=len(nodes))
    if rounded:
        values = np.round(values)
    values[((nodes == 0) | (nodes == 30)).any(axis=1)] = 1
    mesh = extracted(30, values)
    assert topology(mesh).watertight
    assert mesh.area_faces.min() > 0


def test_cells_with_an_unknown_corner_are_skipped() -> None:
    nodes = all_nodes(20)
    distance = np.linalg.norm(nodes - 10.0, axis=1) - 6
    distance[nodes[:, 0] > 10] = np.nan
    mesh = extracted(20, distance)
    assert mesh.vertices[:, 0].max() <= 10
    assert not topology(mesh).closed


def test_a_field_without_a_surface_gives_empty_arrays() -> None:
    vertices, faces = extract_isosurface(BrickGrid.allocate(16, np.zeros((0, 3), int)))
    assert vertices.shape == (0, 3)
    assert faces.shape == (0, 3)
    assert len(extracted(10, np.ones(11**3)).faces) == 0
