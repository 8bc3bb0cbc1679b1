import json

import numpy as np
import pytest
import trimesh

from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.rendering.cameras import (
    Camera,
    bounding_radius,
    look_at,
    view_directions,
    view_set,
)
from ultrashape_cli.rendering.renderer import render_views
from ultrashape_cli.rendering.scene import Scene


def test_the_front_camera_sees_x_to_the_right_and_y_up() -> None:
    front = view_set(1, size=512)[0]
    pixels, depth = front.project([[0, 0, 0], [0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5]])
    assert pixels[0] == pytest.approx([256, 256])
    assert pixels[1, 0] > 256
    assert pixels[2, 1] < 256
    assert depth[3] < depth[0]


def test_the_first_views_go_around() -> None:
    positions = [camera.position / np.linalg.norm(camera.position) for camera in view_set(4)]
    expected = [[0, 0, 1], [1, 0, 0], [0, 0, -1], [-1, 0, 0]]
    assert np.array(positions) == pytest.approx(np.array(expected), abs=1e-12)


def test_transforms_are_rotations_and_rays_invert_projection() -> None:
    points = np.random.default_rng(0).uniform(-1, 1, (50, 3))
    for camera in view_set(20) + view_set(4, orthographic=True) + view_set(4, seed=3):
        rotation = camera.world_to_camera[:3, :3]
        assert rotation @ rotation.T == pytest.approx(np.eye(3), abs=1e-12)
        assert np.linalg.det(rotation) == pytest.approx(1)
        pixels, depth = camera.project(points)
        origins, directions = camera.rays(pixels)
        again = origins + directions * depth[:, None]
        assert again == pytest.approx(points, abs=1e-9)


@pytest.mark.parametrize("position", [(0, 3, 0), (0, -3, 0), (1, 2, 3)])
def test_look_at_works_along_the_poles(position: tuple[float, float, float]) -> None:
    transform = look_at(position)
    assert np.linalg.det(transform[:3, :3]) == pytest.approx(1)
    assert transform @ [0, 0, 0, 1] == pytest.approx([0, 0, np.linalg.norm(position), 1])
    with pytest.raises(ValueError, match="own position"):
        look_at((0, 0, 0))


def test_the_bounding_sphere_fills_the_frame() -> None:
    ball = trimesh.creation.icosphere(subdivisions=4, radius=0.7)
    mesh = Mesh.from_arrays(ball.vertices, ball.faces)
    camera = view_set(1, radius=bounding_radius(mesh), size=1000, fill=0.88)[0]
    pixels, _ = camera.project(mesh.vertices)
    assert np.ptp(pixels, axis=0) == pytest.approx(880, rel=5e-3)


def test_view_sets_are_nested_and_spread() -> None:
    assert view_directions(40)[:16] == view_directions(16)
    views = np.array([camera.position for camera in view_set(40)])
    views /= np.linalg.norm(views, axis=1, keepdims=True)
    cosine = views @ views.T - 2 * np.eye(40)
    assert np.degrees(np.arccos(cosine.max())) > 5
    with pytest.raises(ValueError, match="at least 1"):
        view_directions(0)


def test_cameras_survive_json() -> None:
    camera = view_set(9, orthographic=True)[8]
    again = Camera.from_dict(json.loads(json.dumps(camera.to_dict())))
    assert np.array_equal(again.world_to_camera, camera.world_to_camera)
    assert (again.fx, again.cx, again.width) == (camera.fx, camera.cx, camera.width)
    assert again.orthographic


@pytest.mark.parametrize("orthographic", [False, True])
def test_known_points_project_as_the_file_says(orthographic: bool) -> None:
    """By the documented formula alone, on points that are small balls in a rendered image."""
    points = np.array([[0.5, 0.1, 0.3], [-0.4, 0.6, -0.2], [0.1, -0.7, 0.4]])
    for number, view in enumerate(view_set(7, radius=1.0, size=200, orthographic=orthographic)):
        values = json.loads(json.dumps(view.to_dict()))
        matrix = np.array(values["world_to_camera"])
        for point in points:
            q = matrix[:3, :3] @ point + matrix[:3, 3]
            depth = 1 if orthographic else q[2]
            expected = (
                values["fx"] * q[0] / depth + values["cx"],
                (values["fy"] * q[1] / depth + values["cy"]),
            )
            ball = trimesh.creation.icosphere(subdivisions=2, radius=0.05)
            mesh = Mesh.from_arrays(ball.vertices + point, ball.faces)
            alpha = next(render_views(Scene(mesh), [view], ambient_rays=0))[..., 3] / 255
            rows, columns = np.mgrid[0.5:200, 0.5:200]
            centre = (columns * alpha).sum() / alpha.sum(), (rows * alpha).sum() / alpha.sum()
            assert centre == pytest.approx(expected, abs=0.1), number


def test_rings_share_the_views_and_start_at_the_front() -> None:
    rings = view_directions(7, (0.0, 30.0, -20.0))
    assert [e for _, e in rings] == [0, 0, 0, 30, 30, -20, -20]
    assert [a for a, _ in rings] == [0, 120, 240, 0, 180, 0, 180]


def test_seeded_views_vary_and_keep_the_object_in_the_frame() -> None:
    ball = trimesh.creation.icosphere(subdivisions=3)
    cameras = view_set(12, size=1000, seed=5)
    assert len({camera.fx for camera in cameras}) == 12
    assert view_set(12, size=1000, seed=5)[3].fx == cameras[3].fx
    rolled = [camera.world_to_camera[0, 1] for camera in cameras[:4]]
    assert min(map(abs, rolled)) > 1e-4
    for camera in cameras:
        pixels, _ = camera.project(ball.vertices)
        assert 850 <= np.ptp(pixels, axis=0).max() <= 900
