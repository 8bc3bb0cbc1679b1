"""glTF 2.0 (.gltf, .glb): the scene's triangles, placed by nodes, skins, morphs and instances.

Understood: strips and fans, sparse, strided and normalized accessors, COLOR_0 of all types,
texture coordinate sets, wrap modes, alpha modes, KHR_mesh_quantization, KHR_texture_transform,
EXT_mesh_gpu_instancing, KHR_node_visibility; Draco and meshopt with the extra `compressed`.
Any other extension that a file requires is refused by name.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ultrashape_cli.meshfiles.companions import read_beside
from ultrashape_cli.meshfiles.compressed import decode_draco, meshopt_decoder
from ultrashape_cli.meshfiles.gltf_buffers import Buffers, Json, read_container
from ultrashape_cli.meshfiles.gltf_looks import Looks, has_colours, is_invisible
from ultrashape_cli.meshfiles.parts import Contents, Part, Unreadable

_KNOWN = {
    *("KHR_mesh_quantization", "KHR_texture_transform", "EXT_mesh_gpu_instancing"),
    *("KHR_node_visibility", "KHR_draco_mesh_compression", "EXT_meshopt_compression"),
    *("KHR_meshopt_compression", "EXT_texture_webp", "EXT_texture_avif", "KHR_xmp_json_ld"),
    *("KHR_lights_punctual", "KHR_materials_variants", "KHR_animation_pointer"),
    # Without Basis a texture is left out, which its problems say; the shape is whole.
    "KHR_texture_basisu",
}
"""Extensions that a file may require; those of materials change nothing about shape and colour."""
_TRIANGLES, _STRIP, _FAN = 4, 5, 6
_MAX_DEPTH = 512
_MAX_UNFOLDED, _UNFOLDED_RATIO, _MAX_PARTS = 1 << 22, 64, 1 << 17
"""A small file whose instances unfold to more faces than both is a bomb."""


def read_gltf(path: Path, *, colours: bool) -> Contents:
    """Returns all triangles of a file's scene.

    Args:
        path: A .gltf or .glb file.
        colours: Also read materials, texture coordinates and vertex colours.

    Raises:
        Unreadable: The file is malformed, or requires what is not understood.
    """
    document, binary = read_container(path)
    required = document.get("extensionsRequired", [])
    for name in required if isinstance(required, list) else []:
        if name not in _KNOWN and not str(name).startswith("KHR_materials_"):
            raise Unreadable(f"requires the extension {name}", f"export it without {name}")
    buffers = Buffers(document, binary, lambda uri: read_beside(path, uri), meshopt_decoder())
    return _Scene(document, buffers, Looks(buffers) if colours else None).contents()


class _Scene:
    """Unfolds the nodes of a document."""

    def __init__(self, document: Json, buffers: Buffers, looks: Looks | None) -> None:
        self._document = document
        self._buffers = buffers
        self._looks = looks
        self._globals: dict[int, NDArray[np.float64]] = {}
        self._primitives: dict[tuple[int, int], _Primitive | None] = {}
        self._unfolded = self._stored = self._placements = 0
        self._invisible: set[int] = set()

    def contents(self) -> Contents:
        parts = [part for node in self._visible() for part in self._parts(node)]
        looks = self._looks
        problems, notes = looks.problems if looks else [], list[str]()
        seen = [part for part in parts if id(part) not in self._invisible]
        if seen and len(seen) < len(parts):
            # Boxes that games collide with; a file of nothing else means to be seen.
            notes.append(f"{len(parts) - len(seen)} parts of no opacity left out")
            parts = seen
        found = looks.found if looks else []
        return Contents(parts, found, tint_is_linear=True, problems=problems, notes=notes)

    def _visible(self) -> list[int]:
        """Returns the nodes of the scene in the order of a walk, and places them."""
        nodes = self._document.get("nodes", [])
        roots = self._roots(len(nodes))
        found: list[int] = []
        stack = [(root, np.eye(4), 0, True) for root in reversed(roots)]
        while stack:
            index, above, depth, shown = stack.pop()
            if depth > _MAX_DEPTH:
                raise Unreadable(f"its nodes are more than {_MAX_DEPTH} deep")
            if index in self._globals:
                raise Unreadable(f"node {index} is a child of itself, or of two others")
            node = self._buffers.item("nodes", index)
            place = above @ _local(node)
            self._globals[index] = place
            visibility = node.get("extensions", {}).get("KHR_node_visibility", {})
            shown = shown and visibility.get("visible", True) is not False
            if shown:
                found.append(index)
            children = node.get("children", [])
            stack += [(child, place, depth + 1, shown) for child in reversed(children)]
        return found

    def _roots(self, count: int) -> list[int]:
        scenes = self._document.get("scenes")
        if scenes:
            scene = self._buffers.item("scenes", self._document.get("scene", 0))
            return list(scene.get("nodes", []))
        nodes = [self._buffers.item("nodes", index) for index in range(count)]
        children = {child for node in nodes for child in node.get("children", [])}
        return [index for index in range(count) if index not in children]

    def _parts(self, index: int) -> Iterator[Part]:
        node = self._buffers.item("nodes", index)
        if "mesh" not in node:
            return
        mesh = self._buffers.item("meshes", node["mesh"])
        weights = node.get("weights", mesh.get("weights", []))
        for number in range(len(mesh.get("primitives", []))):
            primitive = self._primitive(node["mesh"], number, mesh["primitives"][number])
            if primitive is None:
                continue
            points = primitive.morphed(weights)
            if "skin" in node:
                yield self._placed(primitive, self._skinned(primitive, points, node["skin"]), None)
                continue
            for place in self._instances(node, index):
                yield self._placed(primitive, points, place)

    def _placed(
        self,
        primitive: _Primitive,
        points: NDArray[np.float64],
        place: NDArray[np.float64] | None,
    ) -> Part:
        self._unfolded += len(primitive.faces)
        if self._unfolded > max(_MAX_UNFOLDED, _UNFOLDED_RATIO * self._stored):
            raise Unreadable(f"its instances unfold to more than {self._unfolded - 1:,} faces")
        self._placements += 1
        if self._placements > _MAX_PARTS:
            raise Unreadable(f"its instances unfold to more than {_MAX_PARTS:,} parts")
        faces, uv, tint = primitive.faces, primitive.uv, primitive.tint
        if place is not None:
            points = points @ place[:3, :3].T + place[:3, 3]
            if np.linalg.det(place[:3, :3]) < 0:
                faces = faces[:, ::-1]
                uv = None if uv is None else uv[:, ::-1]
                tint = None if tint is None else tint[:, ::-1]
        look = np.full(len(faces), primitive.look, np.int32)
        part = Part(points, faces, uv, tint, look)
        if primitive.invisible:
            self._invisible.add(id(part))
        return part

    def _instances(self, node: Json, index: int) -> Iterator[NDArray[np.float64]]:
        place = self._globals[index]
        extension = node.get("extensions", {}).get("EXT_mesh_gpu_instancing")
        if not extension:
            yield place
            return
        found = {
            name: self._buffers.accessor(accessor).astype(np.float64)
            for name, accessor in extension.get("attributes", {}).items()
            if name in ("TRANSLATION", "ROTATION", "SCALE")
        }
        for row in range(min(map(len, found.values()), default=0)):
            one = {name.lower(): values[row] for name, values in found.items()}
            yield place @ _matrix(one)

    def _skinned(
        self, primitive: _Primitive, points: NDArray[np.float64], index: int
    ) -> NDArray[np.float64]:
        """Returns the points moved by their joints; the transform of the mesh's node has no say."""
        skin = self._buffers.item("skins", index)
        joints = skin.get("joints", [])
        inverse = np.tile(np.eye(4), (len(joints), 1, 1))
        if "inverseBindMatrices" in skin:
            read = self._buffers.accessor(skin["inverseBindMatrices"]).astype(np.float64)
            inverse[: len(read)] = read.reshape(-1, 4, 4).transpose(0, 2, 1)[: len(joints)]
        missing = [joint for joint in joints if joint not in self._globals]
        if missing or not joints:
            raise Unreadable(f"skin {index} has joints outside the scene")
        matrices = np.stack([self._globals[joint] for joint in joints]) @ inverse
        moved, total = np.zeros_like(points), np.zeros((len(points), 1))
        for number, weight in primitive.influences:
            if len(number) and number.max() >= len(joints):
                raise Unreadable(f"skin {index} has {len(joints)} joints, a vertex names another")
            for column in range(number.shape[1]):
                part, chosen = weight[:, column, None], matrices[number[:, column]]
                at = np.einsum("nij,nj->ni", chosen[:, :3, :3], points) + chosen[:, :3, 3]
                moved += part * at
                total += part
        # A vertex without weights stays where it is.
        return np.divide(moved, total, out=points.copy(), where=total > 0)

    def _primitive(self, mesh: int, number: int, item: Json) -> _Primitive | None:
        key = (mesh, number)
        if key not in self._primitives:
            is_surface = item.get("mode", _TRIANGLES) in (_TRIANGLES, _STRIP, _FAN)
            has_points = "POSITION" in item.get("attributes", {})
            made = (
                _Primitive(item, self._buffers, self._looks) if is_surface and has_points else None
            )
            self._primitives[key] = made
            self._stored += len(made.faces) if made else 0
        return self._primitives[key]


