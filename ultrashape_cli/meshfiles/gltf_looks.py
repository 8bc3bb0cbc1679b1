"""Materials of glTF: what multiplies what, and where a picture lies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ultrashape_cli.meshfiles.gltf_buffers import Buffers, Json
from ultrashape_cli.meshfiles.parts import Look, Picture, Unreadable, Wrap

_WRAPS: dict[Any, Wrap] = {33071: "clamp", 33648: "mirror", 10497: "repeat"}
_WHITE = (1.0, 1.0, 1.0, 1.0)
# A fully transparent texel of a blended material hides the surface; glass does not.
_BLEND_CUTOFF = 0.05


def has_colours(primitive: Json, attributes: Json) -> bool:
    """Says whether a primitive shows more than clay."""
    return "material" in primitive or "COLOR_0" in attributes


def is_invisible(material: Json) -> bool:
    """Says whether a material has no opacity at all."""
    factor = material.get("pbrMetallicRoughness", {}).get("baseColorFactor", _WHITE)
    return material.get("alphaMode") in ("MASK", "BLEND") and factor[3:] in ([0], [0.0])


@dataclass(frozen=True, slots=True)
class FoundLook:
    """A look, and how its picture is laid on.

    Attributes:
        index: Into the looks of the file.
        textured: Whether it has a picture.
        texcoord: Set of texture coordinates.
        matrix: `[2, 3]` of KHR_texture_transform, for coordinates with v down.
    """

    index: int
    textured: bool
    texcoord: int
    matrix: NDArray[np.float64]

    def transformed(self, uv: NDArray[Any]) -> NDArray[np.float32]:
        """Returns coordinates `[V, 2]` of the picture, v up."""
        if uv.shape[1:] != (2,):
            raise Unreadable("texture coordinates are no vectors of two")
        found = uv.astype(np.float64) @ self.matrix[:, :2].T + self.matrix[:, 2]
        found[:, 1] = 1 - found[:, 1]
        return found.astype(np.float32)


class Looks:
    """Reads the materials of a document, each once.

    Attributes:
        found: Looks in the order they were asked for.
        problems: Pictures that cannot be used, one line each.
    """

    def __init__(self, buffers: Buffers) -> None:
        self.found: list[Look] = []
        self.problems: list[str] = []
        self._buffers = buffers
        self._known: dict[Any, FoundLook] = {}
        self._pictures: dict[Any, Picture | None] = {}

    def of(self, material: Any) -> FoundLook:
        """Returns the look of a material, or of none at all beside vertex colours."""
        if material not in self._known:
            item = {} if material is None else self._buffers.item("materials", material)
            self._known[material] = self._read(item)
        return self._known[material]

    def _read(self, item: Json) -> FoundLook:
        metallic = item.get("pbrMetallicRoughness", {})
        factor = metallic.get("baseColorFactor", _WHITE)
        texture = metallic.get("baseColorTexture")
        glossy = item.get("extensions", {}).get("KHR_materials_pbrSpecularGlossiness")
        if glossy is not None:
            factor = glossy.get("diffuseFactor", _WHITE)
            texture = glossy.get("diffuseTexture")
        colour = _colour(factor, 4)
        emissive = item.get("emissiveFactor", (0.0, 0.0, 0.0))
        if not any(colour[:3]) and any(_colour(emissive, 3)[:3]):
            # Scans without shading are black and shine by themselves.
            colour, texture = _colour(emissive, 3), item.get("emissiveTexture")
        mode = item.get("alphaMode", "OPAQUE")
        limits = {"MASK": float(item.get("alphaCutoff", 0.5)), "BLEND": _BLEND_CUTOFF}
        picture = None
        if texture:
            index = texture.get("index")
            if index not in self._pictures:
                self._pictures[index] = self._picture(index)
            picture = self._pictures[index]
        matrix, texcoord = _layout(texture or {})
        self.found.append(Look(colour, picture, cutoff=limits.get(mode, 0.0)))
        return FoundLook(len(self.found) - 1, picture is not None, texcoord, matrix)

    def _picture(self, index: Any) -> Picture | None:
        texture = self._buffers.item("textures", index)
        extensions = texture.get("extensions", {})
        source = texture.get("source")
        for name in ("EXT_texture_webp", "EXT_texture_avif"):
            source = extensions.get(name, {}).get("source", source)
        if source is None:
            kinds = ", ".join(extensions) or "no picture"
            self.problems.append(f"texture left out: {kinds} is not read")
            return None
        image = self._buffers.item("images", source)
        sampler = self._buffers.item("samplers", texture["sampler"]) if "sampler" in texture else {}
        wrap = (
            _WRAPS.get(sampler.get("wrapS"), "repeat"),
            _WRAPS.get(sampler.get("wrapT"), "repeat"),
        )
        name = str(image.get("name") or image.get("uri", "")[:80] or f"image {source}")
        try:
            if "bufferView" in image:
                data = bytes(self._buffers.view(image["bufferView"]))
            else:
                data = self._buffers.file(str(image.get("uri", "")))
        except Unreadable as error:
            self.problems.append(f"texture left out: {error}")
            return None
        return Picture(data, name, wrap)


def _colour(values: Any, count: int) -> tuple[float, float, float, float]:
    found = np.asarray(values, np.float64)
    if found.shape != (count,):
        raise Unreadable(f"a colour has not {count} numbers")
    found = np.concatenate([found, np.ones(4 - count)])
    r, g, b, a = np.clip(np.nan_to_num(found, nan=1.0), 0, 1).tolist()
    return r, g, b, a


def _layout(info: Json) -> tuple[NDArray[np.float64], int]:
    """Returns the transform `[2, 3]` of a texture's coordinates, and their set."""
    transform = info.get("extensions", {}).get("KHR_texture_transform", {})
    texcoord = transform.get("texCoord", info.get("texCoord", 0))
    if not isinstance(texcoord, int):
        raise Unreadable("a texture names no set of coordinates")
    angle = float(transform.get("rotation", 0.0))
    (u, v), (x, y) = transform.get("offset", (0.0, 0.0)), transform.get("scale", (1.0, 1.0))
    sin, cos = np.sin(angle), np.cos(angle)
    return np.array([[x * cos, y * sin, u], [-x * sin, y * cos, v]], np.float64), texcoord
