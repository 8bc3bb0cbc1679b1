from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from golden_data import assert_near, load_golden, load_strictly, vae_params
from torch import Tensor

from ultrashape_cli.errors import MeshError
from ultrashape_cli.geometry.isosurface import extract_isosurface
from ultrashape_cli.inference.decode import (
    coarsest_cells,
    decode_field,
    fitting_chunk,
    level_cells,
    place_vertices,
    reference_level_cells,
)
from ultrashape_cli.inference.node_sets import NodeSet
from ultrashape_cli.models.registry import model_spec
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
    assert coarsest_cells(0.01) == 63
    assert level_cells(128, coarsest_cells(0.04)) == [32, 64, 128]


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
        placed = place_vertices(
            vertices, cells[-1], box=box, reference_resolution=case["octree_resolution"]
        )
        bounds = np.stack([placed.min(0), placed.max(0)])
        assert np.allclose(bounds, case["mesh_bounds"], atol=1e-4)
        corners = placed[faces]
        volume = np.einsum("ij,ij->i", corners[:, 0], np.cross(corners[:, 1], corners[:, 2]))
        # Marching cubes tables differ in ambiguous cells and in how cells are triangulated.
        assert volume.sum() / 6 == pytest.approx(case["mesh_volume"], rel=1e-3)


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


@pytest.mark.parametrize("shift", [0.0, 0.3, 0.5])
def test_the_coarsest_level_sees_sheets_and_rods_thinner_than_its_cells(shift):
    truncation = 0.04
    cells = level_cells(128, coarsest_cells(truncation))
    middle = shift * 2 / cells[0]

    def field(points: Tensor) -> Tensor:
        p = points - middle
        sheet = torch.maximum(p[:, 0].abs() - 0.01, p.norm(dim=1) - 0.7)
        rod = torch.maximum(p[:, 1:].norm(dim=1) - 0.02, p[:, 0].abs() - 0.8)
        return (-torch.minimum(sheet, rod) / truncation).clamp(-1, 1)

    sparse, full = (decode_field(field, 128, cells=c) for c in (cells, [128]))
    a, b = (extract_isosurface(grid, 0.0, inside="positive") for grid in (sparse, full))
    assert len(a[1]) == len(b[1]) > 0
    assert np.isfinite(sparse.values).mean() < 0.8


def signed_distance(shape: str, cells: int):
    """A field in units of the truncation: two cells, as narrow as a band may be."""
    generator = torch.Generator().manual_seed(cells)
    centre = 0.2 * torch.rand(3, generator=generator) - 0.1
    truncation = 4.0 / cells

    def field(points: Tensor) -> Tensor:
        p = points - centre
        if shape == "ball":
            distance = p.norm(dim=1) - 0.57
        elif shape == "ring":
            distance = torch.stack([p[:, :2].norm(dim=1) - 0.5, p[:, 2]], 1).norm(dim=1) - 0.13
        elif shape == "box":
            outside = p.abs() - torch.tensor([0.5, 0.31, 0.22])
            distance = outside.clamp(min=0).norm(dim=1) + outside.amax(1).clamp(max=0)
        else:  # two balls that nearly touch, one of them small
            small = (p - torch.tensor([0.57, 0.0, 0.0])).norm(dim=1) - 0.1
            distance = torch.minimum(p.norm(dim=1) - 0.46, small)
        return (-distance / truncation).clamp(-1, 1)

    return field


