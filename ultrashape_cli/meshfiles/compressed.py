"""Packed data of glTF, by the libraries of those who defined it (the extra `compressed`)."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ultrashape_cli.meshfiles.gltf_buffers import LARGEST, Buffers, Json, needs_extension
from ultrashape_cli.meshfiles.parts import Unreadable

_DRACO = "KHR_draco_mesh_compression"
_MAX_BYTES, _MAX_RATIO = 1 << 31, 1 << 11
"""Most bytes that a buffer view unpacks to, and most for each of its own: headers say anything."""


def decode_draco(
    buffers: Buffers, extension: Json, attributes: dict[str, int]
) -> tuple[dict[str, NDArray[Any]], NDArray[np.int64]]:
    """Returns the attributes of a primitive by name, and the corners `[3 F]` of its triangles.

    Raises:
        Unreadable: DracoPy is not installed, or cannot decode it.
    """
    if importlib.util.find_spec("DracoPy") is None:
        raise needs_extension(_DRACO)
    import DracoPy

    try:
        mesh = DracoPy.decode(bytes(buffers.view(extension.get("bufferView", -1))))
        found = {}
        for name, number in extension.get("attributes", {}).items():
            values = mesh.get_attribute_by_unique_id(number)["data"]
            values = values.reshape(len(values), -1)
            accessor = buffers.item("accessors", attributes.get(name))
            if accessor.get("normalized") and values.dtype.str.lstrip("|") in LARGEST:
                values = np.maximum(values / LARGEST[values.dtype.str.lstrip("|")], -1.0)
            found[name] = values
        corners = np.asarray(mesh.faces, np.int64).reshape(-1)
    except Unreadable:
        raise
    except Exception as error:  # of the library's own kinds
        raise Unreadable(f"its {_DRACO} data cannot be decoded") from error
    return found, corners


def meshopt_decoder() -> Callable[[Json, bytes], bytes] | None:
    """Returns what unpacks buffer views of EXT_meshopt_compression, None where not installed."""
    return _decode_meshopt if importlib.util.find_spec("meshoptimizer") else None


def _decode_meshopt(packed: Json, data: bytes) -> bytes:
    import meshoptimizer

    count, stride = int(packed.get("count", 0)), int(packed.get("byteStride", 0))
    if not 0 < count * stride <= min(_MAX_BYTES, _MAX_RATIO * len(data)):
        raise Unreadable(f"packs {count} values of {stride} bytes")
    filters = {
        "OCTAHEDRAL": meshoptimizer.decode_filter_oct,
        "QUATERNION": meshoptimizer.decode_filter_quat,
        "EXPONENTIAL": meshoptimizer.decode_filter_exp,
    }
    try:
        if packed.get("mode") == "ATTRIBUTES":
            # Without `dtype`, whose buffer would have a byte for each vertex and be overrun.
            found = meshoptimizer.decode_vertex_buffer(count, stride, data)
        elif packed.get("mode") == "TRIANGLES":
            found = meshoptimizer.decode_index_buffer(count, stride, data)
        else:
            found = meshoptimizer.decode_index_sequence(count, stride, data)
        if packed.get("filter", "NONE") in filters:
            found = filters[packed["filter"]](np.ascontiguousarray(found), count, stride)
    except (RuntimeError, ValueError, MemoryError) as error:
        raise Unreadable("its EXT_meshopt_compression data cannot be decoded") from error
    return np.ascontiguousarray(found).tobytes()
