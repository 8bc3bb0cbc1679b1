"""The sample file: surface points, normals and query points of one asset.

Two formats, told apart by their members. `compact`, version 2, an `.npz` without compression in
the normalised frame ([-1, 1] cube):

    meta             JSON: version, contents, counts, seed, units, near_reach
    surface_points   uint16 [N, 3]  position = value / 65535 * 2 - 1; error <= 1.6e-5
    surface_normals  int8 [N, 2]    octahedral; mean error 0.3 degrees
                                    the first `num_uniform` rows are area-uniform, the others
                                    curvature-weighted
    near_points, near_curvature_points    uint16 [Q, 3]   (contents `full`), in a cube `near_reach`
                                    times as large, because they lie around the surface
    space_points                    uint16 [Q, 3]
    near_sdf, near_curvature_sdf, space_sdf     float16 [Q]     positive outside; exact at the
                                    stored positions, then rounded by 2^-12 of the value at most
    sharp_points, sharp_normals     on sharp edges, as `surface_*`       (where asked for)
    coarse_points, coarse_normals   on a coarse version of the mesh, the first half uniform, the
                                    others curvature-weighted            (where asked for; older
                                    files have no normals, and all of their points uniform)

Version 1 lacks `near_reach`, which is then 1, and is read as well.

`reference` has the float32 arrays and names of the reference's sampling script (spec section
10.1), in the cube [0, 1].
"""

from __future__ import annotations

import functools
import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ultrashape_cli.data.npz import READ_ERRORS, ArrayFile
from ultrashape_cli.errors import AssetError
from ultrashape_cli.files import write_atomic

SAMPLES_VERSION = 2
READABLE_VERSIONS = (1, 2)
QUERY_SETS = ("near", "near_curvature", "space")
NEAR_REACH = 1.5
"""Half-side of the cube of the near points; beyond it lies one in 10^10 of them."""
REFERENCE_UNIFORM = 300_000
"""Clean points of a reference file that are area-uniform; as many curvature-weighted follow."""
REFERENCE_NAMES = {
    "surface_points": "clean_surface_points",
    "surface_normals": "clean_surface_normals",
    "near_points": "uniform_near_points",
    "near_sdf": "uniform_near_sdf",
    "near_curvature_points": "curvature_near_points",
    "near_curvature_sdf": "curvature_near_sdf",
}
"""Our name -> the reference's, where they differ."""
_STEPS = 65535.0


def quantise_positions(points: np.ndarray, reach: float = 1.0) -> np.ndarray:
    """Returns positions in [-reach, reach], [N, 3] float, as uint16 [N, 3]; clips others."""
    scaled = np.clip(points * (1.0 / reach), -1.0, 1.0)
    return np.rint((scaled + 1.0) * (0.5 * _STEPS)).astype(np.uint16)


def restore_positions(codes: np.ndarray, reach: float = 1.0) -> np.ndarray:
    """Returns uint16 codes [N, 3] as float32 positions in [-reach, reach]."""
    positions = codes.astype(np.float32)
    positions *= np.float32(2.0 * reach / _STEPS)
    positions -= np.float32(reach)
    return positions


def encode_normals(normals: np.ndarray) -> np.ndarray:
    """Returns unit normals [N, 3] as octahedral int8 [N, 2] (Cigolle et al. 2014, section 3)."""
    flat = normals[:, :2] / np.abs(normals).sum(1, keepdims=True).clip(1e-12)
    folded = (1.0 - np.abs(flat[:, ::-1])) * np.where(flat >= 0, 1.0, -1.0)
    flat = np.where(normals[:, 2:] < 0, folded, flat)
    return np.rint(flat * 127.0).astype(np.int8)


def decode_normals(codes: np.ndarray) -> np.ndarray:
    """Returns octahedral int8 [N, 2] as unit float32 normals [N, 3]."""
    # A table of all pairs is five times as fast as the arithmetic.
    pairs = np.ascontiguousarray(codes).view(np.uint16).reshape(-1)
    return _normal_table().take(pairs, axis=0)


@functools.cache
def _normal_table() -> np.ndarray:
    flat = np.arange(65536, dtype=np.uint16).view(np.int8).reshape(-1, 2).astype(np.float32)
    flat /= np.float32(127.0)
    z = 1.0 - np.abs(flat).sum(1)
    fold = np.clip(-z, 0.0, None)[:, None]
    xy = flat - np.where(flat >= 0, fold, -fold)
    normals = np.concatenate([xy, z[:, None]], 1)
    return (normals / np.linalg.norm(normals, axis=1, keepdims=True).clip(1e-12)).astype(np.float32)


