"""`ushape runs`: all runs of a folder in one table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ultrashape_cli import options as opt


def runs(
    root: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder of runs.", show_default=True)
    ] = Path("runs"),
    json_output: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
    verbose: opt.VerboseOpt = False,
) -> None:
    """List the runs of a folder, newest first

    Reads files only, also of runs that train, crashed or were copied. Shows state, step, the best
    score by the metric that chooses the checkpoint, and the cost so far where
    `train --price-per-hour` told the price.

    Examples:

      ushape runs

      ushape runs /mnt/shared/runs --json
    """
    from ultrashape_cli.monitoring.summary import COLUMNS, runs_of, summarise
    from ultrashape_cli.ui import UI

    ui = UI("runs", json_output=json_output, quiet=quiet, verbose=verbose)
    found = [summarise(run) for run in runs_of(root)]
    if json_output:
        ui.result(
            inputs={"root": str(root)},
            counts={"runs": len(found)},
            runs=[summary.to_json() for summary in found],
        )
    elif quiet:
        for summary in found:
            ui.data(summary.run)
    else:
        rows = [COLUMNS, *(summary.cells() for summary in found)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            # A line per run whatever its name: no table, which would fold its cells.
            line = "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True))
            ui.data(line.rstrip())
