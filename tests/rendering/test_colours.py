"""Colours carried from a source to a mesh without texture coordinates."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.geometry.normalize import Frame
from ultrashape_cli.meshfiles.appearance import Appearance, Material
from ultrashape_cli.rendering.cameras import view_set
from ultrashape_cli.rendering.colours import SurfaceColours
from ultrashape_cli.rendering.film import from_srgb
from ultrashape_cli.rendering.renderer import render_views
from ultrashape_cli.rendering.scene import Scene
from ultrashape_cli.rendering.shading import CLAY_ALBEDO

FRAME = Frame((0.0, 0.0, 0.0), 1.0)
NORMAL = np.array([[0, 0, 1]], np.float32)


def square(material: Material, tint: int = 255, z: float = 0.0, linear: bool = True) -> Appearance:
    """A square of side 2 whose u runs along x and v along y, both from 0 to 1."""
    corners = np.array([[-1, -1, z], [1, -1, z], [1, 1, z], [-1, 1, z]])
    mesh = Mesh.from_arrays(corners, [[0, 1, 2], [0, 2, 3]])
    uv = ((mesh.triangles[..., :2] + 1) / 2).astype(np.float32)
    colours = np.full((2, 3, 4), tint, np.uint8)
    return Appearance(mesh, uv, colours, linear, np.zeros(2, np.int32), [material])


def at(appearance: Appearance, x: float, y: float, z: float = 0.0) -> np.ndarray:
    colours = SurfaceColours(appearance, FRAME)
    return colours.at(np.array([[x, y, z]], np.float32), NORMAL)[0]


def quarters() -> np.ndarray:
    """Red upper left, green upper right, blue lower left, white lower right."""
    texels = np.full((64, 64, 4), 255, np.uint8)
    texels[:32, :32, :3] = (255, 0, 0)
    texels[:32, 32:, :3] = (0, 255, 0)
    texels[32:, :32, :3] = (0, 0, 255)
    return texels


WHITE = (1.0, 1.0, 1.0, 1.0)


def test_texture_coordinates_run_up() -> None:
    source = square(Material(WHITE, quarters()))
    assert at(source, -0.5, 0.5) == pytest.approx([0.8, 0, 0, 1])
    assert at(source, 0.5, 0.5) == pytest.approx([0, 0.8, 0, 1])
    assert at(source, -0.5, -0.5) == pytest.approx([0, 0, 0.8, 1])
    assert at(source, 0.5, -0.5) == pytest.approx([0.8, 0.8, 0.8, 1])


def test_near_and_far_points_agree() -> None:
    """A point beyond the reach of the ray takes the closest point, which is the same one here."""
    source = square(Material(WHITE, quarters()))
    assert at(source, -0.5, 0.5, 0.3) == pytest.approx(at(source, -0.5, 0.5, 0.001))


def test_textures_are_srgb_factors_linear_and_interpolation_is_linear() -> None:
    grey = np.full((4, 4, 4), 128, np.uint8)
    level = float(from_srgb(np.array(128 / 255)))
    value = at(square(Material((0.5, 1.0, 1.0, 1.0), grey)), 0.1, 0.2)
    assert value[:3] == pytest.approx([0.4 * level, 0.8 * level, 0.8 * level], rel=1e-4)
    step = np.zeros((1, 2, 4), np.uint8)
    step[0, 1] = 255
    assert at(square(Material(WHITE, step)), 0.0, 0.0)[0] == pytest.approx(0.4, abs=1e-3)


def test_vertex_colours_follow_their_space() -> None:
    level = float(from_srgb(np.array(100 / 255)))
    material = Material(WHITE)
    assert at(square(material, 100), 0, 0)[0] == pytest.approx(0.8 * 100 / 255)
    assert at(square(material, 100, linear=False), 0, 0)[0] == pytest.approx(0.8 * level, rel=1e-4)


def test_what_has_no_colour_is_clay() -> None:
    clay = [CLAY_ALBEDO] * 3 + [1]
    assert at(square(Material()), 0, 0) == pytest.approx(clay)
    broken = square(Material(WHITE, quarters()))
    broken.uv[:] = np.nan
    assert at(broken, 0.3, 0.3) == pytest.approx(clay)
    broken.uv[:] = np.inf
    assert at(broken, 0.3, 0.3) == pytest.approx(clay)


def test_huge_texture_coordinates_repeat() -> None:
    source = square(Material(WHITE, quarters()))
    source.uv += np.float32(1024)
    assert at(source, -0.5, 0.5) == pytest.approx([0.8, 0, 0, 1])
    source.uv *= np.float32(1e30)
    assert np.isfinite(at(source, -0.5, 0.5)).all()


def test_a_face_at_infinity_is_passed_over() -> None:
    source = square(Material(WHITE, quarters()))
    source.mesh.vertices[3] = np.inf
    assert at(source, 0.5, -0.5) == pytest.approx([0.8, 0.8, 0.8, 1])


def test_a_view_looks_through_the_holes_of_a_mask() -> None:
    """A red square with a hole before a smaller plain one: the hole shows it, and the ground."""
    texels = np.full((64, 64, 4), 255, np.uint8)
    texels[..., 1:3] = 0
    texels[16:48, 16:48, 3] = 0
    front = square(Material(WHITE, texels, cutoff=0.5), z=0.3)
    back = square(Material((0.0, 1.0, 0.0, 1.0)), z=-0.3)
    corners = np.concatenate([front.mesh.vertices, back.mesh.vertices * (0.2, 0.2, 1)])
    mesh = Mesh.from_arrays(corners, np.concatenate([front.mesh.faces, back.mesh.faces + 4]))
    both = Appearance(
        mesh, np.concatenate([front.uv, back.uv]), np.concatenate([front.tint, back.tint]), True,
        np.array([0, 0, 1, 1], np.int32), [*front.materials, *back.materials],
    )  # fmt: skip
    scene = Scene(mesh, SurfaceColours(both, FRAME))
    for orthographic in (False, True):
        (camera,) = view_set(1, radius=1.5, size=128, orthographic=orthographic)
        image = next(render_views(scene, [camera])).astype(int)
        assert image[64, 64, 1] > image[64, 64, 0] + 60
        assert image[64, 64, 3] == 255
        rim = image[64, int(camera.project([[-0.8, 0, 0.3]])[0][0, 0])]
        assert rim[0] > rim[1] + 60
        hole = camera.project([[-0.4, 0.3, 0.3]])[0][0].astype(int)
        assert image[hole[1], hole[0], 3] == 0


def test_a_white_texture_does_not_clip() -> None:
    ball = trimesh.creation.icosphere(subdivisions=3, radius=0.9)
    mesh = Mesh.from_arrays(ball.vertices, ball.faces)
    count = len(mesh.faces)
    white = Appearance(
        mesh, np.zeros((count, 3, 2), np.float32), np.full((count, 3, 4), 255, np.uint8), True,
        np.zeros(count, np.int32), [Material(WHITE)],
    )  # fmt: skip
    scene = Scene(mesh, SurfaceColours(white, FRAME))
    for image in render_views(scene, view_set(4, size=96), lights="random"):
        inside = image[..., 3] > 0
        assert (image[inside][:, :3].max(axis=1) == 255).mean() < 0.005
