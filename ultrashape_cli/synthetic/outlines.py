"""Polygons, curves, planes and height maps: the tables that parts are drawn by."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Points = NDArray[np.float64]


def smooth_curve(points: ArrayLike, steps: int = 5) -> Points:
    """Returns a Catmull-Rom curve `[(K - 1) * steps + 1, D]` through points `[K, D]`."""
    p = np.asarray(points, float)
    p = np.concatenate([2 * p[:1] - p[1:2], p, 2 * p[-1:] - p[-2:-1]])
    t = np.arange(steps)[:, None] / steps
    pieces = [
        0.5
        * (
            2 * b
            + (c - a) * t
            + (2 * a - 5 * b + 4 * c - d) * t**2
            + (3 * b - a - 3 * c + d) * t**3
        )
        for a, b, c, d in zip(p[:-3], p[1:-2], p[2:-1], p[3:], strict=True)
    ]
    return np.concatenate([*pieces, p[-2:-1]])


def smooth_outline(points: ArrayLike, steps: int = 4) -> Points:
    """Returns a closed smooth polygon through points `[K, 2]`."""
    p = np.asarray(points, float)
    whole = smooth_curve(np.concatenate([p[-2:], p, p[:3]]), steps)
    return whole[2 * steps : (len(p) + 2) * steps]


def tube_table(points: ArrayLike, radii: ArrayLike, steps: int = 5) -> Points:
    """Returns the table `[K, 8]` of a tube: point, radius, normal, length so far.

    The normal is carried along the curve without twist, so that patterns do not tear.

    Args:
        points: `[N, 3]`, smoothed.
        radii: `[N]`.
        steps: Pieces between two points; 1 keeps the corners.
    """
    knots = np.column_stack([np.asarray(points, float), np.asarray(radii, float)])
    curve = smooth_curve(knots, steps) if steps > 1 else knots
    line = curve[:, :3]
    tangents = np.gradient(line, axis=0)
    tangents /= np.maximum(np.linalg.norm(tangents, axis=1, keepdims=True), 1e-9)
    side = np.array([1.0, 0.0, 0.0]) if abs(tangents[0, 0]) < 0.8 else np.array([0.0, 0.0, 1.0])
    normals = []
    for tangent in tangents:
        side = side - tangent * (side @ tangent)
        side = side / max(float(np.linalg.norm(side)), 1e-9)
        normals.append(side)
    lengths = np.linalg.norm(np.diff(line, axis=0), axis=1)
    return np.column_stack(
        [line, np.maximum(curve[:, 3], 0.004), normals, np.cumsum([0.0, *lengths])]
    )


def ellipse(a: float, b: float, count: int = 24) -> Points:
    """Returns an ellipse `[count, 2]`."""
    angle = np.arange(count) * 2 * math.pi / count
    return np.column_stack([a * np.cos(angle), b * np.sin(angle)])


def rectangle(a: float, b: float) -> Points:
    """Returns a rectangle `[4, 2]` of half-sides a and b."""
    return np.array([[-a, -b], [a, -b], [a, b], [-a, b]])


def star(count: int, outer: float, inner: float) -> Points:
    """Returns a star `[2 * count, 2]`."""
    angle = np.arange(2 * count) * math.pi / count + math.pi / 2
    radius = np.where(np.arange(2 * count) % 2, inner, outer)
    return np.column_stack([radius * np.cos(angle), radius * np.sin(angle)])


def gear(teeth: int, radius: float, depth: float, lean: float = 0.0) -> Points:
    """Returns the outline `[6 * teeth, 2]` of a gear; `lean` makes a ratchet of it."""
    # Part of a tooth's pitch, and height: flanks run inwards like those of an involute.
    shape = [(0.0, 0), (0.2, 0), (0.3, 0.55), (0.4 + lean, 1), (0.64 + lean, 1), (0.76, 0.55)]
    turns = np.array([(k + at) / teeth for k in range(teeth) for at, _ in shape]) * 2 * math.pi
    radii = radius - depth + depth * np.tile([height for _, height in shape], teeth)
    return np.column_stack([radii * np.cos(turns), radii * np.sin(turns)])


def leaf(length: float, width: float, fullest: float = 0.45, count: int = 9) -> Points:
    """Returns a leaf `[2 * count, 2]` from the origin to (0, length)."""
    t = np.linspace(0, 1, count + 1)
    power = math.log(0.5) / math.log(fullest)
    half = 0.5 * width * np.sin(math.pi * t**power) ** 0.8
    right = np.column_stack([half, t * length])
    return np.concatenate([right[:-1], (right * [-1, 1])[:0:-1]])


def profile(heights: ArrayLike, radii: ArrayLike, wall: float = 0.0, steps: int = 6) -> Points:
    """Returns the closed section of a turned body, smooth through the given radii.

    Args:
        heights: `[K]`, rising.
        radii: `[K]` outer radii.
        wall: Thickness of a vessel open at the top; 0 is solid.
        steps: Pieces between two heights; 1 keeps the corners.
    """
    knots = np.column_stack([np.asarray(radii, float), np.asarray(heights, float)])
    outer = smooth_curve(knots, steps) if steps > 1 else knots
    outer[:, 0] = np.maximum(outer[:, 0], 0.01)
    low, high = outer[0, 1], outer[-1, 1]
    if wall <= 0:
        return np.concatenate([[[0.0, low]], outer, [[0.0, high]]])
    above = outer[outer[:, 1] > low + wall]
    inner = np.column_stack([np.maximum(above[:, 0] - wall, 0.012), above[:, 1]])[::-1]
    floor = [[0.0, inner[-1, 1]]] if len(inner) else []
    return np.concatenate([[[0.0, low]], outer, inner, floor])


def gem_planes(
    rng: np.random.Generator, count: int, size: Sequence[float], spread: float
) -> Points:
    """Returns planes `[count, 4]` around an ellipsoid, nearer by up to a part `spread` of it."""
    k = np.arange(count) + 0.5
    y = 1 - 2 * k / count
    turns = k * math.pi * (1 + math.sqrt(5)) + rng.uniform(0, 6.28)
    ring = np.sqrt(1 - y * y)
    normals = np.column_stack([ring * np.cos(turns), y, ring * np.sin(turns)])
    normals += rng.normal(0, 0.25 * min(spread * 4, 1.0), normals.shape)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    far = np.linalg.norm(normals * np.asarray(size), axis=1) * (1 - rng.uniform(0, spread, count))
    return np.column_stack([normals, far])


def height_map(rng: np.random.Generator, side: int, octaves: int, first: float = 2.0) -> Points:
    """Returns smooth random heights `[side, side]` in about [-1, 1], rougher with more octaves."""
    x, z = np.meshgrid(*(np.linspace(-1, 1, side),) * 2, indexing="ij")
    total, weight = np.zeros((side, side)), 1.0
    for octave in range(octaves):
        for _ in range(3):
            angle, shift = rng.uniform(0, 2 * math.pi, 2)
            wave = first * 1.9**octave * rng.uniform(0.8, 1.25)
            total += weight * np.sin(wave * (x * math.cos(angle) + z * math.sin(angle)) + shift) / 3
        weight *= 0.5
    return total
