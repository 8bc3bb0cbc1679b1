"""Colours of a mesh file: textures, vertex and face colours, alpha masks."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.meshfiles import srgb
from ultrashape_cli.meshfiles.load import joined, read_contents, surface_faces
from ultrashape_cli.meshfiles.parts import Contents, Wrap
from ultrashape_cli.meshfiles.textures import decode_looks


@dataclass(frozen=True, slots=True)
class Material:
    """What one material gives a surface.

    Attributes:
        colour: Linear RGBA that multiplies the texture; None leaves the surface clay.
        texels: `[h, w, 4]` uint8, sRGB with straight alpha, first row at v = 1; None without.
        cutoff: Surface whose alpha lies below is a hole; 0 for none.
        wrap: What lies beyond the edges of the texture, along u and v.
    """

    colour: tuple[float, float, float, float] | None = None
    texels: NDArray[np.uint8] | None = None
    cutoff: float = 0.0
    wrap: tuple[Wrap, Wrap] = ("repeat", "repeat")


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
        return any(self.materials[index].colour is not None for index in np.unique(self.material))

    def kept(self, faces: NDArray[np.bool_]) -> Appearance:
        """Returns the appearance of some faces `[F]`."""
        return replace(
            self,
            mesh=Mesh(self.mesh.vertices, self.mesh.faces[faces]),
            uv=self.uv[faces],
            tint=self.tint[faces],
            material=self.material[faces],
        )

    def of_vertices(self, mesh: Mesh) -> NDArray[np.uint8] | None:
        """Returns sRGB `[V, 3]` of the vertices of a mesh with these faces, or None.

        None where the colours are in textures, or where the faces are others.
        """
        if not self.has_colour or not np.array_equal(mesh.faces, self.mesh.faces):
            return None
        if any(self.materials[index].texels is not None for index in np.unique(self.material)):
            return None
        white = (1.0,) * 4
        factors = np.array([each.colour or white for each in self.materials])[self.material, :3]
        tint = self.tint[..., :3] / 255
        linear = tint if self.tint_is_linear else srgb.linear_of(tint)
        colours = np.full((len(mesh.vertices), 3), 255, np.uint8)
        colours[mesh.faces] = np.rint(255 * srgb.encode(linear * factors[:, None]))
        return colours


def load_appearance(path: str | Path) -> Appearance | None:
    """Return the colours of a mesh file, or None if it has none and names none.

    Textures are reduced to 2048 texels along a side. Those that are missing, corrupt or above the
    limit of Pillow (89 megapixels) are left out and named in `problems`.

    Raises:
        MeshError: The file cannot be read.
    """
    return appearance_of(read_contents(Path(path), colours=True))


def appearance_of(contents: Contents) -> Appearance | None:
    """Return the colours in a file's contents, or None if there are none and none are named."""
    shown = any((part.look >= 0).any() for part in contents.parts)
    return _assembled(contents) if shown or contents.problems else None


def _assembled(contents: Contents) -> Appearance:
    problems = list(contents.problems)
    texels = decode_looks(contents.looks, problems)
    materials = [Material()]
    tinted = any(part.tint is not None for part in contents.parts)
    for look, image in zip(contents.looks, texels, strict=True):
        # A surface whose only colour was in a picture that is lost is clay, not white.
        lost = image is None and look.picture is not None
        wrap = look.picture.wrap if look.picture else ("repeat", "repeat")
        colour = None if lost else look.colour
        # Most pictures are opaque: no ray has to look for holes in them.
        opaque = image is not None and not tinted and image[..., 3].min() == 255
        opaque = opaque and colour is not None and colour[3] >= look.cutoff
        materials.append(Material(colour, image, 0.0 if opaque else look.cutoff, wrap))
    mesh = joined(contents.parts)
    uv = [_filled(p.uv, (len(p.faces), 3, 2), np.nan, np.float32) for p in contents.parts]
    tint = [_filled(p.tint, (len(p.faces), 3, 4), 255, np.uint8) for p in contents.parts]
    number = [part.look + 1 for part in contents.parts]
    kept = surface_faces(mesh)
    return Appearance(
        Mesh(mesh.vertices, mesh.faces[kept]),
        np.concatenate(uv)[kept],
        np.concatenate(tint)[kept],
        contents.tint_is_linear,
        np.concatenate(number)[kept].astype(np.int32),
        materials,
        problems,
    )


def _filled(
    values: NDArray[np.generic] | None,
    shape: tuple[int, ...],
    value: float,
    dtype: type[np.generic],
) -> NDArray[np.generic]:
    return np.full(shape, value, dtype) if values is None else values
