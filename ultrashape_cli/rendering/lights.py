"""Light rigs: a key with a soft shadow, a fill, a rim, and the sky."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

RigName = Literal["studio", "soft", "random"]

# Towards the lights in camera axes (x right, y down, z forward): key, fill, rim.
_DIRECTIONS = ((-0.7, -0.75, -0.6), (0.85, -0.1, -0.6), (0.35, -0.7, 0.75))


@dataclass(frozen=True, slots=True)
class Rig:
    """Lights that turn with the camera.

    Attributes:
        directions: `[3, 3]` float64 unit vectors towards key, fill and rim, in camera axes.
        colours: `[3, 3]` linear RGB brightness of a white surface that faces each light.
        ambient: `[3]` linear RGB brightness of a white surface under the open sky alone.
        key_radius: Half-angle of the key light in radians, as a tangent: the width of penumbras.
    """

    directions: NDArray[np.float64]
    colours: NDArray[np.float64]
    ambient: NDArray[np.float64]
    key_radius: float

    def world_directions(self, world_to_camera: NDArray[np.float64]) -> NDArray[np.float32]:
        """Return the directions `[3, 3]` towards the lights of a camera in the world."""
        return (self.directions @ world_to_camera[:3, :3]).astype(np.float32)


def light_rig(name: RigName, seed: int = 0, view: int = 0) -> Rig:
    """Return the rig of a view; only `random` depends on the seed and the number of the view."""
    if name == "studio":
        return _rig(_DIRECTIONS, (1.1, 0.13, 0.35), 0.2, 0.12)
    if name == "soft":
        return _rig(_DIRECTIONS, (0.62, 0.22, 0.2), 0.5, 0.35)
    rng = np.random.default_rng([seed, view, 1])
    side = rng.choice((-1.0, 1.0))
    key = _towards(side * rng.uniform(10, 70), rng.uniform(15, 65))
    fill = _towards(-side * rng.uniform(40, 90), rng.uniform(-15, 30))
    rim = _towards(rng.uniform(120, 240), rng.uniform(10, 60))
    strengths = rng.uniform((0.75, 0.05, 0.0), (1.1, 0.3, 0.5))
    rig = _rig((key, fill, rim), strengths, rng.uniform(0.18, 0.4), rng.uniform(0.04, 0.3))
    # Warm or cold by up to about 1500 K around daylight.
    tints = 1 + rng.uniform(-0.12, 0.12, (4, 1)) * np.array([1.0, 0.1, -1.0])
    return Rig(rig.directions, rig.colours * tints[:3], rig.ambient * tints[3], rig.key_radius)


def _rig(directions, strengths, ambient, key_radius) -> Rig:
    axes = np.asarray(directions, np.float64)
    axes = axes / np.linalg.norm(axes, axis=1, keepdims=True)
    colours = np.repeat(np.asarray(strengths, np.float64)[:, None], 3, axis=1)
    return Rig(axes, colours, np.full(3, float(ambient)), float(key_radius))


def _towards(azimuth: float, elevation: float) -> tuple[float, float, float]:
    """Return camera axes of a direction; azimuth 0 is from behind the camera, 90 its right."""
    a, e = np.radians(azimuth), np.radians(elevation)
    return float(np.sin(a) * np.cos(e)), float(-np.sin(e)), float(-np.cos(a) * np.cos(e))
