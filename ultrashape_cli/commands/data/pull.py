"""`ushape data pull`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ultrashape_cli import options as opt
from ultrashape_cli.commands.data.options import MIB, AddressArg, ReplaceOpt, mib_progress


def pull(
    address: AddressArg,
    pack: Annotated[
        Path, typer.Argument(metavar="PACK", help="Folder for the pack.", file_okay=False)
    ],
    force: ReplaceOpt = False,
    dry_run: opt.DryRunOpt = False,
    json_output: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
    verbose: opt.VerboseOpt = False,
    progress: opt.ProgressOpt = True,
) -> None:
    """Download what a folder lacks of a pack

    Each file gets its name when its hash is right. Repeated, the command goes on in the middle of
    a file, and brings only what changed there. Shards that are no longer of the pack are removed.

    Examples:

      ushape data pull s3://studio/collectibles data.pack

      ushape data unpack data.pack -o data
    """
    from ultrashape_cli.errors import UsageError
    from ultrashape_cli.files import check_outputs
    from ultrashape_cli.packing.held import held_pack
    from ultrashape_cli.packing.layout import SOURCES, missing_here
    from ultrashape_cli.packing.location import Location
    from ultrashape_cli.packing.transfer import pull_pack, read_remote_pack
    from ultrashape_cli.ui import UI

    ui = UI("data pull", json_output=json_output, quiet=quiet, verbose=verbose, progress=progress)
    place = Location(address)
    if place.is_local:
        check_outputs([pack], [Path(place.root)], hint="choose another folder")
    found = read_remote_pack(place)
    held = held_pack(Location(str(pack)))
    replaced = held if held and held.digest != found.digest else None
    if replaced and (pack / SOURCES).is_file() and not force:
        raise UsageError(f"`{pack}` was packed here, of another dataset or version",
                         hint="choose another folder; --force replaces it")  # fmt: skip
    missing = missing_here(found.shards, pack)
    size = sum(piece.size for piece in missing)
    inputs = {"address": address}
    if dry_run:
        ui.info(f"would bring {len(missing):,} files, {size / MIB:,.0f} MiB, from {address}")
        ui.result(inputs=inputs, counts={"files": len(missing)})
        return
    with mib_progress(ui, "pull", found.size) as said:
        pull_pack(found, place, pack, said)
    if replaced:
        gone = {shard.stem for shard in replaced.shards} - {shard.stem for shard in found.shards}
        ui.info(f"{pack} was dataset {replaced.digest[:16]} with {replaced.assets:,} assets; "
                f"{len(gone):,} shards of it are gone")  # fmt: skip
    ui.info(f"brought {len(missing):,} files, {size / MIB:,.0f} MiB: {found.assets:,} assets, "
            f"dataset {found.digest[:16]}")  # fmt: skip
    ui.hint(f"ushape data unpack {pack} -o data")
    counts = {"files": len(missing), "bytes": size, "shards": len(found.shards)}
    ui.result(inputs=inputs, outputs={"pack": str(pack)}, counts=counts, digest=found.digest)
