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
    rgba = load_rgba(path)
    if (rgba[..., 3] == 255).all():
        rgba = _cut_out(path, rgba, background)
    try:
        recentre(rgba, INFERENCE_BORDER)
    except ImageError as error:
        raise ImageError(f"{path}: {error.message}", hint=error.hint) from error
    return rgba


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
