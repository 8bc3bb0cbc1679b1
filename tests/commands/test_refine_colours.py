"""`ushape refine`: the colours of the coarse mesh on the refined one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ultrashape_cli.meshfiles.appearance import load_appearance
from ultrashape_cli.meshfiles.load import load_mesh
from ultrashape_cli.meshfiles.save import COLOUR_SUFFIXES, save_mesh


@pytest.fixture
def painted(inputs: Path, tmp_path: Path) -> Path:
    """The coarse mesh, red where x > 0 and blue elsewhere."""
    mesh = load_mesh(inputs / "mesh.ply")
    colours = np.where(mesh.vertices[:, :1] > 0, (255, 0, 0), (0, 0, 255)).astype(np.uint8)
    save_mesh(mesh, tmp_path / "painted.ply", colours)
    return tmp_path / "painted.ply"


@pytest.mark.parametrize("suffix", COLOUR_SUFFIXES)
def test_the_result_keeps_the_colours(refine, painted: Path, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"out{suffix}"
    result = refine("-o", out, "--json", mesh=painted)
    assert json.loads(result.out)["result"]["colours"] == "kept"
    found = load_appearance(out)
    assert found is not None
    tint = found.tint.reshape(-1, 4)
    x = found.mesh.triangles.reshape(-1, 3)[:, 0]
    width = found.mesh.extents[0]
    for side, red in ((x > width / 10, True), (x < -width / 10, False)):
        assert ((tint[side, 0] > tint[side, 2]) == red).mean() > 0.95


def test_none_leaves_them_out_and_a_format_without_says_so(refine, painted, tmp_path) -> None:
    result = refine("-o", tmp_path / "a.ply", "--colours", "none", mesh=painted)
    assert result.code == 0
    assert load_appearance(tmp_path / "a.ply") is None
    result = refine("-o", tmp_path / "a.stl", mesh=painted)
    assert ".stl holds no colours of vertices" in result.err
