"""Damaged glTF and 3MF: any value in their JSON or XML may be another, any byte another."""

from __future__ import annotations

import base64
import copy
import json
import re
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bounded import many, one_gibibyte
from gltf_files import GltfFile
from hypothesis import given
from hypothesis import strategies as st
from test_damaged import EDITS, WORDS, damaged
from test_gltf import halves
from test_threemf import RELATION, SQUARE, _mesh, _model

from ultrashape_cli.errors import MeshError
from ultrashape_cli.meshfiles.appearance import appearance_of
from ultrashape_cli.meshfiles.load import mesh_of, read_contents

POINTS = np.array([(0, 0, 0), (1, 0, 0), (1, 1, 0.5), (0, 1, 0)], np.float32)
FACES = np.array([(0, 1, 2), (0, 2, 3)])


def rich() -> GltfFile:
    """A document with most of what one may hold."""
    file = GltfFile().surface(POINTS, FACES).picture(halves(), wrapS=33071)
    document, attributes = file.document, file.primitive["attributes"]
    attributes["TEXCOORD_0"] = file.accessor(POINTS[:, :2] * 255, "u1", normalized=True)
    attributes["COLOR_0"] = file.accessor(np.full((4, 4), 40000), "u2", normalized=True)
    attributes["JOINTS_0"] = file.accessor(np.zeros((4, 4)), "u1")
    attributes["WEIGHTS_0"] = file.accessor(np.tile([1, 0, 0, 0], (4, 1)), "f4")
    file.primitive["targets"] = [{"POSITION": file.accessor(POINTS)}]
    sparse = {
        "count": 1,
        "indices": {"bufferView": file.view(b"\2\0"), "componentType": 5123},
        "values": {"bufferView": file.view(np.array([1, 1, 1], "<f4").tobytes())},
    }
    document["accessors"][0]["sparse"] = sparse
    texture = document["materials"][0]["pbrMetallicRoughness"]["baseColorTexture"]
    texture["extensions"] = {"KHR_texture_transform": {"offset": [0.5, 0], "rotation": 0.1}}
    document["materials"][0] |= {"alphaMode": "MASK", "emissiveFactor": [0, 0, 0]}
    strip = {"attributes": {"POSITION": attributes["POSITION"]}, "mode": 5}
    document["meshes"] += [{"primitives": [strip, {**strip, "mode": 6}], "weights": [0.5]}]
    inverse = file.accessor(np.eye(4).reshape(1, 16))
    document["skins"] = [{"joints": [1], "inverseBindMatrices": inverse}]
    places = file.accessor(POINTS)
    document["nodes"] = [
        {"mesh": 0, "skin": 0, "weights": [0.5], "children": [1, 2]},
        {"rotation": [0, 0, 0, 1], "scale": [1, 1, -1], "translation": [1, 0, 0]},
        {"mesh": 1, "extensions": {"EXT_mesh_gpu_instancing": {"attributes": {
            "TRANSLATION": places}}}},
        {"mesh": 1, "matrix": np.eye(4).ravel().tolist()},
    ]  # fmt: skip
    document["scenes"] = [{"nodes": [0, 3]}]
    document["extensionsRequired"] = ["KHR_texture_transform"]
    return file


def text_of(file: GltfFile) -> dict[str, Any]:
    data = base64.b64encode(file.binary).decode()
    uri = f"data:application/octet-stream;base64,{data}"
    return {**file.document, "buffers": [{"byteLength": len(file.binary), "uri": uri}]}


def packed() -> list[GltfFile]:
    """Documents whose arrays an extension packs, where it is installed."""
    found = []
    try:
        import DracoPy
        import meshoptimizer
    except ImportError:
        return []
    file = GltfFile().surface(POINTS, FACES)
    data = DracoPy.encode(POINTS, FACES.astype(np.uint32), preserve_order=True)
    for accessor in file.document["accessors"]:
        del accessor["bufferView"]
    extension = {"bufferView": file.view(data), "attributes": {"POSITION": 0}}
    file.primitive["extensions"] = {"KHR_draco_mesh_compression": extension}
    found.append(file)
    file = GltfFile().surface(POINTS, FACES)
    data = bytes(meshoptimizer.encode_vertex_buffer(POINTS, 4, 12))
    view = file.document["bufferViews"][file.view(data)]
    extension = {**view, "byteStride": 12, "count": 4, "mode": "ATTRIBUTES"}
    file.document["bufferViews"][0]["extensions"] = {"EXT_meshopt_compression": extension}
    return [*found, file]


