"""`ushape weights`: download, convert, export, inspect, verify and upload weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ultrashape_cli import options as opt
from ultrashape_cli.commands.weights.export import export
from ultrashape_cli.commands.weights.options import (
    Dtype,
    ModelOpt,
    ShaOpt,
    SourceArg,
    cell,
    show_parts,
    size,
)
from ultrashape_cli.commands.weights.pull import pull, push

weights = typer.Typer(
    name="weights",
    help="Download, convert, export, inspect, verify or upload weights",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

_SHOWN_MISFITS = 20


weights.command()(pull)
weights.command()(export)


@weights.command()
def convert(
    source: SourceArg,
    target: Annotated[
        Path, typer.Argument(help="File to write: .safetensors, or .pt for the reference bundle.")
    ],
    dtype: Annotated[
        Dtype | None,
        typer.Option("--dtype", help="Cast weights. Default: keep.", rich_help_panel="Output"),
    ] = None,
    model: ModelOpt = None,
    force: opt.ForceOpt = False,
    dry_run: opt.DryRunOpt = False,
    json_output: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
    verbose: opt.VerboseOpt = False,
) -> None:
    """Convert weights between the reference bundle and safetensors, both ways

    Reads bundles, trainer checkpoints with prefixed keys, safetensors files, folders of shards,
    and runs: a run gives its trained network together with those it started from.

    Examples:

      ushape weights convert ultrashape_v1.pt ultrashape.safetensors

      ushape weights convert runs/data-ultrashape-1.0-dit finetuned.pt --dtype fp16
    """
    from ultrashape_cli.errors import UsageError
    from ultrashape_cli.models.convert import (
        DTYPES,
        check_target,
        choose_model,
        convert_weights,
        gather_weights,
        require_fit,
        summarise,
    )
    from ultrashape_cli.ui import UI

    ui = UI("weights convert", json_output=json_output, quiet=quiet, verbose=verbose)
    check_target(target)
    if target.exists() and not force:
        raise UsageError(f"`{target}` exists", hint="another name, or --force to replace it")
    gathered = gather_weights(source)
    spec = choose_model(gathered, model)
    inputs = {"weights": str(source), "model": spec.name, "dtype": dtype and dtype.value}
    show_parts(ui, gathered)
    if dry_run:
        require_fit(gathered, spec)
        ui.info(f"would write {target} as {spec.name}")
        ui.result(inputs=inputs)
        return
    convert_weights(gathered, spec, target, dtype=DTYPES[dtype.value] if dtype else None)
    ui.info(f"{target}: {size(target.stat().st_size)}")
    ui.result(
        inputs=inputs,
        outputs={"weights": str(target)},
        counts={part.component: part.parameters for part in summarise(gathered)},
    )


@weights.command()
def inspect(
    source: SourceArg,
    json_output: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
    verbose: opt.VerboseOpt = False,
) -> None:
    """Show the networks of a weights file: tensors, parameters, dtypes, metadata

    Examples:

      ushape weights inspect ultrashape_v1.pt

      ushape weights inspect model.safetensors --json
    """
    from ultrashape_cli.models.convert import choose_model, gather_weights, summarise
    from ultrashape_cli.ui import UI

    ui = UI("weights inspect", json_output=json_output, quiet=quiet, verbose=verbose)
    gathered = gather_weights(source)
    name = choose_model(gathered).name
    parts = [part._asdict() for part in summarise(gathered)]
    if not json_output:
        rows = [[cell(value) for value in part.values()] for part in parts]
        ui.data_table(tuple(parts[0]), rows)
        ui.data_table(("metadata", ""), list({"model": name, **gathered.metadata}.items()))
    ui.result(
        inputs={"weights": str(source)}, model=name, networks=parts, metadata=gathered.metadata
    )


@weights.command()
def verify(
    source: SourceArg,
    model: ModelOpt = None,
    sha256: ShaOpt = None,
    json_output: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
    verbose: opt.VerboseOpt = False,
) -> None:
    """Check that weights fit a model, key by key, and print their SHA-256

    Exits with 1 when a key is missing, left over or of another shape, and names file, key,
    expected and found.

    Examples:

      ushape weights verify ultrashape_v1.pt

      ushape weights verify model.safetensors --model ultrashape-1.0 --json
    """
    from ultrashape_cli.hub import sha256_file
    from ultrashape_cli.models.convert import check_weights, choose_model, gather_weights
    from ultrashape_cli.models.registry import COMPONENTS
    from ultrashape_cli.ui import UI

    ui = UI("weights verify", json_output=json_output, quiet=quiet, verbose=verbose)
    gathered = gather_weights(source)
    spec = choose_model(gathered, model)
    problems = check_weights(gathered, spec)
    rows = [
        {"file": str(file), "key": misfit.key, "expected": misfit.expected, "found": misfit.found}
        for file, misfit in problems
    ]
    read = set(gathered.files.values())
    files = sorted({s for f in read for s in (f.glob("*.safetensors") if f.is_dir() else [f])})
    hashes = {str(file): sha256_file(file) for file in files}
    wrong = sha256 is not None and sha256.lower() not in hashes.values()
    for name, digest in hashes.items():
        ui.info(f"sha256 {digest}  {name}")
    for file, misfit in problems[:_SHOWN_MISFITS]:
        ui.info(f"{file}: {misfit}")
    if wrong:
        ui.info(f"{source}: sha256 is not {sha256}")
        found = ", ".join(hashes.values())
        rows.append({"file": str(source), "key": "sha256", "expected": sha256, "found": found})
    if rows:
        ui.info(f"{source}: {len(rows)} differences from model {spec.name}")
    else:
        absent = [name for name in COMPONENTS if name not in gathered.parts]
        note = f"; it has no {', '.join(absent)}" if absent else ""
        ui.info(f"{source} fits model {spec.name}{note}")
    ui.result(
        status="error" if rows else "ok",
        inputs={"weights": str(source), "model": spec.name},
        counts={"keys": sum(map(len, gathered.parts.values())), "differences": len(rows)},
        sha256=hashes,
        differences=rows,
    )
    if rows:
        raise typer.Exit(1)


weights.command()(push)