class _Primitive:
    """One primitive before it is placed."""

    def __init__(self, item: Json, buffers: Buffers, looks: Looks | None) -> None:
        attributes = {
            name: index for name, index in item["attributes"].items() if isinstance(index, int)
        }
        draco = item.get("extensions", {}).get("KHR_draco_mesh_compression")
        arrays: dict[str, NDArray[Any]] = {}
        corners: NDArray[np.int64] | None = None
        if draco and "bufferView" not in buffers.item("accessors", attributes["POSITION"]):
            arrays, corners = decode_draco(buffers, draco, attributes)

        def read(name: str) -> NDArray[Any]:
            return arrays[name] if name in arrays else buffers.accessor(attributes[name])

        self.points = read("POSITION").astype(np.float64)
        if self.points.shape[1:] != (3,):
            raise Unreadable("a POSITION is no vector of three")
        if corners is None:
            corners = self._corners(item, buffers)
        if len(corners) and corners.max() >= len(self.points):
            raise Unreadable(f"a face uses vertex {corners.max()} of {len(self.points)}")
        self.faces = _triangles(corners, item.get("mode", _TRIANGLES))
        self.influences = [
            (read(f"JOINTS_{n}").astype(np.int64), read(f"WEIGHTS_{n}").astype(np.float64))
            for n in range(4)
            if f"JOINTS_{n}" in attributes and f"WEIGHTS_{n}" in attributes
        ]
        if any(len(j) != len(self.points) or j.shape != w.shape for j, w in self.influences):
            raise Unreadable("joints and weights of a skin do not fit its vertices")
        targets = item.get("targets", [])
        self._targets = [(buffers, target.get("POSITION")) for target in targets]
        self.look, self.uv, self.tint = -1, None, None
        self.invisible = "material" in item and is_invisible(
            buffers.item("materials", item["material"])
        )
        if looks is not None and has_colours(item, attributes):
            look = looks.of(item.get("material"))
            self.look = look.index
            name = f"TEXCOORD_{look.texcoord}"
            if look.textured and name in attributes:
                self.uv = look.transformed(_rows(read(name), self.points, name))[self.faces]
            if "COLOR_0" in attributes:
                self.tint = _bytes(_rows(read("COLOR_0"), self.points, "COLOR_0"))[self.faces]

    def _corners(self, item: Json, buffers: Buffers) -> NDArray[np.int64]:
        if "indices" not in item:
            return np.arange(len(self.points), dtype=np.int64)
        found = buffers.accessor(item["indices"])
        if found.dtype.kind != "u" or found.shape[1:] != (1,):
            raise Unreadable("the indices of a primitive are no whole numbers")
        return found[:, 0].astype(np.int64)

    def morphed(self, weights: Any) -> NDArray[np.float64]:
        """Returns the positions with the morph targets that have a weight."""
        points = self.points
        if not isinstance(weights, list):
            return points
        for weight, (buffers, target) in zip(weights, self._targets, strict=False):
            if target is not None and isinstance(weight, int | float) and weight:
                points = points + weight * _rows(buffers.accessor(target), points, "POSITION")
        return points


