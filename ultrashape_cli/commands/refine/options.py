"""Options of `ushape refine`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ultrashape_cli.config.choices import (
    Backend,
    Background,
    Bake,
    Colours,
    MeshFrame,
    Quality,
    Topology,
)

_INPUT, _OUTPUT, _HARDWARE, _RUN = "Input", "Output", "Hardware", "Run"

MeshArg = Annotated[Path | None, typer.Argument(help="Coarse mesh.", exists=True)]
ImageArg = Annotated[
    Path | None,
    typer.Argument(help="Reference image, best with a transparent background.", exists=True),
]
OutOpt = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        help="Mesh to write: glb, obj, ply, stl, off or 3mf; with --batch a folder. "
        "Default: MESH_refined.glb, with --batch `refined`.",
        rich_help_panel=_OUTPUT,
    ),
]
CheckpointOpt = Annotated[
    Path | None,
    typer.Option(
        "--checkpoint",
        help="A run, a checkpoint folder, a safetensors file, the reference bundle or an exported "
        "folder. "
        "Default: the newest finished DiT run in ./runs, else the weights in ./weights.",
        rich_help_panel=_INPUT,
    ),
]
ModelOpt = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NAME",
        help="Pulled or packaged weights of a model instead: ultrashape-1.0, tiny.",
        rich_help_panel=_INPUT,
    ),
]
BackendOpt = Annotated[
    Backend | None,
    typer.Option(
        "--backend",
        help="What runs the networks: torch; aoti, compiled once for this machine; onnx, with a "
        "folder of `ushape weights export` as --checkpoint. Default: what --checkpoint is for.",
        rich_help_panel=_HARDWARE,
    ),
]
ServerOpt = Annotated[
    str | None,
    typer.Option(
        "--server",
        metavar="URL",
        help="Refine on the service at this address (`ushape serve`) instead of here; --model "
        "names one of its checkpoints.",
        rich_help_panel=_HARDWARE,
    ),
]
TokenOpt = Annotated[
    str | None,
    typer.Option(
        "--token",
        metavar="TOKEN",
        envvar="USHAPE_SERVER_TOKEN",
        show_envvar=False,
        help="With --server: your token there. Also from the variable USHAPE_SERVER_TOKEN, which "
        "other users of the machine cannot see.",
        rich_help_panel=_HARDWARE,
    ),
]
BatchOpt = Annotated[
    Path | None,
    typer.Option(
        "--batch",
        metavar="CSV|DIR",
        help="Refine many: a CSV with columns mesh, image and optionally name, seed, "
        "ground_truth, views (back=b.png;120,15=c.png), or a folder where a mesh and an image "
        "share a name. With --coarse-with: images alone, no column mesh.",
        exists=True,
        rich_help_panel=_INPUT,
    ),
]
BackgroundOpt = Annotated[
    Background | None,
    typer.Option(
        "--background",
        help="Of an image without transparency: keep all as object, cut the white around it, or "
        "remove it with rembg. Default: remove where rembg is installed, else ask.",
        rich_help_panel=_INPUT,
    ),
]
ColoursOpt = Annotated[
    Colours | None,
    typer.Option(
        "--colours",
        help="Give the vertices of the result the colours of MESH (PLY, GLB, OBJ, OFF). "
        "Default: keep.",
        rich_help_panel="Output",
    ),
]
RepairOpt = Annotated[
    bool | None,
    typer.Option(
        "--repair/--no-repair",
        help="Close a fragmented coarse mesh first. Default: no.",
        rich_help_panel=_INPUT,
    ),
]
AcceptOpt = Annotated[
    bool | None,
    typer.Option(
        "--accept-only-better/--accept-all",
        help="Write MESH itself where the result has strayed from it, or looks less like IMAGE. "
        "Default: accept all.",
        rich_help_panel="Output",
    ),
]
QualityOpt = Annotated[
    Quality | None,
    typer.Option(
        "--quality",
        help="Speed against likeness to the plain sampler, `max`. Of the full model's 98 passes "
        "standard takes 18 and draft 12 with half the tokens; latents of a small model were off "
        "by 1.2 and 2.0 percent. Default: standard.",
        rich_help_panel=_RUN,
    ),
]
StepsOpt = Annotated[
    int | None,
    typer.Option(
        "--steps",
        min=2,
        help="Points of the sampler's schedule. Default: by --quality; full model: standard 13, "
        "draft 9, max 50.",
        rich_help_panel=_RUN,
    ),
]
GuidanceOpt = Annotated[
    float | None,
    typer.Option(
        "--guidance-scale",
        metavar="SCALE",
        min=0,
        help="How strictly to follow the image; 0 turns guidance off. Default: the model's, 5.",
        rich_help_panel=_RUN,
    ),
]
TokensOpt = Annotated[
    int | None,
    typer.Option(
        "--tokens",
        min=1,
        help="Most latent tokens; lower it if memory runs out. Default: the model's, 32768.",
        rich_help_panel=_RUN,
    ),
]
ResolutionOpt = Annotated[
    int | None,
    typer.Option(
        "--grid-resolution",
        min=8,
        help="Cells along one side of the decoded field. Default: the model's, 1024.",
        rich_help_panel=_RUN,
    ),
]
CompareOpt = Annotated[
    bool,
    typer.Option(
        "--compare-speed",
        help="Refine plainly and with each speed option in turn; print seconds, velocity error, "
        "Chamfer and F-score against the plain result; write no mesh.",
        rich_help_panel=_RUN,
    ),
]
FacesOpt = Annotated[
    int | None,
    typer.Option(
        "--faces",
        min=4,
        help="Reduce the result to about this many faces. Default: keep all.",
        rich_help_panel=_OUTPUT,
    ),
]
TopologyOpt = Annotated[
    Topology | None,
    typer.Option(
        "--topology",
        help="Faces of the result, with --faces: triangles, or quads that follow the shape (OBJ, "
        "PLY, OFF; small holes may stay). Default: triangles.",
        rich_help_panel=_OUTPUT,
    ),
]
UvOpt = Annotated[
    bool | None,
    typer.Option(
        "--uv/--no-uv",
        help="With --faces, texture coordinates on the result (GLB, OBJ). Default: no.",
        rich_help_panel=_OUTPUT,
    ),
]
BakeOpt = Annotated[
    Bake | None,
    typer.Option(
        "--bake",
        help="With --faces, normal: a normal map with the detail of the full mesh, within GLB or "
        "beside OBJ. Default: none.",
        rich_help_panel=_OUTPUT,
    ),
]
KeepFullOpt = Annotated[
    bool,
    typer.Option(
        "--keep-full/--no-keep-full",
        help="With --faces, also write the mesh before the reduction, as OUT_full.",
        rich_help_panel=_OUTPUT,
    ),
]
FloatersOpt = Annotated[
    bool | None,
    typer.Option(
        "--keep-floaters/--no-keep-floaters",
        help="Keep small loose parts of the result. Default: no.",
        rich_help_panel=_OUTPUT,
    ),
]
FrameOpt = Annotated[
    MeshFrame | None,
    typer.Option(
        "--frame",
        help="`input`: size and place of the coarse mesh. `normalised`: the cube [-1, 1], y up. "
        "Default: input.",
        rich_help_panel=_OUTPUT,
    ),
]
PreviewOpt = Annotated[
    Path | None,
    typer.Option(
        "--preview",
        metavar="PNG",
        help="Also write a picture of reference, input and result side by side.",
        dir_okay=False,
        rich_help_panel=_OUTPUT,
    ),
]
MetricsOpt = Annotated[
    bool,
    typer.Option(
        "--metrics/--no-metrics",
        help="Measure Chamfer distance, F-score and normals against the input.",
        rich_help_panel=_OUTPUT,
    ),
]
TruthOpt = Annotated[
    Path | None,
    typer.Option(
        "--ground-truth",
        help="Mesh in the frame of the input to measure against; implies --metrics.",
        exists=True,
        dir_okay=False,
        rich_help_panel=_INPUT,
    ),
]
MemoryOpt = Annotated[
    float | None,
    typer.Option(
        "--max-memory-gib",
        metavar="GIB",
        min=0.001,
        help="Memory of the device that the run may use. Default: what is free.",
        rich_help_panel=_HARDWARE,
    ),
]
ProcessesOpt = Annotated[
    int | None,
    typer.Option(
        "--num-processes",
        min=1,
        help="With --batch: processes, one per GPU. Default: 1.",
        rich_help_panel=_HARDWARE,
    ),
]
