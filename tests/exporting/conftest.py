from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from exporting.mini import write_mini
from PIL import Image

from ultrashape_cli.evaluation.export import export_onnx
from ultrashape_cli.meshfiles.save import save_mesh
from ultrashape_cli.models.sources import resolve_weights
from ultrashape_cli.synthetic.figurines import make_figurine

SIZES = (20, 40, 64)


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """mesh.ply, image.png and weights.safetensors of the model `mini`."""
    folder = tmp_path_factory.mktemp("export-inputs")
    save_mesh(make_figurine(0, resolution=24), folder / "mesh.ply")
    pixels = np.zeros((64, 64, 4), np.uint8)
    pixels[8:56, 16:48] = (200, 150, 100, 255)
    Image.fromarray(pixels).save(folder / "image.png")
    write_mini(folder / "weights.safetensors")
    return folder


@pytest.fixture(scope="session")
def exported(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export of these weights, those of the DiT beside its file; to be read only."""
    pytest.importorskip("onnxruntime")
    # Of several processes one makes it for all: it takes half a minute.
    base = tmp_path_factory.getbasetemp()
    root = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with (root / "mini-onnx.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = root / "mini-onnx"
        if not folder.exists():
            source = resolve_weights(inputs / "weights.safetensors")
            export_onnx(source, folder, sizes=SIZES, external_bytes=200_000)
    return folder


@pytest.fixture
def copied(exported: Path, tmp_path: Path) -> Path:
    """A copy of the export, to be spoilt."""
    return shutil.copytree(exported, tmp_path / "copied")


@pytest.fixture
def change(copied: Path) -> Callable[..., None]:
    """Changes values of the copy's manifest."""

    def call(**values: object) -> None:
        path = copied / "export.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return call


@pytest.fixture
def refine(ushape, inputs: Path, monkeypatch: pytest.MonkeyPatch) -> Callable:
    """Runs `ushape refine` with a checkpoint: `refine(checkpoint, "-o", path)`."""
    monkeypatch.setattr("ultrashape_cli.inference.job.METRIC_POINTS", 2000)
    # A nearest-point search from the middle of a ball looks at all of it.
    monkeypatch.setattr("ultrashape_cli.inference.straying._SAMPLES", 500)

    def call(checkpoint: Path, *more: object):
        arguments = (inputs / "mesh.ply", inputs / "image.png")
        return ushape("refine", *arguments, "--checkpoint", checkpoint, "--quality", "max", *more)

    return call
