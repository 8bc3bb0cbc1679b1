"""The small model that comes with the package, from weights to mesh."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ultrashape_cli.config.resolve import resolve
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.geometry.metrics import compare_meshes
from ultrashape_cli.geometry.normalize import fit_frame
from ultrashape_cli.inference.refiner import Refiner
from ultrashape_cli.meshfiles.save import save_mesh
from ultrashape_cli.models.sources import packaged_weights, resolve_weights
from ultrashape_cli.models.weights import read_metadata
from ultrashape_cli.rendering.cameras import bounding_radius, view_set
from ultrashape_cli.rendering.output import save_png
from ultrashape_cli.rendering.renderer import render_views
from ultrashape_cli.rendering.scene import Scene
from ultrashape_cli.synthetic.coarsen import coarsen
from ultrashape_cli.synthetic.figurines import make_figurine

UNSEEN_SEED = 10_003


@pytest.fixture(scope="module")
def figurine() -> tuple[Mesh, Mesh, np.ndarray]:
    """A truth the model has not seen, its coarse version and its front view."""
    made = make_figurine(UNSEEN_SEED, 96)
    truth = Mesh(fit_frame(made).to_normalised(made.vertices), made.faces)
    camera = view_set(1, radius=bounding_radius(truth), size=160)
    return truth, coarsen(truth), next(iter(render_views(Scene(truth), camera)))


def test_the_weights_are_small_half_precision_and_say_what_they_are() -> None:
    file = packaged_weights("tiny")
    assert file is not None
    assert file.stat().st_size < 16e6
    metadata = read_metadata(file)
    assert metadata["model"] == "tiny"
    assert metadata["dtype"] == "float16"
    assert metadata["licence"] == "Apache-2.0"
    assert packaged_weights("ultrashape-1.0") is None


def test_refining_improves_an_unseen_figurine_and_gives_the_same_bytes_again(figurine) -> None:
    truth, coarse, image = figurine
    source = resolve_weights(packaged_weights("tiny"))
    config = replace(resolve(model="tiny", environ={}).config.refine, frame="normalised")
    refiner = Refiner.load(source, config, torch.device("cpu"))
    first, second = (refiner.refine(coarse, image, 0).mesh for _ in range(2))
    assert first.vertices.tobytes() == second.vertices.tobytes()
    assert first.faces.tobytes() == second.faces.tobytes()
    before, after = (compare_meshes(mesh, truth, 20_000) for mesh in (coarse, first))
    assert after["chamfer_l1"] < 0.9 * before["chamfer_l1"]
    assert after["f_score@0.02"] > 1.1 * before["f_score@0.02"]


def test_refine_names_the_packaged_model_and_takes_it_only_when_asked(
    figurine, ushape, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _, coarse, image = figurine
    save_mesh(coarse, tmp_path / "coarse.glb")
    save_png(image, tmp_path / "ref.png")
    command = ("refine", "coarse.glb", "ref.png", "-o", "out.glb")
    refused = ushape(*command)
    assert refused.code == 1
    assert "--model tiny" in refused.err
    assert not (tmp_path / "out.glb").exists()
    quick = ("--quality", "draft", "--tokens", 512, "--grid-resolution", 64)
    assert ushape(*command, "--model", "tiny", *quick).code == 0
    assert (tmp_path / "out.glb").stat().st_size > 10_000
