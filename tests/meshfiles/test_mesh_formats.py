"""Files that loaders stumble over: polygons, strips, archives, names."""

from pathlib import Path

import numpy as np
import pytest
import trimesh

from ultrashape_cli.errors import MeshError
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.geometry.optional import missing_reason
from ultrashape_cli.meshfiles.load import load_mesh
from ultrashape_cli.meshfiles.save import save_mesh


def test_polygons_of_any_size_are_split(tmp_path: Path) -> None:
    path = tmp_path / "pentagon.obj"
    path.write_text("v 0 0 0\nv 2 0 0\nv 2 1 0\nv 1 2 0\nv 0 1 0\nf 1 2 3 4 5\n")
    mesh = load_mesh(path)
    assert len(mesh.faces) == 3
    assert mesh.area_faces.sum() == pytest.approx(3)


def test_strips_in_a_ply_are_read(tmp_path: Path) -> None:
    if missing_reason("pymeshlab"):
        pytest.skip("only pymeshlab reads strips")
    path = tmp_path / "strip.ply"
    path.write_text(
        "ply\nformat ascii 1.0\nelement vertex 5\nproperty float x\nproperty float y\n"
        "property float z\nelement tristrips 1\nproperty list int int vertex_indices\n"
        "end_header\n0 0 0\n1 0 0\n0 1 0\n1 1 0\n0 2 0\n5 0 1 2 3 4\n"
    )
    mesh = load_mesh(path)
    assert mesh.area_faces.sum() == pytest.approx(1.5)


def test_a_3mf_archive_is_read(tmp_path: Path, cube: Mesh) -> None:
    path = tmp_path / "cube.3mf"
    trimesh.Trimesh(cube.vertices, cube.faces).export(path)
    assert load_mesh(path).volume == pytest.approx(8)


@pytest.mark.parametrize("suffix", [".obj", ".stl", ".ply", ".glb"])
def test_names_outside_ascii_are_read(tmp_path: Path, cube: Mesh, suffix: str) -> None:
    path = tmp_path / f"w\u00fcrfel \u5f6b\u523b{suffix}"
    trimesh.Trimesh(cube.vertices, cube.faces).export(path)
    assert load_mesh(path).volume == pytest.approx(8)


@pytest.mark.parametrize("suffix", [".obj", ".off", ".ply", ".glb", ".3mf"])
@pytest.mark.parametrize("scale", [1e-7, 1.0, 1e6])
def test_every_size_is_written_in_single_precision_at_least(
    sphere: Mesh, tmp_path: Path, suffix: str, scale: float
) -> None:
    save_mesh(Mesh(sphere.vertices * scale, sphere.faces), tmp_path / f"a{suffix}")
    found = load_mesh(tmp_path / f"a{suffix}")
    assert np.abs(found.vertices / scale - sphere.vertices).max() < 1e-6


@pytest.mark.parametrize(
    ("suffix", "kind"), [(".FBX", "FBX"), (".dae", "Collada"), (".usdz", "USD")]
)
def test_formats_that_are_not_read_are_named(tmp_path: Path, suffix: str, kind: str) -> None:
    with pytest.raises(MeshError, match=f"is {kind}, which is not read") as caught:
        load_mesh(tmp_path / f"a{suffix}")
    assert "GLB" in str(caught.value.hint)


@pytest.mark.parametrize(("name", "data", "words"), [
    ("a.obj", b"ply\nformat ascii 1.0\n", "is PLY by its content"),
    ("a.stl", b"PK\3\4 and more", "is a ZIP archive by its content"),
    ("a.obj", b"\x89PNG\r\n\x1a\n", "is a picture by its content"),
    ("a.ply", b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS"),
    ("a.ply", b"\x1f\x8b\x08", "is packed by gzip"),
    ("a.glb", b"<!DOCTYPE html><html>", "is a web page by its content"),
    ("a.obj", b"Kaydara FBX Binary  \0", "is FBX by its content"),
])  # fmt: skip
def test_files_of_another_kind_than_they_say_are_named(
    tmp_path: Path, name: str, data: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(MeshError, match=words):
        load_mesh(tmp_path / name)
