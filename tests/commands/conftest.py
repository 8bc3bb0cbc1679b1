from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ball_networks import FAST, ball_networks
from PIL import Image

from ultrashape_cli.data.layout import Dataset
from ultrashape_cli.data.samples import encode_normals, quantise_positions, write_samples
from ultrashape_cli.files import write_json
from ultrashape_cli.meshfiles.save import save_mesh
from ultrashape_cli.models.registry import model_spec
from ultrashape_cli.models.weights import write_safetensors
from ultrashape_cli.synthetic.figurines import make_figurine


@pytest.fixture
def ball_folder(tmp_path: Path) -> Path:
    """A dataset of one ball with samples."""
    dataset = Dataset(tmp_path / "data")
    normals = np.random.default_rng(0).normal(size=(100, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    arrays = {
        "surface_points": quantise_positions(0.9 * normals),
        "surface_normals": encode_normals(normals),
    }
    write_samples(dataset.samples("ball"), {"contents": "dit", "num_uniform": 50}, arrays)
    (dataset.root / "records").mkdir()
    write_json(dataset.list_path("train"), ["ball"])
    write_json(dataset.list_path("val"), [])
    return dataset.root


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """mesh.ply, image.png and weights.safetensors whose field is about a ball."""
    folder = tmp_path_factory.mktemp("refine")
    save_mesh(make_figurine(0, resolution=24), folder / "mesh.ply")
    pixels = np.zeros((40, 40, 4), np.uint8)
    pixels[5:35, 10:30] = (200, 150, 100, 255)
    Image.fromarray(pixels).save(folder / "image.png")
    networks = ball_networks(model_spec("tiny"))
    write_safetensors(folder / "weights.safetensors", networks._asdict(), {"model": "tiny"})
    return folder


@pytest.fixture(autouse=True)
def few_metric_points(monkeypatch: pytest.MonkeyPatch) -> None:
    """A nearest-point search from the middle of a ball looks at all of it."""
    monkeypatch.setattr("ultrashape_cli.inference.job.METRIC_POINTS", 2000)
    monkeypatch.setattr("ultrashape_cli.inference.straying._SAMPLES", 2000)
    monkeypatch.setattr("ultrashape_cli.training.mesh_validation.METRIC_POINTS", 2000)


@pytest.fixture
def refine(ushape, inputs: Path) -> Callable:
    """Runs `ushape refine` with fast settings: `refine("-o", path, mesh=path, image=path)`."""

    def call(*more: object, mesh: object = None, image: object = None):
        arguments = (mesh or inputs / "mesh.ply", image or inputs / "image.png")
        weights = () if "--checkpoint" in more else ("--checkpoint", inputs / "weights.safetensors")
        return ushape("refine", *arguments, *weights, *FAST, *more)

    return call
