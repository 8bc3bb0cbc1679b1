"""Whether a result is still the shape that was to be refined."""

from __future__ import annotations

import numpy as np
import trimesh

from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.inference.straying import NEAR, measure_straying


def _mesh(made: trimesh.Trimesh) -> Mesh:
    return Mesh(np.asarray(made.vertices), np.asarray(made.faces))


BALL = _mesh(trimesh.creation.icosphere(5, radius=0.8))


def test_detail_is_no_straying() -> None:
    bumps = 1 + 0.04 * np.sin(25 * BALL.vertices).prod(axis=1, keepdims=True)
    found = measure_straying(Mesh(BALL.vertices * bumps, BALL.faces), BALL)
    assert 0 < found.mean < 0.03
    assert found.beyond == found.lost == 0
    assert not found.strayed


def test_another_shape_has_strayed() -> None:
    found = measure_straying(_mesh(trimesh.creation.box((1.6, 1.6, 1.6))), BALL)
    assert found.strayed
    assert found.as_dict()["strayed"] is True


def test_what_is_missing_counts_as_well() -> None:
    above = BALL.vertices[BALL.faces].mean(axis=1)[:, 2] > 0
    found = measure_straying(Mesh(BALL.vertices, BALL.faces[above]), BALL)
    assert found.beyond < 0.01
    assert found.lost > 0.4
    assert found.strayed


def test_a_shift_is_told_from_the_first_step_beyond_the_limit() -> None:
    plate = _mesh(trimesh.creation.box((1.6, 0.01, 1.6)))
    near, far = (
        measure_straying(Mesh(plate.vertices + np.array([0, shift, 0]), plate.faces), plate)
        for shift in (0.7 * NEAR, 1.3 * NEAR)
    )
    assert not near.strayed
    assert far.beyond > 0.95
