"""Several results of seeds in a row, and the one that is best by the references and by itself."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from ultrashape_cli.errors import MeshError
from ultrashape_cli.geometry.bricks import BrickGrid
from ultrashape_cli.geometry.check import topology
from ultrashape_cli.geometry.crossings import crossing_share
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.inference.acceptance import Outlines
from ultrashape_cli.inference.prepared import Prepared, reseeded
from ultrashape_cli.inference.refiner import Progress, Refined, Refiner
from ultrashape_cli.inference.straying import measure_straying
from ultrashape_cli.inference.views import View

PART_COST = 0.02
"""What each doubling of the input's parts takes off a score."""
OPEN_COST = 0.5
"""What an open or strayed result takes off a score: more than any likeness makes up for."""


@dataclass(slots=True)
class Field:
    """What the networks made of one seed."""

    prepared: Prepared
    grid: BrickGrid | None
    """None where there was no surface."""
    problem: str = ""


@dataclass(slots=True)
class Chosen:
    """The best result and what was thought of all."""

    prepared: Prepared
    refined: Refined
    scores: list[dict[str, Any]] = field(default_factory=list)
    """By seed, of all that were made; empty of a single one."""
    others: dict[int, Mesh] = field(default_factory=dict)
    """Seed and mesh of those that are kept beside the best."""


def evaluate_all(
    refiner: Refiner,
    prepared: Prepared,
    views: list[View],
    progress: Progress = lambda stage, done, total: None,
) -> list[Field]:
    """Returns what the networks make of `refine.best_of` seeds.

    Args:
        refiner: With the settings.
        prepared: Of the first seed.
        views: The references, the first of them the image.
        progress: Called as the stages of each seed advance.

    Raises:
        MeshError: No field has a surface.
    """
    made: list[Field] = []
    for number in range(refiner.config.best_of):
        one = prepared
        if number:
            seed = prepared.seed + number
            one = reseeded(prepared, seed, refiner.spec, refiner.config)
        try:
            made.append(Field(one, refiner.evaluate(one, views[0].rgba, progress)))
        except MeshError as error:
            made.append(Field(one, None, error.message))
            if number + 1 == refiner.config.best_of and all(each.grid is None for each in made):
                raise
    return made


def best_of(
    refiner: Refiner, made: list[Field], views: list[View], *, keep: bool = False
) -> Chosen:
    """Returns the best mesh of fields, and with `keep` the others; needs no network.

    Raises:
        MeshError: None becomes a mesh.
    """
    if len(made) == 1:
        grid = made[0].grid
        assert grid is not None
        return Chosen(made[0].prepared, refiner.finish(made[0].prepared, grid))
    best: Chosen | None = None
    scores: list[dict[str, Any]] = []
    others: dict[int, Mesh] = {}
    highest = float("-inf")
    error = MeshError("no seed gave a mesh")
    for each in made:
        seed, grid, each.grid = each.prepared.seed, each.grid, None
        if grid is None:
            scores.append({"seed": seed, "problem": each.problem})
            continue
        try:
            refined = refiner.finish(each.prepared, grid)
        except MeshError as problem:
            error = problem
            scores.append({"seed": seed, "problem": problem.message})
            continue
        found = judged(refined, each.prepared, views, refiner.config.frame == "normalised")
        scores.append({"seed": seed, **found})
        if keep:
            others[seed] = refined.mesh
        if found["score"] > highest:
            highest, best = found["score"], Chosen(each.prepared, refined)
    if best is None:
        raise error
    others.pop(best.prepared.seed, None)
    best.scores, best.others = scores, others
    return best


def judged(
    refined: Refined, prepared: Prepared, views: list[View], is_normalised: bool
) -> dict[str, Any]:
    """Returns what speaks for and against a result, and its `score`, at most 1.

    The score is the mean over the views of how far outline and shading agree (`Likeness.score`),
    less the share of faces that cross others, less a little for parts that the input has not, and
    less more than that where the result is open or has strayed.
    """
    mesh = refined.mesh
    if not is_normalised:
        mesh = Mesh(prepared.frame.to_normalised(mesh.vertices), mesh.faces)
    outlines = Outlines(mesh)
    seen = {v.name: outlines.likeness(v.rgba, v.azimuth, v.elevation) for v in views}
    straying = measure_straying(mesh, prepared.mesh)
    state, before = refined.topology, topology(prepared.mesh)
    crossing = crossing_share(mesh)
    likeness = sum(each.score for each in seen.values()) / len(seen)
    parts = max(0.0, math.log2(state.components / max(before.components, 1)))
    bad = straying.strayed + (not state.watertight)
    return {
        "score": round(likeness - PART_COST * parts - (crossing or 0.0) - OPEN_COST * bad, 5),
        "views": {
            name: {"silhouette": round(one.silhouette, 4), "shading": round(one.shading, 4)}
            for name, one in seen.items()
        },
        "open_edges": state.boundary_edges,
        "components": state.components,
        "crossing_share": None if crossing is None else round(crossing, 6),
        "strayed": straying.strayed,
    }
