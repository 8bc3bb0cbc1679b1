"""Options and displays that the `ushape weights` commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ultrashape_cli.models.convert import Gathered
    from ultrashape_cli.ui import UI


class Dtype(StrEnum):
    """Precision of written weights."""

    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"


SourceArg = Annotated[
    Path,
    typer.Argument(
        metavar="WEIGHTS",
        help="A weights file, a folder of safetensors shards, a run or a checkpoint of one.",
        exists=True,
    ),
]
ModelOpt = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="Model family. Default: what the file says, or the first that fits.",
        rich_help_panel="Input",
    ),
]
ShaOpt = Annotated[
    str | None,
    typer.Option(
        "--sha256", metavar="HASH", help="Hash the file must have.", rich_help_panel="Input"
    ),
]


def show_parts(ui: UI, gathered: Gathered) -> None:
    """Shows what was read, one line per network."""
    from ultrashape_cli.models.convert import summarise

    rows = [[cell(value) for value in part] for part in summarise(gathered)]
    ui.table(("network", "file", "tensors", "parameters", "dtype", "bytes"), rows)


def cell(value: object) -> str:
    """Returns a table cell; numbers with separators."""
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else str(value)


def size(count: int) -> str:
    """Returns a number of bytes in MiB or GiB."""
    return f"{count / (1 << 30):.2f} GiB" if count >= 1 << 28 else f"{count / (1 << 20):.1f} MiB"


def attribute(source: Path, target: Path) -> dict[str, str]:
    """Puts whose works weights learned from beside what was made of them; returns what is new."""
    from ultrashape_cli.data.attribution import (
        attribution_of_weights,
        beside_weights,
        read_works,
        write_works,
    )

    path, known = beside_weights(target), attribution_of_weights(source)
    works = read_works(known) if known else set()
    # An earlier export of that name may have learned from others.
    if works or read_works(path):
        write_works(path, works)
    return {"attribution": str(path)} if works else {}


def tell_unsaid(ui: UI, gathered: Gathered, target: Path) -> None:
    """Warns where distilled weights went into a form that has no room to say so."""
    from ultrashape_cli.models.convert import BUNDLE_SUFFIXES

    found = gathered.distilled
    if found and target.suffix in BUNDLE_SUFFIXES:
        ui.warn(
            f"`{target}` does not say that these weights were distilled, and that they are sampled "
            f"without guidance in {found.evaluations or 'any number of'} steps"
        )
