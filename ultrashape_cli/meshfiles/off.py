"""OFF, COFF, NOFF and their kin: polygons, colours of vertices and of faces."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ultrashape_cli.geometry.jit import kernel
from ultrashape_cli.meshfiles.numerals import no_number, read_numbers
from ultrashape_cli.meshfiles.parts import (
    COPY_AGAIN,
    WHITE,
    Contents,
    Part,
    Unreadable,
    refuse_utf_16,
)
from ultrashape_cli.meshfiles.polygons import triangulate
from ultrashape_cli.meshfiles.tints import corner_tints, tint_bytes

_KEYWORD = re.compile(rb"\s*(ST)?(C)?(N)?(4)?(n)?(?:OFF|off)(?![A-Za-z])[ \t]*(BINARY)?")
_COMMENT = re.compile(rb"#[^\r\n]*")


# Numbers may be any, also beyond the types that they go to.
@np.errstate(over="ignore", invalid="ignore")
def read_off(path: Path, *, colours: bool) -> Contents:
    """Returns the polygons of an OFF file as one part.

    Args:
        path: The file.
        colours: Whether to read those of vertices and faces.

    Raises:
        Unreadable: It is malformed, cut off, binary, or of more than three dimensions.
    """
    data = path.read_bytes()
    refuse_utf_16(data)
    # Every byte keeps its place, so that errors can name lines.
    data = data.replace(b"\xef\xbb\xbf", b"   ", 1)
    data = _COMMENT.sub(lambda found: b" " * len(found[0]), data)
    keyword = _KEYWORD.match(data)
    texture, tint, normal, four, many, binary = keyword.groups() if keyword else (None,) * 6
    if binary:
        raise Unreadable("is binary OFF", "export it as text, or as binary PLY")
    if four or many:
        raise Unreadable("has coordinates of more than three dimensions")
    rows = _Rows(data, keyword.end() if keyword else 0, bool(keyword))
    vertices, sizes, corners, lines = rows.read(is_plain=not (texture or tint or normal))
    triangles = triangulate(vertices, corners, sizes)
    look = np.full(len(triangles.faces), -1, np.int32)
    part = Part(vertices, triangles.faces, None, None, look)
    contents = Contents([part])
    if colours and lines is not None:
        starts, lengths = lines
        count = len(vertices)
        first = 6 if normal else 3
        known = lengths[:count] - (2 if texture else 0) >= first + 3
        if not keyword or not (tint or normal or texture):
            # Without a keyword, three more numbers are a normal where one is below zero.
            known &= (rows.rgb(starts[:count] + 3, known) >= 0).all()
        of_vertices = _tints(rows.rgb(starts[:count] + first, known), known)
        known = lengths[count:] >= 1 + sizes + 3
        of_faces = _tints(rows.rgb(starts[count:] + 1 + sizes, known), known)
        part.tint = corner_tints(of_vertices, of_faces, part.faces, triangles.polygon)
        if of_faces is None and (lengths[count:] == 2 + sizes).any():
            contents.problems.append("colours left out: faces name entries of a colour map")
        if part.tint is not None:
            contents.looks.append(WHITE)
            part.look[:] = 0
    return contents


def _tints(rgb: NDArray[np.float64], known: NDArray[np.bool_]) -> NDArray[np.uint8] | None:
    """Returns colours of rows, white where they have none; None if all have none."""
    if not known.any():
        return None
    values = np.full((len(known), 3), np.nan)
    values[known] = rgb
    return tint_bytes(values)


class _Rows:
    """The numbers of an OFF file and where its lines begin.

    Args:
        data: The file without comments.
        start: Where its counts begin.
        named: Whether it says that it is OFF.
    """

    def __init__(self, data: bytes, start: int, named: bool) -> None:
        text = np.frombuffer(data, np.uint8)
        self._text = text
        self._values, self._starts, self._wrong_at = read_numbers(text, start)
        self._lengths: NDArray[np.int64] = np.diff(self._starts, append=len(self._values))
        if not len(self._starts) or (not named and self._lengths[0] != 3):
            raise Unreadable("is no OFF file")
        if self._lengths[0] < 2 or not (self._values[:2] >= 0).all():
            raise Unreadable("has no counts of vertices and faces")
        limit = float(1 << 53)
        self._counts = [int(min(value, limit)) for value in self._values[:2].tolist()]

    def rgb(self, at: NDArray[np.int64], known: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Returns three numbers `[N, 3]` from each place that is known to have them."""
        return self._values[at[known][:, None] + np.arange(3)]

    def read(
        self, *, is_plain: bool
    ) -> tuple[
        NDArray[np.float64],
        NDArray[np.int64],
        NDArray[np.int64],
        tuple[NDArray[np.int64], NDArray[np.int64]] | None,
    ]:
        """Returns vertices, sizes and corners of polygons, and starts and lengths of their lines.

        The last is None for a plain file that does not give each row a line.
        """
        v, f = self._counts
        starts, lengths = self._starts[1 : 1 + v + f], self._lengths[1 : 1 + v + f]
        if len(starts) == v + f and (lengths[:v] >= 3).all():
            vertices = self._values[starts[:v, None] + np.arange(3)]
            first = self._values[starts[v:]]
            if ((first >= 0) & (first < lengths[v:]) & (first == np.floor(first))).all():
                sizes = first.astype(np.int64)
                return vertices, sizes, self._corners(starts[v:] + 1, sizes), (starts, lengths)
        begin = min(int(self._lengths[0]), 3)
        if not is_plain or 3 * v > len(self._values) - begin:
            self._cut_off(min(len(starts), v), max(len(starts) - v, 0))
        vertices = self._values[begin : begin + 3 * v].reshape(-1, 3)
        if f > len(self._values):
            self._cut_off(v, 0)
        face_starts, sizes = np.empty(f, np.int64), np.empty(f, np.int64)
        done, end = _walk(self._values, begin + 3 * v, face_starts, sizes)
        if done < f:
            self._cut_off(v, done)
        if end < len(self._values):
            raise Unreadable(f"has {len(self._values) - end:,} numbers more than its counts say")
        return vertices, sizes, self._corners(face_starts, sizes), None

    def _corners(self, starts: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
        before = np.cumsum(sizes) - sizes
        place = np.arange(sizes.sum()) + np.repeat(starts - before, sizes)
        return np.nan_to_num(np.clip(self._values[place], -1, 1 << 53), nan=-1).astype(np.int64)

    def _cut_off(self, vertices: int, faces: int) -> None:
        if self._wrong_at >= 0:
            raise no_number(self._text, self._wrong_at)
        v, f = self._counts
        raise Unreadable(
            f"truncated: it has {vertices:,} of {v:,} vertices and {faces:,} of {f:,} faces",
            COPY_AGAIN,
        )


@kernel
def _walk(
    values: NDArray[np.float64], at: int, starts: NDArray[np.int64], sizes: NDArray[np.int64]
) -> tuple[int, int]:
    """Finds the corners of polygons one after the other; returns how many, and the end."""
    for row in range(len(sizes)):
        if at >= len(values) or not 0 <= values[at] < len(values) - at:
            return row, at
        starts[row], sizes[row] = at + 1, int(values[at])
        at += 1 + sizes[row]
    return len(sizes), at
