"""`ushape refine`: coarse mesh and reference image to refined mesh."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ultrashape_cli import options as opt

if TYPE_CHECKING:
    from ultrashape_cli.config.resolve import Resolved
    from ultrashape_cli.models.sources import WeightSource
    from ultrashape_cli.ui import UI


def refine(
    mesh: Annotated[Path, typer.Argument(help="Coarse mesh.", exists=True, dir_okay=False)],
    image: Annotated[
        Path,
        typer.Argument(
            help="Reference image, with a transparent background.", exists=True, dir_okay=False
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Mesh to write: glb, obj, ply, stl, off or 3mf. Default: MESH_refined.glb.",
            rich_help_panel="Output",
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            "--checkpoint",
            help="A run, a checkpoint folder, a safetensors file or the reference bundle. "
            "Default: the newest finished DiT run in ./runs.",
            rich_help_panel="Input",
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            "--steps", min=2, help="Sampling steps. Default: 50, tiny 20.", rich_help_panel="Run"
        ),
    ] = None,
    grid_resolution: Annotated[
        int | None,
        typer.Option(
            "--grid-resolution",
            min=8,
            help="Cells along one side of the decoded field. Default: 1024, tiny 128.",
            rich_help_panel="Run",
        ),
    ] = None,
    faces: Annotated[
        int | None,
        typer.Option(
            "--faces",
            min=4,
            help="Reduce the result to about this many faces. Default: keep all.",
            rich_help_panel="Output",
        ),
    ] = None,
    config: opt.ConfigOpt = None,
    overrides: opt.SetOpt = None,
    no_config: opt.NoConfigOpt = False,
    profile: opt.ProfileOpt = None,
    device: opt.DeviceOpt = None,
    max_memory_gib: Annotated[
        float | None,
        typer.Option(
            "--max-memory-gib",
            min=0.001,
            help="Memory of one decoding call. Default: half of what is free.",
            rich_help_panel="Hardware",
        ),
    ] = None,
    seed: opt.SeedOpt = None,
    force: opt.ForceOpt = False,
    dry_run: opt.DryRunOpt = False,
    show_config: opt.ShowConfigOpt = False,
    json_output: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
    verbose: opt.VerboseOpt = False,
    progress: opt.ProgressOpt = True,
) -> None:
    """Refine a coarse mesh so that it shows what the image shows

    Reads MESH, IMAGE and a checkpoint. Writes the refined mesh in the size and place of the
    input, and OUT.json with what made it. The same seed gives the same mesh.

    Examples:

      ushape refine coarse.glb reference.png -o refined.glb

      ushape refine coarse.obj view.png --checkpoint runs/data-tiny-dit --steps 12
    """  # fmt: skip
    from ultrashape_cli.commands.steps import show_settings
    from ultrashape_cli.config.resolve import resolve
    from ultrashape_cli.errors import UsageError
    from ultrashape_cli.ui import UI

    ui = UI("refine", json_output=json_output, quiet=quiet, verbose=verbose, progress=progress)

    def settings(model: str | None) -> Resolved:
        return resolve(
            flags={
                "refine.steps": steps,
                "refine.grid_resolution": grid_resolution,
                "refine.faces": faces,
                "refine.max_memory_gib": max_memory_gib,
                "profile": profile,
                "device": device,
                "seed": seed,
            },
            overrides=overrides or (),
            file=None if no_config else config,
            environ={} if no_config else None,
            model=model,
        )

    # Bad settings are refused before the weights are looked for.
    without_weights = settings(None)
    if show_config and checkpoint is None:
        show_settings(ui, without_weights, ("refine",))
        return
    target = out or mesh.with_name(f"{mesh.stem}_refined.glb")
    from ultrashape_cli.geometry.mesh import MESH_SUFFIXES

    if target.suffix.lower() not in set(MESH_SUFFIXES) - {".gltf"}:
        raise UsageError(f"cannot write `{target.suffix}` meshes", hint=f"-o {target.stem}.glb")
    source = _find_weights(checkpoint)
    resolved = settings(source.model)
    if show_config:
        show_settings(ui, resolved, ("refine",))
        return
    recipe = _recipe(mesh, image, source, resolved)
    if _already_made(ui, target, recipe, force):
        return
    if dry_run:
        ui.info(f"would refine {mesh} into {target} with {source.files['dit']}")
        ui.result(inputs=recipe["inputs"], outputs={})
        return
    _refine(ui, mesh, image, target, source, resolved, recipe)


def _find_weights(checkpoint: Path | None) -> WeightSource:
    from ultrashape_cli.errors import CheckpointError
    from ultrashape_cli.files import read_json
    from ultrashape_cli.models.sources import resolve_weights
    from ultrashape_cli.runs import find_runs

    if checkpoint is not None:
        return resolve_weights(checkpoint)
    for run in find_runs(Path("runs")):
        trained = (read_json(run.base) or {}).get("trained")
        if trained == "dit" and run.read_status().get("state") == "finished":
            return resolve_weights(run.root)
    raise CheckpointError(
        "no weights: there is no finished DiT run in `runs`",
        hint="--checkpoint RUN or FILE; `ushape weights pull` downloads the released weights",
    )


def _recipe(mesh: Path, image: Path, source: WeightSource, resolved: Resolved) -> dict[str, Any]:
    """Returns everything the result depends on."""
    from ultrashape_cli import __version__
    from ultrashape_cli.config.schema import flatten
    from ultrashape_cli.files import file_hash
    from ultrashape_cli.runs import ADAPTER_FILE

    adapters = {f"{name}_adapters": path / ADAPTER_FILE for name, path in source.adapters.items()}
    weights = {
        name: {"path": str(path), "bytes": path.stat().st_size, "mtime_ns": path.stat().st_mtime_ns}
        for name, path in (source.files | adapters).items()
    }
    return {
        "version": __version__,
        "inputs": {
            "mesh": str(mesh),
            "mesh_sha256": file_hash(mesh),
            "image": str(image),
            "image_sha256": file_hash(image),
            "weights": weights,
        },
        "model": source.model,
        "seed": resolved.config.seed,
        "settings": flatten(resolved.config.refine),
    }


def _already_made(ui: UI, target: Path, recipe: dict[str, Any], force: bool) -> bool:
    from ultrashape_cli.errors import UsageError
    from ultrashape_cli.files import read_json

    if force or not target.exists():
        return False
    made = read_json(_sidecar(target)) or {}
    if {key: made.get(key) for key in recipe} == recipe:
        ui.info(f"{target} is already made from these inputs")
        ui.result(inputs=recipe["inputs"], outputs={"mesh": str(target)}, counts={"skipped": 1})
        return True
    raise UsageError(
        f"`{target}` exists and was made from something else", hint="another -o, or --force"
    )


def _sidecar(target: Path) -> Path:
    return target.with_name(f"{target.name}.json")


def _refine(
    ui: UI,
    mesh_path: Path,
    image_path: Path,
    target: Path,
    source: WeightSource,
    resolved: Resolved,
    recipe: dict[str, Any],
) -> None:
    from ultrashape_cli.data.images import load_rgba
    from ultrashape_cli.devices import choose_device
    from ultrashape_cli.files import disk_errors, write_json
    from ultrashape_cli.geometry.mesh import load_mesh, save_mesh
    from ultrashape_cli.inference.refiner import Refiner

    # Inputs and output folder are checked before the weights are loaded.
    mesh = load_mesh(mesh_path)
    rgba = load_rgba(image_path)
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    if (rgba[..., 3] == 255).all():
        ui.warn(f"{image_path} has no transparent pixel: its background counts as object")
    device = choose_device(resolved.config.device)
    refiner = Refiner.load(source, resolved.config.refine, device)
    with ui.progress("refine", 100) as bar:

        def on_progress(stage: str, done: int, total: int) -> None:
            bar.update(100 * done // max(total, 1), stage)

        result = refiner.refine(mesh, rgba, resolved.config.seed, on_progress)
    save_mesh(result.mesh, target)
    state = result.topology
    measured = {
        "tokens": result.tokens,
        "vertices": len(result.mesh.vertices),
        "faces": len(result.mesh.faces),
        "components": state.components,
        "watertight": state.watertight,
        "closed_by_remesh": result.repaired,
        "floaters_removed": result.floaters,
        "seconds": result.seconds,
    }
    write_json(_sidecar(target), {**recipe, "result": measured})
    if result.repaired:
        ui.warn("the decoded surface was open and was closed by the watertight step")
    ui.table(("result", ""), list(measured.items()))
    ui.result(inputs=recipe["inputs"], outputs={"mesh": str(target)}, result=measured)
