"""The folder that the reference trainer reads (spec section 10.2), linked rather than copied.

DIR/data_list/train.json val.json      ids
DIR/render.json                        id -> folder P, absolute; views at P/name(P)/rgba
DIR/renders/ID/ID/rgba/000.png ...     the first 16 RGBA views
DIR/samples/ID.npz                     float32 arrays with 600,000 clean points
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ultrashape_cli.data.layout import Dataset
from ultrashape_cli.data.samples import (
    QUERY_SETS,
    REFERENCE_NAMES,
    REFERENCE_UNIFORM,
    SampleFile,
    decode_normals,
    open_samples,
    write_arrays,
)
from ultrashape_cli.data.sampling import reference_frame
from ultrashape_cli.errors import AssetError, DatasetError
from ultrashape_cli.files import temporary_path, write_json
from ultrashape_cli.geometry.normalize import Frame

REFERENCE_VIEWS = 16


def check_exportable(dataset: Dataset, lists: dict[str, list[str]]) -> None:
    """Raises DatasetError, saying what to run, unless every asset has the views and points."""
    ids = [asset_id for members in lists.values() for asset_id in members]
    few = [i for i in ids if len(dataset.view_files(i)) < REFERENCE_VIEWS]
    if few:
        raise DatasetError(
            f"{len(few)} of {len(ids)} assets have fewer than {REFERENCE_VIEWS} views, such as "
            f"`{few[0]}`",
            hint=f"ushape render {dataset.root} --set render.views={REFERENCE_VIEWS}",
        )
    other = []
    for asset_id in ids:
        try:
            samples = open_samples(dataset.samples(asset_id))
            points = samples.arrays.shape(
                REFERENCE_NAMES["surface_points"] if samples.reference else "surface_points"
            )[0]
        except AssetError:
            other.append(asset_id)
            continue
        if int(samples.meta["num_uniform"]) != REFERENCE_UNIFORM or points != 2 * REFERENCE_UNIFORM:
            other.append(asset_id)
    if other:
        raise DatasetError(
            f"{len(other)} of {len(ids)} assets lack samples of exactly {2 * REFERENCE_UNIFORM} "
            f"points, such as `{other[0]}`",
            hint=f"ushape sample {dataset.root} --set sample.surface_points={REFERENCE_UNIFORM} "
            f"--set sample.curvature_points={REFERENCE_UNIFORM}",
        )


def export_reference(
    dataset: Dataset,
    lists: dict[str, list[str]],
    target: Path,
    on_progress: Callable[[int], None] = lambda done: None,
) -> dict[str, int]:
    """Writes the folder and returns how many files were linked and how many written.

    Args:
        dataset: The source.
        lists: Its lists; `test` is left out, the reference has none.
        target: Folder to write; what it holds is replaced.
        on_progress: Called with the number of assets done.

    Raises:
        DatasetError: An asset lacks views or points.
    """
    lists = {name: ids for name, ids in lists.items() if name != "test"}
    check_exportable(dataset, lists)
    counts = {"linked": 0, "written": 0}
    ids = [asset_id for members in lists.values() for asset_id in members]
    folders = {}
    for done, asset_id in enumerate(ids, 1):
        folder = target / "renders" / asset_id
        folders[asset_id] = str(folder.resolve())
        for index, view in enumerate(dataset.view_files(asset_id)[:REFERENCE_VIEWS]):
            _link(view, folder / asset_id / "rgba" / f"{index:03d}.png", counts)
        samples = open_samples(dataset.samples(asset_id))
        path = target / "samples" / f"{asset_id}.npz"
        if samples.reference:
            _link(samples.path, path, counts)
        else:
            write_arrays(path, as_reference(samples) | _frame(dataset, asset_id))
            counts["written"] += 1
        on_progress(done)
    for name, members in lists.items():
        write_json(target / "data_list" / f"{name}.json", members)
    write_json(target / "render.json", folders)
    return counts


def as_reference(samples: SampleFile) -> dict[str, np.ndarray]:
    """Returns the arrays of a compact file with the reference's names, types and cube."""
    names = ["surface"] + [name for name in QUERY_SETS if samples.has_distances]
    found = {}
    for name in names:
        points = samples.positions(samples.arrays.read(f"{name}_points"), name)
        found[f"{name}_points"] = points * np.float32(0.5) + np.float32(0.5)
        if name == "surface":
            found["surface_normals"] = decode_normals(samples.arrays.read("surface_normals"))
        else:
            found[f"{name}_sdf"] = samples.arrays.read(f"{name}_sdf").astype(np.float32) / 2
    return {REFERENCE_NAMES.get(name, name): array for name, array in found.items()}


def _frame(dataset: Dataset, asset_id: str) -> dict[str, np.ndarray]:
    record = dataset.read_record(asset_id)
    frame = record.steps["watertight"].measurements["frame"] if record else None
    if frame is None:
        raise DatasetError(f"`{asset_id}` has no record", hint=f"ushape split {dataset.root}")
    return reference_frame(Frame.from_dict(frame))


def _link(source: Path, target: Path, counts: dict[str, int]) -> None:
    with temporary_path(target) as temporary:
        try:
            os.link(source, temporary)
            counts["linked"] += 1
        except OSError:
            # Another file system, or one without links.
            shutil.copyfile(source, temporary)
            counts["written"] += 1
        # Two names of one file: a rename between them would do nothing and leave both.
        target.unlink(missing_ok=True)
