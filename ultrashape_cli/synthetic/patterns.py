"""What moves the surface of a part: detail of many kinds, as offsets of its distance.

A negative offset swells, a positive one engraves. Around a part of any size the number of repeats
is whole, so that they meet at the back.
"""

from __future__ import annotations

import math
from enum import IntEnum

from ultrashape_cli.geometry.jit import kernel
from ultrashape_cli.synthetic.noise import cells, hashed, ridges, rough_noise, smooth_noise


class Pattern(IntEnum):
    """What moves the surface of a part, by up to `depth`, with `frequency` waves per unit."""

    NONE = 0
    RINGS = 1
    """engraved grooves across y"""
    SCALES = 2
    """rows of bumps, every other row shifted"""
    FOLDS = 3
    """waves around y, deeper towards the hem"""
    STRANDS = 4
    """fine grooves down y that wind"""
    STUDS = 5
    """round bumps on a square lattice"""
    NOISE = 6
    """three octaves of noise"""
    PEBBLES = 7
    """raised cells of irregular outline"""
    HAMMERED = 8
    """round dents"""
    CRACKS = 9
    """grooves between irregular cells"""
    WRINKLES = 10
    """irregular folds across y"""
    FUR = 11
    """irregular locks along y"""
    SHINGLES = 12
    """rows that overlap towards -y: feathers, large scales, roof tiles"""
    BRICKS = 13
    PLANKS = 14
    """boards along y, with grain"""
    FLUTES = 15
    """round grooves along y"""
    WEAVE = 16
    """over and under"""
    KNURL = 17
    """rows of pyramids"""
    ENGRAVING = 18
    """lines in bands: zigzags, waves, rings or runes, by the seed"""
    PANELS = 19
    """plates with seams, of several sizes"""
    THREAD = 20
    """a screw thread around y, `frequency` turns per unit"""


@kernel
def pattern(u, v, w, row, kind, depth, frequency, seed):
    """Return the offset at a place in the part's frame."""
    if kind <= 5:
        return _waves(u, v, w, row, kind, depth, frequency)
    if kind <= 11:
        return _in_space(u, v, w, kind, depth, frequency, seed)
    if kind == 20:
        turn = frequency * v + math.atan2(u, w) / (2 * math.pi)
        return depth * (abs(2 * (turn - math.floor(turn)) - 1) - 0.5)
    s, t = _on_surface(u, v, w, row, frequency)
    return depth * _tiles(s, t, kind, seed)


@kernel
def _waves(u, v, w, row, kind, depth, frequency):
    wave = 2.0 * math.pi * frequency
    angle = math.atan2(u, w)
    # The same number of waves around a part of any size: whole, so that they meet at the back.
    around = max(round(wave * 0.5 * (row[10] + row[12])), 3.0)
    if kind == 1:
        return depth * max(0.0, math.sin(wave * v) - 0.3)
    if kind == 2:
        turn = math.pi / around if math.floor(frequency * v + 0.5) % 2 else 0.0
        return -depth * abs(math.cos(0.5 * wave * v)) * abs(math.cos(around * 0.5 * (angle + turn)))
    if kind == 3:
        fall = min(max(0.5 - v / max(2.0 * row[11], 1e-6), 0.1), 1.0)
        return -depth * fall * math.cos(around * angle + 3.0 * v)
    if kind == 4:
        return -depth * abs(math.sin(around * angle + 4.0 * math.sin(5.0 * v)))
    bump = math.cos(wave * v) * math.cos(around * angle)
    return -depth * max(0.0, bump) ** 2


@kernel
def _in_space(u, v, w, kind, depth, frequency, seed):
    x, y, z = u * frequency, v * frequency, w * frequency
    if kind == 6:
        return depth * rough_noise(x, y, z, seed)
    if kind == 10:
        return depth * (ridges(0.35 * x, y, 0.35 * z, seed) - 0.3)
    if kind == 11:
        return -depth * (ridges(x, 0.22 * y, z, seed) - 0.3)
    first, second = cells(x, y, z, seed)
    if kind == 8:
        dent = max(0.0, 1 - 1.4 * first)
        return depth * dent * (2 - dent)
    if kind == 7:
        rise = min((second - first) * 2.2, 1.0)
        return -depth * rise * (2 - rise)
    return depth * max(0.0, 1 - (second - first) * 7)