@pytest.mark.parametrize("shape", ["ball", "ring", "box", "pair"])
@pytest.mark.parametrize("cells", [64, 128, 256, 512])
def test_sparse_equals_dense_around_every_surface_cell(shape, cells):
    field = signed_distance(shape, cells)
    grid = decode_field(field, cells, min_resolution=31)
    assert np.isfinite(grid.values).mean() < 0.8 or cells == 64
    # Layers of the dense grid, two nodes thick: all of them, or at 512 cells one of sixteen.
    axis = torch.arange(cells + 1) * (2.0 / cells) - 1
    surface_cells = 0
    for start in range(0, cells, 1 if cells <= 64 else cells // 32):
        x, y, z = torch.meshgrid(axis[start : start + 2], axis, axis, indexing="ij")
        values = field(torch.stack([x, y, z], -1).reshape(-1, 3)).view(x.shape).numpy()
        inside = values > 0
        corners = np.stack(
            [
                inside[i, j : j + cells, k : k + cells]
                for i in (0, 1)
                for j in (0, 1)
                for k in (0, 1)
            ]
        )
        cut = np.argwhere(corners.any(0) & ~corners.all(0))
        surface_cells += len(cut)
        for i, j, k in np.ndindex(2, 2, 2):
            nodes = np.concatenate(
                [np.full((len(cut), 1), start + i), cut + np.array([j, k])], axis=1
            )
            assert np.array_equal(grid.get(nodes), values[i, nodes[:, 1], nodes[:, 2]])
    assert surface_cells > cells


@pytest.mark.parametrize("cells", [63, 100, 128, 256, 504])
def test_a_sphere_is_placed_within_a_fiftieth_of_a_cell(cells):
    centre = np.array([0.013, -0.021, 0.007])
    smallest = 31 if cells % 4 == 0 else 63
    grid = decode_field(sphere(0.61, tuple(centre)), cells, min_resolution=smallest)
    assert grid.num_cells == cells
    vertices, faces = extract_isosurface(grid, 0.0, inside="positive")
    points = place_vertices(vertices, grid.num_cells)
    corners = points[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert ((corners.mean(1) - centre) * normals).sum(1).min() >= 0
    areas = np.linalg.norm(normals, axis=1)
    middle = (corners.mean(1) * areas[:, None]).sum(0) / areas.sum()
    assert np.abs(middle - centre).max() < 1e-4
    radius = np.linalg.norm(points - centre, axis=1)
    assert np.abs(radius - 0.61).max() * cells / 2 < 0.02
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    forward, back = (e[:, 0] * len(points) + e[:, 1] for e in (edges, edges[:, ::-1]))
    assert len(np.unique(forward)) == len(forward)
    # Closed, and every neighbour turned the same way.
    assert np.array_equal(np.sort(forward), np.sort(back))


def test_a_ball_between_two_coarse_nodes_is_found():
    # Spacing 1/32: no coarse node is inside, yet the nearest ones lie within the truncation.
    centre = (1 / 64, 1 / 64, 1 / 64)
    field = sphere(0.012, centre, truncation=0.02)
    coarse = decode_field_values(field, 64)
    assert (coarse < 0).all()
    grid = decode_field(field, 512)
    vertices, _ = extract_isosurface(grid, 0.0, inside="positive")
    radius = np.linalg.norm(vertices * (2 / 512) - 1 - centre, axis=1)
    assert np.abs(radius - 0.012).max() * 256 < 0.06  # three cells thin


def decode_field_values(field, cells: int) -> np.ndarray:
    nodes = np.stack(np.meshgrid(*[np.arange(cells + 1)] * 3, indexing="ij"), -1).reshape(-1, 3)
    return field(torch.from_numpy(nodes * (2.0 / cells) - 1)).numpy()


def test_the_sign_is_taken_around_the_level():
    # Saturated on both sides of level 2 and positive everywhere: adding the level hides the step.
    def field(points: Tensor) -> Tensor:
        return torch.where((points - 0.01).norm(dim=1) < 0.5, 5.0, 1.0)

    sparse = decode_field(field, 64, min_resolution=31, level=2.0)
    full = decode_field(field, 64, cells=[64], level=2.0)
    a, b = (extract_isosurface(g, 2.0, inside="positive") for g in (sparse, full))
    assert len(sparse.coords) < len(full.coords)
    assert len(a[1]) == len(b[1]) > 0


@pytest.mark.parametrize("value", [-1.0, 1.0, 0.5])
def test_a_single_level_without_surface_is_an_error_too(value):
    with pytest.raises(MeshError, match="no surface"):
        decode_field(lambda p: torch.full((len(p),), value), 16, cells=[16])


def test_memory_bounds_the_chunks():
    _, field = golden_field()
    sizes = []

    class Watched:
        bytes_per_query = field.bytes_per_query

        def __call__(self, points: Tensor) -> Tensor:
            sizes.append(len(points))
            return sphere(0.4)(points)

    gib = 1000.5 * field.bytes_per_query / 2**30
    assert fitting_chunk(field, gib) == 1000
    decode_field(Watched(), 64, min_resolution=31, max_memory_gib=gib)
    assert max(sizes) == 1000
    assert fitting_chunk(field, 1e-9) == 256
    assert fitting_chunk(field) >= 256  # half of the free memory
    assert fitting_chunk(lambda p: p) == 8000


def test_what_torch_keeps_for_later_counts_as_free(monkeypatch: pytest.MonkeyPatch) -> None:
    # As in training: the card is all reserved, and most of it is not in use.
    free = [2**20]
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: free.append(2**30))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free[-1], 2**31))
    field = SimpleNamespace(bytes_per_query=2**15)
    assert fitting_chunk(field, None, "cuda") == 2**14


def test_chunks_of_a_group_share_their_keys():
    golden, field = golden_field()
    points = golden["query_points"][0]
    whole, cut = field.query_group(points, 5), field.query_group(points, 5, 7)
    assert torch.allclose(whole, cut, atol=1e-5)


def test_coordinates_and_field_stay_in_fp32():
    seen = set()

    def field(points: Tensor) -> Tensor:
        seen.add(points.dtype)
        return sphere(0.4)(points).half()

    grid = decode_field(field, 64, min_resolution=31)
    assert seen == {torch.float32}
    assert grid.values.dtype == np.float32


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


def test_the_reference_placement_is_smaller_and_off_centre():
    middle = place_vertices(np.full((1, 3), 504.0), 1008, reference_resolution=1024)
    assert np.allclose(middle, -0.01659, atol=1e-5)
    side = np.diff(
        place_vertices(np.array([[0.0] * 3, [1008.0] * 3]), 1008, reference_resolution=1024), axis=0
    )
    assert np.allclose(side / 2, 0.98341, atol=1e-5)
    ends = place_vertices(np.array([[0.0] * 3, [1008.0] * 3]), 1008)
    assert ends.tolist() == [[-1.0] * 3, [1.0] * 3]


def test_key_selection_works_with_a_single_head():
    params = replace(model_spec("tiny").vae, num_heads=1)
    torch.manual_seed(0)
    vae = ShapeVAE(params, parts=("decoder",))
    with torch.no_grad():
        field = vae.field(vae.decode(torch.randn(1, 30, params.latent_channels)))
        assert field.query_group(torch.rand(40, 3), 5).shape == (40,)


def test_a_field_has_one_shape():
    vae = ShapeVAE(model_spec("tiny").vae, parts=("decoder",))
    with pytest.raises(ValueError, match="batch of 2"):
        vae.field(torch.zeros(2, 5, vae.params.width))
