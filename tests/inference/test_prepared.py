from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh
from shapes import as_mesh

from ultrashape_cli.config.schema import RefineConfig
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.inference.prepared import Prepared, add_views, prepare_mesh, redrawn
from ultrashape_cli.inference.views import View
from ultrashape_cli.models.registry import model_spec

SPEC = model_spec("tiny")
CONFIG = RefineConfig(region="side=x", tokens=200, surface_points=4000)


@pytest.fixture
def split_ball() -> Mesh:
    """A ball whose faces share no vertices, as STL has it."""
    ball = trimesh.creation.icosphere(3)
    corners = ball.vertices[ball.faces].reshape(-1, 3)
    return as_mesh(trimesh.Trimesh(corners, np.arange(len(corners)).reshape(-1, 3), process=False))


def drawn(prepared: Prepared) -> list[np.ndarray]:
    assert prepared.weights is not None
    return [prepared.mesh.vertices, prepared.voxels.numpy(), prepared.weights.numpy()]


def test_what_another_seed_draws_is_what_it_draws_alone(split_ball: Mesh) -> None:
    alone = prepare_mesh(split_ball, 5, SPEC, CONFIG)
    first = prepare_mesh(split_ball, 0, SPEC, CONFIG)
    other = redrawn(first, 5, SPEC, CONFIG)
    assert not np.array_equal(first.voxels, other.voxels)
    for ours, theirs in zip(drawn(other), drawn(alone), strict=True):
        assert np.array_equal(ours, theirs)


def test_another_setting_leaves_the_first_as_it_was(split_ball: Mesh) -> None:
    first = prepare_mesh(split_ball, 0, SPEC, CONFIG)
    image = np.full((8, 8, 4), 255, np.uint8)
    views = [View(Path("a.png"), image, azimuth, 0.0) for azimuth in (0.0, 90.0, 180.0)]
    add_views(first, views, SPEC, replace(CONFIG, max_views=2))
    kept = [first.share(view) for view in range(3)]
    assert sorted(kept)[0] == 0
    assert sum(kept) == pytest.approx(1)
    other = redrawn(first, 0, SPEC, replace(CONFIG, view_mode="mean", region_feather=1))
    assert [other.share(view) for view in range(3)] == pytest.approx([1 / 3] * 3)
    assert [first.share(view) for view in range(3)] == kept
    assert first.region is not None
    assert other.region is not None
    assert first.region.feather > other.region.feather
