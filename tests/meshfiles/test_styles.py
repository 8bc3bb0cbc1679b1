"""One mesh, written in every way that a format allows, is always read as that mesh.

Polygons are compared by their vector areas, which no cut into triangles changes. Files that were
cut off are refused, or are the mesh.
"""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bounded import many
from gltf_files import GltfFile
from hypothesis import given
from hypothesis import strategies as st
from numpy.random import Generator

from ultrashape_cli.errors import MeshError
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.meshfiles.load import joined, read_contents

Polygons = list[list[int]]
Points = np.ndarray  # [V, 3]


def one_of(rng: Generator, *choices: Any) -> Any:
    return choices[int(rng.integers(len(choices)))]


def made(
    rng: Generator, *, triangles: bool = False, single: bool = False
) -> tuple[Points, Polygons]:
    count = int(rng.integers(3, 20))
    scale = 10.0 ** int(rng.integers(-3, 4))
    points = rng.normal(size=(count, 3)) * scale + rng.normal(size=3) * scale
    points = points.astype(np.float32).astype(np.float64) if single else points
    sizes = rng.integers(3, min(count, 3 if triangles else 7) + 1, int(rng.integers(1, 25)))
    return points, [rng.choice(count, size, replace=False).tolist() for size in sizes]


def text(rng: Generator, value: float) -> str:
    value = float(value)
    word = one_of(rng, f"{value!r}", f"{value:.17g}", f"{value:.17E}", f"{value:.20f}")
    word = f"+{word}" if value > 0 and rng.random() < 0.2 else word
    return word if float(word) == value else f"{value!r}"


def row(rng: Generator, *words: str) -> str:
    gap = one_of(rng, " ", "\t", "  ", " \t")
    return one_of(rng, "", "", " ", "\t") + gap.join(words) + one_of(rng, "", "", " ", "\t ")


def lines_to_bytes(rng: Generator, lines: list[str], comment: str = "#") -> bytes:
    found = []
    for line in lines:
        if rng.random() < 0.15:
            found.append(one_of(rng, "", "  ", f"{comment} f 1 2 3", f"\t{comment}"))
        found.append(line)
    end = one_of(rng, "\n", "\n", "\r\n", "\r")
    return (end.join(found) + one_of(rng, end, "")).encode("latin-1")


def write_obj(rng: Generator, path: Path) -> tuple[Points, Polygons]:
    points, polygons = made(rng)
    relative, colours = rng.random() < 0.4, rng.random() < 0.3
    style = one_of(rng, "{0}", "{0}/{1}", "{0}//{2}", "{0}/{1}/{2}", "{0}/")
    order = [("v", k) for k in range(len(points))]
    # Faces come as soon as their vertices are there, or all at the end.
    soon = rng.random() < 0.5
    for number, polygon in enumerate(polygons):
        order.append(("f", number))
        if soon:
            order.insert(order.index(("v", max(polygon))) + 1, order.pop())
    lines, written = ["vt 0 0", "vt 0.5 1", "vn 0 0 1"], 0
    sequence = []
    for kind, number in order:
        if kind == "v":
            words = [text(rng, x) for x in points[number]] + ["0.25 0.5 1"] * colours
            lines.append(row(rng, "v", *words))
            written += 1
            continue
        sequence.append(polygons[number])
        corners = []
        for corner in polygons[number]:
            name = corner - written if relative else corner + 1
            corners.append(style.format(name, one_of(rng, 1, 2, -1), 1))
        lines += one_of(rng, [], [], ["s off"], ["g a b"], ["o \xe9"], ["usemtl x"])
        half = len(corners) // 2
        if rng.random() < 0.2:
            lines += [row(rng, "f", *corners[:half]) + " \\", row(rng, *corners[half:])]
        else:
            lines.append(row(rng, "f", *corners))
    # A continued line holds no comment.
    data = "\n".join(lines).replace("\n", one_of(rng, "\n", "\r\n", "\r")).encode("latin-1")
    path.write_bytes(one_of(rng, b"", b"", b"\xef\xbb\xbf") + data + one_of(rng, b"\n", b""))
    return points, sequence


