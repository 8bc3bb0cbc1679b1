"""Which meshes and images a batch pairs, from a CSV or a folder."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ultrashape_cli.errors import UsageError
from ultrashape_cli.inference.coarse_files import CoarseRecipe
from ultrashape_cli.inference.job import Job
from ultrashape_cli.inference.view_files import ViewFile, parse_views
from ultrashape_cli.meshfiles.load import MESH_SUFFIXES

IMAGE_SUFFIXES = (".png", ".webp", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif")
"""Of two images with one name the first kind is taken."""
REQUIRED, OPTIONAL = ("mesh", "image"), ("name", "seed", "ground_truth", "views")


def read_jobs(
    batch: Path,
    out: Path,
    seed: int,
    *,
    metrics: bool,
    keep_full: bool,
    coarse: CoarseRecipe | None = None,
) -> list[Job]:
    """Returns the jobs of a batch, in order. Missing files are left for the job to report.

    Args:
        batch: A CSV, or a folder that is searched recursively.
        out: Folder for the results; a job writes NAME.glb and previews/NAME.png below it.
        seed: For jobs without their own.
        metrics: Measure every result.
        keep_full: Also write meshes before their faces are reduced.
        coarse: How coarse meshes are made of the images, which then are all there is; views and
            seed of each job are put in.

    Raises:
        UsageError: There is no job, a row or a pair is ambiguous, or `out` holds the folder.
    """
    made = coarse is not None
    found = _from_folder(batch, out, made) if batch.is_dir() else _from_csv(batch, made)
    jobs: dict[str, Job] = {}
    for name, mesh, image, own_seed, truth, views in found:
        if name in jobs:
            raise UsageError(
                f"`{batch}` has two meshes for `{name}`: {jobs[name].mesh} and {mesh}"
                if coarse is None
                else f"`{batch}` has two images for `{name}`: {jobs[name].image} and {image}",
                hint="a CSV with a column `name` can tell them apart",
            )
        jobs[name] = Job(
            name=name,
            mesh=mesh,
            image=image,
            target=out / f"{name}.glb",
            seed=seed if own_seed is None else own_seed,
            ground_truth=truth,
            preview=out / "previews" / f"{name}.png",
            metrics=metrics or truth is not None,
            keep_full=keep_full,
            views=views,
        )
        if coarse is not None:
            jobs[name] = _with_recipe(jobs[name], coarse)
    if not jobs and made:
        raise UsageError(f"`{batch}` holds no image")
    if not jobs:
        raise UsageError(
            f"`{batch}` holds no pair of a mesh and an image",
            hint="name them alike, as chair.glb and chair.png, or pass a CSV",
        )
    return list(jobs.values())


def _with_recipe(job: Job, coarse: CoarseRecipe) -> Job:
    views = job.views or (ViewFile(job.image, (0.0, 0.0)),)
    recipe = replace(coarse, views=views, seed=job.seed)
    return replace(job, mesh=recipe.target(job.target), coarse=recipe)


def unpaired(batch: Path, jobs: list[Job]) -> list[Path]:
    """Returns the meshes of a folder that have no image."""
    if not batch.is_dir():
        return []
    paired = {job.mesh for job in jobs}
    return [path for path in _files(batch, MESH_SUFFIXES) if path not in paired]


_Row = tuple[str, Path, Path, int | None, Path | None, tuple[ViewFile, ...]]


def _from_folder(batch: Path, out: Path, images_alone: bool) -> Iterator[_Row]:
    results = out.resolve()
    if batch.resolve().is_relative_to(results):
        raise UsageError(
            f"the results would lie among the inputs: `{out}` holds `{batch}`",
            hint="-o and a folder of its own, which may lie below that of the inputs",
        )
    images: dict[Path, Path] = {}
    for path in _files(batch, IMAGE_SUFFIXES):
        key = path.with_suffix("")
        best = images.get(key)
        if best is None or _rank(path) < _rank(best):
            images[key] = path
    if images_alone:
        for key, picture in images.items():
            if not picture.resolve().is_relative_to(results):
                yield key.relative_to(batch).as_posix(), key, picture, None, None, ()
        return
    for mesh in _files(batch, MESH_SUFFIXES):
        image = images.get(mesh.with_suffix(""))
        # Results of an earlier run may lie below the folder, with previews of the same names.
        if image is not None and not mesh.resolve().is_relative_to(results):
            name = mesh.relative_to(batch).with_suffix("").as_posix()
            yield name, mesh, image, None, None, ()


def _files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    found = (path for path in sorted(folder.rglob("*")) if not path.name.startswith("."))
    return [path for path in found if path.suffix.lower() in suffixes and path.is_file()]


def _rank(path: Path) -> int:
    return IMAGE_SUFFIXES.index(path.suffix.lower())


def _from_csv(batch: Path, images_alone: bool) -> Iterator[_Row]:
    try:
        with batch.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            header = reader.fieldnames or []
            rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"`{batch}` is not a CSV file in UTF-8: {error}") from error
    required = [name for name in REQUIRED if name != "mesh" or not images_alone]
    if images_alone and "mesh" in header:
        raise UsageError(
            f"`{batch}` has a column `mesh`, and `--coarse-with` makes the meshes",
            hint="leave one of them out",
        )
    missing = [name for name in required if name not in header]
    if missing:
        raise UsageError(
            f"`{batch}` has no column `{missing[0]}` (found: {', '.join(header) or 'none'})",
            hint=f"columns: {', '.join(required)}, optionally {', '.join(OPTIONAL)}",
        )
    for number, row in enumerate(rows, 2):
        values = {key: (value or "").strip() for key, value in row.items() if isinstance(key, str)}
        if not all(values[name] for name in required):
            raise UsageError(f"`{batch}`, line {number}: {' or '.join(required)} is empty")
        own = values.get("seed", "")
        if own and not own.isdecimal():
            raise UsageError(f"`{batch}`, line {number}: seed `{own}` is not a whole number")
        mesh, truth = batch.parent / values[required[0]], values.get("ground_truth")
        name = values.get("name") or mesh.stem
        if not name.strip("./") or ".." in Path(name).parts or Path(name).is_absolute():
            raise UsageError(f"`{batch}`, line {number}: `{name}` is no name for a result")
        yield (
            name,
            mesh,
            batch.parent / values["image"],
            int(own) if own else None,
            batch.parent / truth if truth else None,
            _views(batch, number, values),
        )


def _views(batch: Path, number: int, values: dict[str, str]) -> tuple[ViewFile, ...]:
    """Returns the further references of a row, `back=b.png;120,15=c.png`, behind its image."""
    specs = [spec.strip() for spec in values.get("views", "").split(";") if spec.strip()]
    if not specs:
        return ()
    try:
        views = parse_views(specs, batch.parent, must_exist=False)
    except UsageError as error:
        raise UsageError(f"`{batch}`, line {number}: {error.message}", hint=error.hint) from error
    return (ViewFile(batch.parent / values["image"], (0.0, 0.0)), *views)