DOCUMENTS = [text_of(file) for file in (rich(), *packed())]
UP = "1 0 0 0 1 0 0 0 1 0 0 9"
GROUPS = (
    '<basematerials id="5"><base name="a" displaycolor="#00FF00"/></basematerials>'
    '<m:colorgroup id="6"><m:color color="#0000FF80"/></m:colorgroup>'
    '<m:texture2d id="7" path="/3D/t.png" tilestyleu="clamp"/>'
    '<m:texture2dgroup id="8" texid="7"><m:tex2coord u="0" v="1"/></m:texture2dgroup>'
)
PARTS = {
    "3D/3dmodel.model": _model(
        GROUPS + f'<object id="1" pid="5" pindex="0">{_mesh(SQUARE)}</object>'
        f'<object id="2">{_mesh(SQUARE, """pid="8" p1="0" """)}</object>'
        f'<object id="3"><components><component objectid="1"/><component p:path="/3D/b.model" '
        f'objectid="1" transform="{UP}"/><component objectid="2"/></components></object>',
        f'<item objectid="3" transform="{UP}"/><item objectid="1"/>',
    ),
    "3D/b.model": _model(
        f'<object id="1">{_mesh(SQUARE, """pid="6" p1="0" """)}</object>' + GROUPS, "", "inch"
    ),
    "_rels/.rels": RELATION.format(target="3D/3dmodel.model"),
}
VALUES = st.sampled_from(
    [None, True, -1, 0, 1, 3, 7, 255, 2**31, 2**53, 1e300, 0.5, "", "x", "MAT4", "VEC3", [], [1],
     [0, 0, 0], {}, {"index": 9}, 5125, 5126, "data:;base64,AAAA"]
)  # fmt: skip


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Returns the way to each value in a document."""
    if isinstance(value, list):
        value = dict(enumerate(value))
    found = []
    for key, inner in value.items() if isinstance(value, dict) else ():
        found += [(*at, key), *places(inner, (*at, key))]
    return found


def check(path: Path) -> None:
    """Reads a file: it must be refused in words, or be a mesh whose looks fit it."""
    began = time.monotonic()
    with one_gibibyte():
        for colours in (True, False):
            try:
                contents = read_contents(path, colours=colours)
                mesh = mesh_of(path, contents)
            except MeshError:
                continue
            assert len(mesh.faces)
            assert np.isfinite(mesh.triangles).all()
            if colours and (appearance := appearance_of(contents)) is not None:
                assert len(appearance.mesh.faces) == len(mesh.faces) == len(appearance.material)
    assert time.monotonic() - began < 10


def change_document(path: Path, seed: int, changes: list[tuple[float, Any]]) -> None:
    document = copy.deepcopy(DOCUMENTS[seed % len(DOCUMENTS)])
    for part, value in changes:
        ways = places(document)
        way = ways[int(part * (len(ways) - 1))]
        inside = document
        for key in way[:-1]:
            inside = inside[key]
        inside[way[-1]] = copy.deepcopy(value)
    path.write_text(json.dumps(document))


def change_archive(path: Path, seed: int, changes: list[tuple[float, Any]]) -> None:
    parts = dict(PARTS)
    for part, value in changes:
        name = sorted(parts)[seed % len(parts)]
        values = list(re.finditer(r'="([^"]*)"', parts[name]))
        if values:
            chosen = values[int(part * (len(values) - 1))]
            text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
            parts[name] = f'{parts[name][: chosen.start()]}="{text}"{parts[name][chosen.end() :]}'
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in parts.items():
            archive.writestr(name, text)
        archive.writestr("3D/t.png", halves())


def damage_bytes(path: Path, seed: int, edits: Any) -> None:
    """Damages a .glb file, or the text in a .3mf file."""
    if path.suffix == ".glb":
        files = (rich(), *packed())
        path.write_bytes(damaged(files[seed % len(files)].write(path).read_bytes(), edits))
        return
    parts = {name: text.encode() for name, text in PARTS.items()}
    name = sorted(parts)[seed % len(parts)]
    parts[name] = damaged(parts[name], edits)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)


CHANGES = st.lists(st.tuples(st.floats(0, 1), VALUES), min_size=1, max_size=3)
WAYS = {
    "gltf": (change_document, CHANGES),
    "glb": (damage_bytes, st.lists(EDITS, min_size=1, max_size=3)),
    "3mf": (change_archive, CHANGES),
    "3mf-bytes": (damage_bytes, st.lists(EDITS | st.tuples(st.just("f"), st.floats(0, 1), WORDS),
                                         min_size=1, max_size=3)),
}  # fmt: skip


@pytest.mark.parametrize("name", WAYS)
def test_they_are_whole_before_they_are_damaged(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"a.{name[:4].rstrip('-')}"
    change, _ = WAYS[name]
    for seed in range(3):
        change(path, seed, [])
        assert len(mesh_of(path, read_contents(path, colours=True)).faces) >= 2


def run(folder: Path, name: str, data: st.DataObject) -> None:
    change, values = WAYS[name]
    path = folder / f"a.{name[:4].rstrip('-')}"
    change(path, data.draw(st.integers(0, 2)), data.draw(values))
    check(path)


@pytest.mark.parametrize("name", WAYS)
@many(30)
@given(st.data())
def test_damage_is_refused_or_read(tmp_path: Path, name: str, data: st.DataObject) -> None:
    run(tmp_path, name, data)


@pytest.mark.slow
@pytest.mark.parametrize("name", WAYS)
@many(1000)
@given(st.data())
def test_much_damage_is_refused_or_read(tmp_path: Path, name: str, data: st.DataObject) -> None:
    run(tmp_path, name, data)