def write_ply(rng: Generator, path: Path) -> tuple[Points, Polygons]:
    double = rng.random() < 0.5
    points, polygons = made(rng, single=not double)
    order = one_of(rng, "", "<", ">")
    form = {"": "ascii", "<": "binary_little_endian", ">": "binary_big_endian"}[order]
    count_kind = one_of(rng, ("uchar", "B"), ("int", "i"), ("ushort", "H"), ("uint32", "I"))
    index_kind = one_of(rng, ("int", "i"), ("uint", "I"), ("short", "h"), ("uint8", "B"))
    place_kind = ("double", "d") if double else ("float32", "f")
    extra = [("uchar", "red", "B"), ("float", "quality", "f"), ("int", "id", "i")]
    before, after = extra[: int(rng.integers(0, 3))], extra[int(rng.integers(2, 4)) :]
    flags, has_list = rng.random() < 0.4, rng.random() < 0.3
    edges = int(rng.integers(0, 3))
    header = ["ply", f"format {form} 1.0", "comment \xe9", "obj_info x y"]
    if edges:
        header += [f"element edge {edges}", "property int vertex1", "property list uchar short s"]
    header += [f"element vertex {len(points)}"]
    header += [f"property {kind} {name}" for kind, name, _ in before]
    header += [f"property {place_kind[0]} {axis}" for axis in "xyz"]
    header += [f"property {kind} {name}" for kind, name, _ in after]
    header += [f"element face {len(polygons)}"] + ["property uchar flags"] * flags
    name = one_of(rng, "vertex_indices", "vertex_index")
    header += [f"property list {count_kind[0]} {index_kind[0]} {name}"]
    header += ["property list uchar float texcoord"] * has_list
    header += [*one_of(rng, [], ["element other 1", "property double z"]), "end_header", ""]
    rows: list[list[tuple[str, float]]] = []
    rows += [[("i", 1), ("B", 2), ("h", 5), ("h", -5)]] * edges
    for point in points:
        rows.append([(k, 7) for _, _, k in before] + [(place_kind[1], x) for x in point]
                    + [(k, 9) for _, _, k in after])  # fmt: skip
    for polygon in polygons:
        values = [("B", 3)] * flags + [(count_kind[1], len(polygon))]
        values += [(index_kind[1], corner) for corner in polygon]
        length = one_of(rng, 0, 2 * len(polygon))
        rows.append(values + [("B", length), *[("f", 0.5)] * length] * has_list)
    if not order:
        words = [[text(rng, float(v)) if k in "fd" else str(int(v)) for k, v in r] for r in rows]
        end = one_of(rng, "\n", "\r\n")
        body = end.join(row(rng, *line) for line in words) + end
        path.write_bytes((end.join(header) + body).encode("latin-1") + b"0.5\n")
        return points, polygons
    data = "\n".join(header).encode("latin-1")
    for values in rows:
        data += b"".join(struct.pack(order + k, v if k in "fd" else int(v)) for k, v in values)
    path.write_bytes(data + bytes(8))
    return points, polygons


def write_off(rng: Generator, path: Path) -> tuple[Points, Polygons]:
    points, polygons = made(rng)
    colours, of_faces = rng.random() < 0.3, rng.random() < 0.3
    counts = f"{len(points)} {len(polygons)} {one_of(rng, 0, 12)}"
    head = "COFF" if colours else one_of(rng, "OFF", "OFF", "off", None)
    lines = [counts] if head is None else one_of(rng, [head, counts], [f"{head} {counts}"])
    ends = one_of(rng, "0 128 255 255", "0.1 0.5 1 1") if colours else ""
    lines += [row(rng, *(text(rng, x) for x in p), *ends.split()) for p in points]
    for polygon in polygons:
        end = one_of(rng, "", "200 100 0", "0.5 0.5 0.5 1") if of_faces else ""
        lines.append(row(rng, str(len(polygon)), *map(str, polygon), *end.split()))
    path.write_bytes(lines_to_bytes(rng, lines))
    return points, polygons


