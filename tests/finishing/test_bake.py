from __future__ import annotations

import numpy as np
import pytest
import trimesh
from shapes import as_mesh

from ultrashape_cli.finishing.bake import bake_normals
from ultrashape_cli.finishing.surface import Finished, tangents, unwrap
from ultrashape_cli.geometry.mesh import Mesh, unit
from ultrashape_cli.geometry.rays import RayScene


def shown_normals(surface: Finished, points_per_face: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Returns points on the surface and the normals that a viewer shows there, with the map."""
    rng = np.random.default_rng(0)
    share = rng.dirichlet((2, 2, 2), (len(surface.corners), points_per_face))  # type: ignore[arg-type]

    def mixed(values: np.ndarray) -> np.ndarray:
        return np.einsum("fkc,fcd->fkd", share, values[surface.corners]).reshape(
            -1, values.shape[-1]
        )

    mesh, source = surface.mesh, surface.source
    normal = unit(mixed(mesh.vertex_normals[source]))
    tangent = tangents(surface)
    along = mixed(tangent[:, :3])
    along = unit(along - normal * (along * normal).sum(1, keepdims=True))
    across = np.cross(normal, along) * np.sign(mixed(tangent[:, 3:]))
    size = len(surface.normal_map)  # type: ignore[arg-type]
    place = mixed(surface.uv)  # type: ignore[arg-type]
    columns = (place[:, 0] * size).astype(int).clip(0, size - 1)
    rows = ((1 - place[:, 1]) * size).astype(int).clip(0, size - 1)
    local = surface.normal_map[rows, columns] / 127.5 - 1  # type: ignore[index]
    return mixed(mesh.vertices[source]), unit(
        local[:, :1] * along + local[:, 1:2] * across + local[:, 2:] * normal
    )


def angle(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.degrees(np.arccos((a * b).sum(1).clip(-1, 1)))


@pytest.fixture(scope="module")
def waves() -> tuple[Mesh, Mesh]:
    """A ball of many faces with waves on it, and a coarse one of the same size."""
    fine = as_mesh(trimesh.creation.icosphere(6, 1.0))
    height = 1 + 0.01 * np.sin(18 * fine.vertices[:, :1]) * np.sin(18 * fine.vertices[:, 1:2])
    return Mesh(fine.vertices * height, fine.faces), as_mesh(trimesh.creation.icosphere(3, 1.0))


@pytest.fixture(scope="module")
def baked(waves: tuple[Mesh, Mesh]) -> Finished:
    surface = Finished(waves[1])
    unwrap(surface, 512)
    bake_normals(surface, waves[0], 512)
    return surface


def test_a_viewer_shows_the_normals_of_the_full_surface(baked, waves) -> None:
    full = waves[0]
    points, shown = shown_normals(baked)
    outward = unit(points)
    _, face, uv = RayScene(full).first_hit(3 * outward, -outward)
    weight = np.column_stack([1 - uv.sum(1), uv])
    wanted = unit(np.einsum("nc,ncd->nd", weight, full.vertex_normals[full.faces[face]]))
    with_map, without = angle(shown, wanted), angle(outward, wanted)
    assert without.mean() > 5
    assert with_map.mean() < 0.2 * without.mean()
    assert np.quantile(with_map, 0.95) < 4


def test_charts_do_not_overlap_and_the_map_reaches_beyond_them(baked: Finished) -> None:
    assert baked.coverage > 0.99
    assert baked.charts >= 2
    assert 0.3 < baked.used <= 1
    assert baked.uv is not None
    assert baked.uv.min() >= 0
    assert baked.uv.max() <= 1
    flat = (baked.normal_map == (128, 128, 255)).all(-1).mean()  # type: ignore[union-attr]
    assert flat < 1 - baked.used


def test_a_mirrored_chart_is_told_by_its_sign() -> None:
    mesh = Mesh.from_arrays([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], [[0, 1, 2], [0, 2, 3]])
    corners, source = mesh.faces, np.arange(4)
    plain = Finished(mesh, None, source, mesh.vertices[:, :2].copy(), corners)
    assert np.allclose(tangents(plain), [1, 0, 0, 1])
    mirrored = Finished(mesh, None, source, (1 - mesh.vertices[:, :2]) * (1, -1) + (0, 1), corners)
    assert np.allclose(tangents(mirrored), [-1, 0, 0, -1])


def test_what_is_far_from_the_reduced_surface_is_not_taken(waves) -> None:
    surface = Finished(waves[1])
    unwrap(surface, 128)
    half = Mesh(waves[0].vertices, waves[0].faces[waves[0].face_normals[:, 2] > 0])
    bake_normals(surface, half, 128)
    assert 0.35 < surface.coverage < 0.65
