"""`ushape weights quantise`: a checkpoint whose DiT is kept as codes of 8, 6 or 4 bits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ultrashape_cli import options as opt
from ultrashape_cli.commands.weights.options import ModelOpt, attribute, show_parts, size

if TYPE_CHECKING:
    from ultrashape_cli.config.resolve import Resolved
    from ultrashape_cli.evaluation.rows import Asset
    from ultrashape_cli.ui import UI


def quantise(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="WEIGHTS",
            help="What `refine --checkpoint` takes: a weights file, a folder of shards, a run or a "
            "checkpoint of one, or a model with packaged weights.",
        ),
    ],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="File to write: .safetensors.")],
    scheme: Annotated[
        Literal["int8", "int8-dynamic", "fp8", "int6", "int4"],
        typer.Option(
            "--scheme",
            help="Codes of so many bits, a scale for 16 (int8) or 32 weights each; int4 with an "
            "offset, and of feed-forwards only: the rest stays in 16 bit. int8-dynamic and "
            "fp8 compute in 8 bit too: faster where the device does (fp8: Ada, Hopper and later), "
            "less exact.",
            rich_help_panel="Output",
        ),
    ] = "int8",
    keep: Annotated[
        Literal["none", "down"],
        typer.Option(
            "--keep",
            help="down: the second layer of each feed-forward stays in 16 bit.",
            rich_help_panel="Output",
        ),
    ] = "none",
    report: Annotated[
        Path | None,
        typer.Option(
            "--report",
            metavar="DATA",
            help="Prepared dataset; measures on up to 8 held-out assets what the codes change, and "
            "writes OUT.report.json.",
            rich_help_panel="Report",
        ),
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", min=1, max=8, help="Assets.", rich_help_panel="Report")
    ] = 8,
    model: ModelOpt = None,
    overrides: opt.SetOpt = None,
    device: opt.DeviceOpt = None,
    seed: opt.SeedOpt = None,
    force: opt.ForceOpt = False,
    dry_run: opt.DryRunOpt = False,
    show_config: opt.ShowConfigOpt = False,
    json_output: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
    verbose: opt.VerboseOpt = False,
    progress: opt.ProgressOpt = True,
) -> None:
    """Quantise the DiT of a checkpoint, for cards of less memory

    Reads WEIGHTS. Writes one file with the DiT's linear layers as codes and scales and all else as
    it was; refine, serve and evaluate take it as a checkpoint and never make the whole weights of
    it. Routers, embedders, norms, the final layer, the autoencoder and the conditioner are not
    touched. It can be neither trained, adapted nor converted: merge and train first.

    Examples:

      ushape weights quantise runs/mine mine-int8.safetensors --report data

      ushape weights quantise ultrashape_v1.pt small.safetensors --scheme int4 --keep down
    """
    from ultrashape_cli.commands.settings import resolve_settings, show_settings
    from ultrashape_cli.errors import ConfigError, UsageError
    from ultrashape_cli.files import check_outputs
    from ultrashape_cli.models.convert import (
        check_quantisable,
        choose_model,
        files_of,
        gather_weights,
        inputs_of,
        quantise_weights,
    )
    from ultrashape_cli.models.sources import packaged_weights, resolve_weights
    from ultrashape_cli.ui import UI

    ui = UI("weights quantise", json_output=json_output, quiet=quiet, verbose=verbose,
            progress=progress)  # fmt: skip
    packaged = None if source.exists() else packaged_weights(str(source))
    source = packaged or source
    if not source.exists():
        resolve_weights(source)  # raises, and says what may be named
    if target.suffix != ".safetensors":
        raise ConfigError(
            f"cannot write codes as `{target.name}`", hint=f"{target.stem}.safetensors"
        )
    outputs = [target, *([_report_file(target)] if report else [])]
    other = f"{target.stem}-{scheme}{target.suffix}"
    hint = f"ushape weights quantise {source} {other}"
    check_outputs(outputs, [*inputs_of(source), *([report] if report else [])], hint=hint)
    if target.exists() and not force:
        raise UsageError(f"`{target}` exists", hint="another name, or --force to replace it")
    gathered = gather_weights(source)
    spec = choose_model(gathered, model)
    check_quantisable(gathered, spec)
    flags = {"device": device, "seed": seed, "refine.quality": "max"}
    resolved = resolve_settings(flags, None, overrides, False, model=spec.name)
    if show_config:
        show_settings(ui, resolved, ("refine", "evaluate"))
        return
    assets = _held_out(report, limit) if report else []
    inputs = {"weights": str(source), "model": spec.name, "scheme": scheme, "keep": keep}
    show_parts(ui, gathered)
    if dry_run:
        then = f", and measure it on {len(assets)} assets" if report else ""
        ui.info(f"would write {target} as {scheme}{then}")
        ui.result(inputs=inputs)
        return
    found = quantise_weights(
        *(gathered, spec, target, scheme), keep_down=keep == "down", inputs=files_of(source)
    )
    ui.info(f"{target}: {size(target.stat().st_size)}; {len(found.skipped)} layers not quantised")
    written = {"weights": str(target), **attribute(source, target)}
    body: dict[str, Any] = {}
    if report:
        body = {"report": _measured(ui, source, target, assets, resolved)}
        written["report"] = str(_report_file(target))
    ui.result(inputs=inputs, outputs=written, counts={"skipped": len(found.skipped)}, **body)


def _report_file(target: Path) -> Path:
    return target.with_suffix(".report.json")


def _held_out(data: Path, limit: int) -> list[Asset]:
    """Returns held-out assets of a dataset, all of them with an image.

    Raises:
        DatasetError: There are none, or one has no image.
    """
    import shlex

    from ultrashape_cli.errors import DatasetError
    from ultrashape_cli.evaluation.rows import held_out_assets

    assets = held_out_assets(data, "val", None, limit)
    blind = [asset.id for asset in assets if asset.image is None]
    if blind:
        raise DatasetError(
            f"asset `{blind[0]}` of `{data}` has no image",
            hint=f"ushape render {shlex.quote(str(data))}",
        )
    return assets


def _measured(
    ui: UI, source: Path, target: Path, assets: list[Asset], resolved: Resolved
) -> dict[str, Any]:
    """Measures a written file, writes and shows the report, and returns it."""
    from ultrashape_cli import __version__
    from ultrashape_cli.devices import choose_device
    from ultrashape_cli.evaluation.quantisation import (
        measure_quantised,
        measure_reference,
        report_settings,
    )
    from ultrashape_cli.files import write_json
    from ultrashape_cli.models.sources import resolve_weights

    config = resolved.config
    device = choose_device(config.device)
    steps = 0
    with ui.progress("measure", 0) as bar:

        def tell(what: str) -> None:
            nonlocal steps
            steps += 1
            bar.update(steps, what)

        reference = measure_reference(
            *(resolve_weights(source), assets, report_settings(config.refine), config.evaluate),
            *(device, config.seed, tell),
        )
        found = measure_quantised(reference, resolve_weights(target), tell)
    body = {"ushape": __version__, "source": str(source), "weights": str(target), **found}
    write_json(_report_file(target), body)
    show_report(ui, found)
    return body


def show_report(ui: UI, found: dict[str, Any]) -> None:
    """Shows what a report says: errors, meshes, cost, and the layers that cost most."""
    from ultrashape_cli.evaluation.verdict import MEASURES

    scheme, velocity, latent = found["scheme"], found["velocity"], found["latent"]
    rows = []
    for name in ("as it was", "bf16", scheme):
        errors = [f"{error:.2%}" for error in velocity.get(name, [])] or ["-"] * 4
        error = latent[name]["mean"] if name in latent else None
        cost = [f"{found[key][name]:.3g}" for key in ("seconds", "memory_gib", "dit_gib")]
        rows.append([name, *errors, "-" if error is None else f"{error:.2%}", *cost])
    times = [f"v {t:g}" for t in velocity["times"]]
    ui.table(("weights", *times, "latents", "s", "GiB", "DiT GiB"), rows)
    rows = []
    for name in ("bf16", scheme):
        for score, pair in found["scores"][name].items():
            gap = pair["difference"]
            interval = "-" if gap["low"] is None else f"{gap['low']:+.2g} to {gap['high']:+.2g}"
            ours, theirs = pair["means"]
            p_value = "-" if pair["p_value"] is None else f"{pair['p_value']:.2g}"
            cells = (f"{ours:.4f}", f"{theirs:.4f}", f"{gap['mean']:+.2g}", interval, p_value)
            rows.append([name, MEASURES[score][0], *cells])
    ui.table(("weights", "score", "theirs", "as it was", "difference", "95 %", "p"), rows)
    if velocity["layers"] is None:
        ui.info("layers were not measured alone: the weights do not stay on the device")
    else:
        worst = sorted(velocity["layers"], key=lambda row: -row["mean"])[:10]
        lines = [[row["name"], *(f"{e:.2%}" for e in row["errors"])] for row in worst]
        ui.table(("worst alone", *times), lines)
    ui.info(
        f"errors relative to the weights as they were, on {len(found['assets'])} assets; scores "
        "against the truth"
    )
    if latent["ratio"] is not None:
        ui.verdict(
            f"{scheme}: error of the latents {latent['ratio']:.1f} times that of rounding the same "
            f"weights to bf16 (aim: at most {latent['target']:g})",
            latent["within_target"],
        )
