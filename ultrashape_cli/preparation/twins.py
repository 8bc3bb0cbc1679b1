"""Near-duplicates: invariant descriptors of shape and colours, and an exact search that scales.

The descriptor says how much surface lies at each distance from its centroid, and how unevenly it is
spread over directions there: the amplitude of each degree of the spherical harmonics per shell
(Kazhdan, Funkhouser and Rusinkiewicz, SGP 2003). Turning, moving or scaling a shape changes none of
these; closing, remeshing or reducing it changes them by less than other sculpts differ.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.special import sph_harm_y_all

from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.geometry.surface import sample_faces

_SAMPLES, _BATCH = 40_000, 10_000
_SHELLS, _DEGREE = 12, 10
_REACH = 2.5
"""Radius of the last shell, in mean distances from the centroid; what is farther joins it."""
_SEARCH_AXES = 12
"""Principal axes of the index; more make candidates rarer and their search slower."""
_TOP = 0.6
"""Amplitude that the coded byte 255 stands for; a larger one is cut."""

_TONES = 4
"""Of each of red, green and blue in a palette."""
_OTHER_COLOURS = 0.1
"""Share of the surface that must look different. Equal surfaces sampled anew differ by 0.03."""


def descriptor(mesh: Mesh, rng: np.random.Generator) -> NDArray[np.float32]:
    """Returns the amplitudes per shell and degree `[B]`, a vector of length 1."""
    points, _, _ = sample_faces(mesh, _SAMPLES, rng)
    arm = points - points.mean(axis=0)
    radius = np.linalg.norm(arm, axis=1)
    # A sample is shared by the two nearest shells, so that none jumps across a border.
    place = np.clip(radius / radius.mean() / _REACH * (_SHELLS - 1), 0, _SHELLS - 1)
    share = np.clip(1 - np.abs(place[:, None] - np.arange(_SHELLS)), 0, 1)
    totals = sum(
        np.einsum("lmn,ns->lms", _harmonics(arm[part], radius[part]), share[part], optimize=True)
        for part in np.split(np.arange(_SAMPLES), _SAMPLES // _BATCH)
    )
    power = np.abs(totals) ** 2
    # Orders -m mirror m for a real function.
    energy = power[:, 0] + 2 * power[:, 1:].sum(axis=1)
    # Random samples alone have this much.
    noise = (2 * np.arange(_DEGREE + 1)[:, None] + 1) / (4 * np.pi) * (share**2).sum(axis=0)
    amplitude = np.sqrt(np.clip(energy - noise, 0, None))
    return (amplitude / np.linalg.norm(amplitude)).astype(np.float32).ravel()


def _harmonics(
    arm: NDArray[np.float64],  # [N, 3]
    radius: NDArray[np.float64],  # [N]
) -> NDArray[np.complex128]:
    """Returns the harmonics of each direction `[L, M, N]` of orders from 0 upwards."""
    polar = np.arccos(np.clip(arm[:, 2] / np.maximum(radius, 1e-12), -1, 1))
    azimuth = np.arctan2(arm[:, 1], arm[:, 0])
    return sph_harm_y_all(_DEGREE, _DEGREE, polar, azimuth)[:, : _DEGREE + 1]


def encode_descriptor(values: NDArray[np.float32]) -> str:
    """Returns a descriptor as text, a byte per bin."""
    return base64.b64encode(np.rint(np.clip(values / _TOP, 0, 1) * 255).astype(np.uint8)).decode()


def decode_descriptors(texts: Sequence[str]) -> NDArray[np.float32]:
    """Returns the descriptors `[N, B]` of `encode_descriptor`, of length 1 again."""
    if not texts:
        return np.zeros((0, _SHELLS * (_DEGREE + 1)), np.float32)
    rows = np.frombuffer(base64.b64decode("".join(texts)), np.uint8).reshape(len(texts), -1)
    values = rows.astype(np.float32)
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)


def palette(colours: NDArray[np.floating]) -> NDArray[np.float16]:
    """Returns the share of each of 64 colours, which sum to 1, and to 0 without any.

    Args:
        colours: `[N, 3]` linear, from 0 to 1.
    """
    # About as far apart as they look; a sample is shared by the eight nearest.
    place = np.sqrt(np.clip(colours, 0, 1)) * (_TONES - 1)
    low = np.minimum(place.astype(np.int64), _TONES - 2)
    part = place - low
    shares = np.zeros(_TONES**3)
    for corner in np.ndindex(2, 2, 2):
        weight = np.where(corner, part, 1 - part).prod(axis=1)
        index = (low + corner) @ (_TONES**2, _TONES, 1)
        shares += np.bincount(index, weight, _TONES**3)
    return (shares / max(len(colours), 1)).astype(np.float16)


def encode_palette(values: NDArray[np.float16]) -> str:
    """Returns a palette as text."""
    return base64.b64encode(values.astype("<f2").tobytes()).decode()


def decode_palettes(texts: Sequence[str | None]) -> NDArray[np.float32]:
    """Returns the palettes `[N, C]` of `encode_palette`; zero for clay (""), NaN for None."""
    found = np.zeros((len(texts), _TONES**3), np.float32)
    for row, text in zip(found, texts, strict=True):
        if text is None:
            row[:] = np.nan
        elif text:
            row[:] = np.frombuffer(base64.b64decode(text), "<f2")
    return found


def other_colours(one: NDArray[np.float32], two: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Says of pairs of palettes `[P, C]` whether they differ `[P]`; unknown ones do not."""
    return np.asarray(np.abs(one - two).sum(axis=1) / 2 > _OTHER_COLOURS)


def find_twins(
    values: NDArray[np.float32],  # [N, B], rows of length 1, the preferred of two twins first
    limit: float,
    palettes: NDArray[np.float32] | None = None,  # [N, C]
) -> dict[int, tuple[int, float]]:
    """Returns, for each row with one, the nearest earlier row that is no twin itself.

    Args:
        values: Descriptors.
        limit: Distance below which two rows are twins.
        palettes: Of `decode_palettes`; twins have the same colours, too. None ignores colours.

    Returns:
        Row -> (earlier row, distance).
    """
    if len(values) < 2:
        return {}
    # A projection shortens distances, never lengthens them: no pair is missed.
    centred = values - values.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    tree = cKDTree(centred @ axes[:, -_SEARCH_AXES:])
    pairs = tree.query_pairs(limit * (1 + 1e-5), output_type="ndarray")
    if len(pairs) == 0:
        return {}
    low, high = pairs.min(axis=1), pairs.max(axis=1)
    distance = np.linalg.norm(values[low] - values[high], axis=1)
    near = distance < limit
    if palettes is not None:
        near &= ~other_colours(palettes[low], palettes[high])
    order = np.lexsort((distance[near], high[near]))
    found: dict[int, tuple[int, float]] = {}
    for one, two, apart in zip(
        low[near][order].tolist(), high[near][order].tolist(), distance[near][order].tolist(),
        strict=True,
    ):  # fmt: skip
        if one not in found and two not in found:
            found[two] = (one, apart)
    return found
