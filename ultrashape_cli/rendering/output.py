"""The files of an asset's views: all of them, or those that were there before."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ultrashape_cli.errors import MeshError
from ultrashape_cli.files import temporary_path, write_json
from ultrashape_cli.rendering.cameras import Camera

SHEET = "contact_sheet.png"
_FILES = ("view_*.png", "depth_*.png", "normal_*.png", "mask_*.png", SHEET)
SHEET_CELL = 256
"""Pixels of a cell of a contact sheet."""
_SHEET_GREY = 245


def save_png(image: NDArray[Any], path: str | Path) -> None:
    """Write an image as PNG; the file is replaced in one step.

    Args:
        image: `[H, W]` uint8 or uint16, or `[H, W, 3 or 4]` uint8.
        path: File to write.

    Raises:
        DiskError: The folder cannot be written.
    """
    with temporary_path(Path(path)) as temporary:
        _write_png(image, temporary)


def _write_png(image: NDArray[Any], path: Path) -> None:
    # Level 3: two thirds of the default's time for a few per cent more bytes.
    Image.fromarray(image).save(path, format="PNG", compress_level=3)


def write_views(
    folder: Path,
    cameras: Sequence[Camera],
    images: Iterable[NDArray[np.uint8]],
    maps: Iterable[tuple[dict[str, NDArray[Any]], float]] = (),
    *,
    map_names: Sequence[str] = (),
    contact_sheet: bool = False,
) -> tuple[dict[str, Any], list[Path]]:
    """Write view_000.png ..., the maps and cameras.json; return measurements and the files.

    Files appear only when all have been made; a failure leaves what was there. Files of earlier
    runs that this one does not make are removed.

    Args:
        folder: Folder of the asset's views.
        cameras: One for each image.
        images: `[H, W, 4]` each, made as they are asked for.
        maps: What `view_maps` returns for each camera, asked for when there are names.
        map_names: Maps to write.
        contact_sheet: Also write a picture of all views on light grey.

    Raises:
        MeshError: All images are empty.
        DiskError: The folder cannot be written.
    """
    filled, clipped, empty = [], [0.0], []
    views = [camera.to_dict() for camera in cameras]
    cells: list[Image.Image] = []
    paths: list[Path] = []
    with ExitStack() as stack:

        def write(image: NDArray[Any], name: str) -> None:
            paths.append(folder / name)
            _write_png(image, stack.enter_context(temporary_path(paths[-1])))

        for index, image in enumerate(images):
            write(image, f"view_{index:03d}.png")
            inside = image[..., 3] > 0
            filled.append(float(inside.mean()))
            if not inside.any():
                empty.append(index)
                continue
            bright = image[..., :3].max(-1) == 255
            clipped.append(float((bright & inside).sum() / inside.sum()))
            if contact_sheet:
                cells.append(_cell(image))
        if len(empty) == len(filled):
            raise MeshError(
                f"all {len(empty)} views are empty: the mesh is thinner than a pixel",
                hint="--set render.size=2048, or leave the asset out",
            )
        for index, (values, depth_step) in enumerate(maps if map_names else ()):
            for name in map_names:
                write(values[name], f"{name}_{index:03d}.png")
            if "depth" in map_names:
                views[index]["depth_step"] = depth_step
        if contact_sheet:
            write(_montage(cells, len(cells)), SHEET)
    for stale in {path for pattern in _FILES for path in folder.glob(pattern)} - set(paths):
        stale.unlink()
    paths.append(folder / "cameras.json")
    write_json(paths[-1], {"views": views})
    measurements: dict[str, Any] = {
        "views": len(filled),
        "filled": round(float(np.mean(filled)), 4),
        "clipped": round(max(clipped), 5),
    }
    if empty:
        measurements["empty_views"] = empty
    return measurements, paths


def contact_sheet(images: Sequence[NDArray[np.uint8]], columns: int = 0) -> NDArray[np.uint8]:
    """Return views `[H, W, 4]` on grey in one picture `[h, w, 3]`, a cell each.

    Args:
        images: The views.
        columns: Cells in a row; 0 makes the sheet as square as it gets.
    """
    return _montage(map(_cell, images), len(images), columns)


def _cell(image: NDArray[np.uint8]) -> Image.Image:
    # Premultiplied while it shrinks, so that no colour of the transparent ground bleeds in.
    picture = (
        Image.fromarray(image)
        .convert("RGBa")
        .resize((SHEET_CELL, SHEET_CELL), Image.Resampling.BOX)
    )
    ground = Image.new("RGBA", picture.size, (_SHEET_GREY, _SHEET_GREY, _SHEET_GREY, 255))
    return Image.alpha_composite(ground, picture.convert("RGBA")).convert("RGB")


def _montage(cells: Iterable[Image.Image], count: int, columns: int = 0) -> NDArray[np.uint8]:
    """Return the cells in rows, as square as they get where no number of columns is given."""
    columns = columns or int(np.ceil(np.sqrt(count)))
    rows = -(-count // columns)
    grey = (_SHEET_GREY,) * 3
    sheet = Image.new("RGB", (columns * SHEET_CELL, rows * SHEET_CELL), grey)
    for number, cell in enumerate(cells):
        sheet.paste(cell, (number % columns * SHEET_CELL, number // columns * SHEET_CELL))
    return np.asarray(sheet)
