"""Meshes to files, without rounding the shape away."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from numpy.typing import NDArray

from ultrashape_cli import __version__
from ultrashape_cli.errors import MeshError
from ultrashape_cli.files import temporary_path
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.meshfiles import srgb
from ultrashape_cli.meshfiles.load import MESH_SUFFIXES

WRITABLE_SUFFIXES = tuple(suffix for suffix in MESH_SUFFIXES if suffix != ".gltf")
COLOUR_SUFFIXES = (".ply", ".glb", ".obj", ".off")
"""Formats in which colours of vertices are written."""
_COARSEST = 1e-5
"""Step of single precision, as part of the extent, above which STL would spoil a shape."""
_FINE = 1e-7
"""The same, below which GLB needs no place of its own for the centre."""
_LINEAR_16 = np.rint(65535 * srgb.linear_of(np.arange(256) / 255)).astype("<u2")


def save_mesh(mesh: Mesh, path: str | Path, colours: NDArray[np.uint8] | None = None) -> None:
    """Write a mesh in the format of the suffix; the file is replaced in one step.

    PLY, OBJ and OFF read back exactly. GLB holds single precision around the centre, which its
    node keeps in double precision.

    Args:
        mesh: What to write.
        path: Where.
        colours: `[V, 3]` sRGB of the vertices; only formats in `COLOUR_SUFFIXES` hold them.

    Raises:
        MeshError: The suffix is not a format that can be written, or would round the shape away.
        DiskError: The folder cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in WRITABLE_SUFFIXES:
        hint = f"use one of {' '.join(WRITABLE_SUFFIXES)}"
        raise MeshError(f"{path}: cannot write {suffix!r}", hint=hint)
    require_precision(mesh.bounds, path)
    with temporary_path(path) as temporary:
        if suffix == ".ply":
            _write_ply(mesh, temporary, colours)
        elif suffix == ".glb":
            _write_glb(mesh, temporary, colours)
        elif suffix == ".obj":
            lines = map("f %d %d %d".__mod__, map(tuple, (mesh.faces + 1).tolist()))
            _write_text(temporary, _vertex_lines(mesh, "v ", colours), lines)
        elif suffix == ".off":
            head = [
                "OFF" if colours is None else "COFF",
                f"{len(mesh.vertices)} {len(mesh.faces)} 0",
            ]
            lines = map("3 %d %d %d".__mod__, map(tuple, mesh.faces.tolist()))
            points = _vertex_lines(mesh, "", colours, " %d %d %d 255")
            _write_text(temporary, head, points, lines)
        else:
            trimesh.Trimesh(mesh.vertices, mesh.faces, process=False).export(temporary)


def require_precision(bounds: NDArray[np.float64], path: Path) -> None:
    """Raise MeshError where single precision cannot hold a shape in this box `[2, 3]`."""
    if path.suffix.lower() == ".stl" and _step(bounds) > _COARSEST:
        raise MeshError(
            f"{path}: STL holds seven digits, and this mesh lies too far from its origin: they "
            f"would round it to {_step(bounds):.1g} of its size",
            hint=f"write {path.with_suffix('.ply').name} or {path.with_suffix('.glb').name}",
        )


def _step(bounds: NDArray[np.float64]) -> float:
    """Return the spacing of single precision at the largest coordinate, as part of the extent."""
    extent = float((bounds[1] - bounds[0]).max())
    return float(np.abs(bounds).max()) * 2.0**-23 / extent if extent > 0 else 0.0


def _vertex_lines(
    mesh: Mesh,
    head: str,
    colours: NDArray[np.uint8] | None,
    form: str = " %.4f %.4f %.4f",
) -> Iterator[str]:
    scale = 255 if "." in form else 1
    ends = repeat("") if colours is None else (
        form % (r / scale, g / scale, b / scale) for r, g, b in colours.tolist()
    )  # fmt: skip
    # The shortest text that reads back as the same number.
    for (x, y, z), end in zip(mesh.vertices.tolist(), ends, strict=False):
        yield f"{head}{x!r} {y!r} {z!r}{end}"


