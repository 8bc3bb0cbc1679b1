"""The stand-in of a card, compiled once."""

from __future__ import annotations

from pathlib import Path

import device
import pytest


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return device.build(tmp_path_factory.mktemp("standin"))
