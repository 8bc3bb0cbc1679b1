from __future__ import annotations

import numpy as np
import pytest
import trimesh
from scipy import ndimage
from shapes import as_mesh, joined, moved

from ultrashape_cli.errors import ImageError
from ultrashape_cli.geometry.check import topology
from ultrashape_cli.geometry.distance import DistanceField
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.inference.hull import _thickened, hull
from ultrashape_cli.rendering.cameras import bounding_radius, camera_at
from ultrashape_cli.rendering.renderer import render_views
from ultrashape_cli.rendering.scene import Scene


def outline(mesh: Mesh, azimuth: float, elevation: float = 0.0, size: int = 160) -> np.ndarray:
    camera = camera_at(
        azimuth, elevation, radius=bounding_radius(mesh), size=size, orthographic=True
    )
    return next(iter(render_views(Scene(mesh), [camera])))[..., 3] >= 128


def cut(mask: np.ndarray) -> np.ndarray:
    """Returns an outline stretched to one size."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    part = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return ndimage.zoom(part.astype(float), np.divide((128, 128), part.shape), order=1) >= 0.5


def lopsided() -> Mesh:
    """A body with an arm to +x and a long foot to +z."""
    body = as_mesh(trimesh.creation.box((0.6, 1.6, 0.5)))
    arm = moved(as_mesh(trimesh.creation.box((0.6, 0.2, 0.2))), shift=(0.6, 0.4, 0))
    foot = moved(as_mesh(trimesh.creation.box((0.4, 0.2, 0.9))), shift=(0, -0.7, 0.5))
    return joined(body, arm, foot)


def test_a_round_outline_becomes_a_ball() -> None:
    rows, columns = np.mgrid[:80, :80]
    made = hull([(rows - 40) ** 2 + (columns - 40) ** 2 < 30**2], [(0, 0)])
    state = topology(made)
    assert state.watertight
    assert state.volume > 0
    assert state.genus == 0
    radius = np.linalg.norm(made.vertices, axis=1)
    assert radius.max() / radius.min() < 1.05


def test_the_surface_lies_between_the_nodes_of_the_grid() -> None:
    rows, columns = np.mgrid[:400, :400]
    made = hull([(rows - 200) ** 2 + (columns - 200) ** 2 < 150**2], [(0, 0)])
    radius = np.linalg.norm(made.vertices, axis=1)
    # A cell is 0.023 wide; in steps of half of it the radii would differ by as much.
    assert radius.max() / radius.min() < 1.02


@pytest.mark.parametrize("size", [300, 1200])
def test_what_is_thinner_than_a_cell_is_not_lost(size: int) -> None:
    mask = np.zeros((size + 20, size + 20), bool)
    mask[10 : 10 + size, size // 2] = True
    mask[10 : 10 + size // 5, size // 2 - size // 20 : size // 2 + size // 20] = True
    made = hull([mask], [(0, 0)])
    state = topology(made)
    assert (state.components, state.watertight) == (1, True)
    assert made.extents[1] / made.extents[0] == pytest.approx(10, rel=0.1)


def test_corners_are_not_taken_for_thin_parts() -> None:
    mask = np.zeros((200, 200), bool)
    mask[20:180, 60:140] = True
    assert np.array_equal(_thickened(mask), mask)
    mask[100, 140:190] = True
    grown = _thickened(mask)
    assert grown[:90].sum() == mask[:90].sum()
    assert grown[100 - 1 : 100 + 2, 150:180].all()


def test_a_hole_in_the_outline_is_a_hole_and_two_parts_are_two() -> None:
    mask = np.zeros((80, 120), bool)
    mask[10:70, 10:70] = True
    mask[30:50, 30:50] = False
    mask[20:60, 85:110] = True
    state = topology(hull([mask], [(0, 0)]))
    assert state.components == 2
    assert state.watertight
    assert state.genus == 1


@pytest.mark.parametrize("directions", [[(0, 0)], [(0, 0), (90, 0)], [(0, 0), (90, 0), (0, 90)]])
def test_the_shape_casts_the_outlines_it_was_made_of(directions) -> None:
    mesh = lopsided()
    made = hull([outline(mesh, *d) for d in directions], directions)
    assert topology(made).watertight
    for direction in directions:
        wanted, found = (cut(outline(each, *direction)) for each in (mesh, made))
        assert (wanted & found).sum() / (wanted | found).sum() > 0.95


def test_two_views_know_the_depth_that_one_does_not() -> None:
    mesh = lopsided()
    field = DistanceField(made := hull([outline(mesh, 0), outline(mesh, 90)], [(0, 0), (90, 0)]))
    scale = made.extents[1] / mesh.extents[1]
    inside = np.array([[0, -0.7, 0.85], [0.8, 0.4, 0.0], [0, 0.6, 0]]) - mesh.bounds.mean(0)
    outside = np.array([[0, 0.6, 0.7], [-0.7, 0.4, 0]]) - mesh.bounds.mean(0)
    assert field.contains(inside * scale).all()
    assert not field.contains(outside * scale).any()


def test_pictures_need_not_be_of_one_scale() -> None:
    mesh = lopsided()
    small = outline(mesh, 90, size=80)
    one = hull([outline(mesh, 0), outline(mesh, 90)], [(0, 0), (90, 0)])
    other = hull([outline(mesh, 0), small], [(0, 0), (90, 0)])
    assert np.allclose(one.extents, other.extents, atol=0.05)


def test_what_no_shape_casts_is_told() -> None:
    with pytest.raises(ImageError, match="shows no object"):
        hull([np.zeros((9, 9), bool)], [(0, 0)])
    falling = np.zeros((90, 90), bool)
    falling[:40, :40] = falling[50:, 50:] = True
    told = []
    # Two blocks in opposite corners; of two views from above one shows the other two.
    for above in (falling, falling[::-1]):
        try:
            hull([falling, falling, above], [(0, 0), (90, 0), (0, 90)])
        except ImageError as error:
            told.append(error.message)
    assert len(told) == 1
    assert "no point in common" in told[0]