def write_stl(rng: Generator, path: Path) -> tuple[Points, Polygons]:
    points, polygons = made(rng, triangles=True, single=True)
    corners = points[polygons]
    if rng.random() < 0.5:
        name = one_of(rng, b"", b"solid x", b"facet normal 0 0 0", b"\xff" * 80)
        body = b"".join(bytes(12) + triangle.astype("<f4").tobytes() + b"\x1f\x80"
                        for triangle in corners)  # fmt: skip
        path.write_bytes(name.ljust(80, b"\0") + struct.pack("<I", len(corners)) + body)
    else:
        upper = rng.random() < 0.3
        lines = ["solid \xe9 x"]
        for triangle in corners:
            vertices = [row(rng, "vertex", *(text(rng, x) for x in p)) for p in triangle]
            lines += [row(rng, "facet", "normal", "0", "nan", "-1"), row(rng, "outer", "loop")]
            lines += [*vertices, "endloop", row(rng, "endfacet")]
        lines.append("endsolid")
        lines = [line.upper() if upper else line for line in lines]
        path.write_bytes(
            "\n".join(lines).replace("\n", one_of(rng, "\n", "\r\n")).encode("latin-1")
        )
    return corners.reshape(-1, 3), np.arange(3 * len(polygons)).reshape(-1, 3).tolist()


def write_gltf(rng: Generator, path: Path) -> tuple[Points, Polygons]:
    points, polygons = made(rng, triangles=True, single=True)
    file, faces = GltfFile(), np.array(polygons)
    plain = rng.random() < 0.3
    if plain:
        points, faces = points[faces].reshape(-1, 3), np.arange(faces.size).reshape(-1, 3)
    attributes = file.primitive["attributes"]
    if rng.random() < 0.3:
        wide = np.zeros((len(points), 5), "<f4")
        wide[:, 1:4] = points
        view = file.view(wide.tobytes(), byteStride=20)
        entry = {"bufferView": view, "byteOffset": 4, "componentType": 5126, "type": "VEC3"}
        file.document["accessors"].append({**entry, "count": len(points)})
        attributes["POSITION"] = len(file.document["accessors"]) - 1
    else:
        attributes["POSITION"] = file.accessor(points)
    if rng.random() < 0.4:
        chosen = rng.choice(len(points), int(rng.integers(1, len(points))), replace=False)
        chosen.sort()
        entry = file.document["accessors"][attributes["POSITION"]]
        entry["sparse"] = {
            "count": len(chosen),
            "indices": {"bufferView": file.view(chosen.astype("<u2").tobytes()),
                        "componentType": 5123},
            "values": {"bufferView": file.view(points[chosen].astype("<f4").tobytes())},
        }  # fmt: skip
        if len(chosen) == len(points):
            del entry["bufferView"]
    if rng.random() < 0.5 or not plain:
        file.primitive["indices"] = file.accessor(faces.ravel(), one_of(rng, "u1", "u2", "u4"))
    shift = np.zeros(3)
    if rng.random() < 0.5:
        shift = rng.integers(-9, 9, 3).astype(float)
        file.document["nodes"] = [{"children": [1], "translation": shift.tolist()}, {"mesh": 0}]
    points = points + shift
    if path.suffix == ".glb":
        file.write(path)
        return points, faces.tolist()
    uri = one_of(rng, "a b.bin", "sub/a.bin")
    (path.parent / uri).parent.mkdir(exist_ok=True)
    (path.parent / uri).write_bytes(file.binary)
    document = {**file.document, "buffers": [{"byteLength": len(file.binary), "uri": uri}]}
    path.write_text(json.dumps(document, indent=one_of(rng, None, 2)))
    return points, faces.tolist()


