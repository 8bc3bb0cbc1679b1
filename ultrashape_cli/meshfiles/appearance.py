"""Colours of a mesh file: textures, vertex and face colours, alpha masks."""

from __future__ import annotations

import logging
import math
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from numpy.typing import NDArray
from PIL import Image

from ultrashape_cli.errors import MeshError
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.meshfiles.scene import FolderResolver

# Texels kept of all textures of a file together, and along a side of one: 4 bytes each. A view of
# 1024 pixels shows about half of a 2048 atlas.
_MAX_TEXELS, _MAX_SIDE = 1 << 25, 2048
# A fully transparent texel of a blended material hides the surface; glass does not.
_BLEND_CUTOFF = 0.05


@dataclass(frozen=True, slots=True)
class Material:
    """What one material gives a surface.

    Attributes:
        colour: Linear RGBA that multiplies the texture; None leaves the surface clay.
        texels: `[h, w, 4]` uint8, sRGB with straight alpha, first row at v = 1; None without.
        cutoff: Surface whose alpha lies below is a hole; 0 for none.
    """

    colour: tuple[float, float, float, float] | None = None
    texels: NDArray[np.uint8] | None = None
    cutoff: float = 0.0


@dataclass(slots=True)
class Appearance:
    """The faces of a source file and their colours.

    Attributes:
        mesh: In the frame of the file; parts are in the order of the file's nodes.
        uv: `[F, 3, 2]` float32 texture coordinates of the corners, v up; NaN without.
        tint: `[F, 3, 4]` uint8 colours of the corners, white where there are none.
        tint_is_linear: Whether tints are linear (glTF); sRGB otherwise.
        material: `[F]` int32 index of the face's material.
        materials: All materials.
        problems: Textures that could not be used, one line each.
    """

    mesh: Mesh
    uv: NDArray[np.float32]
    tint: NDArray[np.uint8]
    tint_is_linear: bool
    material: NDArray[np.int32]
    materials: list[Material]
    problems: list[str] = field(default_factory=list)

    @property
    def has_colour(self) -> bool:
        """Whether any face shows more than clay."""
        return any(item.colour is not None for item in self.materials)


