"""Which views of an asset a training sample shows, and from where each was seen."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ultrashape_cli.data.layout import Dataset
from ultrashape_cli.errors import AssetError, DatasetError
from ultrashape_cli.geometry.directions import direction_of_camera

CAMERAS = "cameras.json"
FRONT_ALONE = 0.5
"""Share of the samples that show the front and nothing else: one image has to do as well."""
_DRAWS = 2
"""Sets these draws apart from the others of a sample, which stay those of a run with one view."""


def draw_views(seed: int, counter: int, available: int, most: int) -> list[int]:
    """Returns which views a sample shows: the front, which is the first, alone or with others.

    Args:
        seed: Of the run.
        counter: Of the sample; with the seed it fixes the draw.
        available: Views of the asset.
        most: Views of a sample, at least 2.
    """
    rng = np.random.default_rng([seed, counter, _DRAWS])
    most = min(most, available)
    if rng.random() < FRONT_ALONE or most < 2:
        return [0]
    count = int(rng.integers(2, most + 1))
    return [0, *(1 + int(view) for view in rng.permutation(available - 1)[: count - 1])]


def require_views(dataset: Dataset, ids: Sequence[str]) -> None:
    """Raises an error where assets have no cameras, or the first one has one view only.

    Raises:
        AssetError: The cameras of the first cannot be read.
        DatasetError: It has one view: training would show one, whatever is asked for; or some have
            no list of cameras.
    """
    files = dataset.view_files(ids[0])
    if len(files) < 2:
        raise DatasetError(
            f"asset `{ids[0]}` of `{dataset.root}` has {len(files)} views, and train.views shows "
            "several",
            hint=f"ushape render {shlex.quote(str(dataset.root))} --views 8",
        )
    read_directions(dataset, ids[0], files)
    missing = dataset.lacking(ids, lambda one: dataset.views(one) / CAMERAS)
    if missing:
        raise DatasetError(
            f"no cameras for {len(missing)} of {len(ids)} assets in `{dataset.root}`, such as "
            f"`{missing[0]}`",
            hint=f"ushape render {shlex.quote(str(dataset.root))}",
        )


def read_directions(dataset: Dataset, asset_id: str, files: Sequence[Path]) -> np.ndarray:
    """Returns azimuth and elevation of each view of an asset, [V, 2] float32, in degrees.

    Args:
        dataset: That holds the asset.
        asset_id: Its id.
        files: Its views.

    Raises:
        AssetError: There is no list of cameras, it cannot be read, or it is of other views.
    """
    path = dataset.views(asset_id) / CAMERAS
    hint = f"ushape render {shlex.quote(str(dataset.root))} --force"
    try:
        rows = json.loads(dataset.fetched(path).read_text(encoding="utf-8"))["views"]
        found = [direction_of_camera(row) for row in rows]
    except (OSError, KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise AssetError(
            f"`{path}` does not tell the cameras of the views: {error!r:.200}", hint=hint
        ) from error
    if len(found) != len(files):
        raise AssetError(f"`{path}` has {len(found)} cameras of {len(files)} views", hint=hint)
    return np.array(found, np.float32)
