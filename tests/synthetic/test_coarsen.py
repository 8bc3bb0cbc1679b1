from __future__ import annotations

import numpy as np

from ultrashape_cli.geometry.check import topology
from ultrashape_cli.geometry.metrics import compare_meshes
from ultrashape_cli.synthetic.coarsen import coarsen
from ultrashape_cli.synthetic.figurines import make_figurine


def test_a_coarse_figurine_keeps_its_shape_and_loses_its_detail() -> None:
    figurine = make_figurine(1, resolution=96)
    coarse = coarsen(figurine, resolution=32)
    assert topology(coarse).watertight
    assert len(coarse.faces) < 0.3 * len(figurine.faces)
    figures = compare_meshes(coarse, figurine, 5000, 0, (0.02, 0.1))
    assert figures["f_score@0.1"] > 0.98
    assert figures["f_score@0.02"] < 0.9
    assert coarse.volume < figurine.volume


def test_coarsening_is_deterministic() -> None:
    figurine = make_figurine(2, resolution=32)
    first, second = coarsen(figurine), coarsen(figurine)
    assert np.array_equal(first.vertices, second.vertices)
    assert np.array_equal(first.faces, second.faces)


def test_a_figurine_is_closed_and_fixed_by_its_seed() -> None:
    first, again, other = (make_figurine(seed, resolution=32) for seed in (3, 3, 4))
    assert topology(first).watertight
    assert first.volume > 0
    assert np.array_equal(first.vertices, again.vertices)
    assert len(first.vertices) != len(other.vertices)