@dataclass(frozen=True, slots=True)
class SampleFile:
    """An opened sample file of either format; an array is read when asked for."""

    path: Path
    meta: dict[str, Any]
    reference: bool
    """Whether it has the reference's format."""
    arrays: ArrayFile

    @property
    def has_distances(self) -> bool:
        """Says whether the query points were sampled (`contents` is `full`)."""
        return self.meta["contents"] == "full"

    def draw_surface(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Returns `count` surface points, [count, 7] float32: position, normal, sharp label.

        Half are area-uniform (label 0), half curvature-weighted (label 1), each drawn without
        replacement, as in spec section 10.2.
        """
        points, normals = self._read("surface_points"), self._read("surface_normals")
        return self._draw_both(points, normals, int(self.meta["num_uniform"]), count, rng)

    def _draw_both(
        self,
        points: np.ndarray,  # [N, 3] as stored, the first `uniform` rows area-uniform
        normals: np.ndarray,  # [N, 2 or 3] as stored
        uniform: int,
        count: int,
        rng: np.random.Generator,
    ) -> np.ndarray:  # [count, 7]
        if not 0 < uniform < len(points) == len(normals):
            raise AssetError(
                f"`{self.path}` contradicts its own counts", hint=_redo(self.path, force=True)
            )
        half = count // 2
        rows = np.concatenate(
            [
                _draw(uniform, count - half, rng),
                uniform + _draw(len(points) - uniform, half, rng),
            ]
        )
        found = np.empty((count, 7), np.float32)
        found[:, :3] = self.positions(points.take(rows, axis=0))
        found[:, 3:6] = self._normals(normals.take(rows, axis=0))
        found[: count - half, 6] = 0.0
        found[count - half :, 6] = 1.0
        return found

    def draw_queries(self, name: str, count: int, rng: np.random.Generator) -> np.ndarray:
        """Returns `count` query points of one set, [count, 4] float32: position, distance."""
        if not self.has_distances:
            raise AssetError(
                f"`{self.path}` has no distances", hint=f"{_redo(self.path)} --contents full"
            )
        points, distances = self._read(f"{name}_points"), self._read(f"{name}_sdf")
        if not 0 < len(points) == len(distances):
            raise AssetError(
                f"`{self.path}` contradicts its own counts", hint=_redo(self.path, force=True)
            )
        rows = _draw(len(points), count, rng)
        found = np.empty((count, 4), np.float32)
        found[:, :3] = self.positions(points.take(rows, axis=0), name)
        found[:, 3] = distances.take(rows)
        if self.reference:
            found[:, 3] *= 2
        return found

    def draw_coarse(
        self, count: int, rng: np.random.Generator, *, normals: bool = False
    ) -> np.ndarray:
        """Returns `count` points on the coarse version of the mesh, [count, 3] float32.

        With normals it is [count, 7], as of `draw_surface`.
        """
        wanted = {"coarse_points", "coarse_normals"} if normals else {"coarse_points"}
        if missing := wanted - set(self.arrays.names):
            what = "no coarse points" if "coarse_points" in missing else "no coarse normals"
            raise AssetError(
                f"`{self.path}` has {what}",
                hint=f"{_redo(self.path, force='coarse_points' not in missing)} "
                "--set sample.coarse_points=100000",
            )
        points = self._read("coarse_points")
        if not normals:
            return self.positions(points.take(_draw(len(points), count, rng), axis=0))
        uniform = len(points) - len(points) // 2
        return self._draw_both(points, self._read("coarse_normals"), uniform, count, rng)

    def positions(self, stored: np.ndarray, name: str = "") -> np.ndarray:
        """Returns stored positions [N, 3] of a query set, or others, in the normalised frame."""
        if self.reference:
            return stored * np.float32(2.0) - np.float32(1.0)
        near = name.startswith("near")
        return restore_positions(stored, self.meta.get("near_reach", 1.0) if near else 1.0)

    def _normals(self, stored: np.ndarray) -> np.ndarray:
        if not self.reference:
            return decode_normals(stored)
        length = np.linalg.norm(stored, axis=1, keepdims=True)
        return stored / np.maximum(length, np.float32(1e-12))

    def _read(self, name: str) -> np.ndarray:
        key = REFERENCE_NAMES.get(name, name) if self.reference else name
        try:
            return self.arrays.read(key)
        except READ_ERRORS as error:
            raise AssetError(
                f"`{self.path}` cannot be read: {error}", hint=_redo(self.path, force=True)
            ) from error


def write_samples(path: Path, meta: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Writes a compact sample file atomically."""
    text = json.dumps({"version": SAMPLES_VERSION, **meta}, sort_keys=True).encode()
    write_arrays(path, {"meta": np.frombuffer(text, np.uint8), **arrays})


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes an `.npz` file without compression atomically."""
    write_atomic(path, lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]


def open_samples(path: Path) -> SampleFile:
    """Opens a sample file of either format and checks its version.

    Raises:
        AssetError: Absent, truncated, or of another version.
    """
    try:
        arrays = ArrayFile(path)
        if REFERENCE_NAMES["surface_points"] in arrays.names:
            full = "space_sdf" in arrays.names
            meta = {"contents": "full" if full else "dit", "num_uniform": REFERENCE_UNIFORM}
            return SampleFile(path, meta, True, arrays)
        meta = json.loads(arrays.read_checked("meta").tobytes())
        version = meta["version"]
        _ = meta["contents"], int(meta["num_uniform"]), float(meta.get("near_reach", 1.0))
    except READ_ERRORS as error:
        raise AssetError(
            f"`{path}` cannot be read: {error}", hint=_redo(path, force=True)
        ) from error
    except TypeError as error:
        raise AssetError(
            f"`{path}` is not a sample file: {error}", hint=_redo(path, force=True)
        ) from error
    if version not in READABLE_VERSIONS:
        raise AssetError(
            f"`{path}` has version {version}, this ushape reads {SAMPLES_VERSION}",
            hint=_redo(path, force=True),
        )
    return SampleFile(path, meta, False, arrays)


def _redo(path: Path, *, force: bool = False) -> str:
    """Returns the command that makes a sample file anew."""
    return f"ushape sample {shlex.quote(str(path.parent.parent))}{' --force' if force else ''}"


def _draw(available: int, count: int, rng: np.random.Generator) -> np.ndarray:
    # Small assets (tests, previews) hold fewer points than a batch asks for.
    if count > available:
        return rng.integers(0, available, count)
    return rng.choice(available, count, replace=False, shuffle=False)
