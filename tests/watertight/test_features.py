import numpy as np
import pytest
import trimesh
from shapes import as_mesh, joined, moved

from ultrashape_cli.geometry.check import bent_edges, topology
from ultrashape_cli.geometry.distance import DistanceField
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.watertight.remesh import remesh


def _tilted(shape: trimesh.Trimesh) -> Mesh:
    shape.apply_transform(trimesh.transformations.euler_matrix(0.3, 0.5, 0.2))
    return as_mesh(shape)


def _normal_consistency(source: Mesh, result: Mesh) -> float:
    centres = result.triangles.mean(axis=1)
    _, face = DistanceField(source).unsigned(centres)
    cosine = np.einsum("ij,ij->i", source.face_normals[face], result.face_normals)
    return float(np.average(cosine, weights=result.area_faces))


def test_a_cube_has_twelve_bent_edges(cube: Mesh) -> None:
    assert len(bent_edges(cube, 0.5, 0.0)) == 12
    assert len(bent_edges(cube, 0.5, 2.1)) == 0
    flipped = cube.faces.copy()
    flipped[::3] = flipped[::3, ::-1]
    assert len(bent_edges(Mesh(cube.vertices, flipped), 0.5, 0.0)) == 12


@pytest.mark.parametrize(
    "shape",
    [trimesh.creation.box((1, 1, 1)), trimesh.creation.cylinder(0.5, 1.2, sections=24)],
    ids=["box", "cylinder"],
)
def test_sharp_edges_survive(shape: trimesh.Trimesh, monkeypatch: pytest.MonkeyPatch) -> None:
    source = _tilted(shape)
    sharp, figures = remesh(source, 64)
    monkeypatch.setattr("ultrashape_cli.watertight.features._SHORTEST", np.inf)
    bevelled, plain = remesh(source, 64)
    assert figures["snapped_vertices"] > 0
    assert plain["snapped_vertices"] == 0
    assert np.array_equal(sharp.faces, bevelled.faces)
    field = DistanceField(source)
    lost = [abs(mesh.volume / source.volume - 1) for mesh in (sharp, bevelled)]
    assert lost[0] < 0.7 * lost[1]
    assert field.unsigned(sharp.vertices)[0].mean() < field.unsigned(bevelled.vertices)[0].mean()
    assert _normal_consistency(source, sharp) > _normal_consistency(source, bevelled)
    # No face turns over.
    assert (np.einsum("ij,ij->i", sharp.face_normals, bevelled.face_normals) > 0).all()


def test_a_smooth_surface_has_nothing_to_snap_to(sphere: Mesh) -> None:
    assert remesh(sphere, 64)[1]["snapped_vertices"] == 0


def test_a_snapped_union_is_solid(cube: Mesh) -> None:
    both = joined(cube, moved(cube, shift=(1, 0.3, 0.2)))
    result, figures = remesh(both, 64)
    assert figures["snapped_vertices"] > 100
    assert topology(result).solid
