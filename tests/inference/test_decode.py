import numpy as np
import pytest
import torch
from golden_data import assert_near, load_golden, load_strictly, vae_params
from torch import Tensor

from ultrashape_cli.errors import MeshError
from ultrashape_cli.geometry.isosurface import extract_isosurface
from ultrashape_cli.inference.decode import decode_field, level_cells, reference_level_cells
from ultrashape_cli.inference.node_sets import NodeSet
from ultrashape_cli.models.vae import ShapeVAE


def sphere(radius: float, centre=(0.0, 0.0, 0.0), truncation: float = 0.05):
    middle = torch.tensor(centre)

    def field(points: Tensor) -> Tensor:
        return ((radius - (points - middle).norm(dim=1)) / truncation).clamp(-1, 1)

    return field


def recorded_field(points: Tensor) -> Tensor:
    """The field described in volume_decode_analytic.json."""
    p = points - torch.tensor([0.0131, -0.0273, 0.0317])
    ball = (p - torch.tensor([-0.35, -0.1, 0.2])).norm(dim=1) - 0.3
    ring = torch.stack([p[:, :2].norm(dim=1) - 0.62, p[:, 2]], dim=1).norm(dim=1) - 0.12
    return (-torch.minimum(ball, ring) / 0.05).clamp(-1, 1)


def dense(grid) -> np.ndarray:
    nodes = np.stack(np.meshgrid(*[np.arange(grid.num_cells + 1)] * 3, indexing="ij"), -1)
    return grid.get(nodes.reshape(-1, 3)).reshape(nodes.shape[:3])


def test_levels_halve_down_to_the_smallest_allowed():
    assert level_cells(1024) == [64, 128, 256, 512, 1024]
    assert level_cells(100) == [100]
    assert level_cells(128, 15) == [16, 32, 64, 128]


def test_reference_levels_match_the_specification():
    assert reference_level_cells(1024) == [63, 126, 252, 504, 1008]
    assert reference_level_cells(512) == [63, 126, 252, 504]
    assert reference_level_cells(384) == [95, 190, 380]
    assert reference_level_cells(128) == [63, 126]


def test_evaluated_nodes_match_the_recording_exactly():
    golden = load_golden("volume_decode_analytic")
    for name, case in golden.info["cases"].items():
        cells = reference_level_cells(case["octree_resolution"], case.get("min_resolution", 63))
        box = golden.info["bounds"]
        grid = decode_field(recorded_field, cells[-1], box=box, cells=cells)
        values = dense(grid)
        side = case["grid_points_per_axis"]
        assert values.shape == (side,) * 3
        packed = golden[f"{name}.evaluated_packed"].numpy()
        expected = np.unpackbits(packed)[: side**3].reshape(values.shape).astype(bool)
        assert np.array_equal(~np.isnan(values), expected)
        assert expected.sum() == case["evaluated"]
        if f"{name}.grid_f16" in golden:
            recorded = golden[f"{name}.grid_f16"].numpy()
            # The recording is in half precision, 11 bits.
            assert np.abs(values - recorded)[expected].max() < 1e-3
        vertices, faces = extract_isosurface(grid, 0.0, inside="positive")
        assert len(vertices) == case["mesh_vertices"]
        # The reference maps a node to index / (resolution + 1), not to its true place.
        factor = 2 * box / (case["octree_resolution"] + 1)
        bounds = np.stack([vertices.min(0), vertices.max(0)]) * factor - box
        assert np.allclose(bounds, case["mesh_bounds"], atol=1e-4)
        corners = vertices[faces]
        volume = np.einsum("ij,ij->i", corners[:, 0], np.cross(corners[:, 1], corners[:, 2]))
        # Marching cubes tables differ in ambiguous cells and in how cells are triangulated.
        assert volume.sum() / 6 * factor**3 == pytest.approx(case["mesh_volume"], rel=1e-3)


def golden_field():
    golden = load_golden("vae_tiny")
    vae = ShapeVAE(vae_params(golden.info["config"]))
    load_strictly(vae, golden)
    with torch.no_grad():
        return golden, vae.field(golden["decoded"][:1])


