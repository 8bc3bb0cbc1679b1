"""`ushape sample`: surface points and normals, and distances for the VAE."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ultrashape_cli import options as opt
from ultrashape_cli.commands.dataset_steps import run_one_step
from ultrashape_cli.commands.settings import make_ui, resolve_settings
from ultrashape_cli.config.choices import Contents, SampleFormat

_OUTPUT = "Output"


def sample(
    data: opt.DatasetArg = Path("data"),
    contents: Annotated[
        Contents | None,
        typer.Option(
            "--contents",
            help="`dit`: surface points. `full`: also query points with "
            "distances, for the VAE. Default: dit.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    file_format: Annotated[
        SampleFormat | None,
        typer.Option(
            "--format",
            help="`compact`: quantised. `reference`: the float32 arrays of "
            "the reference. Default: compact.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    config: opt.ConfigOpt = None,
    overrides: opt.SetOpt = None,
    no_config: opt.NoConfigOpt = False,
    workers: opt.WorkersOpt = None,
    seed: opt.SeedOpt = None,
    limit: opt.LimitOpt = None,
    fail_fast: opt.FailFastOpt = False,
    force: opt.ForceOpt = False,
    dry_run: opt.DryRunOpt = False,
    show_config: opt.ShowConfigOpt = False,
    json_output: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
    verbose: opt.VerboseOpt = False,
    progress: opt.ProgressOpt = True,
) -> None:
    """Sample surface points and normals, and distances when asked

    Reads DATA/meshes. Writes DATA/samples/ID.npz. The VAE stage of training needs
    --contents full. What is not given stays as the dataset was made (DATA/settings.toml).

    Examples:

      ushape sample data

      ushape sample data --contents full

      ushape sample data --contents full --format reference
    """
    ui = make_ui("sample", json_output, quiet, verbose, progress)
    flags = {
        "sample.contents": contents,
        "sample.format": file_format,
        "engine.workers": workers,
        "seed": seed,
    }
    resolved = resolve_settings(flags, config, overrides, no_config, data=data)
    run_one_step(ui, data, "sample", resolved, limit, fail_fast, force, dry_run, show_config)
