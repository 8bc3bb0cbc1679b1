"""glTF 2.0: the container, its buffers, and accessors as arrays (its specification, 3.6 and 4)."""

from __future__ import annotations

import base64
import binascii
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import numpy as np
from numpy.typing import NDArray

from ultrashape_cli.meshfiles.parts import Unreadable, file_bytes

_TYPES = {5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}
LARGEST = {"i1": 127.0, "u1": 255.0, "<i2": 32767.0, "<u2": 65535.0}
"""Value that stands for 1 where an accessor is normalized."""
_JSON, _BINARY = 0x4E4F534A, 0x004E4942
_MAX_ZEROS = 1 << 24
"""Most values of an accessor that no data stand behind."""

Json = dict[str, Any]


def read_container(path: Path) -> tuple[Json, memoryview]:
    """Returns the JSON of a .gltf or .glb file, and the binary chunk of the latter.

    Raises:
        Unreadable: It is no glTF 2.0.
    """
    data = file_bytes(path)
    text, binary = data, data[:0]
    if data[:4] == b"glTF":
        text, binary = _chunks(data)
    try:
        document = json.loads(bytes(text))
    except (ValueError, RecursionError) as error:
        raise Unreadable("its JSON cannot be parsed") from error
    if not isinstance(document, dict):
        raise Unreadable("its JSON is no object")
    version = str(_object(document.get("asset", {})).get("version", ""))
    if not version.startswith("2."):
        raise Unreadable(f"is glTF {version or 'of no version'}, not 2.0", "export it as glTF 2.0")
    return document, binary


def _chunks(data: memoryview) -> tuple[memoryview, memoryview]:
    if len(data) < 12 or (version := int.from_bytes(data[4:8], "little")) != 2:
        raise Unreadable(f"is binary glTF {version if len(data) >= 12 else ''}, not 2",
                         "export it as glTF 2.0")  # fmt: skip
    found: dict[int, memoryview] = {}
    told = int.from_bytes(data[8:12], "little")
    at = 12
    while at + 8 <= len(data):
        length, kind = struct.unpack_from("<II", data, at)
        if at + 8 + length > len(data):
            if told <= at and _JSON in found:
                break  # what stands behind the file
            raise Unreadable(
                f"is truncated: a chunk has not its {length} bytes", "copy or download it again"
            )
        found.setdefault(kind, data[at + 8 : at + 8 + length])
        at += 8 + length
    if _JSON not in found:
        raise Unreadable("has no JSON chunk")
    return found[_JSON], found.get(_BINARY, data[:0])


