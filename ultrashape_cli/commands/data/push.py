"""`ushape data push`."""

from __future__ import annotations

from ultrashape_cli import options as opt
from ultrashape_cli.commands.data.options import MIB, AddressArg, PackArg, mib_progress


def push(
    pack: PackArg,
    address: AddressArg,
    dry_run: opt.DryRunOpt = False,
    json_output: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
    verbose: opt.VerboseOpt = False,
    progress: opt.ProgressOpt = True,
) -> None:
    """Upload what a place lacks of a pack

    Each shard is checked against its hash before it is sent, and named after it, so that what is
    there already is not sent again: repeat the command after anything that stopped it. Readers see
    the former pack until the last file is there; shards of former packs stay. Credentials are
    those of the provider's own variables and files, such as AWS_ACCESS_KEY_ID or HF_TOKEN.

    Examples:

      ushape data push data.pack s3://studio/collectibles

      ushape data push data.pack hf://datasets/studio/collectibles
    """
    from ultrashape_cli.packing.layout import read_pack
    from ultrashape_cli.packing.location import Location
    from ultrashape_cli.packing.transfer import missing_there, push_pack
    from ultrashape_cli.ui import UI

    ui = UI("data push", json_output=json_output, quiet=quiet, verbose=verbose, progress=progress)
    found, place = read_pack(pack), Location(address)
    inputs = {"pack": str(pack), "address": address}
    if dry_run:
        missing = missing_there(found, place)
        size = sum(piece.size for piece in missing)
        ui.info(f"would send {len(missing):,} files, {size / MIB:,.0f} MiB, to {address}")
        ui.result(inputs=inputs, counts={"files": len(missing)})
        return
    with mib_progress(ui, "push", found.size) as said:
        sent = push_pack(pack, found, place, said)
    size = sum(piece.size for piece in sent)
    ui.info(f"sent {len(sent):,} files, {size / MIB:,.0f} MiB; {address} is "
            f"dataset {found.digest[:16]}")  # fmt: skip
    ui.hint(f"ushape data pull {address} {pack.name}")
    counts = {"files": len(sent), "bytes": size, "shards": len(found.shards)}
    ui.result(inputs=inputs, outputs={"address": address}, counts=counts, digest=found.digest)