@kernel
def _on_surface(u, v, w, row, frequency):
    """Return coordinates in repeats across and along the part's surface."""
    kind = int(row[0])
    if kind == 10:
        return u * frequency, w * frequency
    if kind == 1 or kind == 7 or kind > 10:
        a, b, c = max(row[10], 1e-3), max(row[11], 1e-3), max(row[12], 1e-3)
        # The side of a box that a point faces is the one it is nearest to.
        x, y, z = a - abs(u), b - abs(v), c - abs(w)
        if y < x and y < z:
            return u * frequency, w * frequency
        return (u * frequency, v * frequency) if z < x else (w * frequency, v * frequency)
    if kind == 4:
        ring = math.sqrt(u * u + w * w) - row[10]
        around = max(round(2 * math.pi * frequency * row[10]), 3.0)
        across = max(round(2 * math.pi * frequency * row[11]), 2.0)
        turn = math.atan2(v, ring) / (2 * math.pi)
        return math.atan2(u, w) / (2 * math.pi) * around, turn * across
    around = max(round(math.pi * frequency * (row[10] + row[12])), 3.0)
    # Even, so that rows shifted by a half and pairs of strands meet at the back too.
    return math.atan2(u, w) / (2 * math.pi) * 2 * math.ceil(around / 2), v * frequency


@kernel
def _tiles(s, t, kind, seed):
    """Return the offset of a tiled pattern, mostly in [-1, 1]."""
    if kind == 12:
        return _shingle(s, t)
    if kind == 13:
        return _brick(s, 2 * t, seed)
    x, y = s - math.floor(s), t - math.floor(t)
    i, j = math.floor(s), math.floor(t)
    if kind == 14:
        seam = max(0.0, 1 - min(x, 1 - x) * 12)
        grain = ridges(5 * s, 0.35 * t, i * 3.7, seed)
        return seam + 0.35 * (grain - 0.3) - 0.5 * hashed(i, 0, 0, seed)
    if kind == 15:
        return 1.3 * max(0.0, math.cos(2 * math.pi * s)) ** 0.7
    if kind == 16:
        along, across = math.sin(math.pi * x), math.sin(math.pi * y)
        if (i + j) % 2:
            along, across = across, along
        return -along * (0.45 + 0.55 * across)
    if kind == 17:
        p, q = s + t, s - t
        return -2 * min(abs(p - math.floor(p) - 0.5), abs(q - math.floor(q) - 0.5))
    if kind == 18:
        return _engraving(x, y, i, j, seed)
    return _panel(x, y, i, j, seed)


@kernel
def _shingle(s, t):
    row = math.floor(t)
    below = t - row
    # The tip of the row above hangs over this one; where it does not, this row is seen.
    hung = s + 0.5 * ((row + 1) % 2)
    x = 2 * (hung - math.floor(hung)) - 1
    q = 2 - below
    if q > 1 + 0.75 * (1 - x * x):
        own = s + 0.5 * (row % 2)
        x = 2 * (own - math.floor(own)) - 1
        q = 1 - below
    rib = max(0.0, 1 - abs(x) * 7)
    return -(q / 1.75) * (1 - 0.45 * x * x) - 0.2 * rib + 0.5


@kernel
def _brick(s, t, seed):
    row = math.floor(t)
    s += 0.5 * (row % 2)
    i = math.floor(s)
    x, y = s - i, t - row
    edge = min(min(x, 1 - x) * 2, min(y, 1 - y))
    rise = min(edge * 7, 1.0)
    return (
        1
        - rise
        - 0.45 * rise * hashed(i, row, 0, seed)
        + 0.15 * smooth_noise(s * 5, t * 3, 0.5, seed)
    )


@kernel
def _engraving(x, y, i, j, seed):
    style = (seed + j) % 4
    border = max(0.0, 1 - abs(abs(y - 0.5) - 0.46) * 16)
    if style == 0:
        line = abs(y - 0.2 - 1.2 * abs(x - 0.5)) * 0.7
    elif style == 1:
        line = abs(y - 0.5 - 0.26 * math.sin(2 * math.pi * x)) * 0.7
    elif style == 2:
        line = abs(math.sqrt((x - 0.5) ** 2 + (y - 0.5) ** 2) - 0.27)
    else:
        # Runes: strokes on a lattice of 4 x 4, alike on both sides.
        column, place = int(abs(x - 0.5) * 6), int(y * 6)
        drawn = column < 2 and 0 < place < 5 and hashed(i % 3, place, column, seed) < 0.55
        return 1.0 if drawn else border
    return max(border, min(max(0.0, 1.6 - line * 16), 1.0))


@kernel
def _panel(x, y, i, j, seed):
    for split in range(2):
        choice = hashed(i, j, split, seed)
        if choice < 0.35:
            i, x = 2 * i + int(x * 2), x * 2 - int(x * 2)
        elif choice < 0.7:
            j, y = 2 * j + int(y * 2), y * 2 - int(y * 2)
    edge = min(min(x, 1 - x), min(y, 1 - y))
    bolt = math.sqrt((edge - 0.17) ** 2 + (max(min(x, 1 - x), min(y, 1 - y)) - 0.17) ** 2)
    raised = 0.9 * hashed(i, j, 7, seed)
    return max(0.0, 1 - edge * 14) - raised * min(edge * 8, 1.0) - max(0.0, 0.5 - bolt * 9)
