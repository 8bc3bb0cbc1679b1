"""Solids of known volume and genus, damaged on purpose, and the figures that go with them."""

from pathlib import Path

import numpy as np
import pytest
import trimesh
from shapes import as_mesh, joined, moved

from ultrashape_cli.errors import MeshError
from ultrashape_cli.geometry.check import topology
from ultrashape_cli.geometry.distance import DistanceField
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.geometry.normalize import Frame, fit_frame, up_axis
from ultrashape_cli.geometry.surface import sample_faces
from ultrashape_cli.meshfiles.load import load_mesh
from ultrashape_cli.meshfiles.save import save_mesh
from ultrashape_cli.watertight.cavities import fill_cavities
from ultrashape_cli.watertight.ladder import hidden_share, make_watertight
from ultrashape_cli.watertight.nearby import closest_small_faces
from ultrashape_cli.watertight.remesh import remesh

TORUS_VOLUME = 2 * np.pi**2 * 1.0 * 0.4**2


def _rotation(seed: int) -> np.ndarray:
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q if np.linalg.det(q) > 0 else -q


def _damage(mesh: Mesh, kind: str) -> Mesh:
    rng = np.random.default_rng(0)
    faces = mesh.faces.copy()
    if kind == "punctured":
        return mesh.with_faces(faces[rng.random(len(faces)) > 0.002])
    if kind == "flipped":
        flip = rng.random(len(faces)) < 0.3
        faces[flip] = faces[flip][:, ::-1]
        return Mesh(mesh.vertices, faces)
    if kind == "doubled":
        return joined(mesh, moved(mesh, 0.97))
    if kind == "noisy soup":
        corners = mesh.triangles + rng.normal(scale=2e-4, size=mesh.triangles.shape)
        return Mesh.from_arrays(corners, np.arange(3 * len(faces)).reshape(-1, 3))
    return Mesh(mesh.vertices @ _rotation(1).T, faces)


@pytest.mark.parametrize("kind", ["punctured", "flipped", "doubled", "noisy soup", "rotated"])
def test_a_damaged_torus_keeps_its_volume_and_its_hole(torus: Mesh, kind: str) -> None:
    result = make_watertight(_damage(torus, kind), 96)
    state = topology(result.mesh)
    assert state.solid
    assert state.components == 1
    assert state.genus == 1
    assert state.volume == pytest.approx(TORUS_VOLUME, rel=0.01)
    figures = result.measurements
    assert figures["lost_share"] == 0
    assert hidden_share(result.mesh) <= 0.005
    assert figures["normal_consistency"] > 0.98


def test_crossing_bodies_are_united(sphere: Mesh) -> None:
    both = joined(sphere, moved(sphere, 1.0, (1.0, 0, 0)))
    result = make_watertight(both, 96)
    # Two unit spheres at distance 1 share a lens of 5 pi / 12.
    assert result.mesh.volume == pytest.approx(8 / 3 * np.pi - 5 / 12 * np.pi, rel=0.01)
    assert topology(result.mesh).components == 1


def test_a_rebuilt_surface_is_nearly_invariant(torus: Mesh) -> None:
    volume = remesh(torus, 96)[0].volume
    rotated = Mesh(torus.vertices @ _rotation(2).T, torus.faces)
    assert remesh(rotated, 96)[0].volume == pytest.approx(volume, rel=2e-3)
    assert remesh(moved(torus, 1e-3, (5, 5, 5)), 96)[0].volume * 1e9 == pytest.approx(volume)
    order = np.random.default_rng(0).permutation(len(torus.faces))
    shuffled = remesh(Mesh(torus.vertices, torus.faces[order]), 96)[0]
    assert shuffled.volume == pytest.approx(volume, rel=1e-9)


def test_the_figures_of_a_rebuilt_mesh_are_true(torus: Mesh) -> None:
    result = make_watertight(torus, 96, first_rung="remesh")
    figures = result.measurements
    assert result.rung == "remesh"
    points, _, _ = sample_faces(torus, 5000, np.random.default_rng(7))
    distance, _ = DistanceField(result.mesh).unsigned(points)
    extent = np.linalg.norm(torus.extents)
    assert figures["distance_mean"] == pytest.approx(distance.mean() / extent, rel=0.1)
    cell = torus.extents.max() / (96 - 8)
    voxels = figures["distance_p999_voxels"] / figures["distance_p999"]
    assert voxels == pytest.approx(extent / cell)
    assert figures["genus"] == 1
    assert figures["visible_share"] > 0.99


def test_the_block_search_agrees_with_the_tree(torus: Mesh) -> None:
    rebuilt, _ = remesh(moved(torus, 20.0, (40, 40, 40)), 64)
    rng = np.random.default_rng(0)
    points = rebuilt.vertices[:500] + rng.normal(scale=2.0, size=(500, 3))
    distance, face = closest_small_faces(rebuilt.vertices, rebuilt.faces, points)
    expected, _ = DistanceField(rebuilt).unsigned(points)
    assert np.allclose(distance, expected)
    assert (face >= 0).all()
    far, none = closest_small_faces(rebuilt.vertices, rebuilt.faces, np.full((1, 3), 500.0))
    assert far[0] == 24
    assert none[0] == -1


def test_two_cones_tip_to_tip_are_not_vertex_manifold() -> None:
    tip = np.array([[0.0, 0, 0], [1, 0, 1], [0, 1, 1], [-1, -1, 1]])
    faces = np.array([[0, 2, 1], [0, 3, 2], [0, 1, 3], [1, 2, 3]])
    upper = Mesh.from_arrays(tip, faces)
    lower = Mesh.from_arrays(-tip, faces[:, ::-1])
    merged = np.concatenate([upper.vertices, lower.vertices[1:]])
    both = np.where(lower.faces > 0, lower.faces + 3, 0)
    state = topology(Mesh.from_arrays(merged, np.concatenate([upper.faces, both])))
    assert state.watertight
    assert state.nonmanifold_vertices == 1
    assert not state.solid
    assert topology(upper).solid


