"""Procedural figurines: closed, different, the same for a seed, with the detail they claim."""

from __future__ import annotations

import numpy as np
import pytest

from ultrashape_cli.geometry.check import topology
from ultrashape_cli.geometry.roughness import laplacian_roughness
from ultrashape_cli.synthetic.blends import EXTENT, Part, Pattern, Shape, blend_mesh, limb, turn
from ultrashape_cli.synthetic.figurines import figurine_parts, make_figurine


def _solid(*parts: Part, resolution: int = 64):
    return blend_mesh(parts, resolution)


def _ball(**options) -> Part:
    return Part(shape=Shape.ELLIPSOID, centre=(0, 0, 0), size=(0.6, 0.6, 0.6), **options)


@pytest.mark.parametrize("resolution", [24, 64])
def test_every_figurine_is_closed_and_inside_the_cube(resolution: int) -> None:
    for seed in range(12):
        mesh = make_figurine(seed, resolution)
        assert topology(mesh).watertight
        assert mesh.volume > 0
        assert np.abs(mesh.vertices).max() < EXTENT


def test_a_seed_gives_one_figurine_and_another_seed_another() -> None:
    first, again, other = (make_figurine(seed, 32) for seed in (3, 3, 4))
    assert np.array_equal(first.vertices, again.vertices)
    assert first.vertices.shape != other.vertices.shape


def test_all_kinds_and_patterns_turn_up() -> None:
    parts = [part for seed in range(40) for part in figurine_parts(np.random.default_rng(seed))]
    assert {part.shape for part in parts} == {s for s in Shape if s <= Shape.TORUS}
    assert {part.pattern for part in parts} == {p for p in Pattern if p <= Pattern.STUDS}


@pytest.mark.parametrize(
    ("part", "volume"),
    [
        (_ball(), 4 / 3 * np.pi * 0.6**3),
        (Part(shape=Shape.BOX, centre=(0.1, 0, 0), size=(0.5, 0.3, 0.2)), 8 * 0.03),
        (Part(shape=Shape.CYLINDER, centre=(0, 0, 0), size=(0.4, 0.3)), np.pi * 0.16 * 0.6),
        (Part(shape=Shape.TORUS, centre=(0, 0, 0), size=(0.5, 0.2)), 2 * np.pi**2 * 0.5 * 0.04),
        (
            Part(**limb(np.array([0, -0.3, 0]), np.array([0.2, 0.4, 0.3]), 0.2, 0.2)),
            np.pi * 0.04 * np.sqrt(0.62) + 4 / 3 * np.pi * 0.008,
        ),
    ],
)
def test_primitives_have_their_volume(part: Part, volume: float) -> None:
    assert _solid(part, resolution=96).volume == pytest.approx(volume, rel=0.01)


def test_turning_a_part_keeps_its_volume_and_moves_its_box() -> None:
    size = (0.6, 0.1, 0.1)
    lying = _solid(Part(shape=Shape.BOX, centre=(0, 0, 0), size=size))
    standing = _solid(
        Part(shape=Shape.BOX, centre=(0, 0, 0), size=size, rotation=turn(z=np.pi / 2))
    )
    assert standing.volume == pytest.approx(lying.volume, rel=0.02)
    assert standing.extents == pytest.approx(lying.extents[[1, 0, 2]], rel=0.05)


def test_a_cut_takes_volume_away_and_a_blend_adds_some() -> None:
    half = Part(shape=Shape.BOX, centre=(0, 1, 0), size=(1, 1, 1), cut=True)
    assert _solid(_ball(), half).volume == pytest.approx(_solid(_ball()).volume / 2, rel=0.02)
    neighbour = {"shape": Shape.ELLIPSOID, "centre": (0, 0.7, 0), "size": (0.3, 0.3, 0.3)}
    sharp, smooth = (_solid(_ball(), Part(**neighbour, blend=blend)) for blend in (0.0, 0.2))
    assert smooth.volume > 1.005 * sharp.volume


@pytest.mark.parametrize("pattern", [p for p in Pattern if 0 < p <= Pattern.STUDS])
def test_patterns_add_detail_and_no_shape(pattern: Pattern) -> None:
    plain = _solid(_ball(), resolution=96)
    patterned = _solid(_ball(pattern=pattern, depth=0.02, frequency=5), resolution=96)
    assert topology(patterned).watertight
    assert laplacian_roughness(patterned) > 1.2 * laplacian_roughness(plain)
    assert patterned.volume == pytest.approx(plain.volume, rel=0.11)
