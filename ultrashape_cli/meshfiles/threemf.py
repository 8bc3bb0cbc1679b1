"""3MF: what its build asks for, with materials, colours and textures (3MF core, production and
materials specifications).

The start part comes from the relations; ids belong to their file; components and items may lie in
other files of the archive (as slicers write them). Other files are scaled to the unit of the first.
Volumes that are not printed, such as modifiers and supports, are left out.
"""

from __future__ import annotations

import posixpath
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from lxml import etree
from numpy.typing import NDArray

from ultrashape_cli.errors import MeshError
from ultrashape_cli.meshfiles.parts import Contents, Look, Part, Picture, Unreadable, Wrap
from ultrashape_cli.meshfiles.threemf_slicers import NOT_PRINTED, helper_ranges, parse_xml

# An archive that would unpack to more than both is a bomb: XML packs 5 to 20 times.
_BOMB_BYTES, _BOMB_RATIO = 64 * 2**20, 100
_START = "http://schemas.microsoft.com/3dmanufacturing/2013/01/3dmodel"
_UNITS = {"micron": 1e-3, "millimeter": 1.0, "centimeter": 10.0, "inch": 25.4, "foot": 304.8,
          "meter": 1000.0}  # fmt: skip
_WRAPS: dict[str, Wrap] = {"mirror": "mirror", "clamp": "clamp", "none": "clamp"}
_MAX_DEPTH = 64
_MAX_UNFOLDED, _UNFOLDED_RATIO, _MAX_PARTS = 1 << 22, 64, 1 << 17
"""A small file whose components unfold to more faces than both is a bomb."""
_NONE = -1
_KNOWN = ("/core/", "/material/", "/production/", "/trianglesets/", "slic3r", "prusa", "bambu")
"""In the names of extensions that a file may require; those of slicers hold settings."""


def unpacked_bytes(path: Path, max_bytes: int) -> int:
    """Return the size of all files in an archive.

    Args:
        path: The archive.
        max_bytes: Above it nothing is read to look for damage.

    Raises:
        MeshError: It would unpack to a multiple of its size that no model has.
        ValueError: It is damaged.
    """
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(item.file_size for item in archive.infolist())
        if min(unpacked, max_bytes) > max(_BOMB_BYTES, _BOMB_RATIO * size):
            message = f"{path}: would unpack to {unpacked / size:.0f} times its size"
            raise MeshError(message, hint="export the mesh again")
        # Reads in small pieces. A size that lies shows as a wrong checksum.
        if unpacked <= max_bytes and (damaged := archive.testzip()):
            raise ValueError(f"{damaged} in it is damaged")
    return unpacked


def read_3mf(path: Path, *, colours: bool) -> Contents:
    """Returns the triangles of all items of the build.

    Args:
        path: A 3MF archive.
        colours: Also read materials, colours and textures.

    Raises:
        Unreadable: It is no 3MF, or malformed.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _Archive(archive, colours).contents()
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise Unreadable(f"is no archive that can be read ({error})") from error
    except etree.XMLSyntaxError as error:
        raise Unreadable(f"its XML is malformed ({error.msg})") from error


@dataclass(slots=True)
class _Mesh:
    vertices: NDArray[np.float64]
    faces: NDArray[np.int64]
    properties: NDArray[np.int64]
    """`[F, 4]`: group and one index per corner; -1 where the object's count."""


@dataclass(slots=True)
class _Object:
    mesh: _Mesh | None
    components: list[tuple[str, str, NDArray[np.float64]]]
    """File, id and transform `[4, 3]`."""
    group: int
    index: int
    left_out: int
    """Faces that are no part of the model."""


class _Item(NamedTuple):
    """What is built: file, id, transform `[4, 3]`, and whether it is printed."""

    name: str
    number: str
    place: NDArray[np.float64]
    printed: bool


@dataclass(slots=True)
class _Model:
    """One model file."""

    unit: float = 1.0
    objects: dict[str, _Object] = field(default_factory=dict)
    items: list[_Item] = field(default_factory=list)
    groups: dict[int, tuple[str, Any]] = field(default_factory=dict)
    """Property groups: kind and values."""
    textures: dict[str, Picture] = field(default_factory=dict)


