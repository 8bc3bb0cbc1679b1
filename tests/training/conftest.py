"""A tiny dataset and the smallest settings that still train."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_model  # noqa: F401
import trimesh

from ultrashape_cli.config.resolve import resolve
from ultrashape_cli.config.schema import Config
from ultrashape_cli.data.layout import Dataset
from ultrashape_cli.data.samples import encode_normals, quantise_positions, write_samples
from ultrashape_cli.files import write_json
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.meshfiles.save import save_mesh
from ultrashape_cli.rendering.output import save_png
from ultrashape_cli.runs import RunFolder
from ultrashape_cli.training.progress import Progress
from ultrashape_cli.training.setup import open_run

NUM_ASSETS = 5


@pytest.fixture(autouse=True)
def few_metric_points(monkeypatch: pytest.MonkeyPatch) -> None:
    """A nearest-point search from the middle of a ball looks at all of it."""
    monkeypatch.setattr("ultrashape_cli.training.mesh_validation.METRIC_POINTS", 2000)


@pytest.fixture(scope="session")
def ball_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Balls of different radii: samples, one view each, lists, the held-out one as a mesh too."""
    root = tmp_path_factory.mktemp("balls")
    dataset = Dataset(root)
    rng = np.random.default_rng(0)
    ids = [f"ball-{index}" for index in range(NUM_ASSETS)]
    for index, asset in enumerate(ids):
        radius = 0.5 + 0.1 * index
        normals = rng.normal(size=(1200, 3))
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        arrays = {
            "surface_points": quantise_positions(radius * normals),
            "surface_normals": encode_normals(normals),
            "coarse_points": quantise_positions((radius - 0.02) * normals),
            "coarse_normals": encode_normals(normals),
        }
        for name in ("near", "near_curvature", "space"):
            points = rng.uniform(-1, 1, (400, 3))
            arrays[f"{name}_points"] = quantise_positions(points)
            arrays[f"{name}_sdf"] = (np.linalg.norm(points, axis=1) - radius).astype(np.float16)
        write_samples(dataset.samples(asset), {"contents": "full", "num_uniform": 600}, arrays)
        image = np.zeros((32, 32, 4), np.uint8)
        image[8:24, 8:24] = (100 + 20 * index, 90, 80, 255)
        save_png(image, dataset.views(asset) / "view_000.png")
    ball = trimesh.creation.icosphere(3, radius)
    save_mesh(Mesh.from_arrays(ball.vertices, ball.faces), dataset.mesh(ids[-1]))
    write_json(dataset.list_path("train"), ids[:-1])
    write_json(dataset.list_path("val"), ids[-1:])
    (root / "records").mkdir()
    return root


@pytest.fixture
def make_run(ball_data: Path, tmp_path: Path) -> Callable[..., tuple[RunFolder, Config]]:
    """Creates (or reopens) a run: `make_run("name", steps=4)`."""

    def make(
        name: str = "run", seed: int = 0, processes: int = 1, **settings: Any
    ) -> tuple[RunFolder, Config]:
        values = {
            "model": "small",
            "data": str(ball_data),
            "num_latents": 16,
            "surface_points": 256,
            "query_points": 64,
            "num_workers": 0,
            "microbatch": 2,
            "accumulation": 1,
            "warmup_steps": 0,
            "log_every_steps": 1,
            "save_every_steps": 100,
            "validate_every_steps": 0,
            "validate_meshes": 0,
            **settings,
        }
        flags = {f"train.{key}": value for key, value in values.items()}
        flags |= {"profile": "cpu", "device": "cpu", "seed": seed}
        flags["launch.num_processes"] = processes
        config = resolve(flags=flags, environ={}).config
        run = RunFolder(tmp_path / name)
        open_run(run, config, force=False, command=["test"])
        return run, config

    return make


@pytest.fixture
def stop_after() -> Callable[[int], Callable[[Progress], None]]:
    """Sends this process TERM after a step, as a scheduler would: `on_step=stop_after(3)`."""

    def make(step: int) -> Callable[[Progress], None]:
        def on_step(progress: Progress) -> None:
            if progress.step == step:
                os.kill(os.getpid(), signal.SIGTERM)

        return on_step

    return make