class Buffers:
    """Reads accessors and buffer views of a document.

    Args:
        document: The JSON.
        binary: Chunk of a .glb file.
        read_file: Bytes of a file beside the mesh, by name; ValueError outside its folder.
        decompress: Bytes of a buffer view that an extension packs, or None.
    """

    def __init__(
        self,
        document: Json,
        binary: memoryview,
        read_file: Callable[[str], bytes],
        decompress: Callable[[Json, bytes], bytes] | None = None,
    ) -> None:
        self._document = document
        self._binary = binary
        self._read_file = read_file
        self._decompress = decompress
        self._buffers: dict[int, memoryview] = {}
        self._views: dict[int, memoryview] = {}

    def accessor(self, index: int) -> NDArray[Any]:
        """Returns an accessor `[N, width]`, normalized ones as float64 in [-1, 1].

        Raises:
            Unreadable: It points beyond its buffer, or is malformed.
        """
        item = self.item("accessors", index)
        kind = _TYPES.get(_integer(item, "componentType"))
        width = _WIDTHS.get(str(item.get("type")))
        count = _integer(item, "count")
        if kind is None or width is None:
            raise Unreadable(f"accessor {index} is of an unknown type")
        values = self._dense(item, index, np.dtype(kind), width, count)
        if "sparse" in item:
            values = self._substituted(values, _object(item["sparse"]), index)
        if item.get("normalized") and kind in LARGEST:
            return np.maximum(values / LARGEST[kind], -1.0)
        return values

    def _dense(
        self, item: Json, index: int, dtype: np.dtype[Any], width: int, count: int
    ) -> NDArray[Any]:
        if "bufferView" not in item:
            if count * width > _MAX_ZEROS:
                raise Unreadable(f"accessor {index} has {count} values and no data")
            return np.zeros((count, width), dtype)
        number = _integer(item, "bufferView")
        view = self.item("bufferViews", number)
        data = self.view(number)
        start, size = _integer(item, "byteOffset"), dtype.itemsize * width
        stride = _integer(view, "byteStride") or size
        if count and start + (count - 1) * stride + size > len(data):
            raise Unreadable(
                f"is truncated: accessor {index} needs {start + (count - 1) * stride + size} "
                f"bytes, its buffer view has {len(data)}",
                "copy or download the file again",
            )
        if stride < size:
            raise Unreadable(f"accessor {index}: a stride of {stride} bytes for {size}")
        shape, strides = (count, width), (stride, dtype.itemsize)
        return np.ndarray(shape, dtype, data, start, strides) if count else np.zeros(shape, dtype)

    def _substituted(self, values: NDArray[Any], sparse: Json, index: int) -> NDArray[Any]:
        count = _integer(sparse, "count")
        places = _object(sparse.get("indices", {}))
        kind = _TYPES.get(_integer(places, "componentType"))
        if kind not in ("u1", "<u2", "<u4"):
            raise Unreadable(f"accessor {index}: its sparse indices are of an unknown type")
        at = self._dense(places, index, np.dtype(kind), 1, count)[:, 0].astype(np.int64)
        new = self._dense(
            _object(sparse.get("values", {})), index, values.dtype, values.shape[1], count
        )
        if count and at.max() >= len(values):
            raise Unreadable(f"accessor {index}: a sparse value lies beyond its end")
        values = values.copy()
        values[at] = new
        return values

    def view(self, index: int) -> memoryview:
        """Returns the bytes of a buffer view."""
        if index not in self._views:
            self._views[index] = self._read_view(self.item("bufferViews", index), index)
        return self._views[index]

    def _read_view(self, view: Json, index: int) -> memoryview:
        for name in ("EXT_meshopt_compression", "KHR_meshopt_compression"):
            packed = _object(view.get("extensions", {})).get(name)
            if isinstance(packed, dict):
                if self._decompress is None:
                    raise needs_extension(name)
                return memoryview(self._decompress(packed, bytes(self._slice(packed, index))))
        return self._slice(view, index)

    def _slice(self, view: Json, index: int) -> memoryview:
        data = self._buffer(_integer(view, "buffer"))
        start, length = _integer(view, "byteOffset"), _integer(view, "byteLength")
        if start + length > len(data):
            raise Unreadable(
                f"is truncated: buffer view {index} ends at byte {start + length}, its buffer at "
                f"{len(data)}",
                "copy or download the file again",
            )
        return data[start : start + length]

    def _buffer(self, index: int) -> memoryview:
        if index not in self._buffers:
            uri = self.item("buffers", index).get("uri")
            self._buffers[index] = self._binary if uri is None else memoryview(self.file(str(uri)))
        return self._buffers[index]

    def file(self, uri: str) -> bytes:
        """Returns what a URI names: data of its own, or a file beside the mesh."""
        if uri.startswith("data:"):
            head, _, text = uri.partition(",")
            try:
                packed = head.endswith(";base64")
                return base64.b64decode(text) if packed else unquote_to_bytes(text)
            except (binascii.Error, ValueError) as error:
                raise Unreadable("a data URI is no base64") from error
        try:
            return self._read_file(uri)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise Unreadable(
                f"refers to `{uri[:80]}`: {reason.lower()}", "keep its files in its folder"
            ) from error

    def item(self, kind: str, index: Any) -> Json:
        """Returns an entry of one of the document's lists."""
        items = self._document.get(kind)
        if not (isinstance(items, list) and isinstance(index, int) and 0 <= index < len(items)):
            raise Unreadable(f"refers to {kind}[{index}], which does not exist")
        return _object(items[index])


def needs_extension(name: str) -> Unreadable:
    """Returns the error of a file that is packed in a way nothing installed here reads."""
    return Unreadable(
        f"is packed with {name}",
        "pip install 'ultrashape-cli[compressed]', or export it without compression",
    )


def _object(value: Any) -> Json:
    if not isinstance(value, dict):
        raise Unreadable("its JSON has something else where an object belongs")
    return value


def _integer(item: Json, name: str) -> int:
    value = item.get(name, 0)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 53:
        raise Unreadable(f"its JSON has `{value}` as {name}")
    return value
