"""Whether a result shows the reference image better than its input does.

Both are seen from the front and cut to their outlines, as the image is. What counts is how far the
outlines cover each other, and how far light and shade agree where both are: shade is what a
picture says of normals.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.inference.preview import fitted
from ultrashape_cli.inference.straying import Straying
from ultrashape_cli.rendering.cameras import bounding_radius, camera_at
from ultrashape_cli.rendering.renderer import render_views
from ultrashape_cli.rendering.scene import Scene

_SIZE = 192
"""Pixels along the longer side of what is compared."""
_RENDER = 320
_OPAQUE = 128


class Reference(Protocol):
    """An image [H, W, 4] and the direction it was seen from, in degrees (`views.View`)."""

    rgba: NDArray[np.uint8]
    azimuth: float
    elevation: float


@dataclass(frozen=True, slots=True)
class Likeness:
    """How much the front view of a mesh agrees with the reference."""

    silhouette: float
    """Intersection over union of the outlines."""
    shading: float
    """Correlation of the luminance inside both, without slow changes; -1 to 1."""

    @property
    def score(self) -> float:
        """Mean of both."""
        return (self.silhouette + self.shading) / 2


@dataclass(frozen=True, slots=True)
class Verdict:
    """Input and result beside the reference."""

    input: Likeness
    result: Likeness
    strayed: bool

    @property
    def better(self) -> bool:
        """Says whether the result should be kept."""
        return not self.strayed and self.result.score > self.input.score

    def as_dict(self) -> dict[str, Any]:
        """Returns the figures as plain values."""
        pairs = {"input": self.input, "result": self.result}
        figures = {
            name: {key: round(value, 4) for key, value in asdict(found).items()}
            for name, found in pairs.items()
        }
        return {**figures, "better": self.better}


def judge(
    result: Mesh,
    coarse: Mesh,
    view: Reference,
    straying: Straying,
) -> Verdict:
    """Compares a result and its input, both in the normalised frame, with a reference."""
    seen = view.rgba, view.azimuth, view.elevation
    return Verdict(likeness(coarse, *seen), likeness(result, *seen), straying.strayed)


def likeness(
    mesh: Mesh, rgba: NDArray[np.uint8], azimuth: float = 0.0, elevation: float = 0.0
) -> Likeness:
    """Compares a mesh in the normalised frame, from the front or elsewhere, with an image."""
    return Outlines(mesh).likeness(rgba, azimuth, elevation)


class Outlines:
    """A mesh in the normalised frame, to be compared with several images; keeps what it drew."""

    def __init__(self, mesh: Mesh) -> None:
        self._scene = Scene(mesh)
        self._radius = bounding_radius(mesh)
        self._seen: dict[tuple[float, float], NDArray[np.uint8]] = {}

    def likeness(
        self,
        rgba: NDArray[np.uint8],  # [H, W, 4]
        azimuth: float = 0.0,
        elevation: float = 0.0,
    ) -> Likeness:
        """Compares the view from a direction in degrees with an image."""
        # Both in one square, centred: what is wider than the other sticks out on both sides.
        seen, shown = self._from(azimuth, elevation), _outlined(rgba)
        inside = [picture[..., 3] >= _OPAQUE for picture in (seen, shown)]
        union = (inside[0] | inside[1]).sum()
        both = inside[0] & inside[1]
        detail = [_detail(picture, both) for picture in (seen, shown)]
        return Likeness(
            silhouette=float(both.sum() / union) if union else 0.0,
            shading=_correlation(detail[0][both], detail[1][both]),
        )

    def _from(self, azimuth: float, elevation: float) -> NDArray[np.uint8]:
        key = azimuth, elevation
        if key not in self._seen:
            camera = camera_at(*key, radius=self._radius, size=_RENDER)
            self._seen[key] = _outlined(next(iter(render_views(self._scene, [camera]))))
        return self._seen[key]


def _outlined(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:  # [H, W, 4] -> [S, S, 4]
    """Returns the opaque part of an image, as large as the square that it is centred in."""
    rows, columns = (np.flatnonzero((rgba[..., 3] >= _OPAQUE).any(axis)) for axis in (1, 0))
    if not len(rows):
        return np.zeros((_SIZE, _SIZE, 4), np.uint8)
    part = rgba[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return np.asarray(fitted(part, _SIZE))


def _detail(
    picture: NDArray[np.uint8],  # [S, S, 4]
    inside: NDArray[np.bool_],  # [S, S]
) -> NDArray[np.float64]:  # [S, S]
    """Returns luminance less its mean around each pixel: colours and lamps change slowly."""
    from scipy.ndimage import gaussian_filter

    light = picture[..., :3] @ np.array([0.2126, 0.7152, 0.0722])
    weight = gaussian_filter(inside.astype(np.float64), _SIZE / 16)
    around = gaussian_filter(np.where(inside, light, 0.0), _SIZE / 16)
    return light - around / np.maximum(weight, 1e-6)


def _correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    if len(a) < 2:
        return 0.0
    a, b = a - a.mean(), b - b.mean()
    length = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / length if length > 0 else 0.0
