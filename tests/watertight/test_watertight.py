import numpy as np
import pytest
import trimesh
from shapes import as_mesh, joined, moved

from ultrashape_cli.errors import MeshError
from ultrashape_cli.geometry.check import topology
from ultrashape_cli.geometry.distance import DistanceField
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.watertight.caps import cap_holes
from ultrashape_cli.watertight.ladder import make_watertight
from ultrashape_cli.watertight.orient import orient_outward
from ultrashape_cli.watertight.remesh import drop_specks, remesh
from ultrashape_cli.watertight.scatter import split_triangles

SPHERE_VOLUME = 4 / 3 * np.pi


def assert_solid(mesh: Mesh) -> None:
    state = topology(mesh)
    assert state.watertight
    assert state.volume > 0


def test_topology_of_known_shapes(sphere: Mesh, torus: Mesh, punctured_sphere: Mesh) -> None:
    assert topology(sphere).watertight
    assert topology(sphere).genus == 0
    assert topology(torus).genus == 1
    assert topology(punctured_sphere).boundary_edges > 0
    assert topology(joined(sphere, torus)).components == 2
    flipped = sphere.faces.copy()
    flipped[0] = flipped[0, ::-1]
    assert topology(Mesh(sphere.vertices, flipped)).inconsistent_edges == 3


def test_three_faces_at_an_edge_are_not_manifold() -> None:
    fan = Mesh.from_arrays(np.eye(5, 3), [[0, 1, 2], [0, 1, 3], [0, 1, 4]])
    assert topology(fan).nonmanifold_edges == 1


def test_a_closed_mesh_is_kept_bit_exact(torus: Mesh) -> None:
    result = make_watertight(torus)
    assert result.rung == "keep"
    assert np.array_equal(result.mesh.vertices, torus.vertices)
    assert np.array_equal(result.mesh.faces, torus.faces)


def test_an_inside_out_mesh_is_turned(sphere: Mesh) -> None:
    result = make_watertight(sphere.flipped())
    assert result.rung == "keep"
    assert np.array_equal(result.mesh.vertices, sphere.vertices)
    assert result.mesh.volume > 0


def test_a_soup_is_welded_and_oriented(soup: Mesh, sphere: Mesh) -> None:
    result = make_watertight(soup)
    assert result.rung == "repair"
    assert_solid(result.mesh)
    assert result.mesh.volume == pytest.approx(sphere.volume)


def test_a_punctured_sphere_is_capped(punctured_sphere: Mesh) -> None:
    result = make_watertight(punctured_sphere)
    assert result.rung == "repair"
    assert_solid(result.mesh)
    assert np.array_equal(result.mesh.vertices, punctured_sphere.vertices)
    cap = np.pi * 0.1**2 * (3 - 0.1) / 3
    assert result.mesh.volume == pytest.approx(SPHERE_VOLUME - cap, rel=5e-3)


def test_an_open_cut_is_capped(sphere: Mesh) -> None:
    """A bust: a third of the sphere is cut away with its base left open."""
    bust = sphere.with_faces(sphere.faces[sphere.triangles[:, :, 2].mean(axis=1) > -0.5])
    result = make_watertight(bust, resolution=64)
    assert_solid(result.mesh)
    assert DistanceField(result.mesh).contains(np.array([[0.0, 0, 0], [0, 0, -0.4]])).all()


def test_a_bowl_becomes_a_shell_not_a_solid(sphere: Mesh) -> None:
    bowl = sphere.with_faces(sphere.faces[sphere.triangles[:, :, 2].mean(axis=1) < 0])
    result = make_watertight(bowl, resolution=64)
    assert result.rung == "remesh"
    assert_solid(result.mesh)
    assert not DistanceField(result.mesh).contains(np.array([[0.0, 0, -0.2]])).any()
    cell = 2 / 56
    assert result.mesh.volume == pytest.approx(2 * np.pi * cell, rel=0.1)


def test_a_hole_lid_follows_a_star_shaped_outline() -> None:
    angle = np.arange(40) * 2 * np.pi / 40
    radius = np.where(np.arange(40) % 2, 1.0, 0.4)
    rim = np.stack([radius * np.cos(angle), radius * np.sin(angle), np.zeros(40)], axis=1)
    ring = np.arange(40)
    apex = np.full(40, 40)
    cone = Mesh.from_arrays(
        np.concatenate([rim, [[0, 0, 3.0]]]), np.stack([ring, np.roll(ring, -1), apex], axis=1)
    )
    capped = cap_holes(cone)
    assert capped.num_caps == 1
    assert_solid(capped.mesh)
    base_area = 40 / 2 * 0.4 * np.sin(2 * np.pi / 40)
    assert capped.mesh.volume == pytest.approx(base_area * 3 / 3)


@pytest.mark.parametrize("resolution", [64, 128])
def test_remeshing_moves_a_sphere_by_less_than_its_facets(sphere: Mesh, resolution: int) -> None:
    result, _ = remesh(sphere, resolution)
    assert_solid(result)
    cell = 2 / (resolution - 8)
    distance, _ = DistanceField(sphere).unsigned(result.vertices)
    # Interpolation errs by h^2 / 8 R inside a cell, and next to the edges of the facets, which
    # meet at 0.04, by a small part of a cell.
    assert distance.max() < 0.3 * cell**2 + 0.01 * cell
    assert result.volume == pytest.approx(sphere.volume, rel=2 * cell**2)
    assert topology(result).components == 1


