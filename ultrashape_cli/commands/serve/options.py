"""Options of `ushape serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ultrashape_cli.config.choices import EngineKind

_INPUT, _OUTPUT, _HARDWARE, _RUN = "Input", "Output", "Hardware", "Run"

CheckpointOpt = Annotated[
    list[str] | None,
    typer.Option(
        "--checkpoint",
        metavar="NAME=PATH",
        help="Weights to refine with, repeatable: a run, a checkpoint folder or a weights file. "
        "Jobs name one by options.model; the first is for those that name none. Without NAME= "
        "it is called as its file. Default: as of refine.",
        rich_help_panel=_INPUT,
    ),
]
ModelOpt = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NAME",
        help="Pulled or packaged weights of a model: ultrashape-1.0, tiny.",
        rich_help_panel=_INPUT,
    ),
]
HostOpt = Annotated[
    str | None,
    typer.Option(
        "--host",
        metavar="ADDRESS",
        help="Address to listen on; any but this machine's own needs a token. Default: 127.0.0.1.",
        rich_help_panel=_RUN,
    ),
]
PortOpt = Annotated[
    int | None,
    typer.Option(
        "--port", min=0, max=65535, help="Port; 0 takes a free one. Default: 8000.",
        rich_help_panel=_RUN,
    ),
]  # fmt: skip
DataOpt = Annotated[
    Path | None,
    typer.Option(
        "--data",
        help="Folder of queue, uploads and results. Default: serve.",
        file_okay=False,
        rich_help_panel=_OUTPUT,
    ),
]
JoinOpt = Annotated[
    str | None,
    typer.Option(
        "--join",
        metavar="URL",
        help="Work for the service at this address instead of starting one.",
        rich_help_panel=_RUN,
    ),
]
TokenOpt = Annotated[
    str | None,
    typer.Option(
        "--token",
        metavar="TOKEN",
        envvar="USHAPE_SERVE_TOKEN",
        show_envvar=False,
        help="With --join: a token of the role worker. Also from the variable "
        "USHAPE_SERVE_TOKEN, which other users of the machine cannot see.",
        rich_help_panel=_INPUT,
    ),
]
EngineOpt = Annotated[
    EngineKind | None,
    typer.Option(
        "--engine",
        help="Where workers run: on this machine, or one on each card of a Ray cluster. "
        "Default: local.",
        rich_help_panel=_HARDWARE,
    ),
]
AddressOpt = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="HOST:PORT",
        help="Ray cluster; auto takes that of this machine. Default: auto.",
        rich_help_panel=_HARDWARE,
    ),
]
WorkersOpt = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=1,
        help="Worker processes, each with a model. Default: one per card, or one on the CPU.",
        rich_help_panel=_HARDWARE,
    ),
]
MemoryOpt = Annotated[
    float | None,
    typer.Option(
        "--max-memory-gib",
        metavar="GIB",
        min=0.001,
        help="Memory of a device that a worker may use. Default: what is free.",
        rich_help_panel=_HARDWARE,
    ),
]
AcceptOpt = Annotated[
    bool,
    typer.Option(
        "--accept-license",
        help="Accept the licence of the weights; remembered for the next time.",
        rich_help_panel=_RUN,
    ),
]
