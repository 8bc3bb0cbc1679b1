import itertools

import numpy as np
import pytest
import trimesh
from shapes import as_mesh, joined, moved

from ultrashape_cli.geometry.bricks import BrickGrid
from ultrashape_cli.geometry.check import topology
from ultrashape_cli.geometry.isosurface import extract_isosurface
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.watertight.ladder import make_watertight
from ultrashape_cli.watertight.tunnels import _is_pillar, _is_simple, close_tunnels

SIDE = 23


def _grid(inside: np.ndarray) -> BrickGrid:
    """A grid of 24^3 nodes: inside, outside with few outside neighbours (close), and the rest."""
    crowd = sum(
        np.roll(inside, shift, (0, 1, 2)) for shift in itertools.product((-1, 0, 1), repeat=3)
    )
    values = np.where(inside, -0.3, np.clip(1.2 - crowd / 20, 0.3, 0.9))
    return BrickGrid.from_nodes(SIDE, np.argwhere(np.ones(inside.shape, bool)), values.ravel())


def _genus_and_parts(grid: BrickGrid) -> tuple[float, int]:
    state = topology(Mesh(*extract_isosurface(grid)))
    assert state.solid
    return state.genus, state.components


def _plate_with_hole(width: int) -> np.ndarray:
    inside = np.zeros((SIDE + 1,) * 3, bool)
    inside[4:20, 4:20, 10:13] = True
    inside[10 : 10 + width, 10, 10:13] = False
    return inside


def test_a_tunnel_of_one_node_is_closed_by_one_layer() -> None:
    grid = _grid(_plate_with_hole(1))
    assert _genus_and_parts(grid) == (1, 1)
    assert close_tunnels(grid) == 1
    assert _genus_and_parts(grid) == (0, 1)


def test_a_tunnel_away_from_the_surface_stays_open() -> None:
    grid = _grid(_plate_with_hole(1))
    grid.set(np.array([[10, 10, k] for k in range(24)]), np.full(24, 0.6))
    assert close_tunnels(grid) == 0
    assert _genus_and_parts(grid) == (1, 1)


def test_a_gap_between_two_bodies_stays_open() -> None:
    inside = np.zeros((SIDE + 1,) * 3, bool)
    inside[4:20, 4:20, 5:10] = inside[4:20, 4:20, 11:16] = True
    grid = _grid(inside)
    assert close_tunnels(grid) == 0
    assert _genus_and_parts(grid) == (0, 2)


def _parts_opposite_corners(around: np.ndarray) -> bool:
    """Whether only two opposite corners of a cell are outside, with the centre in or out.

    There alone marching cubes parts outside nodes that the rules join.
    """
    for centre, at in itertools.product((True, False), itertools.product((0, 1), repeat=3)):
        nodes = around.copy()
        nodes[1, 1, 1] = centre
        cell = nodes[tuple(slice(i, i + 2) for i in at)].ravel()
        if (~cell).sum() == 2 and any(not (cell[i] or cell[7 - i]) for i in range(4)):
            return True
    return False


def test_the_rules_for_single_nodes_agree_with_the_surface() -> None:
    """Turning a simple node changes neither genus nor parts; cutting a pillar lowers their sum."""
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(300):
        around = rng.random((3, 3, 3)) < rng.choice([0.3, 0.6, 0.85])
        around[1, 1, 1] = True
        if _parts_opposite_corners(around):
            continue
        bits = sum(1 << i for i, value in enumerate(around.ravel()) if value and i != 13)
        euler = []
        for centre in (True, False):
            inside = np.zeros((SIDE + 1,) * 3, bool)
            inside[8:11, 8:11, 8:11] = around
            inside[9, 9, 9] = centre
            state = topology(Mesh(*extract_isosurface(_grid(inside))))
            euler.append(state.euler if state.components else 0)
        if _is_simple(bits):
            assert euler[0] == euler[1]
        if _is_pillar(bits):
            assert euler[1] > euler[0]
        seen.add((_is_simple(bits), _is_pillar(bits)))
    assert seen == {(True, False), (False, True), (False, False)}


def test_layers_closer_than_a_cell_make_no_handles(sphere: Mesh) -> None:
    """Two shells that nearly coincide leave nodes between them only here and there."""
    patch = sphere.with_faces(sphere.faces[sphere.triangles[:, :, 2].mean(axis=1) > 0.2])
    cell = 2 / (64 - 8)
    doubled = joined(sphere, moved(patch, 1.0, (0.1 * cell, 0, 0.6 * cell)))
    result = make_watertight(doubled, 64)
    assert result.rung == "remesh"
    assert topology(result.mesh).genus == 0


@pytest.mark.parametrize(("hole", "genus"), [(0.15, 0), (3.0, 1)])
def test_holes_of_a_torus_close_only_below_a_cell(hole: float, genus: int) -> None:
    cell = 2 / (64 - 8)
    minor = (1 - hole * cell / 2) / 2
    ring = trimesh.creation.torus(1 - minor, minor, major_sections=128, minor_sections=64)
    result = make_watertight(as_mesh(ring), 64, first_rung="remesh")
    assert topology(result.mesh).genus == genus
