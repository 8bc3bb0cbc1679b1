"""glTF as programs write it, against the same shape written plainly."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from gltf_files import GltfFile
from PIL import Image

from ultrashape_cli.errors import MeshError
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.geometry.normalize import Frame
from ultrashape_cli.meshfiles.appearance import load_appearance
from ultrashape_cli.meshfiles.load import load_mesh, read_contents
from ultrashape_cli.rendering.colours import SurfaceColours

SQUARE = np.array([(-1, -1, 0), (1, -1, 0), (1, 1, 0), (-1, 1, 0)], float)
FACES = np.array([(0, 1, 2), (0, 2, 3)])
UV = np.array([(0, 1), (1, 1), (1, 0), (0, 0)], float)
RED, BLUE = (255, 0, 0, 255), (0, 0, 255, 255)


def at(x: float, y: float, z: float) -> np.ndarray:
    """Returns the square moved."""
    return SQUARE + np.array((x, y, z))


def same(path: Path, mesh: Mesh, tolerance: float = 1e-6) -> None:
    """The file holds the triangles of a mesh, in any order of vertices."""
    found = load_mesh(path)
    assert found.triangles == pytest.approx(mesh.triangles, abs=tolerance)


def halves() -> bytes:
    """A picture whose left half is red and whose right half is blue."""
    image = Image.new("RGBA", (64, 64), RED)
    image.paste(BLUE, (32, 0, 64, 64))
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


def colour_at(path: Path, x: float, y: float) -> str:
    """Returns what the file shows at a point of the square: red, blue, clay, hole or something."""
    appearance = load_appearance(path)
    if appearance is None:
        return "clay"
    colours = SurfaceColours(appearance, Frame((0.0, 0.0, 0.0), 1.0))
    r, g, b, a = colours.at(np.array([(x, y, 0.0)]), np.array([(0.0, 0.0, 1.0)]))[0]
    if a == 0:
        return "hole"
    if r > 0.7 and max(g, b) < 0.05:
        return "red"
    return "blue" if b > 0.7 and max(r, g) < 0.05 else "something"


@pytest.fixture
def square() -> GltfFile:
    return GltfFile().surface(SQUARE, FACES)


def test_a_plain_file_is_read_exactly(tmp_path: Path, torus: Mesh) -> None:
    vertices = torus.vertices.astype(np.float32).astype(float)
    path = GltfFile().surface(vertices, torus.faces).write(tmp_path / "a.glb")
    found = load_mesh(path)
    assert np.array_equal(found.vertices, vertices)
    assert np.array_equal(found.faces, torus.faces)


def test_quantised_positions_are_scaled_back(tmp_path: Path, torus: Mesh) -> None:
    size = np.abs(torus.vertices).max()
    stored = np.rint(torus.vertices / size * 32767)
    file = GltfFile().surface(torus.vertices, torus.faces)
    place = file.accessor(stored, "i2", normalized=True)
    file.primitive["attributes"]["POSITION"] = place
    file.document["nodes"][0]["scale"] = [size] * 3
    file.document["extensionsRequired"] = ["KHR_mesh_quantization"]
    same(file.write(tmp_path / "a.glb"), torus, 1e-4)


def test_strided_accessors(tmp_path: Path, torus: Mesh) -> None:
    file = GltfFile().surface(torus.vertices, torus.faces)
    padded = np.full((len(torus.vertices), 5), 7, np.float32)
    padded[:, 1:4] = torus.vertices
    view = file.view(padded.tobytes(), byteStride=20)
    accessor = file.document["accessors"][file.primitive["attributes"]["POSITION"]]
    accessor |= {"bufferView": view, "byteOffset": 4}
    same(file.write(tmp_path / "a.glb"), torus)


@pytest.mark.parametrize("dense", [True, False])
def test_sparse_values_replace_those_below(tmp_path: Path, square: GltfFile, dense: bool) -> None:
    accessor = square.document["accessors"][0]
    moved = at(0, 0, 3)
    accessor["sparse"] = {
        "count": 4,
        "indices": {"bufferView": square.view(bytes([0, 1, 2, 3])), "componentType": 5121},
        "values": {"bufferView": square.view(moved.astype("<f4").tobytes())},
    }
    if not dense:
        del accessor["bufferView"]
    same(square.write(tmp_path / "a.glb"), Mesh.from_arrays(moved, FACES))


def test_morph_targets_count_by_their_weights(tmp_path: Path, square: GltfFile) -> None:
    square.primitive["targets"] = [{"POSITION": square.accessor(np.tile((0, 0, 1), (4, 1)))}]
    square.document["meshes"][0]["weights"] = [0.5]
    same(square.write(tmp_path / "a.glb"), Mesh.from_arrays(at(0, 0, 0.5), FACES))
    square.document["nodes"][0]["weights"] = [2.0]
    same(square.write(tmp_path / "b.glb"), Mesh.from_arrays(at(0, 0, 2), FACES))


def test_a_skin_is_placed_by_its_joints_alone(tmp_path: Path, square: GltfFile) -> None:
    joints, weights = np.zeros((4, 4)), np.tile((1, 0, 0, 0), (4, 1))
    square.primitive["attributes"] |= {
        "JOINTS_0": square.accessor(joints, "u1"),
        "WEIGHTS_0": square.accessor(weights),
    }
    inverse = np.eye(4)
    inverse[3, :3] = (-5, 0, 0)  # columns first
    square.document["skins"] = [
        {"joints": [1], "inverseBindMatrices": square.accessor(inverse.reshape(1, 16))}
    ]
    square.document["nodes"] = [
        {"mesh": 0, "skin": 0, "translation": [100, 0, 0]},
        {"translation": [5, 2, 0]},
    ]
    square.document["scenes"][0]["nodes"] = [0, 1]
    same(square.write(tmp_path / "a.glb"), Mesh.from_arrays(at(0, 2, 0), FACES))


def test_instances_are_copies(tmp_path: Path, square: GltfFile) -> None:
    places = [(0, 0, 0), (0, 0, 3)]
    square.document["nodes"][0]["extensions"] = {
        "EXT_mesh_gpu_instancing": {"attributes": {"TRANSLATION": square.accessor(places)}}
    }
    square.document["extensionsRequired"] = ["EXT_mesh_gpu_instancing"]
    found = load_mesh(square.write(tmp_path / "a.glb"))
    assert len(found.faces) == 4
    assert found.extents.tolist() == [2, 2, 3]


@pytest.mark.parametrize(("mode", "corners"), [(5, [0, 1, 3, 2]), (6, [0, 1, 2, 3])])
def test_strips_and_fans(tmp_path: Path, square: GltfFile, mode: int, corners: list[int]) -> None:
    square.primitive.update(mode=mode, indices=square.accessor(corners, "u2"))
    found = load_mesh(square.write(tmp_path / "a.glb"))
    assert found.area_faces.sum() == pytest.approx(4)
    assert (found.face_normals[:, 2] > 0).all()


def test_without_indices_corners_follow_each_other(tmp_path: Path, square: GltfFile) -> None:
    square.primitive["attributes"]["POSITION"] = square.accessor(SQUARE[FACES].reshape(-1, 3))
    del square.primitive["indices"]
    same(square.write(tmp_path / "a.glb"), Mesh.from_arrays(SQUARE, FACES))


def test_parts_of_one_node_keep_the_order_of_the_file(tmp_path: Path) -> None:
    file = GltfFile().surface(SQUARE, FACES)
    second = file.accessor(at(0, 0, 5))
    first = file.primitive
    file.document["meshes"][0]["primitives"].append(
        {"attributes": {"POSITION": second}, "indices": first["indices"]}
    )
    found = load_mesh(file.write(tmp_path / "a.glb"))
    assert found.vertices[:, 2].tolist() == [0] * 4 + [5] * 4


def test_hidden_and_flat_nodes_are_no_surface(tmp_path: Path, square: GltfFile) -> None:
    square.document["nodes"] += [
        {"mesh": 0, "scale": [0, 0, 0], "translation": [40, 0, 0]},
        {"mesh": 0, "translation": [0, 90, 0],
         "extensions": {"KHR_node_visibility": {"visible": False}}},
    ]  # fmt: skip
    square.document["scenes"][0]["nodes"] = [0, 1, 2]
    same(square.write(tmp_path / "a.glb"), Mesh.from_arrays(SQUARE, FACES))


def test_parts_of_no_opacity_are_left_out(tmp_path: Path, square: GltfFile) -> None:
    first = dict(square.primitive)
    square.document["materials"] = [
        {"alphaMode": "BLEND", "pbrMetallicRoughness": {"baseColorFactor": [1, 1, 1, 0]}}
    ]
    places = {"POSITION": square.accessor(at(9, 9, 9))}
    box = {"attributes": places, "indices": first["indices"], "material": 0}
    square.document["meshes"][0]["primitives"].append(box)
    path = square.write(tmp_path / "a.glb")
    same(path, Mesh.from_arrays(SQUARE, FACES))
    assert load_appearance(path) is None
    assert read_contents(path, colours=False).notes == ["1 parts of no opacity left out"]
    square.document["meshes"][0]["primitives"] = [box]
    same(square.write(tmp_path / "b.glb"), Mesh.from_arrays(at(9, 9, 9), FACES))


def test_a_mirrored_node_stays_outward(tmp_path: Path, torus: Mesh) -> None:
    file = GltfFile().surface(torus.vertices, torus.faces)
    file.document["nodes"][0]["scale"] = [-1, 1, 1]
    assert load_mesh(file.write(tmp_path / "a.glb")).volume == pytest.approx(torus.volume, rel=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extensionsRequired": ["ACME_voxels"]}, "requires the extension ACME_voxels"),
        ({"asset": {"version": "1.0"}}, "is glTF 1.0"),
        ({"nodes": [{"mesh": 0, "children": [0]}]}, "child of itself"),
        ({"nodes": [{"mesh": 7}]}, r"refers to meshes\[7\]"),
        ({"accessors": []}, r"refers to accessors\[0\]"),
        ({"meshes": [{"primitives": 3}]}, "cannot be read"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(
    tmp_path: Path, square: GltfFile, change: dict[str, object], message: str
) -> None:
    square.document |= change
    with pytest.raises(MeshError, match=message):
        load_mesh(square.write(tmp_path / "a.glb"))


@pytest.mark.parametrize("name", ["KHR_draco_mesh_compression", "EXT_meshopt_compression"])
def test_packed_data_without_its_library_is_refused_by_name(
    tmp_path: Path, square: GltfFile, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    if name == "EXT_meshopt_compression":
        square.document["bufferViews"][0]["extensions"] = {name: {"buffer": 0, "byteLength": 8}}
    else:
        del square.document["accessors"][0]["bufferView"]
        square.primitive["extensions"] = {name: {"bufferView": 0, "attributes": {"POSITION": 0}}}
    with pytest.raises(MeshError, match=name) as error:
        load_mesh(square.write(tmp_path / "a.glb"))
    assert "ultrashape-cli[compressed]" in str(error.value.hint)


def test_a_small_file_cannot_unfold_without_end(tmp_path: Path, square: GltfFile) -> None:
    # Ten levels of ten children each of the same two would be twenty billion faces.
    square.document["nodes"] = [{"mesh": 0, "children": [1, 1]}, {"mesh": 0}]
    with pytest.raises(MeshError, match="of two others"):
        load_mesh(square.write(tmp_path / "a.glb"))


def test_an_accessor_cannot_ask_for_more_than_there_is(tmp_path: Path, square: GltfFile) -> None:
    square.document["accessors"][0]["count"] = 10**12
    with pytest.raises(MeshError, match="truncated"):
        load_mesh(square.write(tmp_path / "a.glb"))
    del square.document["accessors"][0]["bufferView"]
    with pytest.raises(MeshError, match="no data"):
        load_mesh(square.write(tmp_path / "b.glb"))


@pytest.mark.parametrize(("mode", "found"), [(10497, "red"), (33648, "blue"), (33071, "blue")])
def test_beyond_its_edge_a_texture_wraps_as_told(
    tmp_path: Path, square: GltfFile, mode: int, found: str
) -> None:
    shifted = UV + np.array((1.0, 0.0))  # u from 1 to 2
    square.primitive["attributes"]["TEXCOORD_0"] = square.accessor(shifted)
    path = square.picture(halves(), wrapS=mode, wrapT=mode).write(tmp_path / "a.glb")
    assert colour_at(path, -0.6, 0.2) == found


def test_a_texture_is_transformed_and_takes_its_own_coordinates(
    tmp_path: Path, square: GltfFile
) -> None:
    square.primitive["attributes"] |= {
        "TEXCOORD_0": square.accessor(UV * 0),
        "TEXCOORD_1": square.accessor(UV),
    }
    path = square.picture(halves(), texcoord=1).write(tmp_path / "a.glb")
    assert (colour_at(path, -0.5, 0.1), colour_at(path, 0.5, 0.1)) == ("red", "blue")
    texture = square.document["materials"][0]["pbrMetallicRoughness"]["baseColorTexture"]
    texture["extensions"] = {"KHR_texture_transform": {"offset": [0.5, 0], "scale": [0.5, 1]}}
    path = square.write(tmp_path / "b.glb")
    assert (colour_at(path, -0.5, 0.1), colour_at(path, 0.5, 0.1)) == ("blue", "blue")


@pytest.mark.parametrize("material", [False, True])
@pytest.mark.parametrize(
    ("dtype", "largest"), [("f4", 1.0), ("u1", 255), ("u2", 65535)]
)  # fmt: skip
def test_vertex_colours_of_every_type(
    tmp_path: Path, square: GltfFile, dtype: str, largest: float, material: bool
) -> None:
    colours = np.tile((largest, 0, 0), (4, 1))
    square.primitive["attributes"]["COLOR_0"] = square.accessor(
        colours, dtype, normalized=dtype != "f4"
    )
    if material:
        square.document["materials"] = [{"pbrMetallicRoughness": {"metallicFactor": 0}}]
        square.primitive["material"] = 0
    assert colour_at(square.write(tmp_path / "a.glb"), 0.1, 0.2) == "red"


def test_a_black_surface_that_shines_shows_its_light(tmp_path: Path, square: GltfFile) -> None:
    square.primitive["attributes"]["TEXCOORD_0"] = square.accessor(UV)
    square.picture(halves())
    texture = square.document["materials"][0]["pbrMetallicRoughness"].pop("baseColorTexture")
    square.document["materials"] = [
        {
            "pbrMetallicRoughness": {"baseColorFactor": [0, 0, 0, 1]},
            "emissiveFactor": [1, 1, 1],
            "emissiveTexture": texture,
        }
    ]
    path = square.write(tmp_path / "a.glb")
    assert (colour_at(path, -0.5, 0.1), colour_at(path, 0.5, 0.1)) == ("red", "blue")


def test_alpha_modes(tmp_path: Path, square: GltfFile) -> None:
    material = {"pbrMetallicRoughness": {"baseColorFactor": [1, 0, 0, 0.4]}}
    square.primitive["material"] = 0
    for mode, found in (("OPAQUE", "red"), ("MASK", "hole"), ("BLEND", "red")):
        square.document["materials"] = [material | {"alphaMode": mode}]
        assert colour_at(square.write(tmp_path / f"{mode}.glb"), 0.1, 0.2) == found
    square.document["materials"] = [material | {"alphaMode": "MASK", "alphaCutoff": 0.3}]
    assert colour_at(square.write(tmp_path / "a.glb"), 0.1, 0.2) == "red"


def test_draco_data_is_unpacked_with_its_colours(tmp_path: Path, torus: Mesh) -> None:
    draco = pytest.importorskip("DracoPy")
    red = np.tile(np.array(RED, np.uint8), (len(torus.vertices), 1))
    data = draco.encode(
        torus.vertices.astype(np.float32),
        torus.faces.astype(np.uint32),
        colors=red,
        preserve_order=True,
        quantization_bits=20,
    )
    numbers = {a["attribute_type"]: a["unique_id"] for a in draco.decode(data).attributes}
    file = GltfFile().surface(torus.vertices, torus.faces)
    file.primitive["attributes"]["COLOR_0"] = file.accessor(red, "u1", normalized=True)
    for accessor in file.document["accessors"]:
        del accessor["bufferView"]
    name = "KHR_draco_mesh_compression"
    packed = {"POSITION": numbers[0], "COLOR_0": numbers[2]}
    file.primitive["extensions"] = {name: {"bufferView": file.view(data), "attributes": packed}}
    path = file.write(tmp_path / "a.glb")
    assert load_mesh(path).volume == pytest.approx(torus.volume, rel=1e-4)
    appearance = load_appearance(path)
    assert appearance is not None
    assert np.unique(appearance.tint.reshape(-1, 4), axis=0).tolist() == [list(RED)]
    file.binary = bytes(len(file.binary))
    with pytest.raises(MeshError, match=f"{name} data cannot be decoded"):
        load_mesh(file.write(tmp_path / "b.glb"))


def test_meshopt_data_is_unpacked(tmp_path: Path, torus: Mesh) -> None:
    meshopt = pytest.importorskip("meshoptimizer")
    file = GltfFile().surface(torus.vertices, torus.faces)
    points, corners = torus.vertices.astype(np.float32), torus.faces.astype(np.uint32).ravel()
    packed = [
        (meshopt.encode_vertex_buffer(points, len(points), 12), 12, len(points), "ATTRIBUTES"),
        (meshopt.encode_index_buffer(corners, len(corners), len(points)), 4, len(corners),
         "TRIANGLES"),
    ]  # fmt: skip
    for number, (data, stride, count, mode) in enumerate(packed):
        view = file.document["bufferViews"][file.view(bytes(data))]
        extension = {**view, "byteStride": stride, "count": count, "mode": mode}
        target = file.document["bufferViews"][number]
        target["extensions"] = {"EXT_meshopt_compression": extension}
    found = load_mesh(file.write(tmp_path / "a.glb"))
    assert found.volume == pytest.approx(torus.volume, rel=1e-6)


def test_bytes_behind_the_end_are_not_the_file(tmp_path: Path, square: GltfFile) -> None:
    path = square.write(tmp_path / "a.glb")
    path.write_bytes(path.read_bytes() + b"xyz" * 40)
    same(path, Mesh.from_arrays(SQUARE, FACES))


def test_a_long_chain_of_nodes_is_named(tmp_path: Path, square: GltfFile) -> None:
    square.document["nodes"] = [{"children": [n + 1]} for n in range(600)] + [{"mesh": 0}]
    with pytest.raises(MeshError, match="its nodes are more than 512 deep"):
        load_mesh(square.write(tmp_path / "a.glb"))