def _write_ply(mesh: Mesh, path: Path, colours: NDArray[np.uint8] | None) -> None:
    """Write binary PLY that reads back exactly: doubles where single precision would round."""
    vertices, kind = mesh.vertices.astype("<f4"), "float"
    if not np.array_equal(vertices, mesh.vertices):
        vertices, kind = mesh.vertices.astype("<f8"), "double"
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(vertices)}"]
    header += [f"property {kind} {axis}" for axis in "xyz"]
    if colours is not None:
        header += [f"property uchar {name}" for name in ("red", "green", "blue")]
        rows = np.empty(len(vertices), [("place", vertices.dtype, 3), ("colour", "u1", 3)])
        rows["place"], rows["colour"] = vertices, colours
        vertices = rows
    faces = np.empty(len(mesh.faces), [("count", "u1"), ("vertices", "<i4", 3)])
    faces["count"], faces["vertices"] = 3, mesh.faces
    header += [f"element face {len(faces)}", "property list uchar int vertex_indices"]
    with path.open("wb") as file:
        file.write("\n".join([*header, "end_header", ""]).encode())
        file.write(vertices.tobytes())
        file.write(faces.tobytes())


def _write_text(path: Path, *blocks: Iterable[str]) -> None:
    with path.open("w", encoding="ascii", newline="\n") as file:
        for block in blocks:
            file.write("\n".join(block))
            file.write("\n")


def _write_glb(mesh: Mesh, path: Path, colours: NDArray[np.uint8] | None) -> None:
    centre = np.zeros(3)
    if len(mesh.faces) and _step(mesh.bounds) > _FINE:
        centre = mesh.bounds.mean(axis=0)
    points = (mesh.vertices - centre).astype("<f4")
    arrays = {"POSITION": points, "indices": mesh.faces.astype("<u4").reshape(-1, 1)}
    if colours is not None:
        # glTF's colours are linear; sixteen bits keep what eight bits of sRGB say.
        rgba = np.full((len(points), 4), 65535, "<u2")
        rgba[:, :3] = _LINEAR_16[colours]
        arrays["COLOR_0"] = rgba
    primitive: dict[str, Any] = {"attributes": {}}
    document: dict[str, Any] = {
        "asset": {"version": "2.0", "generator": f"ushape {__version__}"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0} | ({"translation": centre.tolist()} if centre.any() else {})],
        "meshes": [{"primitives": [primitive]}],
        "accessors": [],
        "bufferViews": [],
        "buffers": [{"byteLength": sum(array.nbytes for array in arrays.values())}],
    }
    if colours is not None:
        plain = {"metallicFactor": 0.0, "roughnessFactor": 1.0}
        document["materials"] = [{"pbrMetallicRoughness": plain}]
        primitive["material"] = 0
    start = 0
    for number, (name, array) in enumerate(arrays.items()):
        place = primitive if name == "indices" else primitive["attributes"]
        place[name] = number
        accessor = {
            "bufferView": number,
            "componentType": {"f": 5126, "u": {2: 5123, 4: 5125}.get(array.itemsize)}[
                array.dtype.kind
            ],
            "count": len(array),
            "type": {1: "SCALAR", 3: "VEC3", 4: "VEC4"}[array.shape[1]],
        }
        if name == "POSITION" and len(array):
            accessor |= {"min": array.min(axis=0).tolist(), "max": array.max(axis=0).tolist()}
        if name == "COLOR_0":
            accessor["normalized"] = True
        document["accessors"].append(accessor)
        document["bufferViews"].append(
            {"buffer": 0, "byteOffset": start, "byteLength": array.nbytes}
        )
        start += array.nbytes
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    with path.open("wb") as file:
        file.write(struct.pack("<4sII", b"glTF", 2, 12 + 8 + len(text) + 8 + start))
        file.write(struct.pack("<I4s", len(text), b"JSON") + text)
        file.write(struct.pack("<I4s", start, b"BIN\0"))
        for array in arrays.values():
            file.write(array.tobytes())