def load_appearance(path: str | Path) -> Appearance | None:
    """Return the colours of a mesh file, or None if it has none, as STL and OFF never have.

    Textures are reduced to 2048 texels along a side. Those that are missing, corrupt or above the
    limit of Pillow (89 megapixels) are left out and named in `problems`.

    Raises:
        MeshError: The file cannot be read, though `load_mesh` may read it without its colours.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    try:
        if suffix in (".stl", ".off") or (suffix == ".obj" and not _obj_has_colour(path)):
            return None
        return _load(path, suffix)
    except Exception as error:
        # As in `load_mesh`, the loaders raise whatever a malformed file makes them trip over.
        cause = (str(error).strip().splitlines() or [""])[0][:200]
        message = f"{path}: cannot read its colours: {type(error).__name__}: {cause}"
        raise MeshError(message, hint="--set render.textures=false renders clay") from error


def _load(path: Path, suffix: str) -> Appearance | None:
    with path.open("rb") as file, _loader_failures() as problems:
        scene = trimesh.load_scene(
            file, file_type=suffix[1:], resolver=FolderResolver(path), process=False
        )
    parts = _Parts(suffix in (".glb", ".gltf"))
    for name in sorted(scene.graph.nodes_geometry):
        transform, geometry_name = scene.graph[name]
        geometry = scene.geometry[geometry_name]
        if isinstance(geometry, trimesh.Trimesh) and len(geometry.faces):
            parts.add(geometry, transform)
    return parts.joined(problems)


def _obj_has_colour(path: Path) -> bool:
    """Say whether an OBJ file names materials or has colours behind its positions."""
    text = path.read_bytes()
    first = re.search(rb"^v[ \t]+(.*)$", text, re.MULTILINE)
    return b"mtllib" in text or (first is not None and len(first.group(1).split()) >= 6)


class _Failures(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if not re.search("image|texture|materials from", text):
            return
        cause = record.exc_info[1] if record.exc_info else None
        line = (str(cause) if cause else text).strip().splitlines()[0]
        # The buffer of an embedded image has no name worth printing.
        line = re.sub(r"cannot identify image file <.*>", "an image that is no picture", line)
        what = "colours" if "materials from" in text else "texture"
        self.lines.append(f"{what} left out: {line[:160]}")


@contextmanager
def _loader_failures() -> Iterator[list[str]]:
    """Yield the list of what trimesh could not load: it drops textures and only logs why."""
    logger, handler = logging.getLogger("trimesh"), _Failures()
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    try:
        with warnings.catch_warnings():
            # Pillow only warns of a picture above its limit, and refuses one above twice that.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield handler.lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


class _Parts:
    """Collects the parts of a scene."""

    def __init__(self, linear: bool) -> None:
        self._linear = linear
        self._sources: list[Any] = []
        self._index: dict[int, int] = {}
        self._arrays: list[tuple[NDArray[Any], ...]] = []

    def add(self, part: trimesh.Trimesh, transform: NDArray[np.float64]) -> None:
        vertices = np.asarray(part.vertices, np.float64) @ transform[:3, :3].T + transform[:3, 3]
        faces = np.asarray(part.faces, np.int64)
        count = len(faces)
        uv = np.full((count, 3, 2), np.nan, np.float32)
        tint = np.full((count, 3, 4), 255, np.uint8)
        material = np.full(count, self._number(None), np.int32)
        visual: Any = part.visual
        attributes: Any = getattr(visual, "vertex_attributes", {})
        if visual.kind == "texture":
            if visual.uv is not None and len(visual.uv) == len(vertices):
                uv = np.asarray(visual.uv, np.float32)[faces]
            several = getattr(visual.material, "materials", None)
            if several is None:
                material[:] = self._number(visual.material)
            else:
                numbers = np.array([self._number(item) for item in several], np.int32)
                material = numbers[np.asarray(visual.face_materials)]
            if "color" in attributes:
                tint = _bytes(attributes["color"])[faces]
        elif visual.kind == "vertex":
            tint = _bytes(visual.vertex_colors)[faces]
            material[:] = self._number("tint")
        elif visual.kind == "face":
            tint = np.repeat(_bytes(visual.face_colors)[:, None], 3, axis=1)
            material[:] = self._number("tint")
        self._arrays.append((vertices, faces, uv, tint, material))

    def _number(self, source: Any) -> int:
        """Return the number of a material, None for clay."""
        if id(source) not in self._index:
            self._index[id(source)] = len(self._sources)
            self._sources.append(source)
        return self._index[id(source)]

    def joined(self, problems: list[str]) -> Appearance | None:
        if not problems and any(_is_made_up(getattr(s, "image", None)) for s in self._sources):
            problems.append("colours left out: no material file defines those that faces name")
        images = {id(i): i for s in self._sources if (i := _texture(s)) is not None}
        side = min(_MAX_SIDE, math.isqrt(_MAX_TEXELS // max(len(images), 1)))
        texels: dict[int, NDArray[np.uint8]] = {}
        for key, image in images.items():
            try:
                texels[key] = _decode(image, side)
            # Pillow raises SyntaxError for broken PNG, and others by plugin.
            except (OSError, SyntaxError, ValueError, EOFError) as error:
                problems.append(f"texture left out: {str(error).splitlines()[0][:160]}")
        materials = [_material(source, texels) for source in self._sources]
        if all(item.colour is None for item in materials) and not problems:
            return None
        vertices, faces, uv, tint, number = zip(*self._arrays, strict=True)
        offsets = np.cumsum([0, *map(len, vertices)])
        moved = [part + offset for part, offset in zip(faces, offsets[:-1], strict=True)]
        mesh = Mesh.from_arrays(np.concatenate(vertices), np.concatenate(moved))
        return Appearance(
            mesh, np.concatenate(uv), np.concatenate(tint), self._linear,
            np.concatenate(number), materials, problems,
        )  # fmt: skip


def _bytes(colours: Any) -> NDArray[np.uint8]:
    """Return colours `[N, 3 or 4]` of any type as `[N, 4]` uint8."""
    return np.asarray(trimesh.visual.color.to_rgba(colours), np.uint8).reshape(-1, 4)


def _texture(source: Any) -> Image.Image | None:
    image = getattr(source, "baseColorTexture", None) or getattr(source, "image", None)
    return image if isinstance(image, Image.Image) and not _is_made_up(image) else None


def _is_made_up(image: Any) -> bool:
    """Say whether trimesh made a picture, dark grey, for a material that it did not find."""
    return isinstance(image, Image.Image) and image.format is None


def _material(source: Any, texels: dict[int, NDArray[np.uint8]]) -> Material:
    if source is None:
        return Material()
    if source == "tint":
        return Material((1.0, 1.0, 1.0, 1.0))
    image = texels.get(id(_texture(source)))
    if isinstance(source, trimesh.visual.material.PBRMaterial):
        factor, mode, cutoff = source.baseColorFactor, source.alphaMode, source.alphaCutoff
    else:
        # MTL: the texture replaces the colour. A file without a colour gets none here.
        given = image is None and source.kwargs.get("kd") is not None
        factor, mode, cutoff = (source.diffuse if given else None), None, None
    if factor is None and image is None:
        return Material()
    colour = np.ones(4) if factor is None else np.asarray(factor, np.float64) / 255
    limit = {"MASK": 0.5 if cutoff is None else float(cutoff), "BLEND": _BLEND_CUTOFF}
    r, g, b, a = (colour if np.isfinite(colour).all() else np.ones(4)).tolist()
    return Material((r, g, b, a), image, limit.get(mode, 0.0))


def _decode(image: Image.Image, side: int) -> NDArray[np.uint8]:
    """Return the texels, at most `side` along each axis."""
    image.draft("RGB", (side, side))
    if "P" in image.mode or image.mode not in ("L", "LA", "RGB", "RGBA"):
        image = image.convert("RGBA")
    factor = math.ceil(max(image.size) / side)
    if factor > 1:
        image = image.reduce(factor)
    return np.array(image.convert("RGBA"))
