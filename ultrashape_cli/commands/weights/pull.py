"""`ushape weights pull`: released weights from the Hub."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ultrashape_cli import options as opt
from ultrashape_cli.commands.weights.options import ShaOpt, size

if TYPE_CHECKING:
    from ultrashape_cli.hub import Licence, RemoteFile
    from ultrashape_cli.ui import UI

RevisionOpt = Annotated[
    str | None,
    typer.Option(
        "--revision",
        metavar="REVISION",
        help="Branch, tag or commit. Default: main.",
        rich_help_panel="Input",
    ),
]


def pull(
    model: Annotated[str, typer.Argument(help="Model family.")] = "ultrashape-1.0",
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for the files.", rich_help_panel="Output")
    ] = Path("weights"),
    repo: Annotated[
        str | None,
        typer.Option(
            "--repo",
            metavar="OWNER/NAME",
            help="Repository on the Hub, or an address to which `weights push` sent them. Default: "
            "the model's.",
            rich_help_panel="Input",
        ),
    ] = None,
    file: Annotated[
        str | None,
        typer.Option(
            "--file",
            metavar="FILE",
            help="File in the repository. Default: the model's.",
            rich_help_panel="Input",
        ),
    ] = None,
    revision: RevisionOpt = None,
    sha256: ShaOpt = None,
    accept_license: Annotated[
        bool,
        typer.Option(
            "--accept-license",
            help="Accept the licence of the weights; remembered for the next time.",
            rich_help_panel="Run",
        ),
    ] = False,
    force: opt.ForceOpt = False,
    dry_run: opt.DryRunOpt = False,
    json_output: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
    verbose: opt.VerboseOpt = False,
    progress: opt.ProgressOpt = True,
) -> None:
    """Download released weights and verify their hash

    Goes on where an interrupted download stopped. A file that is there and whole is kept.
    `HF_ENDPOINT` names another server, `HF_TOKEN` the account.

    Examples:

      ushape weights pull --accept-license

      ushape weights pull -o /data/weights --dry-run

      ushape weights pull --repo me/my-ultrashape --file model.safetensors

      ushape weights pull --repo s3://studio/weights/shoes
    """
    from ultrashape_cli.errors import UsageError
    from ultrashape_cli.files import check_outputs
    from ultrashape_cli.hub import LICENCES, find_remote
    from ultrashape_cli.models.registry import model_spec
    from ultrashape_cli.packing.weights import find_elsewhere
    from ultrashape_cli.ui import UI

    ui = UI("weights pull", json_output=json_output, quiet=quiet, verbose=verbose,
            progress=progress)  # fmt: skip
    spec = model_spec(model)
    source = repo.removeprefix("hf://") if repo else spec.repo_id
    if source is None:
        raise UsageError(f"model `{model}` has no released weights", hint="--repo OWNER/NAME")
    names = (file,) if file else spec.files if spec.files else ("model.safetensors",)
    ui.info(f"licence of {model}: {spec.licence}")
    # What lies in storage of one's own came from the Hub, where it was asked for, or is one's own.
    if spec.licence in LICENCES and "://" not in source:
        _ask_licence(ui, LICENCES[spec.licence], accept_license, dry_run)
    if sha256 and len(names) > 1:
        raise UsageError("`--sha256` needs one file", hint=f"--file {names[0]}")
    check_outputs([out / Path(name).name for name in names], [], hint="--file NAME, one at a time")
    find = find_elsewhere if "://" in source else find_remote
    remotes = [find(source, name, revision) for name in names]
    made = [_pull(ui, r, out / Path(r.name).name, sha256, force, dry_run) for r in remotes]
    files = [entry["file"] for entry in made]
    if source != spec.repo_id:
        made += _pull_attribution(ui, source, revision, Path(files[0]), force, dry_run)
    outputs = {} if dry_run else {Path(entry["file"]).name: entry["file"] for entry in made}
    if outputs:
        ui.hint(f"ushape weights verify {shlex.quote(files[0])}")
    ui.result(
        inputs={"model": model, "repo": source, "revision": revision, "licence": spec.licence},
        outputs=outputs,
        counts={"files": len(made), "skipped": sum(entry["state"] == "kept" for entry in made)},
        files=made,
    )


def _ask_licence(ui: UI, licence: Licence, accepted_now: bool, dry_run: bool) -> None:
    from ultrashape_cli.errors import UsageError
    from ultrashape_cli.hub import accept, is_accepted

    ui.info(f"{licence.limits}\nFull text: {licence.url}")
    if dry_run or is_accepted(licence):
        return
    if not accepted_now:
        raise UsageError(
            f"the {licence.name} is not accepted yet",
            hint="read it, then add --accept-license (once)",
        )
    ui.info(f"accepted; remembered in {accept(licence)}")


def _pull_attribution(
    ui: UI, source: str, revision: str | None, weights: Path, force: bool, dry_run: bool
) -> list[dict[str, Any]]:
    """Brings whose works the weights were made from, where `weights push` sent that too."""
    from ultrashape_cli.data.attribution import NAME, beside_weights
    from ultrashape_cli.hub import HubRefusal, find_remote
    from ultrashape_cli.packing.location import StorageError
    from ultrashape_cli.packing.weights import find_elsewhere

    try:
        remote = (find_elsewhere if "://" in source else find_remote)(source, NAME, revision)
    except (HubRefusal, StorageError):
        return []
    if "://" in source and not remote.sha256:
        return []  # of weights that were there before
    return [_pull(ui, remote, beside_weights(weights), None, force, dry_run)]


def _pull(
    ui: UI, remote: RemoteFile, target: Path, sha256: str | None, force: bool, dry_run: bool
) -> dict[str, Any]:
    from ultrashape_cli.errors import UsageError
    from ultrashape_cli.hub import download, sha256_file
    from ultrashape_cli.packing.weights import download_elsewhere

    wanted = sha256.lower() if sha256 else remote.sha256
    entry = {"file": str(target), "bytes": remote.size, "sha256": wanted, "commit": remote.commit}
    if target.exists() and not force:
        same = target.stat().st_size == remote.size
        if same and wanted in (None, sha256_file(target)):
            ui.info(f"{target} is already there and whole")
            return {**entry, "state": "kept"}
        raise UsageError(
            f"`{target}` exists and is not {remote.name} of {remote.repo}",
            hint="another -o, or --force to replace it",
        )
    if dry_run:
        ui.info(f"would download {remote.name} of {remote.repo} ({size(remote.size)}) to {target}")
        return {**entry, "state": "planned"}
    mib = 1 << 20
    with ui.progress(f"{target.name}, MiB", -(-remote.size // mib)) as bar:
        digest = (download_elsewhere if "://" in remote.repo else download)(
            remote,
            target,
            expected_sha256=wanted,
            progress=lambda done, total: bar.update(-(-done // mib)),
        )
    ui.info(f"{target}: sha256 {digest}{'' if wanted else ' (the server names none to compare)'}")
    return {**entry, "sha256": digest, "state": "downloaded"}
