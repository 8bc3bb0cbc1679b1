"""`ushape refine --sweep`, `--seeds`: one mesh with several settings, in one picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ultrashape_cli.commands.refine.made import result_in
from ultrashape_cli.commands.refine.request import make_job, naming_the_command

if TYPE_CHECKING:
    import torch

    from ultrashape_cli.commands.refine.request import Request
    from ultrashape_cli.config.resolve import Resolved
    from ultrashape_cli.config.schema import RefineConfig
    from ultrashape_cli.geometry.mesh import Mesh
    from ultrashape_cli.inference.files import Job
    from ultrashape_cli.inference.job import Inputs
    from ultrashape_cli.models.sources import WeightSource
    from ultrashape_cli.ui import UI

SWEPT = (
    *("strength", "guidance_scale", "guidance_start", "guidance_end", "steps", "solver", "quality"),
    *("tokens", "grid_resolution", "view_mode", "region_feather"),
)
"""Settings of refine that can be swept: what the networks do, not what they are given."""
MOST = 64
Vary = Callable[[dict[str, Any]], "Resolved"]


def parse_sweep(request: Request, seed: int) -> list[dict[str, str]]:
    """Returns the settings of each result, by short name.

    Raises:
        UsageError: A setting cannot be swept, a value is missing, or there are too many.
    """
    from ultrashape_cli.errors import UsageError

    axes: list[list[tuple[str, str]]] = []
    for text in request.sweep:
        name, _, values = text.partition("=")
        name = name.removeprefix("refine.").replace("-", "_")
        given = [value.strip() for value in values.split(",")]
        if name != "seed" and name not in SWEPT:
            raise UsageError(
                f"`{name}` cannot be swept", hint=f"--sweep NAME=A,B of {', '.join(SWEPT)}, seed"
            )
        if not all(given):
            raise UsageError(f"`--sweep {text}` lacks values", hint="--sweep strength=.4,.6,.8,1")
        axes.append([(name, value) for value in dict.fromkeys(given)])
    if request.seeds is not None:
        axes.append([("seed", str(seed + number)) for number in range(request.seeds)])
    names = [axis[0][0] for axis in axes]
    if len(set(names)) < len(names):
        raise UsageError(f"`{names[-1]}` is swept twice", hint="name each setting once")
    found = [dict(point) for point in product(*axes)]
    if len(found) > MOST:
        raise UsageError(f"{len(found)} results are too many for one sweep: at most {MOST}")
    return found


def refine_sweep(
    ui: UI, request: Request, source: WeightSource, resolved: Resolved, vary: Vary
) -> None:
    """Refines a mesh once per point, those that are made already left out; draws the sheet."""
    from ultrashape_cli.devices import choose_device
    from ultrashape_cli.errors import UsageError
    from ultrashape_cli.files import check_outputs, write_json
    from ultrashape_cli.inference.files import check_writable, is_made
    from ultrashape_cli.inference.job import read_inputs, recipe_of

    assert request.mesh is not None
    folder = request.out or request.mesh.with_name(f"{request.mesh.stem}_sweep")
    points = parse_sweep(request, resolved.config.seed)
    settings = [vary({_key(name): value for name, value in point.items()}) for point in points]
    names = [",".join(f"{name}-{value}" for name, value in point.items()) for point in points]
    whole = make_job(request, resolved)
    jobs = [
        replace(whole, name=name, target=folder / f"{name}.glb", seed=each.config.seed)
        for name, each in zip(names, settings, strict=True)
    ]
    sheet, record = folder / "sheet.png", folder / "sweep.json"
    outputs = [path for job in jobs for path in job.outputs]
    check_outputs([*outputs, sheet, record], [*whole.inputs, *source.inputs], hint="another -o")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"`{folder}` is a file; a sweep fills a folder", hint="another -o")
    recipes = [
        recipe_of(job, source, each.config) for job, each in zip(jobs, settings, strict=True)
    ]
    _check_places(jobs, sheet, record)
    made_before = [is_made(job, recipe) and not request.force
                   for job, recipe in zip(jobs, recipes, strict=True)]  # fmt: skip
    todo = [at for at, made in enumerate(made_before) if not made]
    if request.dry_run:
        ui.info(f"would refine {whole.mesh} {len(todo)} times into {folder}")
        ui.result(outputs={}, counts={"planned": len(todo), "skipped": len(jobs) - len(todo)})
        return
    check_writable(folder)
    device = choose_device(resolved.config.device)
    inputs = read_inputs(whole, resolved.config.refine)
    if todo:
        _work(ui, [(jobs[at], settings[at], recipes[at]) for at in todo], inputs, source, device)
    rows = [result_in(job.record) or {} for job in jobs]
    _draw(inputs, jobs, rows, resolved.config.refine, sheet)
    figures = [
        {**point, "mesh": job.target.name, **_figures(row)}
        for point, job, row in zip(points, jobs, rows, strict=True)
    ]
    write_json(record, {"inputs": recipes[0]["inputs"], "points": figures})
    columns = tuple(name for name in figures[0] if name != "mesh")
    titles = tuple(name.replace("_", " ") for name in columns)
    ui.table(titles, [tuple(_shown(row[name]) for name in columns) for row in figures])
    ui.result(
        inputs=recipes[0]["inputs"],
        outputs={"sheet": str(sheet), "record": str(record)},
        counts={"made": len(todo), "skipped": len(jobs) - len(todo)},
        points=figures,
    )


def _check_places(jobs: list[Job], sheet: Path, record: Path) -> None:
    """Raises UsageError where a file that no sweep made is where one goes."""
    from ultrashape_cli.errors import UsageError
    from ultrashape_cli.files import read_json

    swept = read_json(record)
    is_ours = isinstance(swept, dict) and {"inputs", "points"} <= swept.keys()
    alien = [path for path in (sheet, record) if path.exists() and not is_ours]
    alien += [job.target for job in jobs if job.target.exists() and result_in(job.record) is None]
    if alien:
        raise UsageError(f"`{alien[0]}` exists, and no sweep made it", hint="another -o")


def _key(name: str) -> str:
    return name if name == "seed" else f"refine.{name}"


def _work(
    ui: UI,
    todo: list[tuple[Job, Resolved, dict[str, Any]]],
    inputs: Inputs,
    source: WeightSource,
    device: torch.device,
) -> None:
    from ultrashape_cli.commands.refine.plan import planned
    from ultrashape_cli.inference.candidates import best_of, evaluate_all
    from ultrashape_cli.inference.job import prepare_inputs, write_outputs
    from ultrashape_cli.inference.prepared import redrawn
    from ultrashape_cli.inference.refiner import Refiner
    from ultrashape_cli.models.registry import model_spec

    spec = model_spec(source.model)
    configs = [resolved.config.refine for _, resolved, _ in todo]
    with ui.progress("sweep", len(todo)) as bar, naming_the_command():
        first = prepare_inputs(todo[0][0], inputs, spec, configs[0])
        for warning in inputs.warnings:
            ui.warn(warning)
        # One loading serves all: with the encoder where any point needs it.
        neediest = next((config for config in configs if config.encodes), configs[0])
        tokens = max(config.tokens for config in configs)
        plan = planned(ui, source, replace(neediest, tokens=tokens), device,
                       first.voxels.shape[1], len(first.asked))  # fmt: skip
        loaded = Refiner.load(source, plan, device)
        for number, ((job, _, recipe), config) in enumerate(zip(todo, configs, strict=True)):
            bar.update(number, job.name)
            own = replace(config, memory=plan.memory, chunk_size=plan.chunk_size)
            refiner = loaded.with_config(own)
            prepared = redrawn(first, job.seed, spec, config) if number else first
            best = best_of(refiner, evaluate_all(refiner, prepared), judge=True)
            write_outputs(job, inputs, best, recipe, device)
            bar.update(number + 1, job.name)


def _figures(result: dict[str, Any]) -> dict[str, Any]:
    """Returns what a point is compared by."""
    score = next(one for one in result["candidates"] if one["seed"] == result["seed"])
    seen = list(score["views"].values())
    return {
        "passes": result["passes"],
        "seconds": round(sum(result["seconds"].values()), 2),
        "from_input": result["straying"]["mean"],
        "silhouette": round(sum(one["silhouette"] for one in seen) / len(seen), 4),
        "shading": round(sum(one["shading"] for one in seen) / len(seen), 4),
        "components": result["components"],
        "strayed": result["straying"]["strayed"],
    }


def _shown(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _draw(
    inputs: Inputs, jobs: list[Job], rows: list[dict[str, Any]], config: RefineConfig, sheet: Path
) -> None:
    """Writes reference, input and all results in one picture, with their figures."""
    from ultrashape_cli.inference.preview import side_by_side
    from ultrashape_cli.rendering.output import save_png

    meshes = list(_labelled(inputs, jobs, rows, config))
    save_png(side_by_side(inputs.rgba, meshes, columns=4), sheet)


def _labelled(
    inputs: Inputs, jobs: list[Job], rows: list[dict[str, Any]], config: RefineConfig
) -> Iterator[tuple[str, Mesh]]:
    """Yields the meshes in the normalised frame, in which all are seen from the front."""
    from ultrashape_cli.geometry.mesh import Mesh
    from ultrashape_cli.inference.prepared import frame_of
    from ultrashape_cli.meshfiles.load import load_mesh

    frame = frame_of(inputs.mesh, config, inputs.up)
    yield "input", Mesh(frame.to_normalised(inputs.mesh.vertices), inputs.mesh.faces)
    for job, row in zip(jobs, rows, strict=True):
        found = _figures(row)
        label = (
            f"{job.name}: {found['silhouette']:.2f} outline, {found['shading']:.2f} shade, "
            f"{found['from_input']:.3f} off"
        )
        made = load_mesh(job.target)
        if config.frame == "input":
            made = Mesh(frame.to_normalised(made.vertices), made.faces)
        yield label, made
