"""Verifies the files of a dataset: what training would trip over, found before it starts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np

from ultrashape_cli.data.images import load_rgba
from ultrashape_cli.data.layout import Dataset, Record
from ultrashape_cli.data.npz import READ_ERRORS
from ultrashape_cli.data.samples import (
    QUERY_SETS,
    REFERENCE_NAMES,
    REFERENCE_UNIFORM,
    SampleFile,
    open_samples,
)
from ultrashape_cli.data.splits import LISTS
from ultrashape_cli.errors import AssetError
from ultrashape_cli.files import file_hash

# Normals of a reference file are single precision; a face without area has none.
_UNIT = 1e-3


def check_dataset(
    dataset: Dataset, workers: int = 1, on_progress: Callable[[int], None] = lambda done: None
) -> dict[str, list[str]]:
    """Returns asset id -> what is wrong with its files, for the assets of all lists.

    Args:
        dataset: With lists.
        workers: Processes; the files are decoded whole.
        on_progress: Called with the number of assets checked.
    """
    records = dataset.load_records()
    holders: dict[str, list[str]] = {}
    for name in LISTS:
        if name != "test" or dataset.list_path(name).exists():
            for asset_id in dataset.read_split(name):
                holders.setdefault(asset_id, []).append(name)
    ids = sorted(holders)
    problems = {
        asset_id: [f"is in {' and '.join(names)}"]
        for asset_id, names in holders.items()
        if len(names) > 1
    }
    jobs = [(dataset, asset_id, records.get(asset_id)) for asset_id in ids]
    for done, (asset_id, found) in enumerate(_run(jobs, workers), 1):
        if found:
            problems.setdefault(asset_id, []).extend(found)
        on_progress(done)
    return problems


Job = tuple[Dataset, str, Record | None]


def _run(jobs: list[Job], workers: int) -> Iterator[tuple[str, list[str]]]:
    if workers <= 1:
        yield from map(check_asset, jobs)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(check_asset, jobs, chunksize=8)


def check_asset(job: Job) -> tuple[str, list[str]]:
    """Returns an asset's id and its problems."""
    dataset, asset_id, record = job
    problems = []
    if record is None:
        problems.append("has no record")
    else:
        for name, step in record.steps.items():
            if not dataset.is_current(record, name, step.key):
                problems.append(f"step `{name}` is not done, or its files are gone or changed")
    views = dataset.view_files(asset_id)
    if not views:
        problems.append("has no views")
    sizes = set()
    for view in views:
        try:
            sizes.add(load_rgba(view).shape)
        except AssetError as error:
            problems.append(error.message)
    if len(sizes) > 1:
        problems.append(f"views have different sizes: {sorted(sizes)}")
    path = dataset.samples(asset_id)
    try:
        problems += check_samples(open_samples(path))
        recorded = record.steps["sample"].measurements.get("sha256") if record else None
        if recorded is not None and file_hash(path) != recorded:
            problems.append(f"`{path.name}` is not the file its record describes")
    except (AssetError, *READ_ERRORS) as error:
        problems.append(str(error))
    return asset_id, problems


def check_samples(samples: SampleFile) -> list[str]:
    """Returns what is wrong with the arrays of a sample file, read with their checksums."""
    problems: list[str] = []
    names = ["surface_points", "surface_normals"]
    if samples.has_distances:
        names += [f"{name}_{kind}" for name in QUERY_SETS for kind in ("points", "sdf")]
    arrays: dict[str, np.ndarray] = {}
    for name in names:
        key = REFERENCE_NAMES.get(name, name) if samples.reference else name
        try:
            arrays[name] = samples.arrays.read_checked(key)
        except READ_ERRORS as error:
            problems.append(f"`{key}` cannot be read: {error}")
    for name, array in arrays.items():
        problems += _check_array(samples, name, array)
    if problems:
        return problems
    points, normals = arrays["surface_points"], arrays["surface_normals"]
    uniform = int(samples.meta["num_uniform"])
    if not 0 < uniform < len(points) == len(normals):
        problems.append(f"{len(points)} points, {len(normals)} normals, {uniform} uniform")
    if samples.reference and len(points) != 2 * REFERENCE_UNIFORM:
        problems.append(f"{len(points)} clean points, the reference reads {2 * REFERENCE_UNIFORM}")
    for name in QUERY_SETS if samples.has_distances else ():
        if not 0 < len(arrays[f"{name}_points"]) == len(arrays[f"{name}_sdf"]):
            problems.append(f"`{name}` has other counts of points and distances")
    if samples.has_distances and not (arrays["space_sdf"] < 0).any():
        problems.append("no space point lies inside")
    return problems


def _check_array(samples: SampleFile, name: str, array: np.ndarray) -> Iterator[str]:
    columns = {"points": 3, "normals": 3 if samples.reference else 2}.get(name.split("_")[-1])
    if samples.reference:
        kind = np.dtype(np.float32)
    else:
        kind = np.dtype({"points": "u2", "normals": "i1", "sdf": "f2"}[name.split("_")[-1]])
    shape_ok = array.ndim == (1 if columns is None else 2)
    if array.dtype != kind or not shape_ok or (columns and array.shape[1] != columns):
        yield f"`{name}` is {array.dtype} {array.shape}"
        return
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        yield f"`{name}` is not finite"
        return
    if name == "surface_points" and len(array):
        size = samples.positions(array).astype(np.float64)
        if np.abs(size).max() > 1 + 1e-6 or np.ptp(size, axis=0).max() < 0.5:
            yield "surface points do not fill the cube"
    if name == "surface_normals" and samples.reference:
        length = np.linalg.norm(array, axis=1)
        if (np.abs(length - 1) > _UNIT).mean() > 0.01:
            yield "normals are not of length 1"
