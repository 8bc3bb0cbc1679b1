"""Makes and scores the meshes of all rows, asset by asset, and resumes where it stopped.

OUT/
  results.json results.csv report.html
  rows/NAME/ID.json      scores, or why there are none
  meshes/NAME/ID.ply     what was scored
  pictures/NAME/ID.png   seen from the front; truth/ and reference/ too
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ultrashape_cli.errors import UShapeError
from ultrashape_cli.evaluation.perceptual import PerceptualScore
from ultrashape_cli.evaluation.rows import INPUT, ROUND_TRIP, Asset, Made, Make, Row
from ultrashape_cli.evaluation.scores import Sampling, Scores, on_ground, score_mesh, sign_of
from ultrashape_cli.evaluation.statistics import Comparison, Estimate, compare, estimate
from ultrashape_cli.evaluation.verdict import MEASURES, is_worse, judge
from ultrashape_cli.files import read_json, write_json
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.meshfiles.load import load_mesh
from ultrashape_cli.meshfiles.save import save_mesh
from ultrashape_cli.rendering.cameras import bounding_radius, view_set
from ultrashape_cli.rendering.output import save_png
from ultrashape_cli.rendering.renderer import render_views
from ultrashape_cli.rendering.scene import Scene

PICTURE = 256
Progress = Callable[[int, str], None]
"""Meshes done, and which is next."""


@dataclass(slots=True)
class Evaluation:
    """Scores by row and asset, and failures."""

    rows: list[str]
    notes: dict[str, str]
    assets: list[str]
    scores: dict[str, dict[str, Scores]]
    """Row -> asset -> scores; a mesh without surface has `surface` 0 and nothing else."""
    failures: list[dict[str, str]]

    def names(self) -> list[str]:
        """Returns every score's name, in the order of first appearance."""
        found: dict[str, None] = {}
        for row in self.scores.values():
            for scores in row.values():
                found |= dict.fromkeys(scores)
        return list(found)

    def estimate(self, row: str, name: str) -> Estimate:
        """Returns the mean of a score over the assets that have it."""
        return estimate([s[name] for s in self.scores[row].values() if name in s])

    def compare(self, row: str, other: str, name: str) -> Comparison | None:
        """Returns the paired comparison over the assets that both have; None without any."""
        sign = sign_of(name)
        ours, theirs = self.scores[row], self.scores[other]
        both = [a for a in self.assets if name in ours.get(a, {}) and name in theirs.get(a, {})]
        if not sign or not both:
            return None
        return compare([ours[a][name] for a in both], [theirs[a][name] for a in both], sign=sign)


def evaluate(
    assets: Sequence[Asset],
    rows: Sequence[Row],
    out: Path,
    sampling: Sampling,
    *,
    perceptual: Sequence[PerceptualScore] = (),
    progress: Progress = lambda done, what: None,
) -> Evaluation:
    """Returns the scores of every row on every asset; what is already there is not made again.

    An asset that fails in a row is recorded and left out of it; the others go on.

    Args:
        assets: Ground truths.
        rows: In the order of the report; each loads its networks once.
        out: Folder of the results.
        sampling: How scores are taken.
        perceptual: Further scores of pictures.
        progress: Called before each mesh.
    """
    result = Evaluation(
        [row.name for row in rows], {row.name: row.note for row in rows},
        [asset.id for asset in assets], {row.name: {} for row in rows}, [],
    )  # fmt: skip
    done = 0
    for row in rows:
        make = None
        for asset in assets:
            progress(done, f"{row.name} {asset.id}")
            done += 1
            record = out / "rows" / row.name / f"{asset.id}.json"
            state = _state(row, asset, sampling, perceptual)
            known = read_json(record)
            if not (isinstance(known, dict) and known.get("state") == state):
                known = {"state": state}
                try:
                    make = make or _loaded(row)
                    known["scores"] = _score(row.name, asset, make, out, sampling, perceptual)
                except UShapeError as error:
                    known |= {"error": error.message, "hint": error.hint}
                write_json(record, known)
            if "scores" in known:
                result.scores[row.name][asset.id] = known["scores"]
            else:
                failure = {"row": row.name, "asset": asset.id, "error": known["error"]}
                result.failures.append(failure)
        del make
        gc.collect()  # one row's networks at a time
    return result


def _loaded(row: Row) -> Make:
    """Returns what makes the meshes of a row; networks that fail to load fail every asset, once."""
    try:
        return row.load()
    except UShapeError as error:
        reason = error

    def fail(asset: Asset, truth: Mesh) -> Made:
        raise reason

    return fail


