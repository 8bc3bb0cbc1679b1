"""Options of `ushape train`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ultrashape_cli.config.choices import Objective, Strategy
from ultrashape_cli.options import complete_profile


class Prices(tuple[float, ...]):
    """Prices per hour, one for each profile."""


def _parse_prices(text: str | Prices) -> Prices:
    if isinstance(text, Prices):
        return text
    try:
        prices = [float(part) for part in text.split(",")]
    except ValueError:
        prices = []
    if not prices or not all(0 <= price < float("inf") for price in prices):
        raise typer.BadParameter(f"`{text}` is no price such as 0.8, or 0.4,2.5")
    return Prices(prices)


class StageName(StrEnum):
    """Which network trains."""

    DIT = "dit"
    VAE = "vae"


DataOpt = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="DATA",
        help="Prepared dataset, or a pack of one (ushape data pack): a folder, s3://, gs://, "
        "hf:// or sftp://, from which files are brought as they are used. Default: data.",
        rich_help_panel="Input",
    ),
]
InitOpt = Annotated[
    Path | None,
    typer.Option(
        "--init",
        help="Weights to start from: a run, a safetensors file, the reference bundle, or "
        "`random`. Default: those that come with the package, where it has some of the model.",
        rich_help_panel="Input",
    ),
]
ResumeOpt = Annotated[
    str | None,
    typer.Option(
        "--resume-from",
        metavar="ADDRESS",
        help="Place with a copy of this run, made by `--set train.mirror=ADDRESS`; its newest "
        "whole checkpoint is brought where it is beyond those here. Default: train.mirror.",
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
ObjectiveOpt = Annotated[
    Objective | None,
    typer.Option(
        "--objective",
        help="What the DiT learns: the data (flow), a teacher's steps (distill, better by its own "
        "verb), the best of its own generations (reject), the best against the worst (dpo), or by "
        "policy gradients (grpo); the last three are experimental. Default: flow.",
        rich_help_panel="Run",
    ),
]
PairsOpt = Annotated[
    Path | None,
    typer.Option(
        "--pairs",
        metavar="DIR",
        exists=True,
        file_okay=False,
        help="Generations kept by `ushape evaluate --keep 8 --split train`, for reject and dpo.",
        rich_help_panel="Input",
    ),
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
EpochsOpt = Annotated[
    float | None,
    typer.Option(
        "--epochs",
        metavar="N",
        min=0.01,
        help="Passes over the training assets, instead of --steps.",
        rich_help_panel="Run",
    ),
]
LearningRateOpt = Annotated[
    float | None,
    typer.Option(
        "--learning-rate",
        metavar="RATE",
        help="Peak of AdamW. Default: 1e-5, 1e-4 with adapters; 1e-6 and 1e-5 of "
        "dpo and grpo. May change when a run goes on.",
        rich_help_panel="Run",
    ),
]
StrategyOpt = Annotated[
    Strategy | None,
    typer.Option(
        "--strategy",
        help="Which weights train and where their state lives. Default: the profile's.",
        rich_help_panel="Hardware",
    ),
]
BatchOpt = Annotated[
    int | None,
    typer.Option(
        "--batch",
        min=1,
        help="Samples per process and forward pass. Default: the profile's, or the model's.",
        rich_help_panel="Hardware",
    ),
]
AccumulationOpt = Annotated[
    int | None,
    typer.Option(
        "--accumulation",
        min=1,
        help="Forward passes per optimizer step. Default: the profile's.",
        rich_help_panel="Hardware",
    ),
]
ProfilesOpt = Annotated[
    str | None,
    typer.Option(
        "--profile",
        help="Hardware profile; sets dtype, strategy, checkpointing, batch and workers. Several, "
        "with commas between, are compared by --dry-run. Default: auto (detected).",
        autocompletion=complete_profile,
        rich_help_panel="Hardware",
    ),
]
HostMemoryOpt = Annotated[
    float | None,
    typer.Option(
        "--host-memory-gib",
        metavar="GIB",
        min=1,
        help="With --dry-run: host memory of the machine that will train. Default: this one's.",
        rich_help_panel="Hardware",
    ),
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
    Prices | None,
    typer.Option(
        "--price-per-hour",
        metavar="PRICE",
        parser=_parse_prices,
        help="Price of all machines, for the plan and the monitor; with --dry-run one for each "
        "profile, with commas between.",
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
