"""STL: text or binary by content, whatever its header claims; colours of Magics and VisCAM."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ultrashape_cli.geometry.jit import kernel
from ultrashape_cli.meshfiles.numerals import (
    is_end,
    is_space,
    no_number,
    put_number,
    settle,
    word_end,
)
from ultrashape_cli.meshfiles.parts import (
    COPY_AGAIN,
    WHITE,
    Contents,
    Part,
    Unreadable,
    file_bytes,
    refuse_utf_16,
)
from ultrashape_cli.meshfiles.polygons import triangulate
from ultrashape_cli.meshfiles.tints import tint_bytes

_HEADER = 84
_RECORD = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("colour", "<u2")])
# What programs write that do not know the count yet.
_UNKNOWN = (0, 0xFFFFFFFF)
_CLOSING = re.compile(rb"\bend(?:\s*solid\b[^\r\n]*)?[\s\0\x1a]*\Z", re.IGNORECASE)
_VERTEX, _FACET, _OUTER, _END_LOOP, _END_FACET, _SOLID, _END_SOLID, _END = (
    np.frombuffer(word, np.uint8)
    for word in (b"vertex", b"facet", b"outer", b"endloop", b"endfacet", b"solid", b"endsolid",
                 b"end")
)  # fmt: skip


# Numbers may be any, also beyond the types that they go to.
@np.errstate(over="ignore", invalid="ignore")
def read_stl(path: Path, *, colours: bool) -> Contents:
    """Returns the triangles of an STL file as one part; they share no vertices.

    Args:
        path: The file.
        colours: Whether to read those of binary files.

    Raises:
        Unreadable: It is cut off, or no STL.
    """
    data = file_bytes(path)
    refuse_utf_16(data)
    if _is_text(data):
        vertices, faces = _read_text(np.frombuffer(data, np.uint8))
        found = Contents([Part(vertices, faces, None, None, np.full(len(faces), -1, np.int32))])
        if not _CLOSING.search(data[-4096:]):
            found.notes.append("does not end with `endsolid`: is it whole?")
        return found
    records = _records(data)
    vertices = records["corners"].astype(np.float64).reshape(-1, 3)
    faces = np.arange(len(vertices)).reshape(-1, 3)
    contents = Contents([Part(vertices, faces, None, None, np.full(len(faces), -1, np.int32))])
    tint = _tint(bytes(data[:80]), records["colour"]) if colours and len(records) else None
    if tint is not None:
        contents.looks.append(WHITE)
        contents.parts[0].look[:] = 0
        contents.parts[0].tint = tint[:, None].repeat(3, axis=1)
    return contents


def _is_text(data: memoryview) -> bool:
    """Says whether a file is text, by its first 64 KiB: binary ones may begin with `solid`."""
    if len(data) == _HEADER + _RECORD.itemsize * _count(data):
        return False
    head = data[: 1 << 16]
    # The count and the colours alone are one byte in 25 of a binary file.
    return 50 * len(re.findall(rb"[\0-\x08\x0e-\x1f]", head)) < len(head)


def _count(data: memoryview, start: int = 0) -> int:
    return int.from_bytes(data[start + 80 : start + 84], "little")


def _records(data: memoryview) -> NDArray[Any]:
    """Returns the triangles that are there, as far as the count can be believed."""
    if len(data) < _HEADER:
        raise Unreadable("is no STL file: too short for a binary one, and no text")
    count = _count(data)
    there, rest = divmod(len(data) - _HEADER, _RECORD.itemsize)
    if there < count and count not in _UNKNOWN:
        raise Unreadable(f"truncated: it has {there:,} of {count:,} triangles", COPY_AGAIN)
    found = np.frombuffer(data, _RECORD, there, _HEADER)
    # Beyond the count a signature may stand; triangles fill whole records, near the others.
    if count in _UNKNOWN or (rest == 0 and _belong(found[:count], found[count:])):
        return found
    # Or several files stand one behind the other.
    solids, start = [found[:count]], _HEADER + count * _RECORD.itemsize
    while 0 < (count := _count(data, start)) <= (len(data) - start - _HEADER) // _RECORD.itemsize:
        solids.append(np.frombuffer(data, _RECORD, count, start + _HEADER))
        start += _HEADER + count * _RECORD.itemsize
    return np.concatenate(solids)


def _belong(known: NDArray[Any], more: NDArray[Any]) -> bool:
    if not len(more):
        return True
    reach = float(np.abs(known["corners"]).max(initial=0.0))
    return bool((np.abs(more["corners"]) <= 100 * reach).all())


def _tint(header: bytes, codes: NDArray[np.uint16]) -> NDArray[np.uint8] | None:
    """Returns colours `[F, 4]` of the faces; None without.

    Magics names a colour in the header, and a face with bit 15 has it. In VisCAM's files a face
    with bit 15 has a colour of its own, its blue where Magics has red.
    """
    levels = np.stack([codes & 31, codes >> 5 & 31, codes >> 10 & 31], axis=1) * (255 / 31)
    marked = codes & 0x8000 > 0
    place = header.find(b"COLOR=") + 6
    if 6 <= place <= len(header) - 4:
        # Without any colour of a face, not all are black.
        levels[marked | (not codes.any())] = list(header[place : place + 3])
    elif marked.any():
        levels = levels[:, ::-1]
        levels[~marked] = 255
    else:
        return None
    return tint_bytes(np.rint(levels).astype(np.uint8))


def _read_text(data: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    vertices = np.empty((_count_vertices(data), 3))
    sizes = np.empty(len(vertices), np.int64)
    fault, facets, used = _read_facets(data, vertices.reshape(-1).view(np.int64), sizes)
    if fault >= 0 and word_end(data, fault, len(data)) == len(data):
        raise Unreadable(f"truncated: it ends inside facet {facets + 1:,}", COPY_AGAIN)
    if fault >= 0:
        raise no_number(data, fault)
    if not facets:
        raise Unreadable("is no STL file: it is text without facets")
    vertices = vertices[:used]
    settle(vertices, data)
    corners = np.arange(used)
    return vertices, triangulate(vertices, corners, sizes[:facets]).faces


@kernel
def _is_word(data: NDArray[np.uint8], at: int, word: NDArray[np.uint8]) -> bool:
    """Says whether a word stands at a place, in capitals or not."""
    stop = at + len(word)
    if stop > len(data) or word_end(data, at, len(data)) != stop:
        return False
    same = True
    for k in range(len(word)):
        same = same and data[at + k] | 32 == word[k]
    return same


@kernel
def _next_word(data: NDArray[np.uint8], at: int) -> int:
    while at < len(data) and (is_space(data[at]) or is_end(data[at])):
        at += 1
    return at


@kernel
def _count_vertices(data: NDArray[np.uint8]) -> int:
    """Returns how many vertices there are at most."""
    count, at = 0, _next_word(data, 0)
    while at < len(data):
        count += _is_word(data, at, _VERTEX)
        at = _next_word(data, word_end(data, at, len(data)))
    return count


@kernel
def _read_facets(
    data: NDArray[np.uint8], vertices: NDArray[np.int64], sizes: NDArray[np.int64]
) -> tuple[int, int, int]:
    """Reads the vertices of all loops.

    Returns:
        The place of a word that is no number, the end of a file that is cut off, or -1; loops and
        vertices.
    """
    facets = used = size = 0
    begun = is_open = False
    at, is_first = _next_word(data, 0), True
    while at < len(data):
        stop = word_end(data, at, len(data))
        if is_first and (
            _is_word(data, at, _SOLID)
            or _is_word(data, at, _END_SOLID)
            or (_is_word(data, at, _END) and _is_word(data, _next_word(data, stop), _SOLID))
        ):
            # A name follows, of any words.
            begun = True
            while stop < len(data) and not is_end(data[stop]):
                stop += 1
        elif _is_word(data, at, _FACET) or _is_word(data, at, _OUTER):
            begun = is_open = True
        elif _is_word(data, at, _END_LOOP) or _is_word(data, at, _END_FACET):
            is_open = False
        elif begun and _is_word(data, at, _VERTEX):
            for axis in range(3):
                word = _next_word(data, stop)
                if word == len(data):
                    return len(data), facets, used
                stop = put_number(vertices, 3 * used + axis, data, word, len(data))
                if stop < 0:
                    return word, facets, used
            used, size = used + 1, size + 1
        if size and (not is_open or _is_word(data, at, _FACET)):
            sizes[facets] = size
            facets, size = facets + 1, 0
        at = _next_word(data, stop)
        is_first = _has_end(data, stop, at)
    return len(data) if is_open else -1, facets, used


@kernel
def _has_end(data: NDArray[np.uint8], at: int, stop: int) -> bool:
    found = False
    for k in range(at, stop):
        found = found or is_end(data[k])
    return found
