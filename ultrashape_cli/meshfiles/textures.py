"""Pictures of a mesh file, decoded within limits."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from ultrashape_cli.meshfiles.parts import Look, Picture

# Texels kept of all textures of a file together, and along a side of one: 4 bytes each. A view of
# 1024 pixels shows about half of a 2048 atlas.
_MAX_TEXELS, _MAX_SIDE = 1 << 25, 2048

_MOST_PIXELS = "89 million"
"""Pillow's own limit, in words."""

Texels = NDArray[np.uint8]


def decode_looks(looks: Sequence[Look], problems: list[str]) -> list[Texels | None]:
    """Returns the texels `[h, w, 4]` of each look, sRGB with straight alpha, first row at v = 1.

    Args:
        looks: Of one file.
        problems: Gets a line for each picture that cannot be used, and is left out.
    """
    keys = {_key(look) for look in looks} - {None}
    side = min(_MAX_SIDE, math.isqrt(_MAX_TEXELS // max(len(keys), 1)))
    found: dict[object, Texels | None] = {None: None}
    for look in looks:
        key = _key(look)
        if key not in found:
            found[key] = _texels(look, side, problems)
    return [found[_key(look)] for look in looks]


def _key(look: Look) -> object:
    """Returns what two looks share that show the same texels; None where there are none."""
    pictures = (look.picture, look.alpha)
    return tuple(id(p) for p in pictures) if any(pictures) else None


def _texels(look: Look, side: int, problems: list[str]) -> Texels | None:
    colour = _decode(look.picture, side, problems)
    alpha = _decode(look.alpha, side, problems)
    if alpha is None:
        return colour
    if colour is None:
        colour = np.full_like(alpha, 255)
    height, width = colour.shape[:2]
    if alpha.shape != colour.shape:
        alpha = np.asarray(Image.fromarray(alpha).resize((width, height)), np.uint8)
    # A picture that has an alpha of its own means that, and others their brightness.
    own = alpha[..., 3].min() < 255
    grey = alpha[..., 3] if own else np.rint(alpha[..., :3] @ np.array([0.299, 0.587, 0.114]))
    colour = colour.copy()
    colour[..., 3] = np.rint(colour[..., 3] / 255 * grey)
    return colour


def _decode(picture: Picture | None, side: int, problems: list[str]) -> Texels | None:
    """Returns the texels of a picture, at most `side` along each axis."""
    if picture is None:
        return None
    source = io.BytesIO(picture.data) if isinstance(picture.data, bytes) else picture.data
    try:
        with warnings.catch_warnings():
            # Pillow only warns of a picture above its limit, and refuses one above twice that.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(source) as opened:
                opened.draft("RGB", (side, side))
                image: Image.Image = _eight_bits(opened)
                if "P" in image.mode or image.mode not in ("L", "LA", "RGB", "RGBA"):
                    image = image.convert("RGBA")
                factor = math.ceil(max(image.size) / side)
                if factor > 1:
                    image = image.reduce(factor)
                return np.array(image.convert("RGBA"))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        problems.append(f"texture left out: `{picture.name}` has more than {_MOST_PIXELS} pixels")
    except UnidentifiedImageError:
        problems.append(f"texture left out: `{picture.name}` is no picture that can be read")
    # Pillow raises SyntaxError for broken PNG, and others by plugin.
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        cause = getattr(error, "strerror", None) or str(error).splitlines()[0][:160]
        problems.append(f"texture left out: `{picture.name}`: {cause}")
    return None


def _eight_bits(image: Image.Image) -> Image.Image:
    """Returns grey of 16 bits in 8, which Pillow would clip; others as they are."""
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image).astype(np.int64)
    wide = values.max(initial=0) > 255 or image.mode != "I"
    return Image.fromarray(np.clip(values // 257 if wide else values, 0, 255).astype(np.uint8))
