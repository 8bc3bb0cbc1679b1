from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ultrashape_cli.data.samples import (
    NEAR_REACH,
    QUERY_SETS,
    REFERENCE_UNIFORM,
    SampleFile,
    decode_normals,
    encode_normals,
    open_samples,
    quantise_positions,
    restore_positions,
    write_samples,
)
from ultrashape_cli.errors import AssetError

META = {"contents": "full", "num_uniform": 60}


def _arrays(rng: np.random.Generator) -> dict[str, np.ndarray]:
    points = quantise_positions(rng.uniform(-1, 1, (100, 3)))
    normals = encode_normals(_directions(rng, 100))
    arrays = {"surface_points": points, "surface_normals": normals}
    for name in QUERY_SETS:
        arrays[f"{name}_points"] = quantise_positions(rng.uniform(-1, 1, (50, 3)))
        arrays[f"{name}_sdf"] = np.arange(50).astype(np.float16)
    return arrays


def _directions(rng: np.random.Generator, count: int) -> np.ndarray:
    vectors = rng.normal(size=(count, 3))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "samples" / "a.npz"
    write_samples(path, META, _arrays(np.random.default_rng(0)))
    return path


def _indices(samples: SampleFile, rows: np.ndarray) -> list[int]:
    """Returns which stored surface points these are."""
    with np.load(samples.path) as file:
        stored = restore_positions(file["surface_points"])
    return [int(np.flatnonzero((stored == row).all(1))[0]) for row in rows[:, :3]]


def test_positions_are_kept_within_half_a_step() -> None:
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.uniform(-1, 1, (200_000, 3)), np.eye(3), -np.eye(3)])
    error = np.abs(restore_positions(quantise_positions(points)) - points).max()
    assert error <= 1.6e-5  # half of 2 / 65535, and the rounding of float32


def test_positions_outside_the_cube_are_clipped() -> None:
    codes = quantise_positions(np.array([[-1.5, 1.5, 0.0]]))
    assert codes.tolist() == [[0, 65535, 32768]]


def test_every_position_code_survives() -> None:
    codes = np.arange(65536, dtype=np.uint16).reshape(-1, 1).repeat(3, 1)
    assert (quantise_positions(restore_positions(codes)) == codes).all()


def test_normals_are_kept_within_a_degree() -> None:
    directions = _directions(np.random.default_rng(0), 200_000)
    found = decode_normals(encode_normals(directions))
    degrees = np.degrees(2 * np.arcsin(np.linalg.norm(found - directions, axis=1) / 2))
    # Measured: mean 0.33, maximum 0.95 degrees.
    assert degrees.mean() < 0.35
    assert degrees.max() < 1.0
    assert np.abs(np.linalg.norm(found, axis=1) - 1).max() < 1e-6


def test_axes_and_corners_of_the_octahedron_are_exact() -> None:
    axes = np.concatenate([np.eye(3), -np.eye(3)])
    assert np.abs(decode_normals(encode_normals(axes)) - axes).max() < 1e-6


def test_a_zero_normal_decodes_to_a_unit_vector() -> None:
    found = decode_normals(encode_normals(np.zeros((1, 3))))
    assert np.linalg.norm(found) == pytest.approx(1)


def test_what_was_written_is_read(path: Path) -> None:
    samples = open_samples(path)
    assert samples.has_distances
    assert samples.meta == {"version": 2, **META}
    queries = samples.draw_queries("near", 50, np.random.default_rng(0))
    assert queries.dtype == np.float32
    assert sorted(queries[:, 3]) == list(range(50))


@pytest.mark.parametrize("count", [20, 21])
def test_half_of_the_points_are_uniform_and_half_sharp(path: Path, count: int) -> None:
    samples = open_samples(path)
    rows = samples.draw_surface(count, np.random.default_rng(0))
    assert rows.shape == (count, 7)
    assert rows.dtype == np.float32
    sharp = rows[:, 6] == 1
    assert sharp.sum() == count // 2
    indices = np.array(_indices(samples, rows))
    assert (indices[~sharp] < 60).all()
    assert (indices[sharp] >= 60).all()
    assert np.linalg.norm(rows[:, 3:6], axis=1) == pytest.approx(1, abs=1e-6)


def test_points_are_drawn_without_replacement(path: Path) -> None:
    samples = open_samples(path)
    indices = _indices(samples, samples.draw_surface(80, np.random.default_rng(0)))
    assert len(set(indices)) == 80
    distances = samples.draw_queries("space", 50, np.random.default_rng(0))[:, 3]
    assert len(set(distances)) == 50


def test_a_small_asset_gives_as_many_points_as_asked(path: Path) -> None:
    samples = open_samples(path)
    assert samples.draw_surface(1000, np.random.default_rng(0)).shape == (1000, 7)
    assert samples.draw_queries("near", 1000, np.random.default_rng(0)).shape == (1000, 4)


