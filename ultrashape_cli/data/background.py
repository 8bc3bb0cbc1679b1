"""What belongs to the object in an image without transparency."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ultrashape_cli.config.choices import Background
from ultrashape_cli.data.images import INFERENCE_BORDER, load_rgba, recentre
from ultrashape_cli.errors import DependencyError, ImageError, UsageError

WHITE = 235
"""Grey level from which a pixel counts as white background."""
OPAQUE = 128
"""Least alpha of an image in which nothing is cut out."""
DUST = 3
"""Alpha up to which a pixel shows nothing."""
# Of our own renders 6 % show less than 6 %, and 0.1 % less than 2 %.
_LITTLE = 0.02
"""Share of a picture below which its object may be a rest of one."""
_BRIGHT = 250
"""Mean grey level of an object that nobody sees on white."""


def load_reference(path: Path, background: Background) -> NDArray[np.uint8]:  # [H, W, 4]
    """Returns a reference image whose alpha tells the object from the background.

    Transparency of the file is used where there is some.

    Args:
        path: Image file.
        background: For opaque images: `keep` takes every pixel as object, `white` cuts the white
            that touches the border, `remove` runs rembg, `auto` does that where rembg loads.

    Raises:
        ImageError: The file cannot be used, or shows nothing.
        UsageError: An opaque image, `auto`, and no rembg.
        DependencyError: `remove`, and no rembg.
    """
    rgba = load_rgba(path).copy()
    alpha = rgba[..., 3]
    if alpha.min() >= OPAQUE:
        # A few rows that are not quite opaque tell no object from its background.
        rgba[..., 3] = 255
        rgba = _cut_out(path, rgba, background)
    else:
        # What cutting tools leave at edges and corners would count for the object's box.
        alpha[alpha <= DUST] = 0
        if not alpha.any():
            raise ImageError(f"{path}: every pixel is transparent")
    try:
        recentre(rgba, INFERENCE_BORDER)
    except ImageError as error:
        raise ImageError(f"{path}: {error.message}", hint=error.hint) from error
    return rgba


def image_warnings(path: Path, rgba: NDArray[np.uint8]) -> list[str]:
    """Returns what looks wrong with a reference image, for those who gave it.

    Args:
        path: For the message.
        rgba: `[H, W, 4]` from `load_reference`.
    """
    shown = rgba[..., 3] > OPAQUE
    height, width = shown.shape
    frame = np.concatenate([shown[0], shown[-1], shown[:, 0], shown[:, -1]])
    middle = shown[height // 3 : -(-2 * height // 3), width // 3 : -(-2 * width // 3)]
    found = []
    if frame.mean() > 0.95 and middle.mean() < 0.25:
        found.append(f"{path} shows its border and hides its middle: is its transparency inverted?")
    elif shown.any() and rgba[shown][:, :3].mean() > _BRIGHT:
        found.append(f"{path} is white, and will be seen on white: its shape is hardly visible")
    elif shown.mean() < _LITTLE <= (rgba[..., 3] > DUST).mean():
        found.append(f"{path} is half transparent, and will be seen faintly")
    elif shown.mean() < _LITTLE:
        found.append(
            f"{path} shows its object on {shown.mean():.1%} of the picture: is part of it cut "
            "away, as white is from white?"
        )
    return found


def _cut_out(path: Path, rgba: NDArray[np.uint8], background: Background) -> NDArray[np.uint8]:
    if background == "keep":
        return rgba
    if background == "white":
        return _without_white(path, rgba)
    try:
        import rembg
    except (ImportError, SystemExit) as error:
        # rembg ends the process where its runtime is missing.
        if background == "remove":
            raise DependencyError(
                f"removing a background needs rembg, which does not load: {error}",
                hint="pip install 'ultrashape-cli[rembg]', or --background keep or white",
            ) from error
        raise UsageError(
            f"`{path}` has no transparent pixel: what is its background?",
            hint="--background keep (all of it is object), white (cut the white around it) or "
            "remove (needs `pip install 'ultrashape-cli[rembg]'`)",
        ) from error
    return _without_background(path, rgba, rembg)


def _without_white(path: Path, rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Returns the image with the near-white that is joined to its border made transparent."""
    white = (rgba[..., :3] >= WHITE).all(axis=-1)
    labels, _ = ndimage.label(white)
    frame = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    outside = np.isin(labels, frame[frame > 0])
    if outside.all() or not outside.any():
        what = "is white all over" if outside.all() else "has no white border to cut"
        raise ImageError(f"{path}: {what}", hint="--background keep or remove")
    cut = rgba.copy()
    cut[outside, 3] = 0
    return cut


def _without_background(path: Path, rgba: NDArray[np.uint8], rembg: Any) -> NDArray[np.uint8]:
    from PIL import Image

    try:
        found = rembg.remove(Image.fromarray(rgba).convert("RGB"))
    except Exception as error:
        # It downloads its network on first use and raises whatever that goes wrong with.
        raise ImageError(
            f"{path}: rembg failed: {type(error).__name__}: {error}",
            hint="--background keep or white, or an image with a transparent background",
        ) from error
    cut = np.asarray(found.convert("RGBA"))
    if not cut[..., 3].any():
        raise ImageError(f"{path}: rembg found no object", hint="--background keep or white")
    return cut
