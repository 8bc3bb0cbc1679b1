"""Several results of seeds in a row, and the one that is best by the references and by itself."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from ultrashape_cli.config.schema import RefineConfig
from ultrashape_cli.errors import MeshError
from ultrashape_cli.geometry.bricks import BrickGrid
from ultrashape_cli.geometry.check import topology
from ultrashape_cli.geometry.crossings import crossing_share
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.inference.acceptance import Outlines
from ultrashape_cli.inference.prepared import Prepared, redrawn
from ultrashape_cli.inference.refiner import Progress, Refined, Refiner
from ultrashape_cli.inference.straying import Straying, measure_straying

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
    straying: Straying
    scores: list[dict[str, Any]] = field(default_factory=list)
    """By seed, of all that were made; empty of a single one that nobody asked to judge."""
    others: dict[int, Mesh] = field(default_factory=dict)
    """Seed and mesh of those that are kept beside the best."""


def evaluate_all(
    refiner: Refiner,
    prepared: Prepared,
    progress: Progress = lambda stage, done, total: None,
) -> list[Field]:
    """Returns what the networks make of `refine.best_of` seeds.

    Args:
        refiner: With the settings.
        prepared: Of the first seed, with its references.
        progress: Called as the stages of each seed advance.

    Raises:
        MeshError: No field has a surface.
    """
    made: list[Field] = []
    for number in range(refiner.config.best_of):
        one = prepared
        if number:
            seed = prepared.seed + number
            one = redrawn(prepared, seed, refiner.spec, refiner.config)
        try:
            made.append(Field(one, refiner.evaluate(one, one.views[0].rgba, progress)))
        except MeshError as error:
            made.append(Field(one, None, error.message))
            if number + 1 == refiner.config.best_of and all(each.grid is None for each in made):
                raise
    return made


def best_of(
    refiner: Refiner, made: list[Field], *, keep: bool = False, judge: bool = False
) -> Chosen:
    """Returns the best mesh of fields; needs no network.

    Args:
        refiner: That made them.
        made: From `evaluate_all`; their grids are dropped.
        keep: The others too.
        judge: Also a single one.

    Raises:
        MeshError: None becomes a mesh.
    """
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
        mesh = placed(refined.mesh, each.prepared, refiner.config)
        straying = measure_straying(mesh, each.prepared.mesh)
        chosen = Chosen(each.prepared, refined, straying)
        if len(made) == 1 and not judge:
            return chosen
        found = judged(mesh, chosen)
        scores.append({"seed": seed, **found})
        if keep:
            others[seed] = refined.mesh
        if found["score"] > highest:
            highest, best = found["score"], chosen
    if best is None:
        raise error
    others.pop(best.prepared.seed, None)
    best.scores, best.others = scores, others
    return best


def placed(mesh: Mesh, prepared: Prepared, config: RefineConfig) -> Mesh:
    """Returns a result, which is in the frame of the settings, in the normalised one."""
    if config.frame == "normalised":
        return mesh
    return Mesh(prepared.frame.to_normalised(mesh.vertices), mesh.faces)


def judged(mesh: Mesh, made: Chosen) -> dict[str, Any]:
    """Returns what speaks for and against a result, and its `score`, at most 1.

    The score is the mean over the views of how far outline and shading agree (`Likeness.score`),
    less the share of faces that cross others, less a little for parts that the input has not, and
    less more than that where the result is open or has strayed.

    Args:
        mesh: The result in the normalised frame.
        made: What it is of.
    """
    outlines = Outlines(mesh)
    seen = {
        view.name: outlines.likeness(view.rgba, view.azimuth, view.elevation)
        for view in made.prepared.views
    }
    state, before = made.refined.topology, topology(made.prepared.mesh)
    crossing = crossing_share(mesh)
    likeness = sum(each.score for each in seen.values()) / len(seen)
    parts = max(0.0, math.log2(state.components / max(before.components, 1)))
    bad = made.straying.strayed + (not state.watertight)
    return {
        "score": round(likeness - PART_COST * parts - (crossing or 0.0) - OPEN_COST * bad, 5),
        "views": {
            name: {"silhouette": round(one.silhouette, 4), "shading": round(one.shading, 4)}
            for name, one in seen.items()
        },
        "open_edges": state.boundary_edges,
        "components": state.components,
        "crossing_share": None if crossing is None else round(crossing, 6),
        "strayed": made.straying.strayed,
    }
