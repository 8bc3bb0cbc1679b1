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
    licence_override: opt.LicenceOverrideOpt = False,
    dry_run: opt.DryRunOpt = False,
    json_output: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
    verbose: opt.VerboseOpt = False,
) -> None:
    """Upload weights as safetensors, with a model card that states their licence

    Whatever WEIGHTS is, it is checked against its model and uploaded as one safetensors file.
    The attribution of a run, or beside a file, goes with it; to a public place nothing goes that
    learned from meshes whose licence forbids commercial use or to hand them on.
    Creates the repository where there is none. Needs `hf auth login` or `HF_TOKEN`.

    Examples:

      ushape weights push runs/data-ultrashape-1.0-dit me/shoes --dry-run

      ushape weights push finetuned.safetensors me/shoes --public
    """
    from ultrashape_cli.data.attribution import attribution_of_weights
    from ultrashape_cli.models.convert import choose_model, gather_weights, require_fit
    from ultrashape_cli.ui import UI

    ui = UI("weights push", json_output=json_output, quiet=quiet, verbose=verbose)
    attribution = attribution_of_weights(source)
    if not licence_override:
        _check_licences(attribution, repo, private)
    gathered = gather_weights(source)
    spec = choose_model(gathered, model)
    require_fit(gathered, spec)
    show_parts(ui, gathered)
    inputs = {"weights": str(source), "model": spec.name, "repo": repo, "licence": spec.licence}
    if dry_run:
        names = [file, "README.md", *(["ATTRIBUTION.md"] if attribution else [])]
        ui.info(f"would upload {', '.join(names[:-1])} and {names[-1]} to {repo}")
        ui.result(inputs=inputs)
        return
    more: dict[str, Path | bytes] = {"ATTRIBUTION.md": attribution} if attribution else {}
    address, digest = _push(source, gathered, spec.name, repo, file, private, message, more)
    ui.result(inputs=inputs, outputs={"commit": address}, sha256=digest)


def _push(
    source: Path,
    gathered: Gathered,
    model: str,
    repo: str,
    file: str,
    private: bool,
    message: str,
    more: dict[str, Path | bytes],
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
        files: dict[str, Path | bytes] = {"README.md": card.encode(), file: path, **more}
        return upload(repo, files, message=message, private=private), digest


def _check_licences(attribution: Path | None, repo: str, private: bool) -> None:
    """Raises UsageError where others may read the repository and licences stand against it."""
    from ultrashape_cli.collections.licences import forbids_public_weights
    from ultrashape_cli.data.attribution import read_works
    from ultrashape_cli.errors import UsageError
    from ultrashape_cli.hub import is_public

    works = read_works(attribution) if attribution else set()
    bound = sorted({work.licence for work in works if forbids_public_weights(work.licence)})
    if bound and (not private or is_public(repo)):
        raise UsageError(
            f"`{repo}` is public, and the weights learned from meshes under {', '.join(bound)}",
            hint="push to a private repository; --licence-override if you have the rights",
        )