def write_3mf(rng: Generator, path: Path) -> tuple[Points, Polygons]:
    points, faces = made(rng, triangles=True)
    prefix = one_of(rng, "", "c:")
    space = (
        f'xmlns{":c" if prefix else ""}="http://schemas.microsoft.com/3dmanufacturing/core/2015/02"'
    )
    gap = one_of(rng, "", "\n\t", "<!-- <vertex/> -->")

    def tag(name: str, inner: str = "", **values: Any) -> str:
        items = sorted(values.items(), key=lambda _: rng.random())
        quote = one_of(rng, '"', "'")
        words = " ".join(f"{key}={quote}{value}{quote}" for key, value in items)
        body = f">{inner}</{prefix}{name}>" if inner else "/>"
        return f"{gap}<{prefix}{name} {words}{body}"

    vertices = "".join(tag("vertex", **dict(zip("xyz", (text(rng, x) for x in p), strict=True)))
                       for p in points)  # fmt: skip
    triangles = "".join(tag("triangle", v1=a, v2=b, v3=c) for a, b, c in faces)
    mesh = tag("mesh", tag("vertices", vertices) + tag("triangles", triangles))
    objects = tag("object", mesh, id=7, type="model")
    item = 7
    if rng.random() < 0.5:
        objects += tag("object", tag("components", tag("component", objectid=7)), id=8)
        item = 8
    inner = tag("resources", objects) + tag("build", tag("item", objectid=item))
    model = f'<?xml version="1.0"?><{prefix}model {space} unit="millimeter">{inner}</{prefix}model>'
    name = one_of(rng, "3D/3dmodel.model", "3d/other.model")
    relation = (
        '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
        f'<Relationship Id="r" Target="/{name}" '
        'Type="http://schemas.microsoft.com/3dmanufacturing/2013/01/3dmodel"/></Relationships>'
    )
    with zipfile.ZipFile(
        path, "w", one_of(rng, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    ) as archive:
        archive.writestr("_rels/.rels", relation)
        archive.writestr(name, model)
    return points, faces


WRITERS: dict[str, Callable[[Generator, Path], tuple[Points, Polygons]]] = {
    ".obj": write_obj,
    ".ply": write_ply,
    ".off": write_off,
    ".stl": write_stl,
    ".glb": write_gltf,
    ".gltf": write_gltf,
    ".3mf": write_3mf,
}


def vector_areas(points: Points, polygons: Polygons) -> np.ndarray:  # [P, 3]
    found = []
    for polygon in polygons:
        p = points[polygon] - points[polygon[0]]
        found.append(np.cross(p, np.roll(p, -1, axis=0)).sum(axis=0) / 2)
    return np.array(found)


def read(path: Path) -> Mesh:
    return joined(read_contents(path, colours=False).parts)


def check(folder: Path, suffix: str, seed: int) -> Mesh:
    path = folder / f"a{suffix}"
    points, polygons = WRITERS[suffix](np.random.default_rng(seed), path)
    found = read(path)
    sizes = np.array([len(polygon) - 2 for polygon in polygons])
    assert len(found.faces) == sizes.sum()
    areas = np.add.reduceat(found.area_vectors, np.cumsum(sizes) - sizes, axis=0)
    expected = vector_areas(points, polygons)
    assert areas == pytest.approx(expected, rel=1e-9, abs=1e-9 * np.abs(expected).max())
    if (sizes == 1).all():
        assert np.array_equal(found.triangles, points[polygons])
    # With colours it is the same mesh.
    assert np.array_equal(
        joined(read_contents(path, colours=True).parts).triangles, found.triangles
    )
    return found


@pytest.mark.parametrize("suffix", WRITERS)
@many(40)
@given(seed=st.integers(0, 2**32))
def test_every_way_to_write_a_mesh_is_read(tmp_path: Path, suffix: str, seed: int) -> None:
    check(tmp_path, suffix, seed)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", WRITERS)
@many(1000)
@given(seed=st.integers(0, 2**32))
def test_every_way_to_write_a_mesh_is_read_often(tmp_path: Path, suffix: str, seed: int) -> None:
    check(tmp_path, suffix, seed)


@pytest.mark.parametrize("suffix", [".ply", ".off", ".glb", ".3mf", ".stl"])
@many(40)
@given(seed=st.integers(0, 2**32), part=st.floats(0, 1))
def test_a_file_that_was_cut_off_is_refused_or_whole(
    tmp_path: Path, suffix: str, seed: int, part: float
) -> None:
    whole = check(tmp_path, suffix, seed)
    path = tmp_path / f"a{suffix}"
    data = path.read_bytes()
    path.write_bytes(data[: int(part * len(data))])
    try:
        found = read_contents(path, colours=False)
    except MeshError:
        return
    same = np.array_equal(joined(found.parts).triangles, whole.triangles)
    # Only text of STL may end behind any facet, which is said.
    assert same or (suffix == ".stl" and "is it whole?" in found.notes[0])
