"""Small meshes with known answers."""

import os
from pathlib import Path

import numpy as np
import pytest
import trimesh
from geometry_shapes import as_mesh
from safetensors.numpy import load_file

from ultrashape_cli.geometry.mesh import Mesh


@pytest.fixture(scope="session")
def sphere() -> Mesh:
    """Unit sphere; its faces lie within 7e-4 of it."""
    return as_mesh(trimesh.creation.icosphere(subdivisions=5))


@pytest.fixture(scope="session")
def cube() -> Mesh:
    """Cube of side 2 around the origin."""
    return as_mesh(trimesh.creation.box(extents=(2, 2, 2)))


@pytest.fixture(scope="session")
def torus() -> Mesh:
    """Radii 1 and 0.4, around the z axis."""
    return as_mesh(trimesh.creation.torus(1.0, 0.4, major_sections=96, minor_sections=48))


@pytest.fixture(scope="session")
def punctured_sphere(sphere: Mesh) -> Mesh:
    """Unit sphere without its cap above z = 0.9."""
    return sphere.with_faces(sphere.faces[sphere.triangles[:, :, 2].mean(axis=1) < 0.9])


@pytest.fixture(scope="session")
def soup(sphere: Mesh) -> Mesh:
    """Unit sphere whose triangles share no vertex and face either way."""
    faces = np.arange(3 * len(sphere.faces)).reshape(-1, 3)
    flip = np.random.default_rng(0).random(len(faces)) < 0.5
    faces[flip] = faces[flip][:, ::-1]
    return Mesh.from_arrays(sphere.triangles, faces)


@pytest.fixture(scope="session")
def golden() -> dict[str, np.ndarray]:
    """Recorded helpers of the reference implementation; USHAPE_GOLDEN names another folder."""
    default = Path(__file__).parents[1] / "golden"
    path = Path(os.environ.get("USHAPE_GOLDEN", default)) / "mesh_helpers.safetensors"
    if not path.exists():
        pytest.skip(f"{path} is missing")
    return load_file(path)
