"""Fixtures of the whole suite."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from ultrashape_cli.geometry.mesh import Mesh

# Before torch loads: two busy processes on two cores otherwise spin against each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
for name in [name for name in os.environ if name.startswith("USHAPE_")]:
    if name not in {"USHAPE_GOLDEN", "USHAPE_GOLDEN_LOG"}:
        del os.environ[name]


SLOW_TIMEOUT_S = 1200


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Gives slow tests more time than the default of pyproject.toml."""
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SLOW_TIMEOUT_S))


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
    from ultrashape_cli.meshfiles.save import save_mesh
    from ultrashape_cli.synthetic.figurines import make_figurine

    folder = tmp_path / "models"
    for seed, name in enumerate(("a.ply", "b.obj", "sub/b.obj", "c.glb")):
        save_mesh(make_figurine(seed, resolution=24), folder / name)
    return folder


@pytest.fixture(scope="session")
def sphere() -> Mesh:
    """Unit sphere; its faces lie within 7e-4 of it."""
    import trimesh
    from shapes import as_mesh

    return as_mesh(trimesh.creation.icosphere(subdivisions=5))


@pytest.fixture(scope="session")
def cube() -> Mesh:
    """Cube of side 2 around the origin."""
    import trimesh
    from shapes import as_mesh

    return as_mesh(trimesh.creation.box(extents=(2, 2, 2)))


@pytest.fixture(scope="session")
def torus() -> Mesh:
    """Radii 1 and 0.4, around the z axis."""
    import trimesh
    from shapes import as_mesh

    return as_mesh(trimesh.creation.torus(1.0, 0.4, major_sections=96, minor_sections=48))


@pytest.fixture(scope="session")
def punctured_sphere(sphere: Mesh) -> Mesh:
    """Unit sphere without its cap above z = 0.9."""
    return sphere.with_faces(sphere.faces[sphere.triangles[:, :, 2].mean(axis=1) < 0.9])


@pytest.fixture(scope="session")
def soup(sphere: Mesh) -> Mesh:
    """Unit sphere whose triangles share no vertex and face either way."""
    import numpy as np

    from ultrashape_cli.geometry.mesh import Mesh

    faces = np.arange(3 * len(sphere.faces)).reshape(-1, 3)
    flip = np.random.default_rng(0).random(len(faces)) < 0.5
    faces[flip] = faces[flip][:, ::-1]
    return Mesh.from_arrays(sphere.triangles, faces)


@pytest.fixture(scope="session")
def ball_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of the model `small` whose decoder has a surface."""
    import small_model  # noqa: F401
    from ball_networks import ball_networks

    from ultrashape_cli.models.convert import model_metadata
    from ultrashape_cli.models.registry import model_spec
    from ultrashape_cli.models.weights import write_safetensors

    file = tmp_path_factory.mktemp("weights") / "ball.safetensors"
    write_safetensors(file, ball_networks()._asdict(), model_metadata(model_spec("small")))
    return file
