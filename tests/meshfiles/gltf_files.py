"""Writes glTF files as other programs do: every array where and as a test wants it."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

KINDS = {"i1": 5120, "u1": 5121, "i2": 5122, "u2": 5123, "u4": 5125, "f4": 5126}
WIDTHS = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4", 16: "MAT4"}


class GltfFile:
    """A document under construction: `document` is its JSON, free to be changed."""

    def __init__(self) -> None:
        self.binary = b""
        self.document: dict[str, Any] = {
            "asset": {"version": "2.0"},
            "scene": 0,
            "scenes": [{"nodes": [0]}],
            "nodes": [{"mesh": 0}],
            "meshes": [{"primitives": [{"attributes": {}}]}],
            "accessors": [],
            "bufferViews": [],
        }

    @property
    def primitive(self) -> dict[str, Any]:
        return self.document["meshes"][0]["primitives"][0]

    def view(self, data: bytes, **more: Any) -> int:
        self.binary += bytes(-len(self.binary) % 4)
        entry = {"buffer": 0, "byteOffset": len(self.binary), "byteLength": len(data), **more}
        self.binary += data
        self.document["bufferViews"].append(entry)
        return len(self.document["bufferViews"]) - 1

    def accessor(self, values: Any, dtype: str = "f4", **more: Any) -> int:
        array = np.asarray(values, np.dtype(dtype).newbyteorder("<"))
        array = array.reshape(len(array), -1)
        entry = {
            "bufferView": self.view(array.tobytes()),
            "componentType": KINDS[dtype],
            "count": len(array),
            "type": WIDTHS[array.shape[1]],
            **more,
        }
        self.document["accessors"].append(entry)
        return len(self.document["accessors"]) - 1

    def surface(self, vertices: Any, faces: Any) -> GltfFile:
        self.primitive["attributes"]["POSITION"] = self.accessor(vertices)
        self.primitive["indices"] = self.accessor(np.ravel(faces), "u4")
        return self

    def picture(self, png: bytes, *, texcoord: int = 0, **sampler: int) -> GltfFile:
        """Lays a picture on the surface."""
        self.document["images"] = [{"bufferView": self.view(png), "mimeType": "image/png"}]
        self.document["samplers"] = [sampler]
        self.document["textures"] = [{"source": 0, "sampler": 0}]
        texture = {"index": 0, "texCoord": texcoord}
        self.document["materials"] = [{"pbrMetallicRoughness": {"baseColorTexture": texture}}]
        self.primitive["material"] = 0
        return self

    def write(self, path: Path) -> Path:
        binary = self.binary + bytes(-len(self.binary) % 4)
        self.document["buffers"] = [{"byteLength": len(binary)}]
        text = json.dumps(self.document).encode()
        text += b" " * (-len(text) % 4)
        chunks = struct.pack("<II", len(text), 0x4E4F534A) + text
        chunks += struct.pack("<II", len(binary), 0x004E4942) + binary
        path.write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks)
        return path
