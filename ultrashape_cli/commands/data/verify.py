"""`ushape data verify`."""

from __future__ import annotations

import typer

from ultrashape_cli import options as opt
from ultrashape_cli.commands.data.options import PackArg, mib_progress


def verify(
    pack: PackArg,
    json_output: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
    verbose: opt.VerboseOpt = False,
    progress: opt.ProgressOpt = True,
) -> None:
    """Check a pack against its hashes, and name the files that changed

    Reads all of PACK. Exits with 1 where a shard is missing or is not what was packed.

    Examples:

      ushape data verify data.pack
    """
    from ultrashape_cli.packing.layout import read_pack
    from ultrashape_cli.packing.verify import verify_pack
    from ultrashape_cli.ui import UI

    ui = UI("data verify", json_output=json_output, quiet=quiet, verbose=verbose, progress=progress)
    found = read_pack(pack)
    with mib_progress(ui, "verify", found.size) as said:
        wrong = verify_pack(pack, found, said)
    for stem, problems in wrong.items():
        for problem in problems[:10]:
            ui.info(f"{stem}: {problem}")
    whole = len(found.shards) - len(wrong)
    good = f"{pack}: {whole:,} of {len(found.shards):,} shards whole"
    ui.verdict(f"{good}, dataset {found.digest[:16]}", good=not wrong)
    if wrong:
        ui.hint("delete these shards, then pull or pack again: only they are made anew")
    ui.result(
        status="error" if wrong else "ok",
        inputs={"pack": str(pack)},
        counts={"shards": len(found.shards), "damaged": len(wrong), "assets": found.assets},
        digest=found.digest,
        problems=wrong,
    )
    if wrong:
        raise typer.Exit(1)