def _score(
    name: str,
    asset: Asset,
    make: Any,
    out: Path,
    sampling: Sampling,
    perceptual: Sequence[PerceptualScore],
) -> Scores:
    truth = load_mesh(asset.truth)
    made = make(asset, truth)
    _picture_inputs(asset, truth, out)
    picture = out / "pictures" / name / f"{asset.id}.png"
    if made.mesh is None:
        picture.unlink(missing_ok=True)
        return {"surface": 0.0, **made.scores}
    save_mesh(made.mesh, out / "meshes" / name / f"{asset.id}.ply")
    save_png(front(made.mesh, bounding_radius(truth)), picture)
    return {"surface": 1.0, **score_mesh(made.mesh, truth, sampling, perceptual), **made.scores}


def front(mesh: Mesh, radius: float) -> np.ndarray:  # [PICTURE, PICTURE, 3]
    """Returns a picture from the front on plain grey."""
    camera = view_set(1, radius=radius, size=PICTURE)
    return on_ground(next(iter(render_views(Scene(mesh), camera))))


def _picture_inputs(asset: Asset, truth: Mesh, out: Path) -> None:
    target = out / "pictures" / "truth" / f"{asset.id}.png"
    if not target.exists():
        save_png(front(truth, bounding_radius(truth)), target)
    target = out / "pictures" / "reference" / f"{asset.id}.png"
    if asset.image is not None and not target.exists():
        with Image.open(asset.image) as picture:
            square = picture.convert("RGBA").resize((PICTURE, PICTURE), Image.Resampling.BOX)
        save_png(on_ground(np.asarray(square)), target)


def _state(
    row: Row, asset: Asset, sampling: Sampling, perceptual: Sequence[PerceptualScore]
) -> list[Any]:
    """Returns what a record was made from."""
    files = [asset.truth, asset.image, asset.coarse]
    stats = [[str(f), f.stat().st_size, f.stat().st_mtime_ns] for f in files if f is not None]
    taken = [sampling.points, sampling.earth_movers_points, sampling.views, sampling.view_size]
    return [row.fingerprint, stats, [*taken, sampling.seed], [score.name for score in perceptual]]


def summary(result: Evaluation, against: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Returns plain values: means with intervals, and the comparisons.

    Args:
        result: From `evaluate`.
        against: Row -> rows it is compared with.
    """
    names = result.names()
    means = {
        row: {name: _plain(result.estimate(row, name)) for name in names if _has(result, row, name)}
        for row in result.rows
    }
    comparisons = []
    for row, others in against.items():
        for other in others:
            found = {name: result.compare(row, other, name) for name in names}
            comparisons.append(
                {
                    "row": row,
                    "against": other,
                    "scores": {
                        name: {
                            "difference": _plain(c.difference),
                            "relative": c.relative,
                            "better": c.better,
                            "p_value": c.p_value,
                        }
                        for name, c in found.items()
                        if c is not None
                    },
                    "verdict": _verdict(result, row, other, found),
                }
            )
    return {
        "rows": [
            {"name": row, "note": _note(result, row, means), "means": means[row]} for row in means
        ],
        "comparisons": comparisons,
        "assets": result.scores,
        "failures": result.failures,
    }


def _verdict(
    result: Evaluation, row: str, other: str, found: Mapping[str, Comparison | None]
) -> dict[str, Any] | None:
    known = {name: c for name, c in found.items() if c is not None}
    empty = sum(scores.get("surface") == 0 for scores in result.scores[row].values())
    verdict = judge(
        {name: c.means for name, c in known.items()},
        "the input" if other == INPUT else other,
        unclear=[name for name, c in known.items() if c.difference.holds_zero],
        lost=f"no surface on {empty} of {len(result.scores[row])} assets" if empty else "",
        pairs=max((c.difference.count for c in known.values()), default=0),
    )
    return asdict(verdict) if verdict else None


def _note(result: Evaluation, row: str, means: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns what a row is; the round trip is a ceiling only where nothing refined is better."""
    note = result.notes[row]
    if not row.startswith(ROUND_TRIP):
        return note
    above = {
        other: names
        for other in result.rows
        if other != INPUT and not other.startswith(ROUND_TRIP)
        and (names := [
            MEASURES[name][1]
            for name in MEASURES
            if name in means[row] and name in means[other]
            and is_worse(name, means[row][name]["mean"], means[other][name]["mean"])
        ])
    }  # fmt: skip
    if not above:
        return f"{note}, the ceiling"
    better = "; ".join(f"{other} is better in {', '.join(names)}" for other, names in above.items())
    return f"{note}, no ceiling here: {better}"


def _has(result: Evaluation, row: str, name: str) -> bool:
    return any(name in scores for scores in result.scores[row].values())


def _plain(value: Estimate) -> dict[str, float | None]:
    return {"mean": value.mean, "low": value.low, "high": value.high, "count": value.count}