def test_remeshing_works_in_any_frame(torus: Mesh) -> None:
    far = moved(torus, 1e4, (1e6, -3e6, 5e5))
    result, _ = remesh(far, 64)
    assert_solid(result)
    assert topology(result).genus == 1
    assert result.volume == pytest.approx(far.volume, rel=0.01)


def test_remeshing_is_deterministic(soup: Mesh) -> None:
    first, second = (remesh(soup, 48)[0] for _ in range(2))
    assert np.array_equal(first.vertices, second.vertices)
    assert np.array_equal(first.faces, second.faces)


def test_a_box_on_the_grid_lines_is_reproduced(cube: Mesh) -> None:
    result, _ = remesh(cube, 40)
    assert_solid(result)
    assert result.volume == pytest.approx(8, rel=0.01)
    assert topology(result).components == 1


def test_overlapping_bodies_become_one_surface(cube: Mesh) -> None:
    both = joined(cube, moved(cube, shift=(1, 0.3, 0.2)))
    result = make_watertight(both, resolution=64)
    assert result.rung == "remesh"
    assert topology(result.mesh).components == 1
    assert result.mesh.volume == pytest.approx(16 - 1 * 1.7 * 1.8, rel=0.02)


def test_a_doubled_shell_loses_its_hidden_layer(sphere: Mesh) -> None:
    doubled = joined(sphere, moved(sphere, 0.9))
    result = make_watertight(doubled, resolution=64)
    assert result.rung == "remesh"
    assert topology(result.mesh).components == 1
    assert result.mesh.volume == pytest.approx(SPHERE_VOLUME, rel=0.01)


def test_bodies_apart_are_kept(cube: Mesh) -> None:
    result = make_watertight(joined(cube, moved(cube, shift=(3, 0, 0))))
    assert result.rung == "keep"
    assert result.measurements["components"] == 2


def test_a_sheet_gets_a_thickness_everywhere() -> None:
    grid = np.stack(np.meshgrid([0.0, 1], [0.0, 1], indexing="ij"), axis=-1).reshape(-1, 2)
    vertices = np.column_stack([grid, 0.3 * grid[:, 0]])
    sheet = Mesh.from_arrays(vertices, [[0, 2, 1], [1, 2, 3]])
    result = make_watertight(sheet, resolution=64)
    assert_solid(result.mesh)
    assert topology(result.mesh).components == 1
    cell = 1 / 56
    probes = np.random.default_rng(0).random((2000, 2))
    inside = DistanceField(result.mesh).contains(np.column_stack([probes, 0.3 * probes[:, 0]]))
    assert inside.all()
    assert np.sqrt(1.09) * cell == pytest.approx(result.mesh.volume, rel=0.1)


def test_a_plate_thinner_than_a_cell_is_not_lost() -> None:
    plate = as_mesh(trimesh.creation.box(extents=(1, 1, 0.002)))
    opened = plate.with_faces(plate.faces[2:])
    result, figures = remesh(opened, 64)
    assert_solid(result)
    assert figures["thickened_pieces"] > 0
    probes = np.random.default_rng(0).uniform(-0.49, 0.49, (2000, 2))
    assert DistanceField(result).contains(np.column_stack([probes, np.zeros(2000)])).all()


def test_a_fin_stays_attached_to_its_body(sphere: Mesh) -> None:
    fin = Mesh.from_arrays([[0.0, 0, -0.5], [1.8, 0, -0.5], [1.8, 0, 0.5], [0, 0, 0.5]],
                           [[0, 1, 2], [0, 2, 3]])  # fmt: skip
    result = make_watertight(joined(sphere, fin), resolution=96)
    assert topology(result.mesh).components == 1


def test_lost_specks_are_dropped_but_never_everything(sphere: Mesh) -> None:
    small = moved(as_mesh(trimesh.creation.icosahedron()), 0.1, (3, 0, 0))
    cleaned, count = drop_specks(joined(sphere, small))
    assert count == 1
    assert len(cleaned.faces) == len(sphere.faces)
    assert drop_specks(small)[1] == 0


def test_needles_split_into_few_pieces() -> None:
    needle = np.array([[[0.0, 0, 0], [500, 0, 0], [500, 0.01, 0]]])
    pieces, face = split_triangles(needle, 10.0)
    assert len(pieces) < 200
    assert (face == 0).all()
    area = np.linalg.norm(
        np.cross(pieces[:, 1] - pieces[:, 0], pieces[:, 2] - pieces[:, 0], axis=1), axis=1
    )
    assert area.sum() / 2 == pytest.approx(2.5)


def test_orienting_keeps_cavities(sphere: Mesh) -> None:
    hollow = joined(sphere, moved(sphere, 0.5).flipped())
    assert orient_outward(hollow.flipped()).volume == pytest.approx(hollow.volume)


def test_impossible_requests_are_refused(punctured_sphere: Mesh) -> None:
    with pytest.raises(MeshError, match="out of range"):
        remesh(punctured_sphere, 4096)
    with pytest.raises(MeshError, match="GiB"):
        remesh(punctured_sphere, 256, max_memory_bytes=10**6)
    with pytest.raises(MeshError, match="without faces"):
        make_watertight(Mesh.from_arrays(np.zeros((3, 3)), np.zeros((0, 3))))
    with pytest.raises(MeshError, match="degenerate"):
        make_watertight(Mesh.from_arrays(np.eye(3), [[0, 0, 1]]))