class _Archive:
    def __init__(self, archive: zipfile.ZipFile, colours: bool) -> None:
        self._archive = archive
        self._names = {name.lower().lstrip("/"): name for name in archive.namelist()}
        self._colours = colours
        self._models: dict[str, _Model] = {}
        self._looks: dict[Any, int] = {}
        self._unfolded = self._stored = self._placements = 0
        self._start_name = self._start()
        self._helpers = helper_ranges(archive, self._names)
        self._left_out = 0
        self.found = Contents([], tint_is_linear=False)

    def contents(self) -> Contents:
        start = self._model(self._start_name)
        printed = [item for item in start.items if item.printed] or start.items
        if unprinted := len(start.items) - len(printed):
            self.found.notes.append(f"{unprinted} items that are not printed left out")
        for name, number, place, _ in printed:
            for part in self._parts(name, number, place, start.unit, ()):
                self.found.parts.append(part)
        if self._left_out:
            what = "modifiers, supports or other volumes that are not printed"
            self.found.notes.append(f"{self._left_out:,} faces of {what} left out")
        return self.found

    def _start(self) -> str:
        """Returns the name of the first model file, by the relations of the package."""
        if (rels := self._names.get("_rels/.rels")) is not None:
            for relation in parse_xml(self._archive.read(rels)):
                if relation.get("Type") == _START:
                    return _name(relation.get("Target", ""))
        models = [name for name in self._names if name.endswith(".model")]
        if not models:
            raise Unreadable("has no model in it")
        return models[0]

    def _model(self, name: str) -> _Model:
        if name not in self._models:
            real = self._names.get(name.lower())
            if real is None:
                raise Unreadable(f"refers to `{name}`, which is not in it")
            self._models[name] = self._read(name, self._archive.read(real))
        return self._models[name]

    def _read(self, name: str, data: bytes) -> _Model:
        root, model = parse_xml(data), _Model()
        for prefix in root.get("requiredextensions", "").split():
            space = str(root.nsmap.get(prefix, prefix))
            if not any(known in space for known in _KNOWN):
                raise Unreadable(f"requires the extension {space}", "export it without it")
        unit = root.get("unit", "millimeter")
        if unit not in _UNITS:
            raise Unreadable(f"has the unknown unit `{unit}`")
        model.unit = _UNITS[unit]
        for item in root.iter("{*}resources"):
            for resource in _elements(item):
                self._resource(model, name, resource)
        for item in root.iter("{*}build"):
            for entry in _elements(item):
                printed = entry.get("printable", "1") not in ("0", "false")
                model.items.append(_Item(*_reference(entry, name), printed))
        return model

    def _resource(self, model: _Model, name: str, item: Any) -> None:
        tag, number = _tag(item), item.get("id", "")
        if tag == "object":
            model.objects[number] = self._object(item, name)
        elif not self._colours:
            return
        elif tag == "basematerials":
            colours = [_colour(base.get("displaycolor", "")) for base in _elements(item)]
            model.groups[_whole(number)] = ("base", colours)
        elif tag == "colorgroup":
            found = [_colour(entry.get("color", "")) for entry in _elements(item)]
            model.groups[_whole(number)] = ("colour", np.array(found, np.uint8).reshape(-1, 4))
        elif tag == "texture2dgroup":
            uv = [(float(entry.get("u", 0)), float(entry.get("v", 0))) for entry in _elements(item)]
            values = (item.get("texid", ""), np.array(uv, np.float32).reshape(-1, 2))
            model.groups[_whole(number)] = ("texture", values)
        elif tag == "texture2d":
            self._texture(model, number, item)
        elif tag in ("compositematerials", "multiproperties"):
            self.found.problems.append(f"colours left out: {tag} are not read")

    def _texture(self, model: _Model, number: str, item: Any) -> None:
        path = _name(item.get("path", ""))
        real = self._names.get(path.lower())
        if real is None:
            self.found.problems.append(f"texture left out: `{path}` is not in the archive")
            return
        wrap = (
            _WRAPS.get(item.get("tilestyleu", ""), "repeat"),
            _WRAPS.get(item.get("tilestylev", ""), "repeat"),
        )
        model.textures[number] = Picture(self._archive.read(real), path, wrap)

    def _object(self, item: Any, name: str) -> _Object:
        mesh, components, left_out = None, [], 0
        for child in _elements(item):
            if _tag(child) == "mesh":
                mesh = _mesh(child)
                self._stored += len(mesh.faces)
                left_out = self._drop_helpers(mesh, item, name)
            elif _tag(child) == "components":
                components = [_reference(entry, name) for entry in _elements(child)]
        group, index = _whole(item.get("pid", "-1")), _whole(item.get("pindex", "0"))
        return _Object(mesh, components, group, index, left_out)

    def _drop_helpers(self, mesh: _Mesh, item: Any, name: str) -> int:
        """Drops the faces of an object that are no part of the model; returns how many."""
        kept = np.full(len(mesh.faces), item.get("type") not in NOT_PRINTED)
        if name == self._start_name:
            for first, last in self._helpers.get(item.get("id", ""), ()):
                kept[first : last + 1] = False
        mesh.faces, mesh.properties = mesh.faces[kept], mesh.properties[kept]
        return int((~kept).sum())

    def _parts(
        self,
        name: str,
        number: str,
        place: NDArray[np.float64],
        unit: float,
        above: tuple[tuple[str, str], ...],
    ) -> Iterator[Part]:
        """Yields the meshes of an object, moved by `place` `[4, 3]` in the unit of the root."""
        if (name, number) in above or len(above) > _MAX_DEPTH:
            raise Unreadable(f"object {number} is a component of itself")
        model = self._model(name)
        if number not in model.objects:
            raise Unreadable(f"refers to object {number} of `{name}`, which does not exist")
        found = model.objects[number]
        self._left_out += found.left_out
        if found.mesh is not None and len(found.mesh.faces):
            yield self._part(model, found, found.mesh, place, model.unit / unit)
        for other, identity, transform in found.components:
            moved = transform[:, :3] @ place[:3]
            moved[3] += place[3]
            yield from self._parts(other, identity, moved, unit, (*above, (name, number)))

    def _part(
        self, model: _Model, item: _Object, mesh: _Mesh, place: NDArray[np.float64], scale: float
    ) -> Part:
        self._unfolded += len(mesh.faces)
        if self._unfolded > max(_MAX_UNFOLDED, _UNFOLDED_RATIO * self._stored):
            raise Unreadable(f"its components unfold to more than {self._unfolded - 1:,} faces")
        self._placements += 1
        if self._placements > _MAX_PARTS:
            raise Unreadable(f"its components unfold to more than {_MAX_PARTS:,} parts")
        vertices = (mesh.vertices @ place[:3] + place[3]) * scale
        faces, uv, tint = mesh.faces, None, None
        look = np.full(len(faces), _NONE, np.int32)
        if self._colours and model.groups:
            uv, tint = self._laid_on(model, item, mesh, look)
        if np.linalg.det(place[:3]) < 0:
            faces = faces[:, ::-1]
            uv = None if uv is None else uv[:, ::-1]
            tint = None if tint is None else tint[:, ::-1]
        return Part(vertices, faces, uv, tint, look)

    def _laid_on(
        self, model: _Model, item: _Object, mesh: _Mesh, look: NDArray[np.int32]
    ) -> tuple[NDArray[np.float32] | None, NDArray[np.uint8] | None]:
        """Writes the look of each face; returns texture coordinates and tints of their corners."""
        groups, corners = mesh.properties[:, 0].copy(), mesh.properties[:, 1:].copy()
        groups[groups == _NONE] = item.group
        corners[corners == _NONE] = item.index
        uv = tint = None
        for group in np.unique(groups).tolist():
            kind, values = model.groups.get(group, ("", None))
            rows = np.flatnonzero(groups == group)
            count = len(values[1]) if kind == "texture" else len(values) if kind else 0
            if not kind or not len(rows):
                continue
            at = corners[rows]
            if at.min() < 0 or at.max() >= count:
                raise Unreadable(f"a triangle names property {at.max()} of {count}")
            if kind == "base":
                table = [self._look(_linear(colour)) for colour in values]
                look[rows] = np.array(table, np.int32)[at[:, 0]]
            elif kind == "colour":
                tint = np.full((len(groups), 3, 4), 255, np.uint8) if tint is None else tint
                tint[rows] = values[at]
                look[rows] = self._look((1.0, 1.0, 1.0, 1.0))
            elif (picture := model.textures.get(values[0])) is not None:
                uv = np.full((len(groups), 3, 2), np.nan, np.float32) if uv is None else uv
                uv[rows] = values[1][at]
                look[rows] = self._look((1.0, 1.0, 1.0, 1.0), picture)
        return uv, tint

    def _look(
        self, colour: tuple[float, float, float, float], picture: Picture | None = None
    ) -> int:
        key = (colour, id(picture))
        if key not in self._looks:
            self._looks[key] = len(self.found.looks)
            self.found.looks.append(Look(colour, picture))
        return self._looks[key]


