"""Families of shapes: closed, in one piece, different, the same for a seed."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse.csgraph

from ultrashape_cli.geometry.check import topology
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.synthetic.blends import EXTENT, Part, Shape
from ultrashape_cli.synthetic.families import FAMILIES, STYLES, family_maker, make_shape
from ultrashape_cli.synthetic.solids import HALF_SIDE, varied_mesh

NAMES = [*FAMILIES, *STYLES]


def _pieces(mesh: Mesh) -> int:
    ends = np.concatenate([mesh.faces[:, :2], mesh.faces[:, 1:]])
    count = len(mesh.vertices)
    graph = scipy.sparse.coo_array((np.ones(len(ends)), ends.T), (count, count))
    return scipy.sparse.csgraph.connected_components(graph, directed=False)[0]


def _numbers(parts: list[Part]) -> list[list[float]]:
    tables = [[] if part.table is None else part.table.ravel().tolist() for part in parts]
    return [part.row() + table for part, table in zip(parts, tables, strict=True)]


@pytest.mark.parametrize("family", NAMES)
def test_every_family_is_closed_in_one_piece_and_fills_the_cube(family: str) -> None:
    first, second = (make_shape(family, seed, 32) for seed in (0, 1))
    for mesh in (first, second):
        assert topology(mesh).watertight
        assert mesh.volume > 0.001
        assert _pieces(mesh) == 1
        assert np.abs(mesh.bounds).max() == pytest.approx(HALF_SIDE)
    assert first.vertices.shape != second.vertices.shape


@pytest.mark.parametrize("family", NAMES)
def test_a_varied_shape_stays_closed_and_inside_the_cube(family: str) -> None:
    mesh = make_shape(family, 2, 24, vary=True)
    assert topology(mesh).watertight
    assert mesh.volume > 0
    assert np.abs(mesh.vertices).max() <= HALF_SIDE + 1e-9


@pytest.mark.parametrize("family", NAMES)
def test_every_seed_gives_the_same_detailed_parts_again(family: str) -> None:
    make = family_maker(family)
    for seed in range(12):
        parts = make(np.random.default_rng(seed))
        assert any(part.details or part.pattern for part in parts)
        assert not parts[0].cut
        if seed < 2:
            assert _numbers(parts) == _numbers(make(np.random.default_rng(seed)))


def test_a_seed_gives_the_same_mesh_again() -> None:
    first, again = (make_shape("gear", 3, 32, vary=True) for _ in range(2))
    assert np.array_equal(first.vertices, again.vertices)
    assert np.array_equal(first.faces, again.faces)


def test_styles_are_kept_apart_and_unknown_names_list_the_known() -> None:
    assert not set(FAMILIES) & set(STYLES)
    with pytest.raises(ValueError, match="quadruped"):
        make_shape("unicorn", 0)


def test_varying_cuts_some_shapes() -> None:
    # A ball that is cut has less volume than the ellipsoid in its box.
    ball = [Part(shape=Shape.EGG, centre=(0.3, 0, 0), size=(0.5, 0.5, 0.5))]
    flat = []
    for seed in range(12):
        mesh = varied_mesh(ball, np.random.default_rng(seed), 32)
        assert topology(mesh).watertight
        assert np.abs(mesh.vertices).max() < EXTENT
        # The largest share of the area that faces one way: a cap is flat.
        normals, areas = mesh.face_normals, mesh.area_faces
        flat.append(max(areas[normals @ n > 0.999].sum() for n in normals[::50]) / areas.sum())
    assert 3 <= sum(share > 0.08 for share in flat) <= 9
