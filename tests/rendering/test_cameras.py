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
    for camera in view_set(20):
        rotation = camera.world_to_camera[:3, :3]
        assert rotation @ rotation.T == pytest.approx(np.eye(3), abs=1e-12)
        assert np.linalg.det(rotation) == pytest.approx(1)
        pixels, depth = camera.project(points)
        again = camera.position + camera.rays(pixels) * depth[:, None]
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
    camera = view_set(9)[8]
    again = Camera.from_dict(json.loads(json.dumps(camera.to_dict())))
    assert np.array_equal(again.world_to_camera, camera.world_to_camera)
    assert (again.fx, again.cx, again.width) == (camera.fx, camera.cx, camera.width)
