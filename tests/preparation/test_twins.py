from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from ultrashape_cli.geometry.decimate import decimate
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.preparation.filters import TWIN_LIMIT
from ultrashape_cli.preparation.twins import (
    decode_descriptors,
    descriptor,
    encode_descriptor,
    find_twins,
)
from ultrashape_cli.synthetic.figurines import make_figurine

TURN = Rotation.from_euler("xyz", [0.3, 0.7, 1.1]).as_matrix()


def _describe(*meshes: Mesh) -> np.ndarray:
    texts = [
        encode_descriptor(descriptor(mesh, np.random.default_rng(seed)))
        for seed, mesh in enumerate(meshes)
    ]
    return decode_descriptors(texts)


def _distance(one: Mesh, two: Mesh) -> float:
    a, b = _describe(one, two)
    return float(np.linalg.norm(a - b))


@pytest.fixture(scope="module")
def figurine() -> Mesh:
    return make_figurine(0, 40)


def test_a_turned_moved_scaled_copy_is_a_twin(figurine: Mesh) -> None:
    copy = Mesh(figurine.vertices @ TURN.T * 30 + 100, figurine.faces)
    assert _distance(figurine, copy) < TWIN_LIMIT


def test_a_copy_at_another_resolution_is_a_twin(figurine: Mesh) -> None:
    assert _distance(figurine, decimate(figurine, 1500)) < TWIN_LIMIT


@pytest.mark.slow
def test_different_figurines_are_not_twins(figurine: Mesh) -> None:
    others = [make_figurine(seed, 40) for seed in range(1, 7)]
    values = _describe(figurine, *others)
    assert find_twins(values, TWIN_LIMIT) == {}


def test_a_coded_descriptor_comes_back_with_length_one(figurine: Mesh) -> None:
    exact = descriptor(figurine, np.random.default_rng(0))
    (coded,) = decode_descriptors([encode_descriptor(exact)])
    assert np.linalg.norm(coded) == pytest.approx(1, abs=1e-6)
    assert np.linalg.norm(coded - exact) < 0.01


def test_the_search_finds_what_a_full_comparison_finds() -> None:
    rng = np.random.default_rng(0)
    values = np.abs(rng.normal(size=(300, 40)))
    values[200:] = values[:100] + rng.normal(size=(100, 40)) * 0.05
    values = (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)
    apart = np.linalg.norm(values[:, None] - values[None], axis=2)
    limit = 0.06
    expected: dict[int, int] = {}
    for row in range(300):
        near = [o for o in range(row) if apart[o, row] < limit and o not in expected]
        if near:
            expected[row] = min(near, key=lambda o: apart[o, row])
    assert 20 < len(expected) < 100
    assert {row: other for row, (other, _) in find_twins(values, limit).items()} == expected


def test_of_equal_shapes_the_first_stays() -> None:
    one = np.eye(4, dtype=np.float32)[[0, 0, 1, 0]]
    assert find_twins(one, 0.1) == {1: (0, 0.0), 3: (0, 0.0)}
    assert find_twins(one[:1], 0.1) == {}
    assert find_twins(one[:0], 0.1) == {}
