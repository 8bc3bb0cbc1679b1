"""Writing GLB: a mesh with colours of its vertices, a texture's coordinates, a normal map."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ultrashape_cli import __version__
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.meshfiles import srgb

_FINE = 1e-7
"""The same, below which GLB needs no place of its own for the centre."""
_LINEAR_16 = np.rint(65535 * srgb.linear_of(np.arange(256) / 255)).astype("<u2")


def step_of(bounds: NDArray[np.float64]) -> float:
    """Return the spacing of single precision at the largest coordinate, as part of the extent."""
    extent = float((bounds[1] - bounds[0]).max())
    return float(np.abs(bounds).max()) * 2.0**-23 / extent if extent > 0 else 0.0


def write_glb(
    mesh: Mesh,
    path: Path,
    colours: NDArray[np.uint8] | None = None,
    more: dict[str, NDArray[np.float32]] | None = None,
    normal_map: bytes | None = None,
) -> None:
    """Write a GLB file.

    Args:
        mesh: What to write.
        path: Where.
        colours: `[V, 3]` sRGB of the vertices.
        more: Attributes of the vertices by glTF's name: NORMAL `[V, 3]`, TANGENT `[V, 4]`,
            TEXCOORD_0 `[V, 2]` with v down.
        normal_map: PNG.
    """
    centre = np.zeros(3)
    if len(mesh.faces) and step_of(mesh.bounds) > _FINE:
        centre = mesh.bounds.mean(axis=0)
    points = (mesh.vertices - centre).astype("<f4")
    arrays = {"POSITION": points, "indices": mesh.faces.astype("<u4").reshape(-1, 1)}
    if colours is not None:
        # glTF's colours are linear; sixteen bits keep what eight bits of sRGB say.
        rgba = np.full((len(points), 4), 65535, "<u2")
        rgba[:, :3] = _LINEAR_16[colours]
        arrays["COLOR_0"] = rgba
    arrays |= {name: values.astype("<f4") for name, values in (more or {}).items()}
    primitive: dict[str, Any] = {"attributes": {}}
    document: dict[str, Any] = {
        "asset": {"version": "2.0", "generator": f"ushape {__version__}"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0} | ({"translation": centre.tolist()} if centre.any() else {})],
        "meshes": [{"primitives": [primitive]}],
        "accessors": [],
        "bufferViews": [],
    }
    if colours is not None or normal_map is not None:
        plain = {"metallicFactor": 0.0, "roughnessFactor": 1.0}
        document["materials"] = [{"pbrMetallicRoughness": plain}]
        primitive["material"] = 0
    start = 0
    for number, (name, array) in enumerate(arrays.items()):
        place = primitive if name == "indices" else primitive["attributes"]
        place[name] = number
        document["accessors"].append(_accessor(name, number, array))
        document["bufferViews"].append(
            {"buffer": 0, "byteOffset": start, "byteLength": array.nbytes}
        )
        start += array.nbytes
    blocks = [array.tobytes() for array in arrays.values()]
    if normal_map is not None:
        document["bufferViews"].append(
            {"buffer": 0, "byteOffset": start, "byteLength": len(normal_map)}
        )
        document["images"] = [{"bufferView": len(arrays), "mimeType": "image/png"}]
        document["textures"] = [{"source": 0}]
        document["materials"][0]["normalTexture"] = {"index": 0}
        blocks.append(normal_map + b"\0" * (-len(normal_map) % 4))
        start += len(blocks[-1])
    document["buffers"] = [{"byteLength": start}]
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    with path.open("wb") as file:
        file.write(struct.pack("<4sII", b"glTF", 2, 12 + 8 + len(text) + 8 + start))
        file.write(struct.pack("<I4s", len(text), b"JSON") + text)
        file.write(struct.pack("<I4s", start, b"BIN\0"))
        for block in blocks:
            file.write(block)


def _accessor(name: str, view: int, array: NDArray[Any]) -> dict[str, Any]:
    accessor: dict[str, Any] = {
        "bufferView": view,
        "componentType": {"f": 5126, "u": {2: 5123, 4: 5125}.get(array.itemsize)}[array.dtype.kind],
        "count": len(array),
        "type": {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4"}[array.shape[1]],
    }
    if name == "POSITION" and len(array):
        accessor |= {"min": array.min(axis=0).tolist(), "max": array.max(axis=0).tolist()}
    if name == "COLOR_0":
        accessor["normalized"] = True
    return accessor
