"""`ushape weights verify`: whether weights fit a model, and their hash."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ultrashape_cli import options as opt
from ultrashape_cli.commands.weights.options import ModelOpt, ShaOpt, SourceArg

if TYPE_CHECKING:
    from ultrashape_cli.models.convert import Gathered

_SHOWN_MISFITS = 20


def verify(
    source: SourceArg,
    model: ModelOpt = None,
    sha256: ShaOpt = None,
    made_from: Annotated[
        Path | None,
        typer.Option(
            "--made-from",
            metavar="WEIGHTS",
            help="Weights that a quantised file must have been made from.",
            exists=True,
            rich_help_panel="Input",
        ),
    ] = None,
    json_output: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
    verbose: opt.VerboseOpt = False,
) -> None:
    """Check that weights fit a model, key by key, and print their SHA-256

    Exits with 1 when a key is missing, left over or of another shape, and names file, key,
    expected and found. Of a quantised file, codes and scales are the keys.

    Examples:

      ushape weights verify ultrashape_v1.pt

      ushape weights verify model.safetensors --model ultrashape-1.0 --json
    """
    from ultrashape_cli.hub import sha256_file
    from ultrashape_cli.models.convert import check_weights, choose_model, gather_weights
    from ultrashape_cli.models.registry import COMPONENTS
    from ultrashape_cli.ui import UI

    ui = UI("weights verify", json_output=json_output, quiet=quiet, verbose=verbose)
    gathered = gather_weights(source)
    spec = choose_model(gathered, model)
    problems = check_weights(gathered, spec)
    rows = [
        {"file": str(file), "key": misfit.key, "expected": misfit.expected, "found": misfit.found}
        for file, misfit in problems
    ]
    read = set(gathered.files.values())
    files = sorted({s for f in read for s in (f.glob("*.safetensors") if f.is_dir() else [f])})
    hashes = {str(file): sha256_file(file) for file in files}
    wrong = sha256 is not None and sha256.lower() not in hashes.values()
    for name, digest in hashes.items():
        ui.info(f"sha256 {digest}  {name}")
    for file, misfit in problems[:_SHOWN_MISFITS]:
        ui.info(f"{file}: {misfit}")
    if wrong:
        ui.info(f"{source}: sha256 is not {sha256}")
        found = ", ".join(hashes.values())
        rows.append({"file": str(source), "key": "sha256", "expected": sha256, "found": found})
    if made_from is not None and (row := _other_source(gathered, made_from)):
        ui.info(f"{source}: was not made from {made_from}")
        rows.append({"file": str(source), **row})
    if rows:
        ui.info(f"{source}: {len(rows)} differences from model {spec.name}")
    else:
        absent = [name for name in COMPONENTS if name not in gathered.parts]
        note = f"; it has no {', '.join(absent)}" if absent else ""
        if gathered.quantised:
            note += f"; its DiT is {gathered.quantised.scheme} codes"
            # Sizes and names alone do not tell a byte that has changed.
            note += "" if sha256 else ", compared with no hash (--sha256)"
        ui.info(f"{source} fits model {spec.name}{note}")
    ui.result(
        status="error" if rows else "ok",
        inputs={"weights": str(source), "model": spec.name},
        counts={"keys": sum(map(len, gathered.parts.values())), "differences": len(rows)},
        sha256=hashes,
        differences=rows,
    )
    if rows:
        raise typer.Exit(1)


def _other_source(gathered: Gathered, made_from: Path) -> dict[str, str] | None:
    """Returns what differs where a quantised file was made from other weights than those named.

    Raises:
        UsageError: The file is not quantised.
    """
    from ultrashape_cli.errors import UsageError
    from ultrashape_cli.hub import sha256_file
    from ultrashape_cli.models.convert import files_of

    if gathered.quantised is None:
        raise UsageError("--made-from is for quantised files, and this one is none",
                         hint="leave it out")  # fmt: skip
    expected = sorted(sha256_file(file) for file in files_of(made_from))
    found = sorted(gathered.quantised.sources)
    if expected == found:
        return None
    key = "quantisation.source_sha256"
    return {"key": key, "expected": ", ".join(expected), "found": ", ".join(found)}
