"""PLY: the header, and its elements as columns, from text or bytes of either order."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ultrashape_cli.geometry.jit import kernel
from ultrashape_cli.meshfiles.numerals import no_number, read_numbers
from ultrashape_cli.meshfiles.parts import COPY_AGAIN, Unreadable

_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2",
    "ushort": "u2", "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4",
    "int64": "i8", "uint64": "u8", "float": "f4", "float32": "f4", "double": "f8", "float64": "f8",
}  # fmt: skip
_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
_HEADER_END = re.compile(rb"(?:^|[\r\n])[ \t]*end_header[ \t]*(\r\n|\n|\r|$)")
_TRUNCATED = "truncated: element {} has {:,} of {:,} rows"


@dataclass(frozen=True, slots=True)
class Property:
    """A column: its name and type, and of a list the type of its length."""

    name: str
    kind: str
    count_kind: str | None = None


@dataclass(frozen=True, slots=True)
class Element:
    """A table of a header."""

    name: str
    count: int
    properties: list[Property] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Header:
    """What a PLY file says of itself.

    Attributes:
        order: `<` or `>` of bytes; empty for text.
        elements: In the order of the file.
        textures: Files that comments name.
        size: Bytes of the header.
    """

    order: str
    elements: list[Element]
    textures: list[str]
    size: int


@dataclass(frozen=True, slots=True)
class Table:
    """Columns of an element: arrays `[N]`, and of lists `(values, lengths [N])`.

    Whole numbers of lists are int64; other values have a type that holds those of the file.
    """

    count: int
    columns: dict[str, NDArray[Any]]
    lists: dict[str, tuple[NDArray[Any], NDArray[np.int64]]]

    def add(self, item: Property, values: NDArray[Any], lengths: NDArray[np.int64]) -> None:
        """Adds a column by the values of all its rows, in either order of bytes."""
        kind = values.dtype.newbyteorder("=")
        if item.count_kind is None:
            self.columns[item.name] = values.astype(kind, copy=False)
        else:
            kind = np.dtype(np.int64) if kind.kind in "iu" else kind
            self.lists[item.name] = (values.astype(kind, copy=False).reshape(-1), lengths)


def read_header(data: memoryview) -> Header:
    """Returns the header of a PLY file.

    Raises:
        Unreadable: There is none, or a line of it cannot be understood.
    """
    end = _HEADER_END.search(data)
    if data[:3] != b"ply" or end is None:
        raise Unreadable("is no PLY file" if data[:3] != b"ply" else "its header does not end")
    size = end.end()
    head = bytes(data[: end.start() + 1])
    if end[1] == b"\r\n" and b"\r\n" not in head:
        # Lines end in CR alone; LF is the first byte of the data.
        size -= 1
    order: str | None = None
    elements: list[Element] = []
    textures: list[str] = []
    lines = re.split(r"\r\n|\n|\r", head.decode("latin-1"))
    for number, line in enumerate(lines, 1):
        words = line.split()
        try:
            if words[:1] == ["format"]:
                order = _ORDERS[words[1]]
            elif words[:1] == ["element"]:
                elements.append(Element(words[1], int(words[2])))
                if elements[-1].count < 0:
                    raise ValueError
            elif words[:2] == ["property", "list"]:
                kind = _TYPES[words[2]]
                if kind[0] == "f":
                    raise ValueError
                elements[-1].properties.append(Property(words[4], _TYPES[words[3]], kind))
            elif words[:1] == ["property"]:
                elements[-1].properties.append(Property(words[2], _TYPES[words[1]]))
            elif len(words) > 2 and words[:2] == ["comment", "TextureFile"]:
                textures.append(line.strip().split(None, 2)[2])
        except (KeyError, IndexError, ValueError) as error:
            raise Unreadable(f"line {number} of its header: `{line[:60]}`") from error
    if order is None:
        raise Unreadable("its header has no format")
    return Header(order, elements, textures, size)


def read_tables(data: memoryview, header: Header, names: tuple[str, ...]) -> dict[str, Table]:
    """Returns elements by name; nothing behind the last of them is read.

    Raises:
        Unreadable: The file ends before them, or a word is no number.
    """
    source = _Bytes(data, header) if header.order else _Text(data, header.size)
    tables: dict[str, Table] = {}
    left = sum(element.name in names for element in header.elements)
    for element in header.elements:
        if not left:
            break
        left -= element.name in names
        if element.count and element.properties:
            tables[element.name] = source.read(element)
    return tables


class _Text:
    """Numbers of a text file, one after the other."""

    def __init__(self, data: memoryview, start: int) -> None:
        self._data = np.frombuffer(data, np.uint8)
        self._left, _, self._wrong_at = read_numbers(self._data, start)

    def read(self, element: Element) -> Table:
        """Returns the next element."""
        rows, width = element.count, len(element.properties)
        is_list = np.array([item.count_kind is not None for item in element.properties], bool)
        if rows * width > len(self._left):
            raise self._short(element, len(self._left) // width)
        starts, lengths = np.empty((2, rows, width), np.int64)
        done, end = _walk_numbers(self._left, is_list, starts, lengths)
        if done < rows:
            raise self._short(element, done)
        table = Table(rows, {}, {})
        for k, item in enumerate(element.properties):
            values = _gather(self._left, starts[:, k], lengths[:, k], 1)
            table.add(item, _cast(values, item.kind), lengths[:, k])
        self._left = self._left[end:]
        return table

    def _short(self, element: Element, done: int) -> Unreadable:
        if self._wrong_at >= 0:
            return no_number(self._data, self._wrong_at)
        return Unreadable(_TRUNCATED.format(element.name, done, element.count), COPY_AGAIN)


class _Bytes:
    """Rows of a binary file, one after the other."""

    def __init__(self, data: memoryview, header: Header) -> None:
        self._data = data
        self._order = header.order
        self._at = header.size

    def read(self, element: Element) -> Table:
        """Returns the next element."""
        items, rows = element.properties, element.count
        least = sum(np.dtype(item.count_kind or item.kind).itemsize for item in items)
        left = len(self._data) - self._at
        if rows * least > left:
            raise Unreadable(_TRUNCATED.format(element.name, left // least, rows), COPY_AGAIN)
        return self._alike(element) or self._walked(element)

    def _alike(self, element: Element) -> Table | None:
        """Returns an element all of whose rows have lists of the same lengths, None for others."""
        at, lengths = self._at, list[int]()
        fields: list[Any] = []
        for k, item in enumerate(element.properties):
            shape: tuple[int, ...] = ()
            if item.count_kind is not None:
                kind = np.dtype(self._order + item.count_kind)
                if at + kind.itemsize > len(self._data):
                    return None
                length = int(np.frombuffer(self._data, kind, 1, at)[0])
                fields.append((f"length {k}", kind.str))
                at += kind.itemsize
                shape = (length,)
                if not 0 <= length <= len(self._data):
                    return None
            lengths.append(shape[0] if shape else 1)
            fields.append((f"values {k}", self._order + item.kind, shape))
            at += np.dtype(item.kind).itemsize * lengths[-1]
            if at > len(self._data):
                return None
        row = np.dtype(fields)
        if element.count * row.itemsize > len(self._data) - self._at:
            return None
        found = np.frombuffer(self._data, row, element.count, self._at)
        table = Table(element.count, {}, {})
        for k, item in enumerate(element.properties):
            if item.count_kind is not None and (found[f"length {k}"] != lengths[k]).any():
                return None
            same = np.broadcast_to(np.int64(lengths[k]), element.count)
            table.add(item, found[f"values {k}"], same)
        self._at += element.count * row.itemsize
        return table

    def _walked(self, element: Element) -> Table:
        items, rows = element.properties, element.count
        sizes = np.array([np.dtype(item.kind).itemsize for item in items])
        count_sizes = np.array([np.dtype(item.count_kind or "V0").itemsize for item in items])
        data = np.frombuffer(self._data, np.uint8)
        starts, lengths = np.empty((2, rows, len(items)), np.int64)
        done, end = _walk_bytes(data, self._at, sizes, count_sizes, self._order == "<",
                                starts, lengths)  # fmt: skip
        if done < rows:
            raise Unreadable(_TRUNCATED.format(element.name, done, rows), COPY_AGAIN)
        table = Table(rows, {}, {})
        for k, item in enumerate(items):
            values = _gather(data, starts[:, k], lengths[:, k], int(sizes[k]))
            table.add(item, values.view(self._order + item.kind), lengths[:, k])
        self._at = end
        return table


def _cast(values: NDArray[np.float64], kind: str) -> NDArray[Any]:
    """Returns numbers of a text file in the type of their column."""
    if np.dtype(kind).kind == "f":
        return values
    limits = np.iinfo(kind)
    return np.clip(np.nan_to_num(values, nan=-1), max(limits.min, -1 << 53),
                   min(limits.max, 1 << 53)).astype(kind)  # fmt: skip


@kernel
def _walk_numbers(
    values: NDArray[np.float64],
    is_list: NDArray[np.bool_],  # [P]
    starts: NDArray[np.int64],  # [N, P] to fill
    lengths: NDArray[np.int64],
) -> tuple[int, int]:
    """Finds the values of each row; returns the whole rows and where the last ends."""
    at = 0
    for row in range(len(starts)):
        for k in range(len(is_list)):
            length = 1
            if is_list[k]:
                if at >= len(values) or not 0 <= values[at] <= len(values):
                    return row, at
                length = int(values[at])
                at += 1
            if at + length > len(values):
                return row, at
            starts[row, k], lengths[row, k] = at, length
            at += length
    return len(starts), at


@kernel
def _walk_bytes(
    data: NDArray[np.uint8],
    at: int,
    sizes: NDArray[np.int64],  # [P] bytes of a value
    count_sizes: NDArray[np.int64],  # [P] bytes of a list's length, 0 for no list
    little: bool,
    starts: NDArray[np.int64],  # [N, P] to fill
    lengths: NDArray[np.int64],
) -> tuple[int, int]:
    """Finds the values of each row; returns the whole rows and where the last ends."""
    for row in range(len(starts)):
        for k in range(len(sizes)):
            length, count_size = 1, count_sizes[k]
            if count_size:
                if at + count_size > len(data):
                    return row, at
                length = 0
                for byte in range(count_size):
                    place = at + count_size - 1 - byte if little else at + byte
                    length = length * 256 + int(data[place])
                at += count_size
            if not 0 <= length <= (len(data) - at) // sizes[k]:
                return row, at
            starts[row, k], lengths[row, k] = at, length
            at += length * sizes[k]
    return len(starts), at


@kernel
def _gather(
    values: NDArray[Any], starts: NDArray[np.int64], lengths: NDArray[np.int64], size: int
) -> NDArray[Any]:
    """Returns runs of `length * size` entries, one after the other."""
    found = np.empty(lengths.sum() * size, values.dtype)
    at = 0
    for row in range(len(starts)):
        for k in range(lengths[row] * size):
            found[at + k] = values[starts[row] + k]
        at += lengths[row] * size
    return found