def test_a_single_level_matches_the_recorded_dense_grid():
    golden, field = golden_field()
    names = [n for n in golden.tensors if n.startswith("dense_grid_r")]
    assert names
    for name in names:
        cells, box = name.removeprefix("dense_grid_r").split("_bounds")
        grid = decode_field(field, int(cells), box=float(box), cells=[int(cells)])
        assert_near(torch.from_numpy(dense(grid)), golden[name])


def test_top_keys_match_the_recorded_grid():
    golden, field = golden_field()
    names = [n for n in golden.tensors if n.startswith("flash_topk_grid_r")]
    assert names
    for name in names:
        resolution, rest = name.removeprefix("flash_topk_grid_r").split("_min")
        smallest, box = rest.split("_bounds")
        grid = decode_field(
            field, int(resolution), box=float(box), min_resolution=int(smallest), keys="topk"
        )
        values, expected = torch.from_numpy(dense(grid)), golden[name]
        assert torch.equal(values.isnan(), expected.isnan())
        assert_near(values.nan_to_num(), expected.nan_to_num())


def test_a_sphere_comes_out_in_place_at_full_size():
    centre = np.array([0.1, -0.2, 0.05])
    grid = decode_field(sphere(0.6, tuple(centre)), 128, min_resolution=31)
    vertices, faces = extract_isosurface(grid, 0.0, inside="positive")
    points = vertices * (2 / grid.num_cells) - 1
    radius = np.linalg.norm(points - centre, axis=1)
    assert np.abs(radius - 0.6).max() < 1e-3
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    assert (np.unique(edges, axis=0, return_counts=True)[1] == 2).all()


def test_refinement_loses_nothing_of_the_surface():
    field = sphere(0.5, (0.3, 0.1, -0.2), truncation=0.02)
    sparse = decode_field(field, 64, min_resolution=15)
    full = decode_field(field, 64, cells=[64])
    a, b = (extract_isosurface(g, 0.0, inside="positive") for g in (sparse, full))
    assert len(sparse.coords) < len(full.coords)
    assert len(a[1]) == len(b[1])
    assert np.allclose(np.sort(a[0], axis=0), np.sort(b[0], axis=0))


def test_another_level_moves_the_surface():
    grid = decode_field(sphere(0.6), 64, min_resolution=31, level=0.5)
    vertices, _ = extract_isosurface(grid, 0.5, inside="positive")
    radius = np.linalg.norm(vertices * (2 / grid.num_cells) - 1, axis=1)
    assert np.abs(radius - 0.575).max() < 2e-3


def test_chunks_do_not_change_the_result():
    a, b = (
        decode_field(sphere(0.4), 64, min_resolution=31, chunk_size=size) for size in (999, 10**6)
    )
    assert np.array_equal(a.values, b.values, equal_nan=True)


def test_progress_reaches_the_total_of_every_level():
    calls: list[tuple[int, int, int]] = []
    decode_field(sphere(0.4), 64, min_resolution=31, progress=lambda *c: calls.append(c))
    last = {level: (done, total) for level, done, total in calls}
    assert sorted(last) == [0, 1]
    assert all(done == total for done, total in last.values())


@pytest.mark.parametrize(("value", "word"), [(-1.0, "outside"), (1.0, "inside")])
def test_a_field_without_surface_is_an_error(value, word):
    with pytest.raises(MeshError, match=f"no surface.*{word}"):
        decode_field(lambda p: torch.full((len(p),), value), 64, min_resolution=31)


def test_a_field_that_is_not_finite_is_an_error():
    with pytest.raises(MeshError, match="not finite"):
        decode_field(lambda p: p[:, 0] / 0, 64, min_resolution=31)


@pytest.mark.parametrize("cells", [7, 8, 20, 31])
def test_dilation_equals_a_maximum_filter(cells):
    from scipy.ndimage import binary_dilation

    flags = np.random.default_rng(cells).random((cells + 1,) * 3) < 0.01
    grown = NodeSet.from_nodes(cells, np.argwhere(flags)).dilate().nodes()
    result = np.zeros_like(flags)
    result[tuple(grown.T)] = True
    assert np.array_equal(result, binary_dilation(flags, np.ones((3, 3, 3))))
