"""`ushape report`: one HTML file about a run or a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ultrashape_cli import options as opt


def report(
    path: Annotated[
        Path | None,
        typer.Argument(
            metavar="RUN|DATASET",
            help="Run or dataset. Default: the newest run in ./runs.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="The page. Default: report.html in the folder it is about.",
            rich_help_panel="Output",
        ),
    ] = None,
    json_output: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
    verbose: opt.VerboseOpt = False,
    progress: opt.ProgressOpt = True,
) -> None:
    """Write one HTML page about a run or a dataset

    Reads files only, also of a run that trains, crashed or was copied. The page needs neither a
    network nor another file: of a run curves, validation, pictures with a slider between the
    pretrained model and the result, settings, timeline and problems; of a dataset counts,
    distributions, failures and the worst assets.

    Examples:

      ushape report

      ushape report runs/shoes-ultrashape-1.0-dit -o shoes.html

      ushape report data
    """
    from ultrashape_cli.data.layout import Dataset
    from ultrashape_cli.errors import UsageError
    from ultrashape_cli.preparation.report import write_report
    from ultrashape_cli.reporting.run_report import write_run_report
    from ultrashape_cli.runs import RunFolder, find_runs
    from ultrashape_cli.ui import UI

    ui = UI("report", json_output=json_output, quiet=quiet, verbose=verbose, progress=progress)
    if path is None:
        runs = find_runs(Path("runs"))
        if not runs:
            raise UsageError("no runs in `runs`", hint="ushape report RUN, or ushape report DATA")
        path = runs[0].root
    run, dataset = RunFolder(path), Dataset(path)
    if run.is_run():
        kind, page = "run", write_run_report(run, out or path / "report.html")
    elif dataset.exists():
        kind, page = "dataset", write_report(dataset, out=out)
    else:
        raise UsageError(f"`{path}` is neither a run nor a dataset", hint="ushape report runs/NAME")
    ui.result(inputs={kind: str(path)}, outputs={"report": str(page)})
