"""`--accept-only-better`: the result or the input, by the reference image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh

from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.geometry.normalize import fit_frame
from ultrashape_cli.inference.acceptance import judge, likeness
from ultrashape_cli.inference.straying import measure_straying
from ultrashape_cli.inference.views import View
from ultrashape_cli.rendering.cameras import bounding_radius, view_set
from ultrashape_cli.rendering.renderer import render_views
from ultrashape_cli.rendering.scene import Scene
from ultrashape_cli.synthetic.coarsen import coarsen
from ultrashape_cli.synthetic.figurines import make_figurine


@pytest.fixture(scope="module")
def figurine() -> tuple[Mesh, Mesh, np.ndarray]:
    """A truth, its coarse version and its front view, in a frame of its own."""
    made = make_figurine(10_001, 96)
    truth = Mesh(fit_frame(made).to_normalised(made.vertices), made.faces)
    camera = view_set(1, radius=bounding_radius(truth), size=200)
    return truth, coarsen(truth), next(iter(render_views(Scene(truth), camera)))


def test_a_mesh_is_like_its_own_picture_wherever_it_stands_there(figurine) -> None:
    truth, coarse, image = figurine
    own = likeness(truth, image)
    assert own.silhouette > 0.95
    assert own.shading > 0.9
    framed = np.zeros((300, 260, 4), np.uint8)
    framed[90:290, 10:210] = image
    moved = likeness(truth, framed)
    assert moved.score == pytest.approx(own.score, abs=0.01)
    blurred = likeness(coarse, image)
    assert blurred.silhouette < own.silhouette - 0.01
    assert blurred.shading < own.shading - 0.1


def test_the_better_of_two_is_kept_and_what_strayed_never(figurine) -> None:
    truth, coarse, image = figurine
    near = measure_straying(truth, coarse)
    view = View(Path("front.png"), image, 0.0, 0.0)
    assert judge(truth, coarse, view, near).better
    assert not judge(coarse, truth, view, near).better
    ball = trimesh.creation.icosphere(3, 0.9)
    far = measure_straying(Mesh.from_arrays(ball.vertices, ball.faces), coarse)
    assert not judge(truth, coarse, view, far).better


def test_an_image_without_an_object_is_like_nothing(figurine) -> None:
    found = likeness(figurine[0], np.zeros((20, 20, 4), np.uint8))
    assert found.silhouette < 0.01
    assert found.shading == 0
