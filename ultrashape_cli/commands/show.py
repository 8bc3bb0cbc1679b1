"""`ushape show`: mesh files as they are read, in a picture and a table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from ultrashape_cli import options as opt
from ultrashape_cli.config.choices import FrontAxis, UpAxis

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ultrashape_cli.ui import UI

_OUTPUT, _VIEWS = "Output", "Views"
_TURN_STEPS, _TURN_MS = 36, 80


class _Shown(NamedTuple):
    row: dict[str, Any]
    pictures: list[NDArray[np.uint8]]


def show(
    meshes: Annotated[
        list[Path],
        typer.Argument(metavar="MESH...", help="Mesh files, or folders of them.", exists=True),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="The picture: PNG, or WEBP or GIF of a turntable. Default: NAME-shown.png here.",
            dir_okay=False,
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    views: Annotated[
        int,
        typer.Option(
            "--views", min=1, max=64, help="Views of each mesh, a row each.", rich_help_panel=_VIEWS
        ),
    ] = 1,
    turntable: Annotated[
        bool, typer.Option("--turntable", help="An animation of one mesh.", rich_help_panel=_VIEWS)
    ] = False,
    clay: Annotated[
        bool, typer.Option("--clay", help="Leave its colours out.", rich_help_panel=_VIEWS)
    ] = False,
    front: Annotated[
        FrontAxis,
        typer.Option(
            "--front",
            help="Axis that the front looks along; auto is x where the symmetry says so, else z.",
            rich_help_panel=_VIEWS,
        ),
    ] = "auto",
    up: Annotated[
        UpAxis,
        typer.Option("--up", help="Axis that points up.", rich_help_panel=_VIEWS),
    ] = "auto",
    size: Annotated[
        int,
        typer.Option(
            "--size",
            min=16,
            max=4096,
            help="Pixels of a view; in a sheet of several, 256 at most.",
            rich_help_panel=_VIEWS,
        ),
    ] = 512,
    limit: opt.LimitOpt = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the picture -o.", rich_help_panel=_OUTPUT)
    ] = False,
    json_output: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
    verbose: opt.VerboseOpt = False,
    progress: opt.ProgressOpt = True,
) -> None:
    """Show what a mesh file holds: a picture and a table

    Reads files as `prepare` and `refine` do. Says faces, parts, open edges, colours and size, and
    what could not be read.

    Examples:

      ushape show sculpt.obj

      ushape show ./models -o models.png --limit 25

      ushape show sculpt.glb --views 8 --clay

      ushape show sculpt.glb --turntable -o sculpt.webp
    """  # fmt: skip
    from ultrashape_cli.commands.settings import make_ui
    from ultrashape_cli.errors import MeshError
    from ultrashape_cli.files import check_outputs
    from ultrashape_cli.rendering.output import SHEET_CELL

    ui = make_ui("show", json_output, quiet, verbose, progress)
    files = _files(meshes)[:limit]
    target = _target(files, out, turntable, force)
    check_outputs([target], [*files, *meshes, *_referred(target, files)], hint="-o shown.png")
    steps = _TURN_STEPS if turntable else views
    if not turntable and len(files) * views > 1:
        size = min(size, SHEET_CELL)
    shown, failed = [], {}
    with ui.progress("show", len(files)) as bar:
        for number, file in enumerate(files):
            try:
                shown.append(_show(file, steps, turntable, clay, front, up, size))
            except MeshError as error:
                failed[str(file)] = error.message
                ui.warn(f"{error.message}; {error.hint}")
            bar.update(number + 1, file.name)
    if shown:
        _write(target, shown, turntable, views)
    _report(ui, shown, failed, target)
    if failed:
        raise typer.Exit(1)


def _files(given: list[Path]) -> list[Path]:
    from ultrashape_cli.preparation.discover import find_meshes

    return [file for path in given for file in (find_meshes(path) if path.is_dir() else [path])]


def _referred(target: Path, files: list[Path]) -> list[Path]:
    """Returns the textures and buffers beside meshes in whose folders the picture would lie."""
    from ultrashape_cli.meshfiles.companions import colour_files, material_names, uris

    place = target.resolve()
    near = [file for file in files if place.is_relative_to(file.parent.resolve())]
    return [
        file.parent / name
        for file in near
        if file.is_file()
        for name in [*colour_files(file, material_names(file)), *uris(file, "buffers")]
    ]


def _target(files: list[Path], out: Path | None, turntable: bool, force: bool) -> Path:
    from ultrashape_cli.errors import UsageError

    suffixes = (".webp", ".gif") if turntable else (".png",)
    name = files[0].stem if len(files) == 1 else "meshes"
    target = out or Path(f"{name}-shown{suffixes[0]}")
    if turntable and len(files) > 1:
        raise UsageError("a turntable is of one mesh", hint="ushape show MESH --turntable")
    if target.suffix.lower() not in suffixes:
        raise UsageError(
            f"`{target.name}` does not end in {' or '.join(suffixes)}",
            hint=f"-o {target.with_suffix(suffixes[0])}",
        )
    if out is not None and out.exists() and not force:
        raise UsageError(f"`{out}` exists", hint="-o OTHER, or --force to replace it")
    return target


def _show(
    file: Path,
    views: int,
    turntable: bool,
    clay: bool,
    front: FrontAxis,
    up: str,
    size: int,
) -> _Shown:
    from ultrashape_cli.geometry.check import topology
    from ultrashape_cli.geometry.front import front_axis
    from ultrashape_cli.geometry.mesh import weld
    from ultrashape_cli.geometry.normalize import up_axis
    from ultrashape_cli.meshfiles.appearance import appearance_of
    from ultrashape_cli.meshfiles.load import mesh_of, read_contents
    from ultrashape_cli.rendering.portrait import portraits
    from ultrashape_cli.watertight.surroundings import without_surroundings

    contents = read_contents(file, colours=True)
    mesh, appearance = mesh_of(file, contents), appearance_of(contents)
    state = topology(weld(mesh))
    coloured = appearance is not None and appearance.has_colour
    textured = appearance is not None and any(m.texels is not None for m in appearance.materials)
    upright = up_axis(up, file.suffix)
    towards = front_axis(front, mesh, upright)
    notes = [*contents.notes, *without_surroundings(mesh).notes]
    row = {
        "mesh": str(file),
        "faces": len(mesh.faces),
        "vertices": len(mesh.vertices),
        "parts": len(contents.parts),
        "bodies": state.components,
        "open_edges": state.boundary_edges,
        "colours": "texture" if textured else "colours" if coloured else "none",
        "size": [float(f"{side:.4g}") for side in mesh.extents],
        "front": towards,
        "problems": [*notes, *(appearance.problems if appearance else ())],
    }
    pictures = portraits(
        mesh,
        None if clay else appearance,
        views=views,
        turntable=turntable,
        size=size,
        up=upright,
        front=towards,
    )
    return _Shown(row, pictures)


def _write(target: Path, shown: list[_Shown], turntable: bool, views: int) -> None:
    from PIL import Image

    from ultrashape_cli.files import temporary_path
    from ultrashape_cli.rendering.output import contact_sheet, save_png

    pictures = [picture for each in shown for picture in each.pictures]
    if turntable:
        frames = [Image.fromarray(picture) for picture in pictures]
        with temporary_path(target) as temporary:
            frames[0].save(temporary, save_all=True, append_images=frames[1:], duration=_TURN_MS,
                           loop=0, disposal=2)  # fmt: skip
    elif len(pictures) == 1:
        save_png(pictures[0], target)
    else:
        save_png(contact_sheet(pictures, views if len(shown) > 1 and views > 1 else 0), target)


def _report(ui: UI, shown: list[_Shown], failed: dict[str, str], target: Path) -> None:
    rows = [each.row for each in shown]
    for row in rows:
        for problem in row["problems"]:
            ui.warn(f"{row['mesh']}: {problem}")
    if rows:
        _table(ui, rows)
    ui.result(
        status="failed" if failed else "ok",
        inputs={"meshes": [row["mesh"] for row in rows]},
        outputs={"picture": str(target)} if shown else {},
        counts={"shown": len(shown), "failed": len(failed)},
        meshes=rows,
        failures=failed,
    )


def _table(ui: UI, rows: list[dict[str, Any]]) -> None:
    ui.table(
        ("mesh", "faces", "parts", "open edges", "colours", "front", "size"),
        [
            (
                Path(row["mesh"]).name,
                f"{row['faces']:,}",
                row["parts"],
                f"{row['open_edges']:,}",
                row["colours"],
                row["front"],
                " x ".join(f"{side:g}" for side in row["size"]),
            )
            for row in rows
        ],
    )
