"""`ushape weights push`: weights to the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ultrashape_cli import options as opt
from ultrashape_cli.commands.weights.options import ModelOpt, SourceArg, show_parts

if TYPE_CHECKING:
    from ultrashape_cli.models.convert import Gathered


def push(
    source: SourceArg,
    repo: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Repository on the Hub.")],
    file: Annotated[
        str,
        typer.Option(
            "--file", metavar="FILE", help="Name in the repository.", rich_help_panel="Output"
        ),
    ] = "model.safetensors",
    model: ModelOpt = None,
    private: Annotated[
        bool,
        typer.Option("--private/--public", help="Of a new repository.", rich_help_panel="Output"),
    ] = True,
    message: Annotated[
        str,
        typer.Option("--message", metavar="TEXT", help="Commit message.", rich_help_panel="Output"),
    ] = "Upload weights with ushape",
    dry_run: opt.DryRunOpt = False,
    json_output: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
    verbose: opt.VerboseOpt = False,
) -> None:
    """Upload weights as safetensors, with a model card that states their licence

    Whatever WEIGHTS is, it is checked against its model and uploaded as one safetensors file.
    Creates the repository where there is none. Needs `hf auth login` or `HF_TOKEN`.

    Examples:

      ushape weights push runs/data-ultrashape-1.0-dit me/shoes --dry-run

      ushape weights push finetuned.safetensors me/shoes --public
    """
    from ultrashape_cli.models.convert import choose_model, gather_weights, require_fit
    from ultrashape_cli.ui import UI

    ui = UI("weights push", json_output=json_output, quiet=quiet, verbose=verbose)
    gathered = gather_weights(source)
    spec = choose_model(gathered, model)
    require_fit(gathered, spec)
    show_parts(ui, gathered)
    inputs = {"weights": str(source), "model": spec.name, "repo": repo, "licence": spec.licence}
    if dry_run:
        ui.info(f"would upload {file} and README.md to {repo}")
        ui.result(inputs=inputs)
        return
    address, digest = _push(source, gathered, spec.name, repo, file, private, message)
    ui.result(inputs=inputs, outputs={"commit": address}, sha256=digest)


def _push(
    source: Path, gathered: Gathered, model: str, repo: str, file: str, private: bool, message: str
) -> tuple[str, str]:
    """Uploads and returns the commit's address and the hash of the weights."""
    import tempfile

    from ultrashape_cli.hub import sha256_file, upload
    from ultrashape_cli.models.card import model_card
    from ultrashape_cli.models.convert import convert_weights, summarise
    from ultrashape_cli.models.registry import model_spec

    spec = model_spec(model)
    with tempfile.TemporaryDirectory(prefix="ushape-push-") as folder:
        path = source
        if source.suffix != ".safetensors":
            path = Path(folder) / "model.safetensors"
            convert_weights(gathered, spec, path)
        digest = sha256_file(path)
        card = model_card(spec, repo, file, summarise(gathered), digest)
        files: dict[str, Path | bytes] = {"README.md": card.encode(), file: path}
        return upload(repo, files, message=message, private=private), digest
