"""`ushape weights push`: weights to the Hub, or to storage elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ultrashape_cli import options as opt
from ultrashape_cli.commands.weights.options import ModelOpt, SourceArg, show_parts

if TYPE_CHECKING:
    from ultrashape_cli.models.convert import Gathered
    from ultrashape_cli.packing.location import Location


def push(
    source: SourceArg,
    repo: Annotated[
        str,
        typer.Argument(
            metavar="OWNER/NAME",
            help="Repository on the Hub (hf:// may stand before it), or an address: s3://, gs://, "
            "sftp:// or file:// and a folder.",
        ),
    ],
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
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Replace other weights at an address; the Hub keeps all versions.",
            rich_help_panel="Run",
        ),
    ] = False,
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
    Creates the repository where there is none. Needs `hf auth login` or `HF_TOKEN`; elsewhere the
    provider's own variables and files.

    Examples:

      ushape weights push runs/data-ultrashape-1.0-dit me/shoes --dry-run

      ushape weights push finetuned.safetensors me/shoes --public

      ushape weights push runs/mine s3://studio/weights/shoes
    """
    from ultrashape_cli.data.attribution import attribution_of_weights
    from ultrashape_cli.files import check_outputs
    from ultrashape_cli.models.convert import choose_model, gather_weights, inputs_of, require_fit
    from ultrashape_cli.packing.weights import require_free
    from ultrashape_cli.ui import UI

    ui = UI("weights push", json_output=json_output, quiet=quiet, verbose=verbose)
    place = _place(repo)
    if place and place.is_local:
        check_outputs([Path(place.root)], inputs_of(source), hint="choose another folder")
    repo = repo.removeprefix("hf://")
    attribution = attribution_of_weights(source)
    if not licence_override:
        _check_licences(attribution, repo, place, private)
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
    with _written(source, gathered, spec.name, repo, file, attribution) as (files, digest):
        if place:
            if not force:
                require_free(place, files, {file: digest})
            for name, path in files.items():
                place.send(path, name)
            address = f"{repo.rstrip('/')}/{file}"
        else:
            from ultrashape_cli.hub import upload

            address = upload(repo, dict(files), message=message, private=private)
    ui.result(inputs=inputs, outputs={"file" if place else "commit": address}, sha256=digest)


def _place(repo: str) -> Location | None:
    """Returns the storage of an address; None for a repository on the Hub."""
    if "://" not in repo or repo.startswith("hf://"):
        return None
    from ultrashape_cli.packing.location import Location

    return Location(repo)


@contextmanager
def _written(
    source: Path, gathered: Gathered, model: str, repo: str, file: str, attribution: Path | None
) -> Iterator[tuple[dict[str, Path], str]]:
    """Yields what is uploaded, by its name there, and the hash of the weights."""
    import tempfile

    from ultrashape_cli.data.attribution import NAME
    from ultrashape_cli.hub import sha256_file
    from ultrashape_cli.models.card import model_card
    from ultrashape_cli.models.convert import convert_weights, summarise
    from ultrashape_cli.models.registry import model_spec
    from ultrashape_cli.packing.weights import SUMS

    spec = model_spec(model)
    with tempfile.TemporaryDirectory(prefix="ushape-push-") as folder:
        path = source
        if source.suffix != ".safetensors":
            path = Path(folder) / "model.safetensors"
            convert_weights(gathered, spec, path)
        digest = sha256_file(path)
        card, sums = Path(folder) / "README.md", Path(folder) / SUMS
        card.write_text(model_card(spec, repo, file, summarise(gathered), digest))
        files = {file: path, "README.md": card}
        hashes = {file: digest}
        if attribution:
            files[NAME] = attribution
            hashes[NAME] = sha256_file(attribution)
        sums.write_text("".join(f"{value}  {name}\n" for name, value in hashes.items()))
        # The Hub tells hashes itself; elsewhere they come last, when all else is there.
        yield files | ({SUMS: sums} if "://" in repo else {}), digest


def _check_licences(
    attribution: Path | None, repo: str, place: Location | None, private: bool
) -> None:
    """Raises UsageError where others may read the repository and licences stand against it."""
    from ultrashape_cli.collections.licences import forbids_public_weights
    from ultrashape_cli.data.attribution import read_works
    from ultrashape_cli.errors import UsageError
    from ultrashape_cli.hub import is_public
    from ultrashape_cli.packing.transfer import may_be_public

    works = read_works(attribution) if attribution else set()
    bound = sorted({work.licence for work in works if forbids_public_weights(work.licence)})
    if not bound:
        return
    # A bucket does not tell who may read it.
    if not private or (may_be_public(place) if place else is_public(repo)):
        how = "may be" if place else "is"
        raise UsageError(
            f"`{repo}` {how} public, and the weights learned from meshes under {', '.join(bound)}",
            hint="push to a private repository; --licence-override if you have the rights",
        )
