from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ultrashape_cli.data.layout import Dataset
from ultrashape_cli.data.samples import encode_normals, quantise_positions, write_samples
from ultrashape_cli.files import write_json


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