def _mesh(item: Any) -> _Mesh:
    vertices, triangles = [], []
    try:
        for group in _elements(item):
            if _tag(group) == "vertices":
                vertices = [(v.get("x"), v.get("y"), v.get("z")) for v in _elements(group)]
            elif _tag(group) == "triangles":
                triangles = [_triangle(t) for t in _elements(group)]
        points = np.array(vertices, np.float64).reshape(-1, 3)
        found = np.array(triangles, np.int64).reshape(-1, 7)
    except (TypeError, ValueError) as error:
        raise Unreadable("a vertex or triangle has something else than numbers") from error
    faces = found[:, :3]
    if len(faces) and (faces.min() < 0 or faces.max() >= len(points)):
        raise Unreadable(f"a triangle uses vertex {faces.max()} of {len(points)}")
    return _Mesh(points, faces, found[:, 3:])


def _triangle(item: Any) -> tuple[Any, ...]:
    first = item.get("p1", _NONE)
    return (
        *(item.get("v1"), item.get("v2"), item.get("v3")),
        *(item.get("pid", _NONE), first, item.get("p2", first), item.get("p3", first)),
    )


def _reference(item: Any, name: str) -> tuple[str, str, NDArray[np.float64]]:
    """Returns file, id and transform of a component or item."""
    path = next((v for k, v in item.attrib.items() if k.rpartition("}")[2] == "path"), None)
    place = np.eye(4)[:, :3]
    if text := item.get("transform"):
        try:
            place = np.array(text.split(), np.float64).reshape(4, 3)
        except ValueError as error:
            raise Unreadable(f"the transform `{text[:60]}` has not 12 numbers") from error
    return _name(path) if path else name, item.get("objectid", ""), place


def _name(path: str) -> str:
    return posixpath.normpath(path).lstrip("/")


def _elements(item: Any) -> Iterator[Any]:
    """Returns what lies in an element, without comments."""
    return item.iterchildren("*")


def _tag(item: Any) -> str:
    """Returns a tag without its namespace."""
    return str(item.tag).rpartition("}")[2]


def _whole(text: str) -> int:
    return int(text) if text.lstrip("-").isdecimal() else _NONE


def _colour(text: str) -> tuple[int, int, int, int]:
    """Returns sRGB bytes of `#RRGGBB` or `#RRGGBBAA`, white where it is neither."""
    digits = text.lstrip("#")
    try:
        values = bytes.fromhex(digits)
    except ValueError:
        values = b""
    if len(values) not in (3, 4):
        return 255, 255, 255, 255
    return values[0], values[1], values[2], values[3] if len(values) == 4 else 255


def _linear(colour: tuple[int, int, int, int]) -> tuple[float, float, float, float]:
    rgb = [c / 255 for c in colour[:3]]
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb)
    return r, g, b, colour[3] / 255
