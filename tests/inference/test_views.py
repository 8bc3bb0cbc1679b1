from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh
from shapes import as_mesh, joined, moved

from ultrashape_cli.errors import UsageError
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.inference.view_files import ViewFile
from ultrashape_cli.inference.view_shares import facing, shares, useful
from ultrashape_cli.inference.views import place_views
from ultrashape_cli.rendering.cameras import bounding_radius, camera_at
from ultrashape_cli.rendering.renderer import render_views
from ultrashape_cli.rendering.scene import Scene


@pytest.fixture(scope="module")
def lopsided() -> Mesh:
    """A body with an arm to +x, a foot to +z and a hump on its back, above: no side is another."""
    body = as_mesh(trimesh.creation.box((0.6, 1.6, 0.5)))
    arm = moved(as_mesh(trimesh.creation.box((0.6, 0.2, 0.2))), shift=(0.6, 0.4, 0))
    foot = moved(as_mesh(trimesh.creation.box((0.3, 0.2, 0.7))), shift=(0, -0.7, 0.5))
    hump = moved(as_mesh(trimesh.creation.icosphere(2, 0.3)), shift=(-0.1, 0.6, -0.3))
    return joined(body, arm, foot, hump)


def seen(mesh: Mesh, azimuth: float, elevation: float = 0) -> np.ndarray:
    camera = camera_at(azimuth, elevation, radius=bounding_radius(mesh), size=160)
    return next(iter(render_views(Scene(mesh), [camera])))


def placed(mesh: Mesh, image: np.ndarray, direction: tuple[float, float] | None):
    return place_views(mesh, [ViewFile(Path("it.png"), direction)], [image], 0.6)[0]


@pytest.mark.parametrize("azimuth", [0, 90, 180, 247.5])
def test_a_camera_is_found_by_the_outline(lopsided: Mesh, azimuth: float) -> None:
    view = placed(lopsided, seen(lopsided, azimuth), None)
    assert (view.azimuth, view.elevation) == (azimuth, 0)
    assert view.overlap > 0.95
    assert f"({view.overlap:.0%})" in view.note


def test_a_right_view_is_taken_without_a_word(lopsided: Mesh) -> None:
    view = placed(lopsided, seen(lopsided, 120, 15), (120, 15))
    assert view.overlap > 0.95
    assert view.note == ""


def test_a_mirrored_view_is_refused(lopsided: Mesh) -> None:
    image = seen(lopsided, 45)[:, ::-1]
    with pytest.raises(UsageError, match=r"it.png looks mirrored: .* when left and right"):
        placed(lopsided, image, (45, 0))


def test_another_side_is_refused_with_the_one_that_fits(lopsided: Mesh) -> None:
    with pytest.raises(UsageError, match=r"covers \d+% of the mesh seen from `front`; from 90,0"):
        placed(lopsided, seen(lopsided, 90), (0, 0))


def test_another_object_fits_from_no_side(lopsided: Mesh) -> None:
    ring = as_mesh(trimesh.creation.torus(0.8, 0.08))
    image = seen(ring, 0, 90)
    with pytest.raises(UsageError, match="from none of 16 sides"):
        placed(lopsided, image, None)
    free = place_views(lopsided, [ViewFile(Path("it.png"), (0, 0))], [image], 0.0)[0]
    assert free.overlap < 0.4


def test_front_and_back_of_a_like_outline_are_told_by_their_shade() -> None:
    base = as_mesh(trimesh.creation.icosphere(4, 0.8))
    bumpy = base.vertices.copy()
    front = bumpy[:, 2] > 0.2
    bumpy[front] *= 1 + 0.05 * np.sin(25 * bumpy[front, :1]) * np.sin(25 * bumpy[front, 1:2])
    mesh = Mesh(bumpy, base.faces)
    view = placed(mesh, seen(mesh, 0), (180, 0))
    assert "more like the mesh from `front`" in view.note


# Shares.


def tokens(mesh: Mesh, resolution: int = 16) -> np.ndarray:
    points = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False).sample(20_000)
    return np.unique(np.floor((points + 1) / 2 * resolution).astype(np.int64), axis=0)


def test_tokens_listen_to_the_view_that_they_face() -> None:
    mesh = as_mesh(trimesh.creation.icosphere(4, 0.9))
    voxels = tokens(mesh)
    found = shares(facing(mesh, voxels, 16, [(0, 0), (180, 0)]), "spatial")
    assert np.allclose(found.sum(0), 1, atol=1e-5)
    z = (voxels[:, 2] + 0.5) / 8 - 1
    assert found[0][z > 0.7].min() > 0.9
    assert found[1][z < -0.7].min() > 0.9
    assert np.allclose(found[0][abs(z) < 0.05], 0.5, atol=0.15)
    assert np.all(shares(np.array([[1.0], [0.2]], np.float32), "mean") == 0.5)


def test_what_is_hidden_is_not_seen() -> None:
    wall = moved(as_mesh(trimesh.creation.box((1.8, 1.8, 0.1))), shift=(0, 0, 0.8))
    ball = moved(as_mesh(trimesh.creation.icosphere(3, 0.4)), shift=(0, 0, -0.5))
    mesh = joined(wall, ball)
    voxels = tokens(mesh)
    of_ball = voxels[:, 2] < 8
    front, back = facing(mesh, voxels, 16, [(0, 0), (180, 0)])
    assert front[of_ball].max() == 0
    assert front[~of_ball].max() > 0.6
    assert back[of_ball].max() > 0.8


def test_views_that_add_nothing_are_not_asked() -> None:
    mesh = as_mesh(trimesh.creation.icosphere(3, 0.9))
    seen_from = facing(mesh, tokens(mesh), 16, [(0, 0), (2, 0), (180, 0), (181, 1)])
    asked = useful(seen_from, 6)
    assert asked[0] == 0
    assert len(asked) == 2
    assert asked[1] in (2, 3)
    assert useful(seen_from, 1) == [0]
