"""`ushape weights export`: a run's result as one file for others, or as graphs for a runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ultrashape_cli import options as opt
from ultrashape_cli.commands.weights.options import Dtype, attribute, show_parts, size, tell_unsaid

SUFFIXES = {"safetensors": ".safetensors", "reference": ".pt"}


def export(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN",
            help="Run folder; for onnx and aoti whatever `refine --checkpoint` takes.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="File, or a folder with --no-merge-lora and for onnx. Default: NAME.safetensors, "
            "NAME.pt, NAME-lora or NAME-onnx.",
            rich_help_panel="Output",
        ),
    ] = None,
    checkpoint: Annotated[
        str,
        typer.Option(
            "--checkpoint",
            metavar="STEP",
            help="latest, best, or a step such as 12000.",
            rich_help_panel="Input",
        ),
    ] = "latest",
    ema: Annotated[
        bool,
        typer.Option(
            "--ema/--no-ema",
            help="Averaged weights, where the run keeps them.",
            rich_help_panel="Input",
        ),
    ] = False,
    merge_lora: Annotated[
        bool,
        typer.Option(
            "--merge-lora/--no-merge-lora",
            help="Add adapters to the weights, or write them alone as peft reads them.",
            rich_help_panel="Output",
        ),
    ] = True,
    format_name: Annotated[
        Literal["safetensors", "reference", "onnx", "aoti"],
        typer.Option(
            "--format",
            help="One safetensors file, the bundle of the reference implementation, a folder of "
            "ONNX files, or packages compiled for this machine, kept in ~/.cache/ushape.",
            rich_help_panel="Output",
        ),
    ] = "safetensors",
    dtype: Annotated[
        Dtype | None,
        typer.Option("--dtype", help="Cast weights. Default: keep.", rich_help_panel="Output"),
    ] = None,
    force: opt.ForceOpt = False,
    json_output: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
    verbose: opt.VerboseOpt = False,
) -> None:
    """Export the weights of a run as one file, or any weights as graphs of another runtime

    Reads RUN. Writes the trained network together with those it started from, or the adapters
    alone; beside them, NAME.ATTRIBUTION.md where the run learned from imported meshes. ONNX files
    and compiled packages are compared with the networks on shapes of three sizes before they count.

    Examples:

      ushape weights export runs/data-ultrashape-1.0-dit --checkpoint best --ema

      ushape weights export runs/data-ultrashape-1.0-dit --format reference --dtype fp16 -o mine.pt

      ushape weights export tiny --format onnx -o tiny-onnx
    """
    from ultrashape_cli.commands.weights.graphs import GraphRequest, export_graphs
    from ultrashape_cli.errors import UsageError
    from ultrashape_cli.files import check_outputs
    from ultrashape_cli.models.convert import DTYPES, convert_weights, gather_weights, inputs_of
    from ultrashape_cli.models.registry import model_spec
    from ultrashape_cli.models.sources import choose_checkpoint
    from ultrashape_cli.runs import ADAPTER_FILE, RunFolder
    from ultrashape_cli.ui import UI

    ui = UI("weights export", json_output=json_output, quiet=quiet, verbose=verbose)
    if format_name in ("onnx", "aoti"):
        asked = GraphRequest(run, out, checkpoint, ema, merge_lora, dtype, force)
        export_graphs(ui, asked, format_name)
        return
    folder = RunFolder(run)
    if not folder.is_run():
        raise UsageError(f"`{run}` is not a run", hint="ushape weights export runs/NAME")
    chosen = choose_checkpoint(folder, checkpoint)
    suffix = SUFFIXES[format_name] if merge_lora else ""
    target = out or Path(f"{run.resolve().name}{suffix or '-lora'}")
    if merge_lora and target.suffix != suffix:
        raise UsageError(
            f"`{target.name}` is not the name of a {format_name} file",
            hint=f"-o {target.with_suffix(suffix)}",
        )
    check_outputs(
        [target if merge_lora else target / ADAPTER_FILE],
        inputs_of(chosen),
        hint=f"-o {folder.root.resolve().name}{suffix or '-lora'}",
    )
    if target.exists() and not force:
        raise UsageError(f"`{target}` exists", hint="-o OTHER, or --force to replace it")
    inputs = {"run": str(run), "checkpoint": chosen.name, "ema": ema}
    if not merge_lora:
        files = _write_adapters(chosen, target, ema)
        outputs = {"adapters": str(target), **attribute(run, target)}
        ui.result(inputs=inputs, outputs=outputs, counts={"files": files})
        return
    gathered = gather_weights(chosen, averaged=ema)
    assert gathered.model is not None
    show_parts(ui, gathered)
    cast = DTYPES[dtype.value] if dtype else None
    convert_weights(gathered, model_spec(gathered.model), target, dtype=cast)
    tell_unsaid(ui, gathered, target)
    ui.info(f"{target}: {size(target.stat().st_size)} from {chosen}")
    ui.result(inputs=inputs, outputs={"weights": str(target), **attribute(run, target)})


def _write_adapters(checkpoint: Path, target: Path, ema: bool) -> int:
    """Copies the adapters of a checkpoint under peft's names; returns the number of files."""
    import shutil

    from ultrashape_cli.errors import CheckpointError
    from ultrashape_cli.files import temporary_path
    from ultrashape_cli.models.sources import require_averaged
    from ultrashape_cli.runs import ADAPTER_CONFIG, ADAPTER_FILE, EMA_FILE

    if not (checkpoint / ADAPTER_FILE).is_file():
        raise CheckpointError(f"`{checkpoint}` holds no adapters", hint="leave --no-merge-lora out")
    if ema:
        require_averaged(checkpoint)
    sources = {ADAPTER_FILE: EMA_FILE if ema else ADAPTER_FILE, ADAPTER_CONFIG: ADAPTER_CONFIG}
    for name, source in sources.items():
        with temporary_path(target / name) as temporary:
            shutil.copyfile(checkpoint / source, temporary)
    return len(sources)
