"""Fixtures of the whole suite."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

# Before torch loads: two busy processes on two cores otherwise spin against each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
for name in [name for name in os.environ if name.startswith("USHAPE_")]:
    if name not in {"USHAPE_GOLDEN", "USHAPE_GOLDEN_LOG"}:
        del os.environ[name]


class Result(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def ushape(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Result]:
    """Runs one command line in this process: `ushape("split", path)`."""
    from ultrashape_cli import ui
    from ultrashape_cli.cli import run

    def call(*arguments: object) -> Result:
        monkeypatch.setattr(ui, "_current", None)
        capfd.readouterr()
        code = run([str(argument) for argument in arguments])
        return Result(code, *capfd.readouterr())

    return call


@pytest.fixture
def figurine_folder(tmp_path: Path) -> Path:
    """Four small figurines as meshes of three formats."""
    from ultrashape_cli.geometry.figurines import make_figurine
    from ultrashape_cli.geometry.mesh import save_mesh

    folder = tmp_path / "models"
    for seed, name in enumerate(("a.ply", "b.obj", "sub/b.obj", "c.glb")):
        save_mesh(make_figurine(seed, resolution=24), folder / name)
    return folder
