import json
import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import trimesh
from shapes import joined, moved

from ultrashape_cli.errors import MeshError
from ultrashape_cli.geometry.check import topology
from ultrashape_cli.geometry.mesh import Mesh, weld
from ultrashape_cli.meshfiles.load import load_mesh
from ultrashape_cli.meshfiles.save import save_mesh


def test_areas_and_volumes_of_known_shapes(cube: Mesh, sphere: Mesh, torus: Mesh) -> None:
    assert cube.area_faces.sum() == pytest.approx(24)
    assert cube.volume == pytest.approx(8)
    assert sphere.area_faces.sum() == pytest.approx(4 * np.pi, rel=2e-3)
    assert sphere.volume == pytest.approx(4 / 3 * np.pi, rel=2e-3)
    assert torus.volume == pytest.approx(2 * np.pi**2 * 0.16, rel=5e-3)
    assert torus.area_faces.sum() == pytest.approx(4 * np.pi**2 * 0.4, rel=3e-3)


def test_volume_keeps_its_digits_far_from_the_origin(cube: Mesh) -> None:
    assert moved(cube, shift=(1e6, 0, 0)).volume == pytest.approx(8, rel=1e-9)


def test_normals_of_a_sphere_point_away_from_its_centre(sphere: Mesh) -> None:
    cosine = np.einsum("ij,ij->i", sphere.vertex_normals, sphere.vertices)
    assert cosine.min() > 0.999
    assert np.linalg.norm(sphere.face_normals, axis=1) == pytest.approx(1)


def test_bounds_ignore_vertices_without_faces(cube: Mesh) -> None:
    mesh = Mesh(np.concatenate([cube.vertices, [[9.0, 9.0, 9.0]]]), cube.faces)
    assert mesh.extents.tolist() == [2, 2, 2]


def test_welding_closes_a_soup_and_drops_bad_faces(sphere: Mesh) -> None:
    pieces = Mesh.from_arrays(sphere.triangles, np.arange(3 * len(sphere.faces)))
    repeated = np.concatenate([pieces.faces, pieces.faces[:5, [1, 2, 0]], [[0, 0, 1]]])
    welded = weld(Mesh(pieces.vertices, repeated))
    assert len(welded.vertices) == len(sphere.vertices)
    assert len(welded.faces) == len(sphere.faces)
    assert topology(welded).watertight


