"""`ushape weights convert`: between the reference bundle and safetensors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ultrashape_cli import options as opt
from ultrashape_cli.commands.weights.options import (
    Dtype,
    ModelOpt,
    SourceArg,
    attribute,
    show_parts,
    size,
    tell_unsaid,
)


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
    from ultrashape_cli.files import check_outputs
    from ultrashape_cli.models.convert import (
        DTYPES,
        check_target,
        choose_model,
        convert_weights,
        gather_weights,
        inputs_of,
        require_fit,
        summarise,
    )
    from ultrashape_cli.ui import UI

    ui = UI("weights convert", json_output=json_output, quiet=quiet, verbose=verbose)
    check_target(target)
    other = f"{target.stem}-converted{target.suffix}"
    check_outputs([target], inputs_of(source), hint=f"ushape weights convert {source} {other}")
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
    tell_unsaid(ui, gathered, target)
    ui.info(f"{target}: {size(target.stat().st_size)}")
    ui.result(
        inputs=inputs,
        outputs={"weights": str(target), **attribute(source, target)},
        counts={part.component: part.parameters for part in summarise(gathered)},
    )
