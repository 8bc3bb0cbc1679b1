"""What a second view gains: the half of a shape that the front does not see.

    python examples/bench/views.py [--count 27] [--weights CHECKPOINT] [--model tiny]
        [--modes spatial,mean,stochastic,trained] [--other CHECKPOINT]

Shapes of `examples/make_shapes.py` that no training has seen, coarse versions of 32 cells.
Chamfer-L1 in the cube of side 2 and normal consistency of the half that faces back, or front, or of
the seam between them, refined without an image, with the front alone, and with front and back in
each `refine.view_mode` (`trained` for weights that were trained with several); means, and paired
changes against the front alone with 95 % intervals (of a t-test, of the mean) and p (Wilcoxon).
`--other` adds what other weights make of the front alone.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy import stats
from scipy.spatial import cKDTree

from ultrashape_cli.config.choices import ViewMode
from ultrashape_cli.config.resolve import resolve
from ultrashape_cli.errors import MeshError
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.geometry.normalize import fit_frame
from ultrashape_cli.geometry.surface import sample_faces
from ultrashape_cli.inference.prepared import add_views
from ultrashape_cli.inference.refiner import Refiner
from ultrashape_cli.inference.views import View
from ultrashape_cli.models.sources import WeightSource, find_weights
from ultrashape_cli.rendering.cameras import bounding_radius, camera_at
from ultrashape_cli.rendering.renderer import render_views
from ultrashape_cli.rendering.scene import Scene
from ultrashape_cli.synthetic.coarsen import coarsen
from ultrashape_cli.synthetic.families import FAMILIES, make_shape

FIRST_SEED = 7000
MODES: tuple[ViewMode, ...] = ("spatial", "mean", "stochastic")
SEAM = 0.25
"""Most that the normals of a seam lean forward or back."""
Scores = dict[str, tuple[float, float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=27)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--modes", help="default: all that the weights know")
    parser.add_argument("--other", type=Path)
    arguments = parser.parse_args()
    source = find_weights(arguments.weights, None if arguments.weights else arguments.model)
    modes = (*MODES, "trained") if source.views else MODES
    modes = tuple(arguments.modes.split(",")) if arguments.modes else modes
    refiner = loaded(source)
    other = loaded(find_weights(arguments.other)) if arguments.other else None
    parts: dict[str, list[Scores]] = {"back half": [], "front half": [], "seam": []}
    for number in range(arguments.count):
        family = list(FAMILIES)[number % len(FAMILIES)]
        truth = fitted(make_shape(family, FIRST_SEED + number))
        try:
            made = results(refiner, fitted(coarsen(truth, 32, 5)), truth, modes, other)
        except MeshError as error:
            print(f"{family}: {error.message}")
            continue
        for side, rows in zip((-1, 1, 0), parts.values(), strict=True):
            rows.append({name: scores(mesh, truth, side) for name, mesh in made.items()})
        print(f"{number + 1} {family}", flush=True)
    for title, rows in parts.items():
        print(f"\n{title}, {len(rows)} shapes, against the front image alone")
        for name in rows[0]:
            show(name, rows)


def loaded(source: WeightSource) -> Refiner:
    config = resolve(flags={"profile": "cpu"}, environ={}, model=source.model).config.refine
    config = replace(config, frame="normalised", grid_resolution=96)
    return Refiner.load(source, config, torch.device("cpu"))


def results(
    refiner: Refiner,
    coarse: Mesh,
    truth: Mesh,
    modes: Sequence[ViewMode],
    other: Refiner | None,
) -> dict[str, Mesh]:
    """Returns the coarse mesh and what is made of it in each way."""
    images = [seen(truth, azimuth) for azimuth in (0.0, 180.0)]
    made = {"coarse": coarse, "no image": refiner.refine(coarse, None, 0).mesh,
            "front": refiner.refine(coarse, images[0], 0).mesh}  # fmt: skip
    if other is not None:
        made["other front"] = other.refine(coarse, images[0], 0).mesh
    for mode in modes:
        own = refiner.with_config(replace(refiner.config, view_mode=mode))
        prepared = own.prepare(coarse, 0)
        views = [View(Path(), image, azimuth, 0.0)
                 for image, azimuth in zip(images, (0.0, 180.0), strict=True)]  # fmt: skip
        add_views(prepared, views, own.spec, own.config)
        made[mode] = own.finish(prepared, own.evaluate(prepared, images[0])).mesh
    return made


def fitted(mesh: Mesh) -> Mesh:
    return Mesh(fit_frame(mesh).to_normalised(mesh.vertices), mesh.faces)


def seen(mesh: Mesh, azimuth: float) -> np.ndarray:
    camera = camera_at(azimuth, 0, radius=bounding_radius(mesh), size=224)
    return next(iter(render_views(Scene(mesh), [camera])))


def scores(mesh: Mesh, truth: Mesh, side: int) -> tuple[float, float]:
    """Returns Chamfer-L1 and normal consistency of what faces one side, or of the seam at 0."""
    (a, of_a), (b, of_b) = (points(each, seed, side) for seed, each in enumerate((mesh, truth)))
    there, i = cKDTree(b).query(a)
    back, j = cKDTree(a).query(b)
    normals = ((of_a * of_b[i]).sum(1).mean() + (of_b * of_a[j]).sum(1).mean()) / 2
    return float(there.mean() + back.mean()), float(normals)


def points(mesh: Mesh, seed: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    found, normals, _ = sample_faces(mesh, 20_000, np.random.default_rng(seed))
    kept = side * normals[:, 2] > 0 if side else abs(normals[:, 2]) < SEAM
    return found[kept], normals[kept]


def show(name: str, rows: list[Scores]) -> None:
    cells = []
    for which, label in ((0, "Chamfer"), (1, "normals")):
        ours = np.array([row[name][which] for row in rows])
        theirs = np.array([row["front"][which] for row in rows])
        same = np.array_equal(ours, theirs)
        p = 1.0 if same else float(stats.wilcoxon(ours, theirs).pvalue)
        changes = (ours - theirs) / theirs.mean()
        reach = stats.t.ppf(0.975, len(changes) - 1) * stats.sem(changes)
        low, high = changes.mean() - reach, changes.mean() + reach
        change = f"{changes.mean():+7.2%} ({low:+.2%} to {high:+.2%})"
        cells.append(f"{label} {ours.mean():.4f} {change} p {p:.2g}")
    print(f"{name:11} {'   '.join(cells)}")


if __name__ == "__main__":
    main()
