"""PLY: polygons and strips, their colours and textures; exact writing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ultrashape_cli.meshfiles.beside import find_beside, why_not_beside
from ultrashape_cli.meshfiles.parts import Contents, Look, Part, Picture, Unreadable, file_bytes
from ultrashape_cli.meshfiles.ply_tables import Header, Table, read_header, read_tables
from ultrashape_cli.meshfiles.polygons import triangulate
from ultrashape_cli.meshfiles.tints import corner_tints, tint_bytes

_INDICES = ("vertex_indices", "vertex_index")
_TEXCOORDS = (("s", "t"), ("u", "v"), ("texture_u", "texture_v"))
_COLOURS = (
    ("red", "green", "blue", "alpha"),
    ("diffuse_red", "diffuse_green", "diffuse_blue", "diffuse_alpha"),
    ("r", "g", "b", "a"),
)
_WHITE = (1.0, 1.0, 1.0, 1.0)


# Numbers may be any, also beyond the types that they go to.
@np.errstate(over="ignore", invalid="ignore")
def read_ply(path: Path, *, colours: bool) -> Contents:
    """Returns the polygons and triangle strips of a PLY file as one part.

    Args:
        path: The file; a picture that it names is looked for in its folder.
        colours: Whether to read more than vertices and faces.

    Raises:
        Unreadable: It is malformed, cut off, or holds points or splats alone.
    """
    data = file_bytes(path)
    header = read_header(data)
    _check_kind(header)
    tables = read_tables(data, header, ("vertex", "face", "tristrips"))
    vertex, face = tables.get("vertex"), tables.get("face")
    if vertex is None or not all(axis in vertex.columns for axis in "xyz"):
        raise Unreadable("its vertices have no x, y and z")
    vertices = np.stack([vertex.columns[axis] for axis in "xyz"], axis=1, dtype=np.float64)
    corners, sizes = _polygons(face)
    if "tristrips" in tables:
        strips = _strips(tables["tristrips"])
        corners = np.concatenate([corners, strips.reshape(-1)])
        sizes = np.concatenate([sizes, np.full(len(strips), 3)])
    triangles = triangulate(vertices, corners, sizes)
    look = np.full(len(triangles.faces), -1, np.int32)
    contents = Contents([Part(vertices, triangles.faces, None, None, look)])
    if colours:
        polygon = triangles.polygon
        uv = _corner_uv(vertex, face, corners, sizes)
        if uv is not None and header.textures:
            number = None if face is None else face.columns.get("texnumber")
            _lay_on_pictures(
                path, header.textures, uv[triangles.positions], number, polygon, contents
            )
        _tint(vertex, face, polygon, contents)
    return contents


def _check_kind(header: Header) -> None:
    """Refuses what has no surface, in its own words."""
    elements = {element.name: element for element in header.elements}
    if any(elements[name].count for name in ("face", "tristrips") if name in elements):
        return
    vertex = elements.get("vertex")
    names = {item.name for item in vertex.properties} if vertex else set()
    if "f_dc_0" in names or {"rot_0", "scale_0"} <= names:
        raise Unreadable("has no faces: it holds Gaussian splats", "export a mesh of the splats")
    count = vertex.count if vertex else 0
    raise Unreadable(
        f"has no faces, only {count:,} points",
        "point clouds and curves cannot be used; reconstruct a surface first",
    )


def _polygons(face: Table | None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns the corners of all polygons, and how many each has."""
    if face is None:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    name = next((name for name in (*_INDICES, *face.lists) if name in face.lists), None)
    if name is None:
        raise Unreadable("its faces have no vertex_indices")
    values, sizes = face.lists[name]
    return values.astype(np.int64, copy=False), sizes


def _strips(table: Table) -> NDArray[np.int64]:
    """Returns the triangles `[T, 3]` of strips, which -1 or the end of a list divides."""
    name = next((name for name in _INDICES if name in table.lists), None)
    if name is None:
        return np.zeros((0, 3), np.int64)
    values, lengths = table.lists[name]
    flat = values.astype(np.int64, copy=False)
    place = np.arange(len(flat))
    begins = np.isin(place, np.cumsum(lengths) - lengths)
    first = np.maximum.accumulate(np.where(flat < 0, place + 1, np.where(begins, place, 0)))
    faces = np.stack([flat[:-2], flat[1:-1], flat[2:]], axis=1)
    odd = (place - first)[2:] % 2 == 1
    faces[odd] = faces[odd][:, [1, 0, 2]]
    return faces[(place - first)[2:] >= 2]


def _corner_uv(
    vertex: Table, face: Table | None, corners: NDArray[np.int64], sizes: NDArray[np.int64]
) -> NDArray[np.float32] | None:
    """Returns the texture coordinates `[C, 2]` of corners, NaN where there are none."""
    if face is not None and "texcoord" in face.lists:
        values, lengths = face.lists["texcoord"]
        uv = np.full((len(corners), 2), np.nan, np.float32)
        fits = np.zeros(len(sizes), bool)
        fits[: len(lengths)] = lengths == 2 * sizes[: len(lengths)]
        uv[np.repeat(fits, sizes)] = values[np.repeat(fits[: len(lengths)], lengths)].reshape(-1, 2)
        return uv
    for u, v in _TEXCOORDS:
        if u in vertex.columns and v in vertex.columns:
            pair = np.stack([vertex.columns[u], vertex.columns[v]], axis=1)
            return pair.astype(np.float32)[corners]
    return None


def _lay_on_pictures(
    path: Path,
    names: list[str],
    uv: NDArray[np.float32],
    number: NDArray[Any] | None,
    polygon: NDArray[np.int64],
    contents: Contents,
) -> None:
    places = np.full(len(names) + 1, -1, np.int32)
    for k, name in enumerate(names):
        target = find_beside(path, name)
        if target is None:
            contents.problems.append(f"texture left out: {why_not_beside(path, name)}")
        else:
            places[k] = len(contents.looks)
            contents.looks.append(Look(_WHITE, Picture(target, target.name)))
    chosen = np.zeros(len(polygon), np.int64)
    if number is not None:
        # Numbers without a picture, and strips, which have none, take the last place: clay.
        padded = np.append(number.astype(np.int64), np.full(polygon.max(initial=0) + 1, -1))
        chosen = padded[polygon]
        chosen[(chosen < 0) | (chosen >= len(names))] = len(names)
    part = contents.parts[0]
    part.uv = uv
    part.look = np.where(np.isfinite(uv).all(axis=(1, 2)), places[chosen], -1).astype(np.int32)


def _tint(
    vertex: Table, face: Table | None, polygon: NDArray[np.int64], contents: Contents
) -> None:
    """Lays colours of vertices, or of faces, on what has no picture."""
    part = contents.parts[0]
    of_faces = None if face is None else _colours(face)
    tint = corner_tints(_colours(vertex), of_faces, part.faces, polygon)
    if tint is None:
        return
    plain = part.look < 0
    if plain.any():
        part.look[plain] = len(contents.looks)
        contents.looks.append(Look(_WHITE))
        tint[~plain] = 255
        part.tint = tint


def _colours(table: Table) -> NDArray[np.uint8] | None:
    for red, green, blue, alpha in _COLOURS:
        if all(name in table.columns for name in (red, green, blue)):
            names = [name for name in (red, green, blue, alpha) if name in table.columns]
            return tint_bytes(np.stack([table.columns[name] for name in names], axis=1))
    return None