def test_draws_depend_on_the_seed_only(path: Path) -> None:
    samples = open_samples(path)
    first, again, other = (samples.draw_surface(20, np.random.default_rng(s)) for s in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


def _rewrite(path: Path, meta: object = None, **arrays: np.ndarray) -> None:
    with np.load(path) as file:
        members = dict(file)
    if meta is not None:
        members["meta"] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    np.savez(path, **{**members, **arrays})


def _array_file(path: Path) -> None:
    np.save(path.with_suffix(".npy"), np.zeros(3))
    path.with_suffix(".npy").replace(path)


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[data.index(b"num_uniform") + 3] ^= 1
    path.write_bytes(data)


DAMAGES = {
    "absent": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-200]),
    "text": lambda path: path.write_text("hello"),
    "npy": _array_file,
    "flipped": _flip,
    "no meta": lambda path: np.savez(path, a=np.zeros(2)),
    "no json": lambda path: _rewrite(path, meta=np.zeros(3).tolist()),
    "other version": lambda path: _rewrite(path, {"version": 3, **META}),
    "no version": lambda path: _rewrite(path, META),
    "no counts": lambda path: _rewrite(path, {"version": 1, "contents": "dit"}),
    "pickle": lambda path: np.savez(path, meta=np.array([{}], object)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_an_asset_error(path: Path, damage: str) -> None:
    DAMAGES[damage](path)
    with pytest.raises(AssetError, match=r"a\.npz") as caught:
        open_samples(path)
    assert caught.value.hint == f"ushape sample {path.parent.parent} --force"


def test_the_version_of_the_future_is_named(path: Path) -> None:
    DAMAGES["other version"](path)
    with pytest.raises(AssetError, match="has version 3, this ushape reads 2"):
        open_samples(path)


@pytest.mark.parametrize("num_uniform", [0, 100, 101])
def test_counts_that_contradict_the_arrays_are_refused(path: Path, num_uniform: int) -> None:
    _rewrite(path, {"version": 1, "contents": "full", "num_uniform": num_uniform})
    with pytest.raises(AssetError, match="contradicts"):
        open_samples(path).draw_surface(10, np.random.default_rng(0))


def test_queries_without_their_distances_are_refused(path: Path) -> None:
    _rewrite(path, near_sdf=np.zeros(0, np.float16))
    with pytest.raises(AssetError, match="contradicts"):
        open_samples(path).draw_queries("near", 10, np.random.default_rng(0))


def test_a_file_without_distances_says_how_to_get_them(path: Path) -> None:
    _rewrite(path, {"version": 1, "contents": "dit", "num_uniform": 60})
    with pytest.raises(AssetError, match="no distances") as caught:
        open_samples(path).draw_queries("near", 10, np.random.default_rng(0))
    assert "--contents full" in caught.value.hint


def test_near_points_outside_the_cube_are_kept(tmp_path: Path) -> None:
    points = np.array([[1.3, -1.2, 0.0], [-1.49, 1.49, 0.7]])
    arrays = _arrays(np.random.default_rng(0))
    arrays["near_points"] = quantise_positions(points, NEAR_REACH)
    arrays["near_sdf"] = np.zeros(2, np.float16)
    write_samples(tmp_path / "a.npz", {**META, "near_reach": NEAR_REACH}, arrays)
    found = open_samples(tmp_path / "a.npz").draw_queries("near", 2, np.random.default_rng(0))
    order = np.argsort(points[:, 0])
    assert np.sort(found[:, 0]) == pytest.approx(points[order, 0], abs=2.4e-5)


def test_files_of_version_1_are_read(path: Path) -> None:
    _rewrite(path, {"version": 1, **META})
    samples = open_samples(path)
    with np.load(path) as file:
        expected = restore_positions(file["near_points"])
    found = samples.draw_queries("near", 50, np.random.default_rng(0))
    assert np.sort(found[:, 0]) == pytest.approx(np.sort(expected[:, 0]))


def test_a_packed_file_is_read_too(path: Path) -> None:
    with np.load(path) as file:
        members = dict(file)
    plain = open_samples(path).draw_surface(40, np.random.default_rng(0))
    np.savez_compressed(path, **members)
    assert (open_samples(path).draw_surface(40, np.random.default_rng(0)) == plain).all()


def _reference(path: Path, full: bool) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    count = 2 * REFERENCE_UNIFORM
    arrays = {
        "clean_surface_points": rng.uniform(0, 1, (count, 3)).astype(np.float32),
        "clean_surface_normals": rng.normal(size=(count, 3)).astype(np.float32),
    }
    if full:
        for name in ("uniform_near", "curvature_near", "space"):
            arrays[f"{name}_points"] = rng.uniform(0, 1, (50, 3)).astype(np.float32)
            arrays[f"{name}_sdf"] = np.full(50, 0.125, np.float32)
    np.savez(path, **arrays)
    return arrays


def test_a_reference_file_is_read_in_our_frame(tmp_path: Path) -> None:
    arrays = _reference(tmp_path / "a.npz", full=True)
    samples = open_samples(tmp_path / "a.npz")
    assert samples.reference
    assert samples.has_distances
    rows = samples.draw_surface(1000, np.random.default_rng(0))
    stored = {tuple(p): i for i, p in enumerate(arrays["clean_surface_points"] * 2 - 1)}
    indices = np.array([stored[tuple(p)] for p in rows[:, :3]])
    assert (indices[:500] < REFERENCE_UNIFORM).all()
    assert (indices[500:] >= REFERENCE_UNIFORM).all()
    assert np.linalg.norm(rows[:, 3:6], axis=1) == pytest.approx(1, abs=1e-6)
    queries = samples.draw_queries("near_curvature", 50, np.random.default_rng(0))
    assert (queries[:, 3] == 0.25).all()
    assert queries[:, :3].min() < -0.5


def test_a_reference_file_without_distances_is_a_dit_file(tmp_path: Path) -> None:
    _reference(tmp_path / "a.npz", full=False)
    assert not open_samples(tmp_path / "a.npz").has_distances