def test_cavities_are_filled_or_kept_as_asked(sphere: Mesh) -> None:
    hollow = joined(sphere, moved(sphere, 0.5).flipped())
    full = make_watertight(hollow, 64)
    assert full.rung == "repair"
    assert full.mesh.volume == pytest.approx(sphere.volume)
    kept = make_watertight(hollow, 64, keep_cavities=True)
    assert kept.rung == "keep"
    assert kept.mesh.volume == pytest.approx(sphere.volume * 7 / 8)
    rebuilt = make_watertight(hollow, 64, keep_cavities=True, first_rung="remesh")
    assert rebuilt.mesh.volume == pytest.approx(sphere.volume * 7 / 8, rel=0.01)
    filled = make_watertight(hollow, 64, first_rung="remesh")
    assert filled.mesh.volume == pytest.approx(sphere.volume, rel=0.01)


@pytest.mark.parametrize("rung", ["remesh", "repair"])
def test_a_whole_mesh_is_not_repaired_for_nothing(sphere: Mesh, monkeypatch, rung: str) -> None:
    """Overlapping bodies go straight to the remesh, a filled cavity needs no other repair."""
    closed = joined(sphere, moved(sphere, 0.9, (0.3, 0, 0)))
    if rung == "repair":
        closed = joined(sphere, moved(sphere.flipped(), 0.5))
    with_repair = make_watertight(closed, 64, first_rung="repair")

    def refuse(*arguments: object) -> None:
        raise AssertionError("repaired")

    monkeypatch.setattr("ultrashape_cli.watertight.ladder._repair", refuse)
    result = make_watertight(closed, 64)
    assert result.rung == with_repair.rung == rung
    assert np.array_equal(result.mesh.vertices, with_repair.mesh.vertices)
    assert np.array_equal(result.mesh.faces, with_repair.mesh.faces)
    assert result.measurements == with_repair.measurements


def test_a_reversed_body_apart_is_no_cavity(sphere: Mesh) -> None:
    apart = joined(sphere, moved(sphere, 0.5, (3, 0, 0)).flipped())
    assert fill_cavities(apart) is apart


def test_decimation_stays_within_its_bound(sphere: Mesh) -> None:
    dense = remesh(sphere, 64)[0]
    result = make_watertight(dense, max_faces=4000, max_error=2e-3)
    assert len(result.mesh.faces) <= 4000
    assert 0 < result.measurements["decimation_error"] <= 2e-3
    assert topology(result.mesh).solid
    distance, _ = DistanceField(result.mesh).unsigned(dense.vertices)
    assert distance.max() / np.linalg.norm(dense.extents) < 4e-3
    strict = make_watertight(dense, max_faces=100, max_error=1e-9)
    assert len(strict.mesh.faces) == len(dense.faces)


def test_memory_is_predicted_and_refused_in_words(torus: Mesh) -> None:
    with pytest.raises(MeshError, match="GiB for this mesh") as caught:
        make_watertight(torus, 512, first_rung="remesh", max_memory_bytes=10**8)
    assert "256" in str(caught.value.hint)


def test_kept_vertices_survive_the_file_bit_by_bit(torus: Mesh, tmp_path: Path) -> None:
    source = Mesh(torus.vertices * 7 + 3, torus.faces)
    frame = fit_frame(source)
    placed = Mesh(frame.to_normalised(source.vertices), source.faces)
    save_mesh(make_watertight(placed).mesh, tmp_path / "a.ply")
    back = load_mesh(tmp_path / "a.ply")
    assert np.array_equal(back.vertices, placed.vertices)
    assert np.array_equal(back.faces, placed.faces)
    assert np.abs(frame.to_source(back.vertices) - source.vertices).max() < 1e-13 * 7


def test_single_precision_is_stored_as_such(tmp_path: Path, cube: Mesh) -> None:
    save_mesh(cube, tmp_path / "a.ply")
    assert b"property float x" in (tmp_path / "a.ply").read_bytes()
    assert np.array_equal(load_mesh(tmp_path / "a.ply").vertices, cube.vertices)


def test_the_up_axis_turns_and_turns_back() -> None:
    points = np.random.default_rng(0).normal(size=(50, 3)) * [1, 2, 30]
    frame = fit_frame(Mesh(points, np.arange(48).reshape(-1, 3)), up="z")
    placed = frame.to_normalised(points)
    assert np.argmax(np.ptp(placed, axis=0)) == 1
    assert np.allclose(frame.to_source(placed), points, rtol=0, atol=1e-6)
    assert np.linalg.det(placed[:3]) * np.linalg.det((points - frame.centre)[:3]) > 0
    assert Frame.from_dict(frame.as_dict()) == frame
    assert Frame.from_dict({"centre": [0, 0, 0], "scale": 1}).up == "y"
    assert [up_axis("auto", s) for s in (".STL", ".3mf", ".glb", ".obj")] == ["z", "z", "y", "y"]
    assert up_axis("z", ".glb") == "z"


def test_a_thin_open_box_is_closed_at_any_angle() -> None:
    box = as_mesh(trimesh.creation.box(extents=(1, 1, 0.004)).subdivide())
    opened = box.with_faces(box.faces[5:])
    turned = Mesh(opened.vertices @ _rotation(3).T, opened.faces)
    result = make_watertight(turned, 64, first_rung="remesh")
    assert topology(result.mesh).solid
    assert topology(result.mesh).components == 1
