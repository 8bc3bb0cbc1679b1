import numpy as np
import pytest
import trimesh

from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.rendering.cameras import bounding_radius, view_set
from ultrashape_cli.rendering.normals import corner_normals
from ultrashape_cli.rendering.renderer import render_views
from ultrashape_cli.rendering.scene import Scene
from ultrashape_cli.rendering.shading import hammersley, pixel_shifts


@pytest.fixture(scope="module")
def ball() -> Mesh:
    shape = trimesh.creation.icosphere(subdivisions=4, radius=0.9)
    return Mesh.from_arrays(shape.vertices, shape.faces)


@pytest.fixture(scope="module")
def image(ball: Mesh) -> np.ndarray:
    return next(render_views(Scene(ball), view_set(1, radius=0.9, size=256)))


def test_the_mask_of_a_ball_is_a_disc(image: np.ndarray) -> None:
    assert image.shape == (256, 256, 4)
    area = image[..., 3].sum() / 255
    assert area == pytest.approx(np.pi / 4 * (0.88 * 256) ** 2, rel=4e-3)
    rows, columns = np.nonzero(image[..., 3] > 127)
    assert (rows.min() + rows.max(), columns.min() + columns.max()) == pytest.approx((255, 255))


def test_the_ground_is_transparent_and_edges_are_soft(image: np.ndarray) -> None:
    assert image[0, 0].tolist() == [0, 0, 0, 0]
    assert len(np.unique(image[..., 3])) > 5


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
    image = next(render_views(Scene(mesh), view_set(1, size=256)))
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
    alone, shaded = (
        next(render_views(Scene(ball), cameras)),
        next(render_views(Scene(both), cameras)),
    )
    covered = (alone[..., 3] == 255) & (shaded[..., 3] == 255)
    darker = alone[..., 0].astype(int) - shaded[..., 0]
    assert (darker[covered] > 40).mean() > 0.02


def test_the_same_arguments_give_the_same_bytes(ball: Mesh, image: np.ndarray) -> None:
    again = next(render_views(Scene(ball), view_set(1, radius=0.9, size=256)))
    assert np.array_equal(image, again)


def test_both_sides_of_a_sheet_are_drawn() -> None:
    square = Mesh.from_arrays(
        [[-0.5, -0.5, 0], [0.5, -0.5, 0], [0.5, 0.5, 0], [-0.5, 0.5, 0.0]], [[0, 1, 2], [0, 2, 3]]
    )
    cameras = [view_set(3, size=64)[k] for k in (0, 2)]
    front, back = render_views(Scene(square), cameras)
    assert front[32, 32].tolist() == back[32, 32].tolist()


def test_a_mesh_out_of_view_gives_an_empty_image(ball: Mesh) -> None:
    aside = Mesh(ball.vertices + np.array([50.0, 0, 0]), ball.faces)
    assert not next(render_views(Scene(aside), view_set(1, size=64))).any()


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


def test_a_radius_holds_all_vertices(ball: Mesh) -> None:
    assert bounding_radius(ball) == pytest.approx(0.9)


def test_the_noise_is_below_38_db(ball: Mesh) -> None:
    """Against 64 times the rays without the filter, over the object, with a shadow on it."""
    plate = trimesh.creation.box(extents=(0.6, 0.05, 0.6))
    plate.apply_translation([-0.5, 1.0, 0.7])
    both = Scene(
        Mesh.from_arrays(
            np.concatenate([ball.vertices, plate.vertices]),
            np.concatenate([ball.faces, plate.faces + len(ball.vertices)]),
        )
    )
    cameras = view_set(1, radius=1.6, size=128)
    usual = next(render_views(both, cameras))
    many = {"ambient_rays": 5 * 64, "shadow_rays": 3 * 64, "filter_size": 1}
    reference = next(render_views(both, cameras, **many))
    inside = reference[..., 3] > 0
    error = np.square(usual[inside].astype(float) - reference[inside])[:, :3].mean()
    assert 10 * np.log10(255**2 / error) > 38


@pytest.mark.parametrize("lights", ["studio", "soft", "random"])
def test_no_rig_clips_a_ball(ball: Mesh, lights) -> None:
    cameras = view_set(6, radius=0.9, size=96)
    images = list(render_views(Scene(ball), cameras, lights=lights))
    for image in images:
        inside = image[..., 3] == 255
        assert (image[inside][:, :3].max(axis=1) == 255).mean() < 0.005
        assert 60 < image[inside][:, :3].mean() < 215
    again = list(render_views(Scene(ball), cameras, lights=lights))
    assert all(np.array_equal(a, b) for a, b in zip(images, again, strict=True))
    if lights == "random":
        other = next(render_views(Scene(ball), cameras, lights=lights, seed=1))
        assert not np.array_equal(other, images[0])
        assert not np.array_equal(images[0], images[2])


def test_parallel_rays_draw_the_size_that_the_camera_says(ball: Mesh) -> None:
    image = next(render_views(Scene(ball), view_set(1, radius=0.9, size=200, orthographic=True)))
    assert image[..., 3].sum() / 255 == pytest.approx(np.pi / 4 * 176**2, rel=4e-3)


def test_light_does_not_leak_into_a_closed_box() -> None:
    """Through a small window the inside of a box is seen far darker than its outside."""
    box = trimesh.creation.box(extents=(1.6, 1.6, 1.6))
    front = np.flatnonzero(box.face_normals[:, 2] > 0.5)
    solid = Mesh.from_arrays(box.vertices, box.faces)
    open_box = Mesh.from_arrays(box.vertices, np.delete(box.faces, front, axis=0))
    cameras = view_set(1, radius=bounding_radius(solid), size=96)
    closed, inner = (next(render_views(Scene(m), cameras)) for m in (solid, open_box))
    # The upper left corner inside faces away from the key light.
    assert inner[40:44, 40:44, 0].mean() < 0.75 * closed[40:44, 40:44, 0].mean()


def test_one_face_and_a_speck_are_drawn() -> None:
    face = Mesh.from_arrays([[0, 0, 0], [1, 0, 0], [0, 1, 0.0]], [[0, 1, 2]])
    image = next(render_views(Scene(face), view_set(1, radius=bounding_radius(face), size=64)))
    assert (image[..., 3] > 0).sum() > 100
    # Far smaller than a pixel: there may be nothing to see, but nothing fails.
    speck = Mesh(face.vertices * 1e-5, face.faces)
    assert next(render_views(Scene(speck), view_set(1, size=64)))[..., 3].sum() < 256


def test_a_camera_inside_the_mesh_is_refused(ball: Mesh) -> None:
    with pytest.raises(ValueError, match="behind the camera"):
        next(render_views(Scene(ball), view_set(1, radius=0.1, size=32)))
