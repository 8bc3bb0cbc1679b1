"""`ushape report`: one HTML file about a run or a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ultrashape_cli import options as opt


def report(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="RUN|DATASET",
            help="Run or dataset, or several runs. Default: the newest run in ./runs.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="The page. Default: report.html in the folder it is about; of several runs "
            "comparison.html beside the first.",
            rich_help_panel="Output",
        ),
    ] = None,
    json_output: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
    verbose: opt.VerboseOpt = False,
    progress: opt.ProgressOpt = True,
) -> None:
    """Write one HTML page about a run, several runs side by side, or a dataset

    Reads files only, also of a run that trains, crashed or was copied. The page needs neither a
    network nor another file: of a run curves, validation, pictures with a slider between the
    pretrained model and the result, settings, timeline and problems; of several runs curves over
    each other, best scores, the settings that differ and pictures side by side; of a dataset
    counts, distributions, failures and the worst assets.

    Examples:

      ushape report

      ushape report runs/shoes-ultrashape-1.0-dit -o shoes.html

      ushape report runs/shoes-slow runs/shoes-fast -o shoes.html

      ushape report data
    """
    from ultrashape_cli.data.layout import Dataset
    from ultrashape_cli.errors import UsageError
    from ultrashape_cli.files import check_outputs
    from ultrashape_cli.preparation.report import write_report
    from ultrashape_cli.reporting.run_report import write_run_report
    from ultrashape_cli.reporting.runs_report import write_runs_report
    from ultrashape_cli.runs import RunFolder, find_runs
    from ultrashape_cli.ui import UI

    ui = UI("report", json_output=json_output, quiet=quiet, verbose=verbose, progress=progress)
    if out is not None:
        _check_target(out)
    if not paths:
        runs = find_runs(Path("runs"))
        if not runs:
            raise UsageError(
                "no runs in `runs`", hint="ushape report PATH is about that run or dataset"
            )
        paths = [runs[0].root]
    if len(paths) > 1:
        strange = [path for path in paths if not RunFolder(path).is_run()]
        if strange:
            raise UsageError(
                f"`{strange[0]}` is no run", hint="`ushape runs` lists those there are"
            )
        target = out or paths[0].parent / "comparison.html"
        page = write_runs_report([RunFolder(path) for path in paths], target)
        ui.result(inputs={"runs": [str(p) for p in paths]}, outputs={"report": str(page)})
        return
    path = paths[0]
    run, dataset = RunFolder(path), Dataset(path)
    if out is not None and path.is_dir():
        # Pages may lie there; everything else is what the page is made from.
        inputs = [item for item in path.iterdir() if item.suffix != ".html"]
        check_outputs([out], inputs, hint=f"-o {path / 'report.html'}")
    if run.is_run():
        kind, page = "run", write_run_report(run, out or path / "report.html")
    elif dataset.exists():
        kind, page = "dataset", write_report(dataset, out=out)
    else:
        raise UsageError(
            f"`{path}` is neither a run nor a dataset", hint="`ushape runs` lists those there are"
        )
    ui.result(inputs={kind: str(path)}, outputs={"report": str(page)})


def _check_target(out: Path) -> None:
    """Raises UsageError unless a page may be written there: no other file is replaced by one."""
    from ultrashape_cli.errors import UsageError
    from ultrashape_cli.reporting.page import is_page

    other = f"-o {out.with_suffix('.html')}"
    if out.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"`{out}` does not end in .html", hint=other)
    if out.is_dir() or (out.exists() and not is_page(out)):
        raise UsageError(
            f"`{out}` exists and is no report of ushape", hint="another -o, or remove it first"
        )
