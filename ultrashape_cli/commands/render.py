"""`ushape render`: reference views of every asset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ultrashape_cli import options as opt
from ultrashape_cli.commands.dataset_steps import run_one_step
from ultrashape_cli.commands.settings import make_ui, resolve_settings
from ultrashape_cli.config.choices import Lights, Renderer

Quality = Literal["full", "preview"]
_OUTPUT, _VIEWS = "Output", "Views"


def render(
    data: opt.DatasetArg = Path("data"),
    views: Annotated[
        int | None,
        typer.Option("--views", min=1, help="Views per asset. Default: 8.", rich_help_panel=_VIEWS),
    ] = None,
    elevations: Annotated[
        str | None,
        typer.Option(
            "--elevations",
            metavar="DEGREES,...",
            help="Rings of views at these elevations. Default: all sides, then from above and "
            "below, then all around.",
            rich_help_panel=_VIEWS,
        ),
    ] = None,
    fov: Annotated[
        float | None,
        typer.Option(
            "--fov", metavar="DEGREES", help="Opening angle. Default: 40.", rich_help_panel=_VIEWS
        ),
    ] = None,
    ortho: Annotated[
        bool | None,
        typer.Option(
            "--ortho/--no-ortho", help="Parallel rays. Default: no.", rich_help_panel=_VIEWS
        ),
    ] = None,
    lights: Annotated[
        Lights | None,
        typer.Option(
            "--lights",
            help="Default: studio. `random` also varies opening angle and roll, by the seed.",
            rich_help_panel=_VIEWS,
        ),
    ] = None,
    maps: Annotated[
        str | None,
        typer.Option(
            "--maps",
            metavar="NAME,...",
            help="Extra files: depth, normal, mask.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    contact_sheet: Annotated[
        bool | None,
        typer.Option(
            "--contact-sheet/--no-contact-sheet",
            help="Also one picture of all views.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    quality: Annotated[
        Quality | None,
        typer.Option(
            "--quality",
            help="`preview`: 1 sample, hard shadow, no ambient occlusion; "
            "about three times as fast. Default: full.",
            rich_help_panel=_VIEWS,
        ),
    ] = None,
    renderer: Annotated[
        Renderer | None,
        typer.Option(
            "--renderer",
            help="Default: rays. `blender` runs Cycles, in Blender "
            "4.2 or later or the package bpy.",
            rich_help_panel=_VIEWS,
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
    """Render reference views of every asset

    Reads DATA/meshes, and the colours of the source files. Writes DATA/renders/ID/view_000.png
    ... and cameras.json. What is not given stays as the dataset was made (DATA/settings.toml).

    Examples:

      ushape render data

      ushape render data --views 16 --lights random --maps depth,normal

      ushape render data --quality preview --contact-sheet --set render.size=512
    """
    ui = make_ui("render", json_output, quiet, verbose, progress)
    flags = {
        "render.views": views,
        "render.elevations": elevations,
        "render.fov_degrees": fov,
        "render.orthographic": ortho,
        "render.lights": lights,
        "render.maps": maps,
        "render.contact_sheet": contact_sheet,
        "render.renderer": renderer,
        "engine.workers": workers,
        "seed": seed,
    }
    if quality is not None:
        from ultrashape_cli.config.schema import RenderConfig

        full = RenderConfig()
        usual = (full.supersample, full.ambient_rays, full.shadow_rays)
        values = (1, 0, 1) if quality == "preview" else usual
        names = ("render.supersample", "render.ambient_rays", "render.shadow_rays")
        flags |= dict(zip(names, values, strict=True))
    resolved = resolve_settings(flags, config, overrides, no_config, data=data)
    if resolved.config.render.renderer == "blender" and not show_config:
        from ultrashape_cli.rendering.blender import require_blender

        require_blender(resolved.config.render.blender)
    run_one_step(ui, data, "render", resolved, limit, fail_fast, force, dry_run, show_config)
