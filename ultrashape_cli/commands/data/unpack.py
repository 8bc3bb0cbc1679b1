"""`ushape data unpack`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ultrashape_cli import options as opt
from ultrashape_cli.commands.data.options import PackArg, mib_progress


def unpack(
    pack: PackArg,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            metavar="DATA",
            help="Folder of the dataset. Default: data.",
            rich_help_panel="Output",
        ),
    ] = Path("data"),
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Remove assets of a former pack that this one lacks.",
            rich_help_panel="Run",
        ),
    ] = False,
    json_output: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
    verbose: opt.VerboseOpt = False,
    progress: opt.ProgressOpt = True,
) -> None:
    """Write the dataset that a pack was made of

    Every file is checked against its hash. Files of the same content are left as they are, so that
    the command may be repeated; others of the same name are replaced only if DATA is absent, empty
    or was unpacked from a pack before.
    Assets of such a pack that PACK lacks are removed only with --force.

    Examples:

      ushape data unpack data.pack -o data

      ushape train --data data --profile a40
    """  # fmt: skip
    from ultrashape_cli.files import check_outputs
    from ultrashape_cli.packing.layout import read_pack
    from ultrashape_cli.packing.unpack import unpack_pack
    from ultrashape_cli.ui import UI

    ui = UI("data unpack", json_output=json_output, quiet=quiet, verbose=verbose, progress=progress)
    found = read_pack(pack)
    check_outputs([out], [pack], hint="choose another --out")
    with mib_progress(ui, "unpack", found.size) as said:
        made, kept = unpack_pack(pack, found, out, said, force=force)
    ui.info(f"{found.assets:,} assets: {made:,} files written, {kept:,} were there")
    ui.hint(f"ushape train --data {out}")
    counts = {"assets": found.assets, "made": made, "kept": kept}
    ui.result(inputs={"pack": str(pack)}, outputs={"data": str(out)}, counts=counts,
              digest=found.digest)  # fmt: skip
