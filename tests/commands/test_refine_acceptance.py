"""`ushape refine --accept-only-better`, from files to files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from ball_networks import FAST

from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.geometry.normalize import fit_frame
from ultrashape_cli.meshfiles.load import load_mesh
from ultrashape_cli.meshfiles.save import save_mesh
from ultrashape_cli.rendering.cameras import bounding_radius, view_set
from ultrashape_cli.rendering.output import save_png
from ultrashape_cli.rendering.renderer import render_views
from ultrashape_cli.rendering.scene import Scene
from ultrashape_cli.synthetic.figurines import make_figurine


def test_refine_writes_the_input_where_it_is_the_better_mesh(
    ushape, inputs: Path, tmp_path: Path
) -> None:
    made = make_figurine(10_001, 96)
    truth = Mesh(fit_frame(made).to_normalised(made.vertices), made.faces)
    camera = view_set(1, radius=bounding_radius(truth), size=200)
    image = next(iter(render_views(Scene(truth), camera)))
    # In a frame of its own: the mesh must come back as it was.
    own = Mesh(truth.vertices * 3 + (5.0, 1.0, -2.0), truth.faces)
    save_mesh(own, tmp_path / "mesh.ply")
    save_png(image, tmp_path / "ref.png")
    weights = ("--checkpoint", inputs / "weights.safetensors")
    command = ("refine", tmp_path / "mesh.ply", tmp_path / "ref.png", *weights)
    out = tmp_path / "out.ply"
    result = ushape(*command, "-o", out, "--accept-only-better", "--keep-full", *FAST)
    assert result.code == 0, result.err
    assert "the INPUT" in result.out + result.err
    assert "STRAYED" not in result.out + result.err
    kept = load_mesh(out)
    assert len(kept.faces) == len(own.faces)
    assert np.abs(kept.bounds - own.bounds).max() < 1e-5
    record = json.loads((tmp_path / "out.ply.json").read_text())["result"]
    assert not record["acceptance"]["better"]
    assert record["straying"]["strayed"]
    assert record["faces"] == len(own.faces)
    # A ball is no figurine: without the option it is written, and told.
    other = tmp_path / "other.ply"
    assert ushape(*command, "-o", other, *FAST).code == 0
    assert len(load_mesh(other).faces) != len(own.faces)
