"""`ushape data verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ultrashape_cli import options as opt
from ultrashape_cli.commands.data.options import mib_progress


def verify(
    pack: Annotated[
        str, typer.Argument(metavar="PACK|ADDRESS", help="Packed dataset, here or elsewhere.")
    ],
    json_output: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
    verbose: opt.VerboseOpt = False,
    progress: opt.ProgressOpt = True,
) -> None:
    """Check a pack against its hashes, and name the files that changed

    Reads all of PACK. Exits with 1 where a shard is missing or is not what was packed.

    Examples:

      ushape data verify data.pack

      ushape data verify s3://studio/collectibles
    """
    from ultrashape_cli.packing.layout import read_pack
    from ultrashape_cli.packing.location import Location
    from ultrashape_cli.packing.transfer import damaged_there, read_remote_pack
    from ultrashape_cli.packing.verify import verify_pack
    from ultrashape_cli.ui import UI

    ui = UI("data verify", json_output=json_output, quiet=quiet, verbose=verbose, progress=progress)
    if "://" in pack:
        place = Location(pack)
        found = read_remote_pack(place)
        with mib_progress(ui, "verify", found.size) as said:
            damaged = damaged_there(found, place, said)
        mend = f"ushape data push PACK {pack} --check, from a pack that is whole"
        wrong: dict[str, list[str]] = {}
        for piece in damaged:
            wrong.setdefault(Path(piece.name).stem, []).append(f"`{piece.name}` is damaged there")
    else:
        found = read_pack(Path(pack))
        with mib_progress(ui, "verify", found.size) as said:
            wrong = verify_pack(Path(pack), found, said)
        mend = "delete these shards, then pull or pack again: only they are made anew"
    for stem, problems in wrong.items():
        for problem in problems[:10]:
            ui.info(f"{stem}: {problem}")
    whole = len(found.shards) - len(wrong.keys() & {shard.stem for shard in found.shards})
    good = f"{pack}: {whole:,} of {len(found.shards):,} shards whole"
    ui.verdict(f"{good}, dataset {found.digest[:16]}", good=not wrong)
    if wrong:
        ui.hint(mend)
    ui.result(
        status="error" if wrong else "ok",
        inputs={"pack": pack},
        counts={"shards": len(found.shards), "damaged": len(wrong), "assets": found.assets},
        digest=found.digest,
        problems=wrong,
    )
    if wrong:
        raise typer.Exit(1)
