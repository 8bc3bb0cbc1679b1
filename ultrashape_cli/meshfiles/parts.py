"""What a reader of a format returns: parts with their looks, as the file says them.

Readers place parts by the scene of the file, cut polygons into triangles, and leave unused
vertices, faces without area and pictures to `load.py` and `textures.py`, which treat all alike.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Wrap = Literal["repeat", "mirror", "clamp"]
UTF_16 = (b"\xff\xfe", b"\xfe\xff")
"""What text in UTF-16 begins with."""
COPY_AGAIN = "copy or download the file again"
"""What mends a file that was cut off."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that a file holds or names, not decoded yet.

    Attributes:
        data: The encoded picture, or the path of its file (inside the folder of the mesh).
        name: For messages.
        wrap: What lies beyond the edges, along u and v.
    """

    data: bytes | Path
    name: str
    wrap: tuple[Wrap, Wrap] = ("repeat", "repeat")


@dataclass(frozen=True, slots=True)
class Look:
    """What a file says of a material.

    Attributes:
        colour: Linear RGBA that multiplies picture and tint; None leaves the surface clay.
        picture: Colours, multiplied by `colour`; None without.
        alpha: A picture whose brightness is the alpha (`map_d` of MTL); None without.
        cutoff: Surface whose alpha lies below is a hole; 0 for none.
    """

    colour: tuple[float, float, float, float] | None = None
    picture: Picture | None = None
    alpha: Picture | None = None
    cutoff: float = 0.0


WHITE = Look((1.0, 1.0, 1.0, 1.0))
"""The look of surface whose colours are all in its tint."""


@dataclass(slots=True)
class Part:
    """Triangles of a file.

    Attributes:
        vertices: `[V, 3]` float64, in the frame of the file.
        faces: `[F, 3]` int64.
        uv: `[F, 3, 2]` float32 texture coordinates of the corners, v up, NaN where a corner has
            none; None without any.
        tint: `[F, 3, 4]` uint8 colours of the corners, white where there are none; None without.
        look: `[F]` int32 index into the looks of the file, -1 for clay.
    """

    vertices: NDArray[np.float64]
    faces: NDArray[np.int64]
    uv: NDArray[np.float32] | None
    tint: NDArray[np.uint8] | None
    look: NDArray[np.int32]


@dataclass(slots=True)
class Contents:
    """All of a mesh file.

    Attributes:
        parts: In the order of the file.
        looks: That parts refer to.
        tint_is_linear: Whether tints are linear (glTF); sRGB otherwise.
        problems: Colours that could not be used, one line each: no reason to refuse the file.
        notes: Surface that is left out or may be missing, one line each.
    """

    parts: list[Part]
    looks: list[Look] = field(default_factory=list)
    tint_is_linear: bool = False
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Unreadable(Exception):
    """What is wrong with a file, and where: `line 214: face corner "a/b" is no number`.

    `load.py` turns it into a MeshError that names the file.

    Args:
        message: Cause and place, without the name of the file.
        hint: The remedy; None for the usual one (export again).
    """

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


def file_bytes(path: Path) -> memoryview:
    """Returns a file's content; an array is filled faster than bytes, as it lies in large pages."""
    return np.fromfile(path, np.uint8).data.toreadonly()


def refuse_utf_16(data: bytes | memoryview) -> None:
    """Raises Unreadable for text in UTF-16."""
    if data[:2] in UTF_16:
        raise Unreadable("is UTF-16 text", "save it as UTF-8")
