"""Reference, input and result side by side in one picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.rendering.cameras import bounding_radius, view_set
from ultrashape_cli.rendering.renderer import render_views
from ultrashape_cli.rendering.scene import Scene

PANEL = 512
"""Pixels of one picture."""
_GREY, _INK, _LABEL, _TEXT = 245, 90, 32, 18


def side_by_side(
    reference: NDArray[np.uint8] | None,  # [H, W, 4]
    meshes: Sequence[tuple[str, Mesh]],
    size: int = PANEL,
    columns: int = 0,
) -> NDArray[np.uint8]:  # [rows * (size + label), columns * size, 3]
    """Returns the reference and the front view of each mesh, with a line of text below.

    Args:
        reference: Image with alpha; None leaves it out.
        meshes: Label and mesh, all in one normalised frame with y up.
        size: Pixels of a panel.
        columns: Panels in a row; 0 puts all into one.
    """
    radius = max(bounding_radius(mesh) for _, mesh in meshes)
    camera = view_set(1, radius=radius, size=size)
    panels = [] if reference is None else [("reference", fitted(reference, size))]
    for label, mesh in meshes:
        view = next(iter(render_views(Scene(mesh), camera)))
        panels.append((label, Image.fromarray(view)))
    columns = min(columns or len(panels), len(panels))
    height = size + _LABEL
    shape = columns * size, -(-len(panels) // columns) * height
    sheet = Image.new("RGB", shape, (_GREY,) * 3)
    draw = ImageDraw.Draw(sheet)
    for number, (label, picture) in enumerate(panels):
        left, top = number % columns * size, number // columns * height
        sheet.paste(picture, (left, top), picture)
        font = ImageFont.load_default(_fitting(draw, label, size - 20))
        draw.text((left + 10, top + size + 4), label, fill=(_INK,) * 3, font=font)
    return np.asarray(sheet)


def _fitting(draw: ImageDraw.ImageDraw, label: str, width: int) -> float:
    """Returns the size of letters in which a label fits."""
    length = draw.textlength(label, font=ImageFont.load_default(_TEXT))
    return min(_TEXT, _TEXT * width / max(length, 1))


def fitted(rgba: NDArray[np.uint8], size: int) -> Image.Image:
    """Returns an image scaled into a square, centred on transparent ground."""
    # Premultiplied while it shrinks, so that no colour of the transparent ground bleeds in.
    picture = Image.fromarray(rgba).convert("RGBa")
    scale = size / max(picture.size)
    shape = tuple(max(1, round(side * scale)) for side in picture.size)
    picture = picture.resize((shape[0], shape[1]), Image.Resampling.BOX).convert("RGBA")
    square = Image.new("RGBA", (size, size))
    square.paste(picture, ((size - shape[0]) // 2, (size - shape[1]) // 2))
    return square
