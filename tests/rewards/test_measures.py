"""Rewards of shapes whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import trimesh
from shapes import as_mesh, joined, moved

from ultrashape_cli.errors import ConfigError
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.rendering.cameras import bounding_radius, camera_at
from ultrashape_cli.rendering.renderer import render_views
from ultrashape_cli.rendering.scene import Scene
from ultrashape_cli.rewards.measures import THICK, Picture, chamfer_reward, faces_reward
from ultrashape_cli.rewards.table import REWARDS, Evidence, measure, parse_rewards

ANY = Evidence()


def ball(radius: float = 0.8) -> Mesh:
    return as_mesh(trimesh.creation.icosphere(3, radius))


def value(mesh: Mesh, name: str, evidence: Evidence = ANY) -> float | None:
    return measure(mesh, [name], evidence)[name]


def test_nearer_to_the_truth_is_better() -> None:
    truth = Evidence(truth=ball())
    for name in ("chamfer", "f_score", "normals"):
        same, off = value(ball(), name, truth), value(moved(ball(), 0.9), name, truth)
        assert same is not None
        assert off is not None
        # A smaller ball has the same normals, on other samples.
        assert same > off if name != "normals" else abs(same - off) < 2e-3
    far = value(moved(ball(), 0.5), "chamfer", truth)
    assert far == pytest.approx(chamfer_reward(0.4), abs=0.01)
    assert chamfer_reward(0.0) == pytest.approx(-math.log(1e-6))


def test_loose_parts_beyond_those_meant_cost_by_their_doublings() -> None:
    three = joined(ball(0.5), *(moved(ball(), 0.1, (x, 0, 0)) for x in (0.7, -0.7)))
    assert value(ball(), "components") == 0
    assert value(three, "components") == pytest.approx(-math.log2(3))
    assert value(three, "components", Evidence(truth=three)) == 0
    assert value(three, "components", Evidence(before=joined(ball(), three))) == 0
    assert value(three, "components", Evidence(truth=ball(), before=three)) < 0


def test_holes_cost_by_their_edges() -> None:
    assert value(ball(), "open_edges") == 0
    open_ball = ball().with_faces(ball().faces[1:])
    assert value(open_ball, "open_edges") == pytest.approx(-300 / (1.5 * len(open_ball.faces)))
    loose = as_mesh(trimesh.Trimesh(np.eye(3), [[0, 1, 2]]))
    assert value(loose, "open_edges") == -200


def test_a_handle_is_a_jump_and_an_open_mesh_has_none() -> None:
    ring = as_mesh(trimesh.creation.torus(0.6, 0.2))
    assert value(ball(), "genus") == 0
    assert value(ring, "genus") == -1
    assert value(ring, "genus", Evidence(truth=ring)) == 0
    assert value(ball(), "genus", Evidence(truth=ring)) == -1
    assert value(ball().with_faces(ball().faces[1:]), "genus") is None


def test_faces_that_cross_are_counted() -> None:
    pytest.importorskip("pymeshlab")
    assert value(ball(), "crossings") == 0
    crossing = value(joined(ball(0.5), moved(ball(0.5), 1.0, (0.3, 0, 0))), "crossings")
    assert crossing is not None
    assert -100 < crossing < -1


@pytest.mark.parametrize("wall", [0.01, 0.03, 0.3])
def test_the_thinnest_wall_counts_up_to_what_is_thick(wall: float) -> None:
    plate = as_mesh(trimesh.creation.box((1.0, 1.0, wall)))
    assert value(plate, "thickness") == pytest.approx(min(wall / THICK, 1.0), abs=1e-3)


def test_a_sheet_has_no_wall() -> None:
    assert value(as_mesh(trimesh.Trimesh(np.eye(3), [[0, 1, 2]])), "thickness") == 0


def test_views_are_held_against_the_side_they_show() -> None:
    box = as_mesh(trimesh.creation.box((0.5, 1.2, 1.2)))
    turned = Mesh(box.vertices[:, [2, 1, 0]].copy(), box.faces[:, ::-1].copy())
    pictures = []
    for azimuth in (0.0, 90.0):
        camera = camera_at(azimuth, 0.0, radius=bounding_radius(box), size=256)
        pictures.append(Picture(next(iter(render_views(Scene(box), [camera]))), azimuth))
    seen = Evidence(truth=box, views=pictures)
    for name in ("silhouette", "shading", "view_normals"):
        right, wrong = value(box, name, seen), value(turned, name, seen)
        assert right is not None
        assert wrong is not None
        low, high = REWARDS[name].low, REWARDS[name].high
        assert low <= wrong <= right <= high
    assert value(box, "silhouette", seen) > 0.98 > 0.7 > value(turned, "silhouette", seen)
    assert value(box, "view_normals", seen) == pytest.approx(1.0, abs=1e-3)


def test_twice_the_faces_cost_one() -> None:
    assert faces_reward(2000) - faces_reward(4000) == pytest.approx(1)
    assert value(ball(), "faces") == -math.log2(1280)


def test_every_value_is_in_its_range() -> None:
    names = [name for name in REWARDS if name != "crossings"]
    picture = Picture(np.full((8, 8, 4), 255, np.uint8))
    found = measure(ball(), names, Evidence(truth=ball(0.5), views=[picture]))
    for name, number in found.items():
        assert number is not None
        assert REWARDS[name].low <= number <= REWARDS[name].high, name


def test_what_is_not_there_is_asked_for() -> None:
    with pytest.raises(ConfigError, match="ground truth"):
        measure(ball(), ["chamfer"], ANY)
    with pytest.raises(ConfigError, match="held against images"):
        measure(ball(), ["silhouette"], ANY)


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["chamfr:1"], "did you mean `chamfer`"),
        (["chamfer:x"], "no weight above 0"),
        (["chamfer:0"], "no weight above 0"),
        (["chamfer:nan"], "no weight above 0"),
        (["chamfer:1", "chamfer:2"], "twice"),
    ],
)
def test_weights_that_mean_nothing_are_refused(texts: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_rewards(texts)


def test_weights_are_read() -> None:
    assert parse_rewards(["chamfer", "components:0.5"]) == {"chamfer": 1.0, "components": 0.5}
