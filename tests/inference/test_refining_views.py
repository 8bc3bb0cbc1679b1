"""Refining with weights that were trained with several views."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ball_networks import SMALL, ball_networks

from ultrashape_cli.config.schema import RefineConfig
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.inference.prepared import Prepared, add_views, redrawn
from ultrashape_cli.inference.refiner import Refiner
from ultrashape_cli.inference.views import View
from ultrashape_cli.synthetic.figurines import make_figurine

CONFIG = RefineConfig(
    steps=4, grid_resolution=32, tokens=64, surface_points=2000, guidance_scale=2.0,
    view_mode="trained", max_views=3,
)  # fmt: skip


def image(shade: int) -> np.ndarray:
    pixels = np.zeros((40, 40, 4), np.uint8)
    pixels[5:35, 5 : 15 + shade // 10] = (shade, 150, 255 - shade, 255)
    return pixels


VIEWS = [
    View(Path(), image(50), 0.0, 0.0),
    View(Path(), image(120), 180.0, 0.0),
    View(Path(), image(200), 90.0, 10.0),
]


@pytest.fixture(scope="module")
def coarse() -> Mesh:
    return make_figurine(0, resolution=24)


def refiner(**changes) -> Refiner:
    networks = ball_networks()
    assert networks.dit is not None
    networks.dit.add_view_embedder()
    weight = networks.dit.get_parameter("view_embedder.weight")
    weight.data = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    return Refiner(networks, SMALL, replace(CONFIG, **changes), torch.device("cpu"))


def field(own: Refiner, coarse: Mesh, views: list[View]) -> tuple[np.ndarray, Prepared]:
    """Returns the vertices that come of some views."""
    prepared = own.prepare(coarse, 0)
    add_views(prepared, views, own.spec, own.config)
    made = own.finish(prepared, own.evaluate(prepared, views[0].rgba))
    return made.mesh.vertices, prepared


def test_views_are_shown_at_once_and_none_is_blended(coarse: Mesh) -> None:
    own = refiner()
    several, prepared = field(own, coarse, VIEWS)
    assert prepared.shares is None
    assert [prepared.share(view) for view in range(3)] == [1, 1, 1]
    passes = own.passes
    alone, _ = field(own, coarse, VIEWS[:1])
    assert own.passes == passes
    assert several.shape != alone.shape or not np.array_equal(several, alone)
    # Where they were seen from counts.
    turned = [VIEWS[0], replace_direction(VIEWS[1], 270.0), VIEWS[2]]
    other, _ = field(own, coarse, turned)
    assert other.shape != several.shape or not np.array_equal(other, several)
    _, prepared = field(refiner(view_mode="spatial"), coarse, VIEWS)
    assert prepared.shares is not None
    again = redrawn(prepared, 0, SMALL, CONFIG)
    assert again.shares is None


def replace_direction(view: View, azimuth: float) -> View:
    return View(view.path, view.rgba, azimuth, view.elevation)


def test_the_front_alone_is_what_it_was_before_views(coarse: Mesh) -> None:
    with_views, _ = field(refiner(), coarse, VIEWS[:1])
    without, _ = field(refiner(view_mode="spatial"), coarse, VIEWS[:1])
    assert np.array_equal(with_views, without)
    # An image that is said to be of another side is not taken for the front.
    back, _ = field(refiner(), coarse, [replace_direction(VIEWS[0], 180.0)])
    assert back.shape != without.shape or not np.array_equal(back, without)


@pytest.mark.parametrize(
    "changes",
    [{"cache_context": False}, {"guidance_batch": True}, {"memory": "sequential"},
     {"memory": "streamed"}],
)  # fmt: skip
def test_how_it_is_computed_makes_no_other_result(coarse: Mesh, changes: dict) -> None:
    plain, _ = field(refiner(), coarse, VIEWS)
    found, _ = field(refiner(**changes), coarse, VIEWS)
    assert found.shape == plain.shape
    assert np.allclose(found, plain, atol=1e-4)
