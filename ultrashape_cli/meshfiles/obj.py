"""OBJ: polygons, texture coordinates and materials, and colours behind vertices or in #MRGB lines.

Kernels of `obj_lines.py` read the lines; here faces get their looks. Lines, points, curves,
normals and groups are passed over. The fourth coordinate of a vertex is a weight of curves, which
polygons do not have.
"""

from __future__ import annotations

import re
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ultrashape_cli.meshfiles.mtl import decoded, read_materials
from ultrashape_cli.meshfiles.numerals import JOINT
from ultrashape_cli.meshfiles.obj_lines import LIBRARY, MATERIAL, PAINT, Lines, read_lines
from ultrashape_cli.meshfiles.parts import WHITE, Contents, Look, Part, Unreadable, refuse_utf_16
from ultrashape_cli.meshfiles.polygons import triangulate
from ultrashape_cli.meshfiles.tints import tint_bytes

# A backslash joins the next line, but not behind a comment or a name, such as a folder's.
_JOINED = re.compile(rb"(?m)^[ \t]*(?:#|(?:g|o|usemtl|mtllib)[ \t])[^\n]*|\\\r?\n")
_LONE_CR = re.compile(rb"\r(?!\n)")
_MISSING = "colours left out: no material file defines"


# Numbers may be any, also beyond the types that they go to.
@np.errstate(over="ignore", invalid="ignore")
def read_obj(path: Path, *, colours: bool) -> Contents:
    """Returns the polygons of an OBJ file as one part.

    Args:
        path: The file; materials and pictures are looked for in its folder.
        colours: Whether to read more than vertices and faces.

    Raises:
        Unreadable: A line cannot be understood, or a face uses a vertex that does not exist.
    """
    text = _text(path)
    lines = read_lines(np.frombuffer(text, np.uint8), colours=colours)
    triangles = triangulate(lines.vertices, lines.corners, lines.sizes)
    look = np.full(len(triangles.faces), -1, np.int32)
    part = Part(lines.vertices, triangles.faces, None, None, look)
    contents = Contents([part], problems=list(lines.problems))
    if colours:
        _Colours(path, text, lines, contents).lay_on(triangles.positions, triangles.polygon)
    return contents


def _text(path: Path) -> bytes:
    """Returns the file with LF at the ends of lines, and those joined that a backslash continues.

    Every byte keeps its place, so that errors can name lines.
    """
    text = path.read_bytes()
    head = text[:4096]
    refuse_utf_16(head)
    if head.count(0) > len(head) // 4:
        raise Unreadable("is UTF-16 text", "save it as UTF-8")
    if head[:3] == b"\xef\xbb\xbf":
        text = b"   " + text[3:]
    if text.count(b"\r") != text.count(b"\r\n"):
        text = _LONE_CR.sub(b"\n", text)
    if b"\\\n" in text or b"\\\r\n" in text:
        text = _JOINED.sub(_joint, text)
    return text


def _joint(found: re.Match[bytes]) -> bytes:
    return found[0] if found[0][:1] != b"\\" else b" " * (len(found[0]) - 1) + JOINT


