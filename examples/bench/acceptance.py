"""Whether `refine --accept-only-better` keeps what is better: its judgement beside the truth.

    python examples/bench/acceptance.py [MESHES_DIR] [--count 27] [--weights CHECKPOINT]

Meshes of a folder, closed first, and shapes of `examples/make_shapes.py` that no training has seen;
coarse versions of 32 cells, one clay image from the front, default settings. Of each: Chamfer-L1 to
the truth of input and result (cube of side 2), likeness to the image, straying. Then how often the
judgement is right, and what the mean would be with every rule.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from views import fitted

from ultrashape_cli.config.resolve import resolve
from ultrashape_cli.errors import MeshError, UShapeError
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.geometry.metrics import compare_meshes
from ultrashape_cli.inference.acceptance import Verdict, judge
from ultrashape_cli.inference.refiner import Refiner
from ultrashape_cli.inference.straying import Straying, measure_straying
from ultrashape_cli.inference.views import View
from ultrashape_cli.meshfiles.load import MESH_SUFFIXES, load_mesh
from ultrashape_cli.models.sources import find_weights
from ultrashape_cli.rendering.cameras import bounding_radius, camera_at
from ultrashape_cli.rendering.renderer import render_views
from ultrashape_cli.rendering.scene import Scene
from ultrashape_cli.synthetic.coarsen import coarsen
from ultrashape_cli.synthetic.families import FAMILIES, make_shape
from ultrashape_cli.watertight.ladder import make_watertight

FIRST_SEED = 9000


class Case(NamedTuple):
    """One result beside its input."""

    before: float
    """Chamfer-L1 of the input."""
    after: float
    verdict: Verdict
    straying: Straying


RULES: dict[str, Callable[[Case], bool]] = {
    "all results": lambda case: True,
    "as it is": lambda case: case.verdict.better,
    "outline alone": lambda case: case.verdict.result.silhouette > case.verdict.input.silhouette,
    "shading alone": lambda case: case.verdict.result.shading > case.verdict.input.shading,
    "none astray": lambda case: not case.straying.strayed,
    "outline, none astray": lambda case: (
        case.verdict.result.silhouette > case.verdict.input.silhouette and not case.straying.strayed
    ),
    "the truth": lambda case: case.after < case.before,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("meshes", type=Path, nargs="?")
    parser.add_argument("--count", type=int, default=27)
    parser.add_argument("--weights", type=Path)
    arguments = parser.parse_args()
    source = find_weights(arguments.weights, None if arguments.weights else "tiny")
    config = resolve(flags={"profile": "cpu"}, environ={}, model=source.model).config.refine
    refiner = Refiner.load(source, replace(config, frame="normalised"), torch.device("cpu"))
    for title, truths in (
        ("meshes", real(arguments.meshes)),
        ("synthetic", synthetic(arguments.count)),
    ):
        cases = [case for name, truth in truths if (case := measured(refiner, name, truth))]
        if cases:
            show(title, cases)


def real(folder: Path | None) -> Iterator[tuple[str, Mesh]]:
    for path in sorted(folder.iterdir()) if folder else ():
        if path.suffix.lower() in MESH_SUFFIXES:
            try:
                yield path.name, fitted(make_watertight(load_mesh(path), 128).mesh)
            except UShapeError as error:
                print(f"{path.name}: {error.message}")


def synthetic(count: int) -> Iterator[tuple[str, Mesh]]:
    for number in range(count):
        family = list(FAMILIES)[number % len(FAMILIES)]
        yield family, fitted(make_shape(family, FIRST_SEED + number))


def measured(refiner: Refiner, name: str, truth: Mesh) -> Case | None:
    camera = camera_at(0, 0, radius=bounding_radius(truth), size=512)
    rgba = next(iter(render_views(Scene(truth), [camera])))
    try:
        coarse = fitted(coarsen(truth, 32, 5))
        made = refiner.refine(coarse, rgba, 0).mesh
    except MeshError as error:
        print(f"{name}: {error.message}")
        return None
    straying = measure_straying(made, coarse)
    verdict = judge(made, coarse, View(Path(), rgba, 0.0, 0.0), straying)
    before, after = (compare_meshes(m, truth, 50_000)["chamfer_l1"] for m in (coarse, made))
    outline = verdict.result.silhouette - verdict.input.silhouette
    shading = verdict.result.shading - verdict.input.shading
    astray = max(straying.beyond, straying.lost)
    print(f"{name:26} {before:.4f} {after / before - 1:+7.1%}   outline {outline:+.4f}   "
          f"shading {shading:+.4f}   astray {astray:.3f}", flush=True)  # fmt: skip
    return Case(before, after, verdict, straying)


def show(title: str, cases: list[Case]) -> None:
    helped = np.array([case.after < case.before for case in cases])
    changes = np.array([case.after / case.before - 1 for case in cases])
    print(f"\n{title}: {len(cases)}, Chamfer-L1 against the input")
    print(f"{'rule':30} {'kept':>6} {'right':>6} {'mean':>8} {'worst':>8}")
    for name, keeps in RULES.items():
        kept = np.array([keeps(case) for case in cases])
        reached = np.where(kept, changes, 0.0)
        print(f"{name:30} {kept.mean():6.0%} {(kept == helped).mean():6.0%} "
              f"{reached.mean():+8.1%} {reached.max():+8.1%}")  # fmt: skip
    print()


if __name__ == "__main__":
    main()
