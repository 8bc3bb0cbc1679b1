"""`ushape data push`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ultrashape_cli import options as opt
from ultrashape_cli.commands.data.options import MIB, AddressArg, PackArg, ReplaceOpt, mib_progress

if TYPE_CHECKING:
    from ultrashape_cli.packing.layout import Pack
    from ultrashape_cli.packing.location import Location


def push(
    pack: PackArg,
    address: AddressArg,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Read all that is there, and send again what is damaged.",
            rich_help_panel="Run",
        ),
    ] = False,
    force: ReplaceOpt = False,
    licence_override: opt.LicenceOverrideOpt = False,
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
    Imported meshes whose licence forbids to hand them on go to no public repository of the Hub,
    and to no bucket, which may be public, without --licence-override.

    Examples:

      ushape data push data.pack s3://studio/collectibles

      ushape data push data.pack hf://datasets/studio/collectibles
    """
    from ultrashape_cli.files import check_outputs
    from ultrashape_cli.packing.held import held_pack, require_version_of
    from ultrashape_cli.packing.layout import read_pack
    from ultrashape_cli.packing.location import Location
    from ultrashape_cli.packing.transfer import damaged_there, missing_there, push_pack
    from ultrashape_cli.ui import UI

    ui = UI("data push", json_output=json_output, quiet=quiet, verbose=verbose, progress=progress)
    found, place = read_pack(pack), Location(address)
    if not licence_override:
        _check_licences(found, place)
    if place.is_local:
        check_outputs([Path(place.root)], [pack], hint="choose another folder")
    held = held_pack(place)
    if not force:
        require_version_of(pack, held, found, place)
    inputs = {"pack": str(pack), "address": address}
    if check and held:
        with mib_progress(ui, "check", found.size) as said:
            missing = damaged_there(found, place, said)
    else:
        missing = missing_there(found, place)
    if dry_run:
        size = sum(piece.size for piece in missing)
        ui.info(f"would send {len(missing):,} files, {size / MIB:,.0f} MiB, to {address}")
        ui.result(inputs=inputs, counts={"files": len(missing)})
        return
    with mib_progress(ui, "push", found.size) as said:
        sent = push_pack(pack, found, place, said, missing=missing)
    size = sum(piece.size for piece in sent)
    before = (f", was {held.digest[:16]} with {held.assets:,} assets"
              if held and held.digest != found.digest else "")  # fmt: skip
    ui.info(f"sent {len(sent):,} files, {size / MIB:,.0f} MiB; {address} is "
            f"dataset {found.digest[:16]}{before}")  # fmt: skip
    ui.hint(f"ushape data pull {address} {pack.name}")
    counts = {"files": len(sent), "bytes": size, "shards": len(found.shards)}
    ui.result(inputs=inputs, outputs={"address": address}, counts=counts, digest=found.digest)


def _check_licences(pack: Pack, place: Location) -> None:
    """Raises UsageError where assets may not be handed on and others may read the place."""
    from ultrashape_cli.collections.licences import forbids_redistribution
    from ultrashape_cli.errors import UsageError
    from ultrashape_cli.packing.transfer import may_be_public

    bound = {name: count for name, count in pack.licences.items() if forbids_redistribution(name)}
    if not bound or not may_be_public(place):
        return
    what = ", ".join(f"{count:,} of {name}" for name, count in bound.items())
    public = "is public" if place.kind == "hf" else "may be public"
    raise UsageError(
        f"`{place.address}` {public}, and the pack holds assets that may not be handed on: {what}",
        hint="push to a private place; --licence-override if it is one, or if you have the rights",
    )
