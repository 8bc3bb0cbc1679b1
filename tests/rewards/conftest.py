"""Five balls to refine, and generations of a small network with a ball-like field."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh
from shapes import as_mesh

from ultrashape_cli.data.layout import Dataset
from ultrashape_cli.files import write_json
from ultrashape_cli.meshfiles.save import save_mesh
from ultrashape_cli.rendering.output import save_png


@pytest.fixture(scope="session")
def ball_assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Meshes and views of three balls, all in the list `train`."""
    data = Dataset(tmp_path_factory.mktemp("assets"))
    ids = [f"ball-{index}" for index in range(3)]
    for index, asset in enumerate(ids):
        ball = as_mesh(trimesh.creation.icosphere(3, 0.7 + 0.1 * index))
        save_mesh(ball, data.mesh(asset))
        image = np.zeros((32, 32, 4), np.uint8)
        image[8:24, 8:24] = (100 + 20 * index, 90, 80, 255)
        save_png(image, data.views(asset) / "view_000.png")
    write_json(data.list_path("train"), ids)
    (data.root / "records").mkdir()
    return data.root