def _rows(values: NDArray[Any], points: NDArray[np.float64], name: str) -> NDArray[Any]:
    if len(values) != len(points):
        raise Unreadable(f"{len(values)} values of {name} for {len(points)} vertices")
    return values


def _triangles(corners: NDArray[np.int64], mode: int) -> NDArray[np.int64]:
    if mode == _TRIANGLES:
        return corners[: len(corners) // 3 * 3].reshape(-1, 3)
    if len(corners) < 3:
        return np.zeros((0, 3), np.int64)
    if mode == _FAN:
        first = np.full(len(corners) - 2, corners[0])
        return np.stack([first, corners[1:-1], corners[2:]], axis=1)
    faces = np.stack([corners[:-2], corners[1:-1], corners[2:]], axis=1)
    faces[1::2] = faces[1::2, [1, 0, 2]]
    return faces


def _bytes(colours: NDArray[Any]) -> NDArray[np.uint8]:
    """Returns COLOR_0 as RGBA bytes; normalized ones come as floats."""
    values = np.full((len(colours), 4), 255, np.uint8)
    scaled = np.clip(np.nan_to_num(colours.astype(np.float64)), 0, 1) * 255
    values[:, : colours.shape[1]] = np.rint(scaled)[:, :4]
    return values


def _local(node: Json) -> NDArray[np.float64]:
    if "matrix" in node:
        values = np.asarray(node["matrix"], np.float64)
        if values.shape != (16,):
            raise Unreadable("the matrix of a node has not 16 numbers")
        return values.reshape(4, 4).T
    return _matrix(node)


def _matrix(item: Json) -> NDArray[np.float64]:
    """Returns translation x rotation x scale; the quaternion is x, y, z, w."""
    found = np.eye(4)
    x, y, z, w = _numbers(item.get("rotation", (0.0, 0.0, 0.0, 1.0)), 4)
    length = float(np.sqrt(x * x + y * y + z * z + w * w)) or 1.0
    x, y, z, w = (value / length for value in (x, y, z, w))
    found[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    found[:3, :3] *= _numbers(item.get("scale", (1.0, 1.0, 1.0)), 3)
    found[:3, 3] = _numbers(item.get("translation", (0.0, 0.0, 0.0)), 3)
    return found


def _numbers(values: Any, count: int) -> NDArray[np.float64]:
    found = np.asarray(values, np.float64)
    if found.shape != (count,):
        raise Unreadable(f"a transform has not {count} numbers")
    return found