def test_welding_merges_zero_with_minus_zero() -> None:
    vertices = [[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [-0.0, 0, 0], [1, 0, 0], [0, 0, 1]]
    assert len(weld(Mesh.from_arrays(vertices, [[0, 1, 2], [3, 5, 4]])).vertices) == 4


@pytest.mark.parametrize("suffix", [".obj", ".stl", ".ply", ".glb", ".off"])
def test_a_saved_mesh_loads_with_the_same_shape(tmp_path: Path, torus: Mesh, suffix: str) -> None:
    path = tmp_path / f"torus{suffix}"
    save_mesh(torus, path)
    loaded = weld(load_mesh(path))
    assert len(loaded.faces) == len(torus.faces)
    assert loaded.volume == pytest.approx(torus.volume, rel=1e-5)
    assert os.listdir(tmp_path) == [path.name]


def test_saving_an_unknown_type_is_refused(tmp_path: Path, cube: Mesh) -> None:
    with pytest.raises(MeshError, match="cannot write"):
        save_mesh(cube, tmp_path / "cube.xyz")


def test_scene_transforms_are_applied_and_mirrors_stay_outward(tmp_path: Path) -> None:
    box = trimesh.creation.box()
    scene = trimesh.Scene()
    scene.add_geometry(box, transform=trimesh.transformations.translation_matrix([5, 0, 0]))
    scene.add_geometry(box, transform=np.diag([-2.0, 1, 1, 1]))
    scene.export(tmp_path / "scene.glb")
    mesh = load_mesh(tmp_path / "scene.glb")
    assert mesh.bounds.ravel() == pytest.approx([-1, -0.5, -0.5, 5.5, 0.5, 0.5])
    assert mesh.volume == pytest.approx(3)


def test_polygons_are_triangulated(tmp_path: Path) -> None:
    quad = tmp_path / "quad.obj"
    quad.write_text("v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nf 1 2 3 4\n")
    assert load_mesh(quad).area_faces.sum() == pytest.approx(1)


def test_faces_at_non_finite_vertices_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "nan.obj"
    path.write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nv nan 0 1\nf 1 2 3\nf 1 2 4\n")
    mesh = load_mesh(path)
    assert len(mesh.faces) == 1
    assert np.isfinite(mesh.vertices).all()


def glb(document: dict, binary: bytes = b"") -> bytes:
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    body = struct.pack("<I4s", len(text), b"JSON") + text
    if binary:
        body += struct.pack("<I4s", len(binary), b"BIN\0") + binary
    return struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body


PLY = "ply\nformat binary_little_endian 1.0\nelement vertex 9\nproperty float x\nproperty float y\n"
PLY += "property float z\nelement face 9\nproperty list uchar int vertex_indices\nend_header\n"
BAD_FILES = {
    "empty.obj": b"",
    "comment.obj": b"# nothing here\n",
    "points.obj": b"v 0 0 0\nv 1 0 0\nv 0 1 0\n",
    "range.obj": b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 9\n",
    "text.obj": b"v one two three\nf 1 2 3\n",
    "all_nan.obj": b"v nan 0 0\nv 1 nan 0\nv 0 1 nan\nf 1 2 3\n",
    "flat.obj": b"v 0 0 0\nv 0 0 0\nv 0 0 0\nf 1 2 3\n",
    "line.obj": b"v 0 0 0\nv 1 0 0\nv 2 0 0\nf 1 2 3\n",
    "huge.obj": b"v 0 0 0\nv 1e200 0 0\nv 0 1e200 0\nf 1 2 3\n",
    "zero.stl": bytes(84),
    "short.stl": bytes(40),
    "giant.stl": bytes(80) + b"\xff\xff\xff\xff" + bytes(50),
    "renamed.stl": b"this is a letter to a friend, not a mesh at all",
    "header.glb": b"glTF\x02\0\0\0",
    "giant.glb": struct.pack("<4sII", b"glTF", 2, 2**31) + bytes(100),
    "other.glb": b"PNG or whatever else",
    "json.glb": struct.pack("<4sIII4s", b"glTF", 2, 24, 4, b"JSON") + b"{{{{",
    "nothing.glb": glb({"asset": {"version": "2.0"}}),
    "broken.gltf": b"{",
    "truncated.ply": PLY.encode() + bytes(50),
    "header.ply": b"ply\nformat ascii 1.0\nelement vertex",
    "text.ply": b"hello",
    "text.off": b"OFF\n3 1 0\n0 0 0\n",
    "text.3mf": b"not a zip",
    "mesh.xyz": b"0 0 0",
}


@pytest.mark.parametrize("name", BAD_FILES)
@pytest.mark.filterwarnings("ignore")
def test_a_bad_file_gives_one_error_that_names_it(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(BAD_FILES[name])
    with pytest.raises(MeshError) as raised:
        load_mesh(path)
    assert str(path) in raised.value.message
    assert "\n" not in raised.value.message
    assert raised.value.hint


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MeshError, match="No such file"):
        load_mesh(tmp_path / "missing.obj")


@pytest.mark.parametrize("suffix", [".stl", ".ply", ".glb"])
def test_a_file_cut_in_the_middle_is_called_truncated(
    tmp_path: Path, torus: Mesh, suffix: str
) -> None:
    path = tmp_path / f"torus{suffix}"
    save_mesh(torus, path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(MeshError, match="truncated"):
        load_mesh(path)


def test_a_file_above_the_limit_is_refused(tmp_path: Path, torus: Mesh) -> None:
    save_mesh(torus, tmp_path / "torus.ply")
    with pytest.raises(MeshError, match="above the limit"):
        load_mesh(tmp_path / "torus.ply", max_bytes=1000)


def test_an_archive_counts_by_its_unpacked_size(tmp_path: Path) -> None:
    path = tmp_path / "bomb.3mf"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("3D/3dmodel.model", bytes(10**7))
    with pytest.raises(MeshError, match="above the limit"):
        load_mesh(path, max_bytes=10**6)


@pytest.mark.filterwarnings("ignore")
def test_a_mesh_cannot_read_outside_its_folder(tmp_path: Path) -> None:
    (tmp_path / "secret.bin").write_bytes(np.eye(3, dtype=np.float32).tobytes())
    inside = tmp_path / "inside"
    inside.mkdir()
    document = {
        "asset": {"version": "2.0"},
        "buffers": [{"uri": "../secret.bin", "byteLength": 36}],
        "bufferViews": [{"buffer": 0, "byteLength": 36}],
        "accessors": [
            {"bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3",
             "min": [0, 0, 0], "max": [1, 1, 1]}
        ],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}],
        "nodes": [{"mesh": 0}],
        "scenes": [{"nodes": [0]}],
        "scene": 0,
    }  # fmt: skip
    (inside / "mesh.gltf").write_text(json.dumps(document))
    with pytest.raises(MeshError, match="outside its own folder"):
        load_mesh(inside / "mesh.gltf")
    document["buffers"][0]["uri"] = "secret.bin"
    (inside / "secret.bin").write_bytes((tmp_path / "secret.bin").read_bytes())
    (inside / "mesh.gltf").write_text(json.dumps(document))
    assert len(load_mesh(inside / "mesh.gltf").faces) == 1


def test_materials_of_an_obj_are_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "mesh.obj"
    path.write_text("mtllib ../../etc/passwd\nv 0 0 0\nv 1 0 0\nv 0 1 0\nusemtl x\nf 1 2 3\n")
    assert len(load_mesh(path).faces) == 1


def test_joined_meshes_add_their_volumes(cube: Mesh) -> None:
    both = joined(cube, moved(cube, shift=(5, 0, 0)))
    assert both.volume == pytest.approx(16)
    assert topology(both).components == 2


def test_a_gltf_with_percent_encoded_buffers_loads(tmp_path: Path) -> None:
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], np.float32)
    (tmp_path / "my buffer.bin").write_bytes(vertices.tobytes())
    gltf = {
        "asset": {"version": "2.0"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}],
        "accessors": [
            {"bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3"},
        ],
        "bufferViews": [{"buffer": 0, "byteLength": 36}],
        "buffers": [{"uri": "my%20buffer.bin", "byteLength": 36}],
    }
    path = tmp_path / "model.gltf"
    path.write_text(json.dumps(gltf))
    assert len(load_mesh(path).faces) == 1
