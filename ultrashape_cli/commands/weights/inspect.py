"""`ushape weights inspect`: what a weights file holds."""

from __future__ import annotations

from ultrashape_cli import options as opt
from ultrashape_cli.commands.weights.options import SourceArg, cell


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
