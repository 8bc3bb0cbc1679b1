"""Options of `ushape train`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class StageName(StrEnum):
    """Which network trains."""

    DIT = "dit"
    VAE = "vae"


DataOpt = Annotated[
    Path | None,
    typer.Option("--data", help="Prepared dataset. Default: data.", rich_help_panel="Input"),
]
InitOpt = Annotated[
    Path | None,
    typer.Option(
        "--init",
        help="Weights to start from: a run, a safetensors file, the reference bundle, or "
        "`tiny` for those that come with the package.",
        rich_help_panel="Input",
    ),
]
ModelOpt = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="Row of the model table: ultrashape-1.0 or tiny. Default: ultrashape-1.0.",
        rich_help_panel="Input",
    ),
]
StageOpt = Annotated[
    StageName | None,
    typer.Option("--stage", help="Which network trains. Default: dit.", rich_help_panel="Run"),
]
OutOpt = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        help="Run folder. Default: runs/DATA-MODEL-STAGE; the same folder resumes.",
        rich_help_panel="Output",
    ),
]
StepsOpt = Annotated[
    int | None,
    typer.Option("--steps", min=1, help="Optimizer steps of the whole run.", rich_help_panel="Run"),
]
ProcessesOpt = Annotated[
    int | None,
    typer.Option(
        "--num-processes",
        min=1,
        help="Processes over all machines, one per GPU.",
        rich_help_panel="Hardware",
    ),
]
MachinesOpt = Annotated[
    int | None,
    typer.Option(
        "--num-machines", min=1, help="Machines that take part.", rich_help_panel="Hardware"
    ),
]
RankOpt = Annotated[
    int | None,
    typer.Option(
        "--machine-rank",
        metavar="RANK",
        min=0,
        help="Rank of this machine.",
        rich_help_panel="Hardware",
    ),
]
AddressOpt = Annotated[
    str | None,
    typer.Option(
        "--main-process-ip",
        metavar="ADDRESS",
        help="Address of machine 0.",
        rich_help_panel="Hardware",
    ),
]
OverfitOpt = Annotated[
    int | None,
    typer.Option(
        "--overfit",
        min=1,
        help="Train on so few assets only, an eighth of the tokens and no dropout, and judge "
        "whether the loss gets near zero.",
        rich_help_panel="Run",
    ),
]
PriceOpt = Annotated[
    float | None,
    typer.Option(
        "--price-per-hour",
        metavar="PRICE",
        min=0,
        help="Price of all machines, for the plan and the monitor.",
        rich_help_panel="Run",
    ),
]
BenchmarkOpt = Annotated[
    int | None,
    typer.Option(
        "--benchmark",
        min=1,
        help="Time so many steps on synthetic data with random weights, against the plan; "
        "trains and writes nothing.",
        rich_help_panel="Run",
    ),
]
