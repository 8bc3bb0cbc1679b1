"""Reference images beside the coarse mesh: from where each was seen, and whether it can have been.

What counts is the outline: how far that of an image and that of the mesh, seen from there, cover
each other, both cut to themselves (`acceptance.likeness`). An outline does not tell front from
back where a shape is symmetric; light and shade decide then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ultrashape_cli.errors import UsageError
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.inference.acceptance import Likeness, Outlines
from ultrashape_cli.inference.view_files import SIDES, ViewFile

AZIMUTHS = 16
"""Directions around the mesh that a camera is looked for in."""
ELEVATIONS = (-20.0, 15.0, 30.0)
"""That are tried about the best of them."""
MIRRORED = 0.05
"""How much better an image has to fit mirrored, or from behind, for that to be said."""
_CLOSE = 0.02
"""Difference of two fits that decides nothing."""


@dataclass(slots=True)
class View:
    """An image and where it was seen from."""

    path: Path
    rgba: NDArray[np.uint8]  # [H, W, 4]
    azimuth: float
    """Degrees; 0 is the front, 90 is seen from +x."""
    elevation: float
    """Degrees, positive above."""
    overlap: float = 1.0
    """Of the outlines of image and mesh, seen from there."""
    note: str = ""
    """What the user should know of how it was placed."""

    @property
    def name(self) -> str:
        """Returns the direction in words, or in degrees."""
        return direction_name(self.azimuth, self.elevation)


def direction_name(azimuth: float, elevation: float) -> str:
    """Returns the name of a direction, or its degrees as `--view` takes them."""
    named = {direction: name for name, direction in SIDES.items()}
    return named.get((azimuth, elevation), f"{azimuth:g},{elevation:g}")


def place_views(
    mesh: Mesh,
    files: Sequence[ViewFile],
    images: Sequence[NDArray[np.uint8]],
    least_overlap: float,
) -> list[View]:
    """Returns views with their directions, those without one estimated.

    Args:
        mesh: Coarse mesh in the normalised frame.
        files: Where the images come from.
        images: `[H, W, 4]` each.
        least_overlap: Of the outlines, 0 to 1; 0 takes every image as it is given.

    Raises:
        UsageError: An image does not show the mesh from where it is said to, or from nowhere.
    """
    outlines = Outlines(mesh)
    views = []
    for file, rgba in zip(files, images, strict=True):
        if file.direction is None:
            view = _estimated(outlines, file, rgba, least_overlap)
        else:
            view = _checked(outlines, file, rgba, least_overlap)
        views.append(view)
    return views


def _checked(outlines: Outlines, file: ViewFile, rgba: NDArray[np.uint8], least: float) -> View:
    assert file.direction is not None
    azimuth, elevation = file.direction
    found = outlines.likeness(rgba, azimuth, elevation)
    view = View(file.path, rgba, azimuth, elevation, found.silhouette)
    if least == 0:
        return view
    mirrored = outlines.likeness(rgba[:, ::-1], azimuth, elevation).silhouette
    advice = "--set refine.view_overlap=0 takes it as it is"
    if mirrored > found.silhouette + MIRRORED and mirrored >= least:
        raise UsageError(
            f"{file.path} looks mirrored: it covers {found.silhouette:.0%} of the mesh seen from "
            f"`{view.name}`, and {mirrored:.0%} when left and right are changed",
            hint=f"is it another side? {advice}",
        )
    if found.silhouette < least:
        around = _around(outlines, rgba, elevation)
        best = max(around, key=lambda at: around[at].silhouette)
        other = around[best].silhouette
        better = f"; from {best:g},{elevation:g} it covers {other:.0%}" if other >= least else ""
        raise UsageError(
            f"{file.path} covers {found.silhouette:.0%} of the mesh seen from "
            f"`{view.name}`{better}",
            hint="another image or side, or the mesh faces elsewhere (--set refine.front=x); "
            f"{advice}",
        )
    opposite = outlines.likeness(rgba, (azimuth + 180) % 360, elevation)
    if opposite.score > found.score + MIRRORED:
        behind = direction_name((azimuth + 180) % 360, elevation)
        view.note = (
            f"{file.path} is more like the mesh from `{behind}` (likeness {opposite.score:.2f}) "
            f"than from `{view.name}` ({found.score:.2f}): is it another side?"
        )
    return view


def _estimated(outlines: Outlines, file: ViewFile, rgba: NDArray[np.uint8], least: float) -> View:
    around = _around(outlines, rgba, 0.0)
    widest = max(each.silhouette for each in around.values())
    near = {at: each for at, each in around.items() if each.silhouette >= widest - _CLOSE}
    best = max(near, key=lambda at: near[at].shading)
    azimuth, elevation, overlap = _closer(outlines, rgba, best, around[best].silhouette)
    view = View(file.path, rgba, azimuth, elevation, overlap)
    if max(widest, overlap) < least:
        raise UsageError(
            f"{file.path} fits the mesh from none of {AZIMUTHS} sides: it covers {overlap:.0%} at "
            f"best, from {azimuth:g},{elevation:g}",
            hint="say where it was seen from: --view 120,15=FILE; or is it of another mesh?",
        )
    step = 360 / AZIMUTHS
    rivals = [at for at in near if min(abs(at - best), 360 - abs(at - best)) > step]
    rivals = [at for at in rivals if near[at].shading > near[best].shading - _CLOSE]
    view.note = f"{file.path} was taken to be seen from `{view.name}` ({view.overlap:.0%})"
    if rivals:
        others = " or ".join(direction_name(at, 0.0) for at in sorted(rivals))
        view.note += f", but may be seen from {others}: --view {others.split(' ')[0]}={file.path}"
    return view


def _closer(
    outlines: Outlines, rgba: NDArray[np.uint8], azimuth: float, overlap: float
) -> tuple[float, float, float]:
    """Returns azimuth, elevation and overlap of the best place about one at elevation 0."""
    found = azimuth, 0.0, overlap
    for elevation in ELEVATIONS:
        for turn in (-0.5, 0.0, 0.5):
            there = (azimuth + turn * 360 / AZIMUTHS) % 360
            other = outlines.likeness(rgba, there, elevation).silhouette
            # The plain places are likelier: others have to be better by more than noise.
            if other > max(found[2], overlap + _CLOSE):
                found = there, elevation, other
    return found


def _around(outlines: Outlines, rgba: NDArray[np.uint8], elevation: float) -> dict[float, Likeness]:
    azimuths = (360 * k / AZIMUTHS for k in range(AZIMUTHS))
    return {at: outlines.likeness(rgba, at, elevation) for at in azimuths}
