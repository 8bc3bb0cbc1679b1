"""Options of `ushape refine` that say what is wanted: views, regions, choices, a coarse mesh."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ultrashape_cli.config.choices import ViewMode

_INPUT, _OUTPUT, _RUN = "Input", "Output", "Run"

ImageOpt = Annotated[
    Path | None,
    typer.Option(
        "--image",
        help="The same as IMAGE, where MESH is left out for --coarse-with.",
        exists=True,
        dir_okay=False,
        rich_help_panel=_INPUT,
    ),
]
CoarseWithOpt = Annotated[
    str | None,
    typer.Option(
        "--coarse-with",
        metavar="NAME",
        help="Make the coarse mesh of the image: with the command of [coarse.NAME] in --config, "
        "or `hull`, the shape that the outlines allow.",
        rich_help_panel=_INPUT,
    ),
]
TextOpt = Annotated[
    str | None,
    typer.Option(
        "--text",
        metavar="TEXT",
        help="With --coarse-with and without an image: what to show.",
        rich_help_panel=_INPUT,
    ),
]
ViewOpt = Annotated[
    list[str] | None,
    typer.Option(
        "--view",
        metavar="SIDE=FILE",
        help="A further reference and where it was seen from: front, right (from +x), back, left, "
        "top, bottom, or AZIMUTH,ELEVATION in degrees; FILE alone is placed by its outline; a "
        "folder of `ushape render` or a views.json. Repeat for more. IMAGE is the front.",
        rich_help_panel=_INPUT,
    ),
]
ViewModeOpt = Annotated[
    ViewMode | None,
    typer.Option(
        "--view-mode",
        help="How a token listens to several views: to those that see it (spatial), all alike "
        "(mean), one per evaluation in turn (stochastic), or as weights trained with several do, "
        "all in one pass (trained). Default: trained where they were, else spatial.",
        rich_help_panel=_RUN,
    ),
]
RegionOpt = Annotated[
    str | None,
    typer.Option(
        "--region",
        metavar="FORM=...",
        help="Refine only this part of MESH and keep the rest exactly: box=X,Y,Z,X,Y,Z or "
        "sphere=X,Y,Z,R in its coordinates, side=-z of the upright mesh (z is the front), "
        "mask=FILE, a copy with what may change painted white. Default: all.",
        rich_help_panel=_INPUT,
    ),
]
BestOfOpt = Annotated[
    int | None,
    typer.Option(
        "--best-of",
        metavar="N",
        min=1,
        max=64,
        help="Make N results, of --seed and those after it, and write the one that is best by "
        "images and topology; each takes the whole time. Default: 1.",
        rich_help_panel=_RUN,
    ),
]
CandidatesOpt = Annotated[
    bool,
    typer.Option(
        "--keep-candidates/--no-keep-candidates",
        help="With --best-of, also write the other results, as OUT_seedN.",
        rich_help_panel=_OUTPUT,
    ),
]
SweepOpt = Annotated[
    list[str] | None,
    typer.Option(
        "--sweep",
        metavar="NAME=A,B,...",
        help="Refine once with each value of a setting, such as strength=.4,.6,.8,1; write the "
        "meshes and a contact sheet with figures into the folder -o. Repeat to cross two.",
        rich_help_panel=_RUN,
    ),
]
SeedsOpt = Annotated[
    int | None,
    typer.Option(
        "--seeds",
        metavar="N",
        min=2,
        max=64,
        help="A sweep over N seeds, from --seed on.",
        rich_help_panel=_RUN,
    ),
]
StrengthOpt = Annotated[
    float | None,
    typer.Option(
        "--strength",
        metavar="SHARE",
        min=0,
        max=1,
        help="How far to go from MESH: 1 all the way, 0 only encodes and decodes it. Fewer steps "
        "where the model starts from noise. Default: the model's, 1, of tiny 0.5.",
        rich_help_panel=_RUN,
    ),
]
