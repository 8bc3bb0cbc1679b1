"""The sample file: surface points, normals and query points of one asset, compact.

Version 1, an uncompressed `.npz` in the normalised frame ([-1, 1] cube):

    meta             JSON: version, counts, seed, units
    surface_points   uint16 [N, 3]  position = value / 65535 * 2 - 1; error <= 1.6e-5
    surface_normals  int8 [N, 2]    octahedral; mean error 0.3 degrees
                                    the first `num_uniform` rows are area-uniform, the others
                                    curvature-weighted
    near_points, near_curvature_points, space_points    uint16 [Q, 3]   (contents `full`)
    near_sdf, near_curvature_sdf, space_sdf             float16 [Q]     positive outside;
                                    computed at the stored, quantised positions
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ultrashape_cli.errors import AssetError
from ultrashape_cli.files import write_atomic

SAMPLES_VERSION = 1
QUERY_SETS = ("near", "near_curvature", "space")
_STEPS = 65535.0


def quantise_positions(points: np.ndarray) -> np.ndarray:
    """Returns positions in [-1, 1], [N, 3] float, as uint16 [N, 3]; clips what lies outside."""
    return np.rint((np.clip(points, -1.0, 1.0) + 1.0) * (0.5 * _STEPS)).astype(np.uint16)


def restore_positions(codes: np.ndarray) -> np.ndarray:
    """Returns uint16 codes [N, 3] as float32 positions in [-1, 1]."""
    return codes.astype(np.float32) * np.float32(2.0 / _STEPS) - np.float32(1.0)


def encode_normals(normals: np.ndarray) -> np.ndarray:
    """Returns unit normals [N, 3] as octahedral int8 [N, 2] (Cigolle et al. 2014, section 3)."""
    flat = normals[:, :2] / np.abs(normals).sum(1, keepdims=True).clip(1e-12)
    folded = (1.0 - np.abs(flat[:, ::-1])) * np.where(flat >= 0, 1.0, -1.0)
    flat = np.where(normals[:, 2:] < 0, folded, flat)
    return np.rint(flat * 127.0).astype(np.int8)


def decode_normals(codes: np.ndarray) -> np.ndarray:
    """Returns octahedral int8 [N, 2] as unit float32 normals [N, 3]."""
    flat = codes.astype(np.float32) / np.float32(127.0)
    z = 1.0 - np.abs(flat).sum(1)
    fold = np.clip(-z, 0.0, None)[:, None]
    xy = flat - np.where(flat >= 0, fold, -fold)
    normals = np.concatenate([xy, z[:, None]], 1)
    return (normals / np.linalg.norm(normals, axis=1, keepdims=True).clip(1e-12)).astype(np.float32)


@dataclass(frozen=True, slots=True)
class SampleFile:
    """An opened sample file; arrays are read when asked for."""

    path: Path
    meta: dict[str, Any]

    @property
    def has_distances(self) -> bool:
        """Says whether the query points were sampled (`contents` is `full`)."""
        return self.meta["contents"] == "full"

    def draw_surface(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Returns `count` surface points, [count, 7] float32: position, normal, sharp label.

        Half are area-uniform (label 0), half curvature-weighted (label 1), each drawn without
        replacement, as in spec section 10.2.
        """
        arrays = _read(self.path, ("surface_points", "surface_normals"))
        points, normals = arrays["surface_points"], arrays["surface_normals"]
        uniform = int(self.meta["num_uniform"])
        if not 0 < uniform < len(points) == len(normals):
            raise AssetError(f"`{self.path}` contradicts its own counts", hint=_REDO)
        half = count // 2
        rows = np.concatenate(
            [
                _draw(uniform, count - half, rng),
                uniform + _draw(len(points) - uniform, half, rng),
            ]
        )
        label = np.zeros((count, 1), np.float32)
        label[count - half :] = 1.0
        return np.concatenate(
            [restore_positions(points[rows]), decode_normals(normals[rows]), label], 1
        )

    def draw_queries(self, name: str, count: int, rng: np.random.Generator) -> np.ndarray:
        """Returns `count` query points of one set, [count, 4] float32: position, distance."""
        if not self.has_distances:
            raise AssetError(
                f"`{self.path}` has no distances", hint="ushape sample --set sample.contents=full"
            )
        arrays = _read(self.path, (f"{name}_points", f"{name}_sdf"))
        points, distances = arrays[f"{name}_points"], arrays[f"{name}_sdf"]
        if not 0 < len(points) == len(distances):
            raise AssetError(f"`{self.path}` contradicts its own counts", hint=_REDO)
        rows = _draw(len(points), count, rng)
        positions = restore_positions(points[rows])
        return np.concatenate([positions, distances[rows].astype(np.float32)[:, None]], 1)


def write_samples(path: Path, meta: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Writes a sample file atomically."""
    text = json.dumps({"version": SAMPLES_VERSION, **meta}, sort_keys=True).encode()
    members = {"meta": np.frombuffer(text, np.uint8), **arrays}
    write_atomic(path, lambda file: np.savez(file, **members))  # type: ignore[arg-type]


def open_samples(path: Path) -> SampleFile:
    """Opens a sample file and checks its version.

    Raises:
        AssetError: Absent, truncated, or of another version.
    """
    try:
        meta = json.loads(_read(path, ("meta",))["meta"].tobytes())
        version = meta["version"]
        _ = meta["contents"], int(meta["num_uniform"])
    except (ValueError, KeyError, TypeError) as error:
        raise AssetError(f"`{path}` is not a sample file: {error}", hint=_REDO) from error
    if version != SAMPLES_VERSION:
        raise AssetError(
            f"`{path}` has version {version}, this ushape reads {SAMPLES_VERSION}", hint=_REDO
        )
    return SampleFile(path, meta)


_REDO = "ushape sample --force"


def _read(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(path) as file:
            return {name: _array(file, name) for name in names}
    except (OSError, ValueError, KeyError, EOFError, MemoryError, zipfile.BadZipFile) as error:
        raise AssetError(f"`{path}` cannot be read: {error}", hint=_REDO) from error


def _array(file: zipfile.ZipFile, name: str) -> np.ndarray:
    with file.open(f"{name}.npy") as member:
        return np.lib.format.read_array(member, allow_pickle=False)


def _draw(available: int, count: int, rng: np.random.Generator) -> np.ndarray:
    # Small assets (tests, previews) hold fewer points than a batch asks for.
    if count > available:
        return rng.integers(0, available, count)
    return rng.choice(available, count, replace=False, shuffle=False)