class _Colours:
    """Gives the triangles of an OBJ file their looks."""

    def __init__(self, path: Path, text: bytes, lines: Lines, contents: Contents) -> None:
        self._text = text
        self._lines = lines
        self._contents = contents
        self._names, self._material = self._materials()
        named = [self._rest(at) for kind, at, *_ in lines.events.tolist() if kind == LIBRARY]
        libraries = list(dict.fromkeys(named))
        unread: list[str] = []
        known = read_materials(path, libraries, unread)
        contents.problems += unread
        self._tint, self._painted = self._vertex_colours()
        self._found = [known.get(name) for name in self._names]
        # A file that could not be read is named already.
        if self._tint is None and not unread:
            self._tell_missing(bool(libraries))

    def lay_on(self, positions: NDArray[np.int64], polygon: NDArray[np.int64]) -> None:
        """Sets look, texture coordinates and tint of the part.

        Args:
            positions: `[F, 3]` of the corners in the file.
            polygon: `[F]`, of the file.
        """
        part, lines = self._contents.parts[0], self._lines
        # The last is that of faces without a material.
        items = [*self._found, None]
        material = self._material[polygon]
        plain = self._numbers([item.plain if item else None for item in items])
        textured = self._numbers([item.textured if item else None for item in items])
        # Without texture coordinates a picture shows nowhere.
        with_picture = (textured[material] >= 0) & (len(lines.texcoords) > 0)
        if with_picture.any():
            table = np.concatenate([lines.texcoords, np.full((1, 2), np.nan)]).astype(np.float32)
            part.uv = table[lines.corner_texcoords[positions]]
            moves = np.array([item.move if item else (1, 1, 0, 0) for item in items], np.float32)
            if (moves != (1, 1, 0, 0)).any():
                of_face = moves[material][:, None]
                part.uv = part.uv * of_face[..., :2] + of_face[..., 2:]
            with_picture &= np.isfinite(part.uv).all(axis=(1, 2))
        look = np.where(with_picture, textured[material], plain[material])
        if self._tint is not None:
            # Vertex colours go before a plain colour and behind a picture; what has neither is
            # white, as vertices without a colour are. All white, they were never chosen.
            defined = np.array([item is not None for item in items])[material]
            chosen = (plain[material] < 0) | (self._tint[:, :3] < 255).any()
            painted = chosen & self._painted[part.faces].any(axis=1)
            painted = ~with_picture & (painted | ~defined)
            look[painted] = self._numbers([WHITE])[0]
            part.tint = self._tint[part.faces]
            part.tint[~painted] = 255
        used, place = np.unique(look, return_inverse=True)
        part.look = (place - int(used[:1].tolist() == [-1])).astype(np.int32)
        self._contents.looks[:] = [self._contents.looks[k] for k in used if k >= 0]

    def _numbers(self, looks: list[Look | None]) -> NDArray[np.int32]:
        """Returns where looks stand among those of the file, -1 for clay."""
        first = len(self._contents.looks)
        wanted = [look for look in looks if look is not None]
        self._contents.looks.extend(wanted)
        places = iter(range(first, first + len(wanted)))
        return np.array([-1 if look is None else next(places) for look in looks], np.int32)

    def _rest(self, at: int) -> str:
        """Returns what stands behind a keyword that ends at a byte."""
        stop = self._text.find(b"\n", at)
        return decoded(self._text[at : stop if stop >= 0 else None])

    def _materials(self) -> tuple[list[str], NDArray[np.int64]]:
        """Returns the materials that faces name, and which each polygon has; -1 for none."""
        events = self._lines.events
        events = events[events[:, 0] == MATERIAL]
        numbers: dict[str, int] = {}
        named = [numbers.setdefault(self._rest(at), len(numbers)) for at in events[:, 1].tolist()]
        counts = np.diff(events[:, 2], append=len(self._lines.sizes), prepend=0)
        return list(numbers), np.repeat(np.array([-1, *named], np.int64), counts)

    def _vertex_colours(self) -> tuple[NDArray[np.uint8] | None, NDArray[np.bool_]]:
        """Returns colours `[V, 4]` and which vertices have one; None if all have none."""
        colours = self._lines.colours
        if not len(colours):
            colours = np.full((len(self._lines.vertices), 3), np.nan)
        painted: NDArray[np.bool_] = np.asarray(np.isfinite(colours).all(axis=1))
        paint = self._lines.events[self._lines.events[:, 0] == PAINT]
        if not (painted.any() or len(paint)):
            return None, painted
        tint = tint_bytes(colours)
        for count, block in groupby(paint.tolist(), key=lambda event: event[3]):
            try:
                rows = bytes.fromhex("".join(self._rest(at) for _, at, *_ in block))
                found = np.frombuffer(rows, np.uint8).reshape(-1, 4)[:, 1:]
            except ValueError:
                self._contents.problems.append("colours left out: #MRGB that is no list of colours")
                continue
            # A block belongs to the vertices right before it; one before all, to the first.
            start = max(count - len(found), 0)
            rows_used = min(len(found), len(tint) - start)
            tint[start : start + rows_used, :3] = found[:rows_used]
            painted[start : start + rows_used] = True
        return (tint, painted) if painted.any() else (None, painted)

    def _tell_missing(self, has_libraries: bool) -> None:
        used = np.unique(self._material[self._material >= 0])
        missing = [self._names[k] for k in used if self._found[k] is None]
        if missing and not has_libraries:
            self._contents.problems.append(f"{_MISSING} those that faces name")
        elif missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            self._contents.problems.append(f"{_MISSING} `{missing[0][:80]}`{more}")
