from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from ultrashape_cli.errors import DiskError
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.rendering.cameras import bounding_radius, view_set
from ultrashape_cli.rendering.renderer import render_views, save_png
from ultrashape_cli.rendering.shading import corner_normals, hammersley, pixel_shifts, to_srgb


@pytest.fixture(scope="module")
def ball() -> Mesh:
    shape = trimesh.creation.icosphere(subdivisions=4, radius=0.9)
    return Mesh.from_arrays(shape.vertices, shape.faces)


@pytest.fixture(scope="module")
def image(ball: Mesh) -> np.ndarray:
    return next(render_views(ball, view_set(1, radius=0.9, size=256)))


def test_the_mask_of_a_ball_is_a_disc(image: np.ndarray) -> None:
    assert image.shape == (256, 256, 4)
    area = image[..., 3].sum() / 255
    assert area == pytest.approx(np.pi / 4 * (0.88 * 256) ** 2, rel=4e-3)
    rows, columns = np.nonzero(image[..., 3] > 127)
    assert (rows.min() + rows.max(), columns.min() + columns.max()) == pytest.approx((255, 255))


def test_the_ground_is_transparent_and_edges_are_soft(image: np.ndarray) -> None:
    assert image[0, 0].tolist() == [0, 0, 0, 0]
    assert len(np.unique(image[..., 3])) == 5


def test_alpha_is_straight(image: np.ndarray) -> None:
    """An edge pixel keeps the brightness of the surface; it is not darkened by its coverage."""
    alpha, grey = image[..., 3], image[..., 0].astype(int)
    for y, x in np.argwhere((alpha > 0) & (alpha < 255)):
        around = np.s_[max(y - 3, 0) : y + 4, max(x - 3, 0) : x + 4]
        assert grey[y, x] > 0.6 * grey[around][alpha[around] == 255].min()


def test_brightness_is_neither_clipped_nor_dull(image: np.ndarray) -> None:
    solid = image[..., 0][image[..., 3] == 255]
    assert (solid == 255).mean() < 0.005
    assert 90 < solid.mean() < 210
    assert np.ptp(solid) > 80


def test_light_comes_from_the_upper_left(image: np.ndarray) -> None:
    assert image[90, 90, 0] > image[170, 170, 0] + 30


def test_a_coarse_ball_shows_no_shadow_steps() -> None:
    """Smooth normals on flat faces: the lit side must not be broken by its own facets."""
    shape = trimesh.creation.icosphere(subdivisions=2)
    mesh = Mesh.from_arrays(shape.vertices, shape.faces)
    image = next(render_views(mesh, view_set(1, size=256)))
    grey = image[64:192, 64:192, 0].astype(float)
    steps = np.abs(np.diff(grey, axis=1))
    assert np.quantile(steps, 0.999) < 10


def test_visibility_noise_is_low(image: np.ndarray) -> None:
    grey = image[96:160, 96:160, 0].astype(float)
    bend = grey[1:-1, 1:-1] - (grey[1:-1, :-2] + grey[1:-1, 2:]) / 2
    assert bend.std() < 1.0


def test_an_occluder_casts_a_shadow(ball: Mesh) -> None:
    cameras = view_set(1, radius=1.6, size=128)
    plate = trimesh.creation.box(extents=(0.6, 0.05, 0.6))
    plate.apply_translation([-0.5, 1.2, 0.7])
    both = Mesh.from_arrays(
        np.concatenate([ball.vertices, plate.vertices]),
        np.concatenate([ball.faces, plate.faces + len(ball.vertices)]),
    )
    alone, shaded = next(render_views(ball, cameras)), next(render_views(both, cameras))
    covered = (alone[..., 3] == 255) & (shaded[..., 3] == 255)
    darker = alone[..., 0].astype(int) - shaded[..., 0]
    assert (darker[covered] > 40).mean() > 0.02


def test_the_same_arguments_give_the_same_bytes(ball: Mesh, image: np.ndarray) -> None:
    again = next(render_views(ball, view_set(1, radius=0.9, size=256)))
    assert np.array_equal(image, again)


def test_both_sides_of_a_sheet_are_drawn() -> None:
    square = Mesh.from_arrays(
        [[-0.5, -0.5, 0], [0.5, -0.5, 0], [0.5, 0.5, 0], [-0.5, 0.5, 0.0]], [[0, 1, 2], [0, 2, 3]]
    )
    cameras = [view_set(3, size=64)[k] for k in (0, 2)]
    front, back = render_views(square, cameras)
    assert front[32, 32].tolist() == back[32, 32].tolist()


def test_a_mesh_out_of_view_gives_an_empty_image(ball: Mesh) -> None:
    aside = Mesh(ball.vertices + np.array([50.0, 0, 0]), ball.faces)
    assert not next(render_views(aside, view_set(1, size=64))).any()


def test_creases_stay_sharp_and_smooth_parts_smooth(ball: Mesh) -> None:
    box = trimesh.creation.box()
    cube = Mesh.from_arrays(box.vertices, box.faces)
    assert corner_normals(cube) == pytest.approx(
        np.repeat(cube.face_normals[:, None], 3, axis=1), abs=1e-6
    )
    smooth = np.einsum("fck,fck->fc", corner_normals(ball), ball.triangles / 0.9)
    assert smooth.min() > 0.999


def test_sample_patterns_are_even() -> None:
    points = hammersley(16)
    assert np.histogram2d(*points.T, bins=4, range=[[0, 1]] * 2)[0].max() == 1
    shifts = pixel_shifts(4, 0).reshape(-1, 2)
    assert np.histogram2d(*shifts.T, bins=4, range=[[0, 1]] * 2)[0].max() == 1


def test_srgb_of_known_values() -> None:
    assert to_srgb(np.array([0.0, 0.0031308, 0.2140411, 1.0, 2.0])) == pytest.approx(
        [0, 0.04045, 0.5, 1, 1], abs=1e-4
    )


def test_a_png_is_written_in_one_step(tmp_path: Path, image: np.ndarray) -> None:
    save_png(image, tmp_path / "views" / "000.png")
    with Image.open(tmp_path / "views" / "000.png") as loaded:
        assert np.array_equal(np.asarray(loaded), image)
    assert [p.name for p in (tmp_path / "views").iterdir()] == ["000.png"]
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError):
        save_png(image, tmp_path / "file" / "000.png")


def test_a_radius_holds_all_vertices(ball: Mesh) -> None:
    assert bounding_radius(ball) == pytest.approx(0.9)
