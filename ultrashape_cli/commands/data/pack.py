"""`ushape data pack`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ultrashape_cli import options as opt
from ultrashape_cli.commands.data.options import MIB, ReplaceOpt, mib_progress


def pack(
    data: opt.DatasetArg = Path("data"),
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="PACK",
            help="Folder of the pack. Default: DATA.pack.",
            rich_help_panel="Output",
        ),
    ] = None,
    shard_mib: Annotated[
        int,
        typer.Option(
            "--shard-mib",
            metavar="N",
            min=1,
            max=65_536,
            help="Largest tar file; most have between half of it and all. Default: 512.",
            rich_help_panel="Output",
        ),
    ] = 512,
    force: ReplaceOpt = False,
    dry_run: opt.DryRunOpt = False,
    json_output: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
    verbose: opt.VerboseOpt = False,
    progress: opt.ProgressOpt = True,
) -> None:
    """Pack a prepared dataset into tar files of some hundred MiB

    Reads DATA once and writes PACK: tar files with all files of an asset in one, an index of each,
    and pack.json with sizes and hashes. The same dataset gives the same bytes; repeated, only what
    changed is written anew. Assets whose files are not whole are left out and named (exit 1).
    `ushape train --data` takes PACK as it is; `ushape data unpack` makes it DATA again.

    Examples:

      ushape data pack data -o data.pack

      rsync -a --partial data.pack/ pod:data.pack
    """  # fmt: skip
    from ultrashape_cli.data.layout import Dataset
    from ultrashape_cli.files import check_outputs
    from ultrashape_cli.packing.held import held_pack, require_own
    from ultrashape_cli.packing.location import Location
    from ultrashape_cli.packing.write import plan_pack, write_pack
    from ultrashape_cli.ui import UI

    ui = UI("data pack", json_output=json_output, quiet=quiet, verbose=verbose, progress=progress)
    dataset = Dataset(data)
    dataset.require()
    root = out or data.with_name(f"{data.resolve().name}.pack")
    check_outputs([root], [data], hint="choose another --out")
    held = held_pack(Location(str(root)))
    if not force:
        require_own(root, held, data)
    plan = plan_pack(dataset, shard_mib * MIB)
    for asset, why in plan.left_out.items():
        ui.warn(f"asset `{asset}` left out: {why}")
    counts = {"assets": len(plan.assets), "left_out": len(plan.left_out)}
    if dry_run:
        ui.info(f"would pack {counts['assets']:,} assets, {plan.total / MIB:,.0f} MiB")
        ui.result(inputs={"data": str(data)}, counts=counts)
        return
    with mib_progress(ui, "pack", plan.total) as said:
        made = write_pack(plan, root, said)
    ui.info(f"{made.assets:,} assets in {len(made.shards):,} shards, {made.size / MIB:,.0f} MiB, "
            f"dataset {made.digest[:16]}")  # fmt: skip
    if plan.left_out:
        ui.hint(f"ushape prepare repeats what is not whole; then ushape data pack {data}")
    else:
        ui.hint(f"ushape data push {root} s3://BUCKET/PATH")
    ui.result(
        status="error" if plan.left_out else "ok",
        inputs={"data": str(data)},
        outputs={"pack": str(root)},
        counts=counts | {"shards": len(made.shards)},
        digest=made.digest,
        left_out=plan.left_out,
    )
    if plan.left_out:
        raise typer.Exit(1)
