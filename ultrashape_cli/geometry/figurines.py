"""Procedural figurines from signed-distance blends: test and example data without downloads.

Bodies, heads, limbs, horns, belts and bases are blended by a smooth minimum (Quilez,
polynomial form); engraved rings and scales displace the surface.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ultrashape_cli.geometry.mesh import Mesh

Points = NDArray[np.float32]
Field = NDArray[np.float32]


def make_figurine(seed: int, resolution: int = 128) -> Mesh:
    """Returns a closed figurine of about unit size, y up; the same seed gives the same mesh.

    Args:
        seed: Chooses proportions, parts and patterns.
        resolution: Cells of the extraction grid along one side.
    """
    from skimage.measure import marching_cubes

    axis = np.linspace(-1.1, 1.1, resolution + 1, dtype=np.float32)
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    field = _figurine(points, np.random.default_rng(seed)).reshape((resolution + 1,) * 3)
    spacing = (float(axis[1] - axis[0]),) * 3
    vertices, faces, _, _ = marching_cubes(field, 0.0, spacing=spacing)
    return Mesh.from_arrays(vertices + float(axis[0]), faces)


def _figurine(p: Points, rng: np.random.Generator) -> Field:
    height, girth = rng.uniform(0.30, 0.42), rng.uniform(0.20, 0.30)
    body = _ellipsoid(p, (0, -0.12, 0), (girth, height, girth * rng.uniform(0.75, 1.0)))
    head_at = np.array([0, -0.12 + height + rng.uniform(0.10, 0.2), rng.uniform(0, 0.06)])
    head_size = rng.uniform(0.16, 0.24)
    head = _ellipsoid(p, head_at, head_size * np.array([1, rng.uniform(0.9, 1.2), 1]))
    shape = _blend(body, head, 0.10)
    for side in (-1, 1):
        shape = _blend(shape, _arm(p, side, girth, height, rng), 0.06)
        hip = np.array([side * girth * 0.5, -0.12 - height * 0.6, 0])
        foot = np.array([side * girth * rng.uniform(0.6, 1.0), -0.82, rng.uniform(-0.05, 0.12)])
        shape = _blend(shape, _capsule(p, hip, foot, rng.uniform(0.08, 0.12)), 0.07)
        if rng.random() < 0.5:
            tip = head_at + np.array([side * rng.uniform(0.15, 0.35), rng.uniform(0.15, 0.35), 0])
            root = head_at + np.array([side * 0.6, 0.6, 0]) * head_size
            shape = _blend(shape, _capsule(p, root, tip, 0.05, 0.015), 0.03)
    for side in (-1, 1):
        eye = head_at + head_size * np.array([side * 0.42, 0.2, 0.85])
        shape = np.minimum(shape, _ellipsoid(p, eye, (head_size * 0.2,) * 3))
    if rng.random() < 0.6:
        shape = np.minimum(shape, _torus(p, -0.12 - height * 0.25, girth * 0.98, 0.035))
    shape = shape + _pattern(p, rng)
    base = _cylinder(p, -0.88, rng.uniform(0.42, 0.58), 0.07)
    return np.minimum(shape, base).astype(np.float32)


def _arm(p: Points, side: int, girth: float, height: float, rng: np.random.Generator) -> Field:
    shoulder = np.array([side * girth * 0.8, -0.12 + height * 0.6, 0])
    reach = np.array(
        [side * rng.uniform(0.2, 0.4), rng.uniform(-0.35, 0.3), rng.uniform(-0.1, 0.3)]
    )
    elbow = shoulder + 0.55 * reach + np.array([0, -0.05, 0])
    upper = _capsule(p, shoulder, elbow, 0.085)
    lower = _capsule(p, elbow, shoulder + reach, 0.07, 0.09)
    return _blend(upper, lower, 0.03)


def _pattern(p: Points, rng: np.random.Generator) -> Field:
    """Returns a displacement: engraved rings, or scales."""
    frequency, depth = rng.uniform(25, 45), rng.uniform(0.004, 0.010)
    if rng.random() < 0.5:
        return depth * np.maximum(0, np.sin(frequency * p[:, 1]) - 0.4)
    angle = np.arctan2(p[:, 0], p[:, 2])
    wave = np.cos(frequency * p[:, 1]) * np.cos(np.round(frequency / 3) * angle)
    return -depth * wave


def _blend(a: Field, b: Field, radius: float) -> Field:
    h = np.maximum(radius - np.abs(a - b), 0.0) / radius
    return np.minimum(a, b) - h * h * radius * 0.25


def _ellipsoid(p: Points, centre: object, radii: object) -> Field:
    q = (p - np.asarray(centre, np.float32)) / np.asarray(radii, np.float32)
    length = np.linalg.norm(q, axis=1)
    return (length - 1.0) * float(np.min(np.asarray(radii)))


def _capsule(
    p: Points,
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    radius: float,
    end: float | None = None,
) -> Field:
    start, axis = np.asarray(a, np.float32), np.asarray(b - a, np.float32)
    t = np.clip((p - start) @ axis / (axis @ axis), 0, 1)
    thickness = radius + (radius if end is None else end) * t - radius * t
    return np.linalg.norm(p - start - t[:, None] * axis, axis=1) - thickness


def _torus(p: Points, y: float, major: float, minor: float) -> Field:
    ring = np.hypot(p[:, 0], p[:, 2]) - major
    return np.hypot(ring, p[:, 1] - y) - minor


def _cylinder(p: Points, y: float, radius: float, half_height: float) -> Field:
    side = np.hypot(p[:, 0], p[:, 2]) - radius
    cap = np.abs(p[:, 1] - y) - half_height
    outside = np.hypot(np.maximum(side, 0), np.maximum(cap, 0))
    return outside + np.minimum(np.maximum(side, cap), 0) - 0.01
