"""The lines of an OBJ file as arrays: one pass over its bytes counts, another reads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ultrashape_cli.geometry.jit import kernel
from ultrashape_cli.meshfiles.numerals import (
    NAN_BITS,
    is_end,
    is_space,
    line_of,
    no_number,
    put_number,
    settle,
    word_at,
    word_end,
)
from ultrashape_cli.meshfiles.parts import Unreadable

MATERIAL, LIBRARY, PAINT = range(3)
"""Kinds of events: `usemtl`, `mtllib` and `#MRGB`."""
_KEYWORDS = tuple(np.frombuffer(k, np.uint8) for k in (b"usemtl", b"mtllib", b"#MRGB"))
_FINE, _NO_NUMBER, _FEW, _NO_CORNER, _ZERO, _BEYOND = range(6)
_NOTHING, _INVALID = -(1 << 62), -(1 << 62) - 1
_LARGEST = 1 << 53


@dataclass(frozen=True, slots=True)
class Lines:
    """What an OBJ file says.

    Attributes:
        vertices: `[V, 3]`; NaN for what is not finite.
        colours: `[V, 3]` as written, NaN where there are none; `[0, 3]` if all have none.
        texcoords: `[T, 2]`.
        sizes: `[P]` corners of each polygon.
        corners: `[C]` vertices of the corners.
        corner_texcoords: `[C]` their texture coordinates, -1 for none.
        events: `[E, 4]` kind, byte behind the keyword, polygons and vertices so far.
        problems: One line each.
    """

    vertices: NDArray[np.float64]
    colours: NDArray[np.float64]
    texcoords: NDArray[np.float64]
    sizes: NDArray[np.int64]
    corners: NDArray[np.int64]
    corner_texcoords: NDArray[np.int64]
    events: NDArray[np.int64]
    problems: tuple[str, ...]


def read_lines(data: NDArray[np.uint8], *, colours: bool) -> Lines:
    """Returns what the lines of an OBJ file say, LF between them.

    Args:
        data: The bytes.
        colours: Whether to read texture coordinates, colours and events.

    Raises:
        Unreadable: A line is malformed; the message has its number.
    """
    counts, coloured = _count(data)
    v, t, p, c, e = counts.tolist()
    if not colours:
        t = e = 0
    vertices = np.empty((v, 3))
    tints = np.full((v if coloured and colours else 0, 3), np.nan)
    texcoords = np.zeros((t, 2))
    sizes, corners = np.empty(p, np.int64), np.empty(c, np.int64)
    corner_texcoords = np.empty(c if t else 0, np.int64)
    events = np.empty((e, 4), np.int64)
    v_bits, c_bits, t_bits = (a.reshape(-1).view(np.int64) for a in (vertices, tints, texcoords))
    fault, at, polygons, used, wrong, wrong_at = _read(
        data, v_bits, c_bits, t_bits, sizes, corners, corner_texcoords, events
    )
    if fault:
        raise _error(data, fault, at, v)
    for values in (vertices, tints, texcoords):
        settle(values, data)
    problems: tuple[str, ...] = ()
    if wrong:
        problems = (f"line {line_of(data, wrong_at)}: `{word_at(data, wrong_at)}` names a texture "
                    f"coordinate that does not exist, as {wrong} corners do",)  # fmt: skip
    return Lines(vertices, tints, texcoords, sizes[:polygons], corners[:used],
                 corner_texcoords[:used], events, problems)  # fmt: skip


def _error(data: NDArray[np.uint8], fault: int, at: int, vertices: int) -> Unreadable:
    line = f"line {line_of(data, at)}"
    if fault == _NO_NUMBER:
        return no_number(data, at)
    if fault == _FEW:
        return Unreadable(f"{line}: a vertex needs three numbers")
    word = f"{line}: face corner `{word_at(data, at)}`"
    if fault == _NO_CORNER:
        return Unreadable(f"{word} is no number")
    if fault == _ZERO:
        return Unreadable(f"{word}: vertices count from 1")
    return Unreadable(f"{word}: the file has {vertices} vertices")


@kernel
def _line_end(data: NDArray[np.uint8], at: int) -> int:
    while at < len(data) and not is_end(data[at]):
        at += 1
    return at


@kernel
def _word(data: NDArray[np.uint8], at: int) -> int:
    """Returns where the next word of a line begins, -1 if there is none but a comment."""
    while at < len(data) and is_space(data[at]):
        at += 1
    return -1 if at == len(data) or is_end(data[at]) or data[at] == 35 else at


@kernel
def _keyword(data: NDArray[np.uint8], at: int) -> int:
    """Returns the kind of event that a line begins with, -1 for none."""
    for kind in range(3):
        keyword = _KEYWORDS[kind]
        stop = at + len(keyword)
        if stop <= len(data) and (stop == len(data) or is_space(data[stop]) or is_end(data[stop])):
            same = True
            for k in range(len(keyword)):
                same = same and data[at + k] == keyword[k]
            if same:
                return kind
    return -1


@kernel
def _count(data: NDArray[np.uint8]) -> tuple[NDArray[np.int64], bool]:
    """Returns vertices, texture coordinates, polygons, corners and events; whether any has colours.

    Polygons and corners are the most there can be.
    """
    counts = np.zeros(5, np.int64)
    coloured = False
    at, end = 0, len(data)
    while at < end:
        while at < end and (is_space(data[at]) or is_end(data[at])):
            at += 1
        if at + 1 >= end:
            break
        first, second = data[at], data[at + 1]
        if first == 118 and is_space(second):
            counts[0] += 1
            if not coloured:
                words, word = 0, _word(data, at + 1)
                while word >= 0:
                    words += 1
                    word = _word(data, word_end(data, word, end))
                coloured = words >= 6
        elif first == 118 and second == 116 and is_space(data[min(at + 2, end - 1)]):
            counts[1] += 1
        elif first == 102 and is_space(second):
            counts[2] += 1
            word = _word(data, at + 1)
            while word >= 0:
                counts[3] += 1
                word = at = word_end(data, word, end)
                word = _word(data, word)
        elif (first == 117 or first == 109 or first == 35) and _keyword(data, at) >= 0:
            counts[4] += 1
        at = _line_end(data, at)
    return counts, coloured


@kernel
def _read(
    data: NDArray[np.uint8],
    vertices: NDArray[np.int64],  # the bits of float64, as those below
    colours: NDArray[np.int64],
    texcoords: NDArray[np.int64],
    sizes: NDArray[np.int64],
    corners: NDArray[np.int64],
    corner_texcoords: NDArray[np.int64],
    events: NDArray[np.int64],
) -> tuple[int, int, int, int, int, int]:
    """Fills the arrays.

    Returns:
        Fault and its byte; polygons and corners; wrong texture coordinates and the first's byte.
    """
    total = len(vertices) // 3
    v = t = p = c = e = 0
    bad = np.zeros(2, np.int64)
    at, end = 0, len(data)
    while at < end:
        while at < end and (is_space(data[at]) or is_end(data[at])):
            at += 1
        if at + 1 >= end:
            break
        first, second = data[at], data[at + 1]
        if first == 118 and is_space(second):
            fault, at = _read_vertex(data, at + 1, vertices, colours, v)
            if fault:
                return fault, at, 0, 0, 0, 0
            v += 1
        elif (
            first == 118
            and second == 116
            and len(texcoords)
            and is_space(data[min(at + 2, end - 1)])
        ):
            fault, at = _read_texcoord(data, at + 2, texcoords, t)
            if fault:
                return fault, at, 0, 0, 0, 0
            t += 1
        elif first == 102 and is_space(second):
            fault, at, stop = _read_face(
                data, at + 1, v, total, t, len(texcoords) // 2, corners, corner_texcoords, c, bad
            )
            if fault:
                return fault, at, 0, 0, 0, 0
            if stop - c >= 3:
                sizes[p] = stop - c
                c = stop
                p += 1
        elif len(events) and (first == 117 or first == 109 or first == 35):
            kind = _keyword(data, at)
            if kind >= 0:
                events[e, 0], events[e, 1] = kind, at + len(_KEYWORDS[kind])
                events[e, 2], events[e, 3] = p, v
                e += 1
        at = _line_end(data, at)
    return _FINE, 0, p, c, bad[0], bad[1]


@kernel
def _read_vertex(
    data: NDArray[np.uint8],
    at: int,
    vertices: NDArray[np.int64],
    colours: NDArray[np.int64],
    row: int,
) -> tuple[int, int]:
    """Reads a line of a vertex; returns its fault and where it ends."""
    word, stop = _word(data, at), at
    count, most = 0, 6 if len(colours) else 3
    while word >= 0 and count < most:
        if count < 3:
            stop = put_number(vertices, 3 * row + count, data, word, len(data))
        else:
            stop = put_number(colours, 3 * row + count - 3, data, word, len(data))
        if stop < 0:
            return _NO_NUMBER, word
        count += 1
        word = _word(data, stop)
    if 3 < count < 6:
        # A weight, no colour.
        colours[3 * row : 3 * row + 3] = NAN_BITS
    return (_FINE if count >= 3 else _FEW), stop


@kernel
def _read_texcoord(
    data: NDArray[np.uint8], at: int, texcoords: NDArray[np.int64], row: int
) -> tuple[int, int]:
    """Reads a line of texture coordinates, v being 0 where it lacks."""
    word, stop = _word(data, at), at
    for column in range(2):
        if word >= 0:
            stop = put_number(texcoords, 2 * row + column, data, word, len(data))
            if stop < 0:
                return _NO_NUMBER, word
            word = _word(data, stop)
    return _FINE, stop


@kernel
def _read_face(
    data: NDArray[np.uint8],
    at: int,
    v: int,  # vertices so far, and of the file
    vertices: int,
    t: int,  # texture coordinates so far, and of the file
    texcoords: int,
    corners: NDArray[np.int64],
    corner_texcoords: NDArray[np.int64],
    c: int,
    wrong: NDArray[np.int64],  # wrong texture coordinates, and the byte of the first
) -> tuple[int, int, int]:
    """Reads a line of corners from `c` on; returns its fault, where it ends, and the next `c`."""
    word = _word(data, at)
    while word >= 0:
        corner, texcoord, at = _read_corner(data, word)
        if corner == _INVALID:
            return _NO_CORNER, word, c
        if corner == 0:
            return _ZERO, word, c
        corner = corner - 1 if corner > 0 else v + corner
        if not 0 <= corner < vertices:
            return _BEYOND, word, c
        corners[c] = corner
        if len(corner_texcoords):
            known = texcoord - 1 if texcoord > 0 else t + texcoord
            if texcoord != 0 and 0 <= known < texcoords:
                corner_texcoords[c] = known
            else:
                corner_texcoords[c] = -1
                if texcoord != _NOTHING:
                    wrong[1] = wrong[1] if wrong[0] else word
                    wrong[0] += 1
        c += 1
        word = _word(data, at)
    return _FINE, at, c


@kernel
def _read_corner(data: NDArray[np.uint8], at: int) -> tuple[int, int, int]:
    """Returns vertex, texture coordinate and end of a corner such as `7/3/5`, `7//5` or `-1`."""
    stop = word_end(data, at, len(data))
    corner, at = _integer(data, at, stop)
    texcoord = _NOTHING
    if at < stop and data[at] == 47 and corner != _INVALID:
        at += 1
        if at < stop and data[at] != 47:
            texcoord, at = _integer(data, at, stop)
        if at < stop and data[at] == 47:
            at += 1
            if at < stop:
                _, at = _integer(data, at, stop)
    if at < stop or texcoord == _INVALID:
        return _INVALID, _NOTHING, stop
    return corner, texcoord, stop


@kernel
def _integer(data: NDArray[np.uint8], at: int, stop: int) -> tuple[int, int]:
    sign = 1
    if at < stop and (data[at] == 45 or data[at] == 43):
        sign = -1 if data[at] == 45 else 1
        at += 1
    value, first = 0, at
    while at < stop and 48 <= data[at] <= 57:
        value = min(value * 10 + (int(data[at]) - 48), _LARGEST)
        at += 1
    return (sign * value if at > first else _INVALID), at
