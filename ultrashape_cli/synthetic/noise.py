"""Noise for patterns: smooth values and cells that depend on place and seed alone."""

from __future__ import annotations

import math

from ultrashape_cli.geometry.jit import kernel


@kernel
def hashed(i, j, k, seed):
    """Return a number in [0, 1) that looks random, the same for the same whole numbers."""
    h = (i * 73856093) ^ (j * 19349663) ^ (k * 83492791) ^ (seed * 2654435761)
    h &= 0xFFFFFFFF
    h = ((h ^ (h >> 16)) * 0x45D9F3B) & 0xFFFFFFFF
    h = ((h ^ (h >> 16)) * 0x45D9F3B) & 0xFFFFFFFF
    return (h ^ (h >> 16)) / 4294967296.0


@kernel
def smooth_noise(x, y, z, seed):
    """Return smooth noise in [0, 1] with a feature about every unit."""
    i, j, k = math.floor(x), math.floor(y), math.floor(z)
    x, y, z = x - i, y - j, z - k
    x, y, z = x * x * (3 - 2 * x), y * y * (3 - 2 * y), z * z * (3 - 2 * z)
    total = 0.0
    for corner in range(8):
        a, b, c = corner & 1, (corner >> 1) & 1, corner >> 2
        weight = (x if a else 1 - x) * (y if b else 1 - y) * (z if c else 1 - z)
        total += weight * hashed(i + a, j + b, k + c, seed)
    return total


@kernel
def rough_noise(x, y, z, seed):
    """Return three octaves of noise in [-1, 1], each half as deep and twice as fine."""
    total, weight = 0.0, 0.57
    for octave in range(3):
        total += weight * (2 * smooth_noise(x, y, z, seed + octave) - 1)
        # Not quite twice: the lattices of the octaves must not meet.
        x, y, z, weight = 2.03 * x, 2.03 * y, 2.03 * z, weight * 0.5
    return total


@kernel
def ridges(x, y, z, seed):
    """Return noise in [0, 1] with sharp crests along the middle level of two octaves."""
    first = 1 - abs(2 * smooth_noise(x, y, z, seed) - 1) * 2
    second = 1 - abs(2 * smooth_noise(2.1 * x, 2.1 * y, 2.1 * z, seed + 1) - 1) * 2
    return max(0.0, 0.65 * first + 0.35 * second)


@kernel
def cells(x, y, z, seed):
    """Return the distances to the nearest and to the second nearest of scattered points."""
    i, j, k = math.floor(x), math.floor(y), math.floor(z)
    first, second = 9.0, 9.0
    for a in range(i - 1, i + 2):
        for b in range(j - 1, j + 2):
            for c in range(k - 1, k + 2):
                # Kept off the walls of its cell, so that no nearer point is missed.
                dx = a + 0.15 + 0.7 * hashed(a, b, c, seed) - x
                dy = b + 0.15 + 0.7 * hashed(a, b, c, seed + 101) - y
                dz = c + 0.15 + 0.7 * hashed(a, b, c, seed + 202) - z
                far = dx * dx + dy * dy + dz * dz
                if far < first:
                    first, second = far, first
                elif far < second:
                    second = far
    return math.sqrt(first), math.sqrt(second)
