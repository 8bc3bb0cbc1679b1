"""Reference images from several sides: what `--view` names, and where each was seen from.

Azimuth and elevation are in degrees, as of our renders: 0, 0 is the front (+z), 90, 0 is seen from
+x, and elevation is positive above.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ultrashape_cli.errors import UsageError
from ultrashape_cli.files import file_hash
from ultrashape_cli.geometry.directions import direction_of_camera

SIDES = {
    "front": (0.0, 0.0),
    "right": (90.0, 0.0),
    "back": (180.0, 0.0),
    "left": (270.0, 0.0),
    "top": (0.0, 90.0),
    "bottom": (0.0, -90.0),
}
CAMERA_FILES = ("views.json", "cameras.json")
MAX_VIEWS = 64


@dataclass(frozen=True, slots=True)
class ViewFile:
    """An image and the direction it was seen from; None where that is to be estimated."""

    path: Path
    direction: tuple[float, float] | None = None
    """Azimuth and elevation in degrees."""

    def as_dict(self) -> dict[str, Any]:
        """Returns what a record says of it."""
        return {
            "direction": None if self.direction is None else list(self.direction),
            "image": str(self.path),
            "image_sha256": file_hash(self.path),
        }


def parse_views(
    specs: Sequence[str], base: Path = Path(), *, must_exist: bool = True
) -> tuple[ViewFile, ...]:
    """Returns the views that the values of `--view` name.

    Args:
        specs: `SIDE=FILE`, `AZIMUTH,ELEVATION=FILE`, `FILE` for an image whose camera is to be
            estimated, `views.json`, or a folder with such a file or our `cameras.json`.
        base: Folder that relative paths start from.
        must_exist: Refuse files that are missing, which else whoever reads them does.

    Raises:
        UsageError: A side is unknown, a file is missing, or there are too many.
    """
    views = [view for spec in specs for view in _of(spec, base)]
    if len(views) > MAX_VIEWS:
        raise UsageError(f"{len(views)} views are given, {MAX_VIEWS} are the most")
    for view in views:
        if must_exist and not view.path.is_file():
            raise UsageError(
                f"the view `{view.path}` does not exist",
                hint="--view back=FILE, --view 120,15=FILE, or a folder with cameras.json",
            )
    return tuple(views)


def seen_from(image: Path) -> tuple[float, float]:
    """Returns azimuth and elevation of a view of a dataset, from the `cameras.json` beside it.

    Without that file, or a row of the image in it, it is the front.
    """
    beside = image.parent / CAMERA_FILES[1]
    if not beside.is_file():
        return SIDES["front"]
    found = {view.path.name: view.direction for view in _from_json(beside)}
    return found.get(image.name) or SIDES["front"]


def _of(spec: str, base: Path) -> Iterator[ViewFile]:
    side, equals, name = spec.partition("=")
    if equals and (direction := _direction(side)) is not None:
        yield ViewFile(base / name, direction)
        return
    path = base / spec
    if path.is_dir():
        found = [path / each for each in CAMERA_FILES if (path / each).is_file()]
        if not found:
            raise UsageError(
                f"the folder `{path}` has no {' or '.join(CAMERA_FILES)} to say what is seen where",
                hint="name each image: --view front=a.png --view back=b.png",
            )
        yield from _from_json(found[0])
    elif path.suffix.lower() == ".json" and path.is_file():
        yield from _from_json(path)
    elif equals and not path.exists():
        raise UsageError(
            f"`{side}` is no side to view from",
            hint=f"{', '.join(SIDES)}, or degrees: --view 120,15={name or 'FILE'}",
        )
    else:
        yield ViewFile(path)


def _direction(text: str) -> tuple[float, float] | None:
    """Returns azimuth and elevation of a side's name or of two numbers, None of anything else."""
    if text in SIDES:
        return SIDES[text]
    try:
        azimuth, elevation = (float(part) for part in text.split(","))
    except ValueError:
        return None
    if not (math.isfinite(azimuth) and -90 <= elevation <= 90):
        raise UsageError(
            f"`{text}` is no direction: azimuth and elevation in degrees, elevation from -90 to 90"
        )
    return azimuth % 360, elevation


def _from_json(path: Path) -> Iterator[ViewFile]:
    """Yields the views of a file: `{"views": [{"file", "azimuth", "elevation"}, ...]}`.

    In place of the two angles `world_to_camera` may stand, a row of our `cameras.json`; without
    `file` an image is named as our renders are.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["views"]
        for number, row in enumerate(rows):
            name = row.get("file", f"view_{number:03d}.png")
            image = path.parent / name
            if not image.resolve().is_relative_to(path.parent.resolve()):
                raise UsageError(f"`{path}` names `{name}`, which is not below its folder")
            yield ViewFile(image, _row_direction(row))
    except (OSError, KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise UsageError(
            f"`{path}` is no list of views: {error!r:.200}",
            hint='{"views": [{"file": "back.png", "azimuth": 180, "elevation": 0}]}',
        ) from error


def _row_direction(row: dict[str, Any]) -> tuple[float, float] | None:
    if "azimuth" in row:
        return _direction(f"{float(row['azimuth'])},{float(row.get('elevation', 0))}")
    if "world_to_camera" not in row:
        return None
    return direction_of_camera(row)
