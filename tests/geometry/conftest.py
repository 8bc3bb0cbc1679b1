"""Recorded helpers of the reference implementation."""

import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file


@pytest.fixture(scope="session")
def golden() -> dict[str, np.ndarray]:
    """Recorded helpers of the reference implementation; USHAPE_GOLDEN names another folder."""
    default = Path(__file__).parents[1] / "golden"
    path = Path(os.environ.get("USHAPE_GOLDEN", default)) / "mesh_helpers.safetensors"
    if not path.exists():
        pytest.skip(f"{path} is missing")
    return load_file(path)
