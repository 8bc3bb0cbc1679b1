"""`ushape evaluate`: refine held-out assets and measure them against the truth."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ultrashape_cli import options as opt

if TYPE_CHECKING:
    from ultrashape_cli.config.resolve import Resolved
    from ultrashape_cli.evaluation.curve import Way
    from ultrashape_cli.evaluation.rows import Asset, Row
    from ultrashape_cli.models.sources import WeightSource
    from ultrashape_cli.ui import UI


def evaluate(
    checkpoint: Annotated[
        Path | None,
        typer.Option("--checkpoint", help="Weights to evaluate.", rich_help_panel="Input"),
    ] = None,
    against: Annotated[
        list[Path] | None,
        typer.Option(
            "--against",
            metavar="PATH",
            help="Weights to compare with; may be repeated.",
            rich_help_panel="Input",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            help="Model with packaged weights, in place of --checkpoint: tiny.",
            rich_help_panel="Input",
        ),
    ] = None,
    data: Annotated[
        Path, typer.Option("--data", help="Prepared dataset.", rich_help_panel="Input")
    ] = Path("data"),
    split: Annotated[
        Literal["train", "val", "test"],
        typer.Option("--split", help="Which list of assets.", rich_help_panel="Input"),
    ] = "val",
    coarse: Annotated[
        Path | None,
        typer.Option(
            "--coarse",
            help="Folder of coarse meshes ID.ply, .glb ...; default: made from the truth.",
            rich_help_panel="Input",
        ),
    ] = None,
    pairs: Annotated[
        Path | None,
        typer.Option(
            "--pairs",
            help="Folder with truth/ and one folder per tool, the same names in each, in one "
            "frame; measures those meshes and refines nothing.",
            rich_help_panel="Input",
        ),
    ] = None,
    vae: Annotated[
        bool,
        typer.Option(
            "--vae", help="Measure the autoencoders' round trip only.", rich_help_panel="Run"
        ),
    ] = False,
    ablation: Annotated[
        bool,
        typer.Option(
            "--ablation",
            help="Also refine with the image of another asset and without one.",
            rich_help_panel="Run",
        ),
    ] = False,
    curve: Annotated[
        bool,
        typer.Option(
            "--curve",
            help="Quality against passes: every solver at 3 to 48 evaluations, students in their "
            "own steps.",
            rich_help_panel="Run",
        ),
    ] = False,
    keep: Annotated[
        int | None,
        typer.Option(
            "--keep",
            metavar="N",
            min=2,
            max=64,
            help="Keep N generations of each asset with their rewards, for `ushape train "
            "--objective reject` and `dpo`; measures nothing else. With --split train.",
            rich_help_panel="Run",
        ),
    ] = None,
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="Folder of the results.", rich_help_panel="Output"),
    ] = Path("evaluation"),
    limit: opt.LimitOpt = None,
    config: opt.ConfigOpt = None,
    overrides: opt.SetOpt = None,
    no_config: opt.NoConfigOpt = False,
    profile: opt.ProfileOpt = None,
    device: opt.DeviceOpt = None,
    seed: opt.SeedOpt = None,
    dry_run: opt.DryRunOpt = False,
    show_config: opt.ShowConfigOpt = False,
    json_output: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
    verbose: opt.VerboseOpt = False,
    progress: opt.ProgressOpt = True,
) -> None:
    """Evaluate checkpoints on held-out assets

    Reads DATA and the checkpoints. Refines every asset from a coarse version of itself and writes
    scores with intervals and paired tests to OUT: report.html, results.json, results.csv, meshes
    and pictures. The coarse mesh is always a row, and so is the truth through the autoencoder
    (`--set evaluate.round_trip=false` leaves it out).
    Says in words on which measures each row is better than the input.
    Repeating the command only makes what is not there yet.

    Examples:

      ushape evaluate --checkpoint runs/mine --against ultrashape_v1.pt --limit 50

      ushape evaluate --model tiny --data data --ablation

      ushape evaluate --checkpoint student.safetensors --against runs/mine --curve

      ushape evaluate --pairs exports -o comparison

      ushape evaluate --model tiny --split train --keep 8 -o generations
    """
    from ultrashape_cli.commands.evaluation_rows import curve_rows_of, read_pairs, refined_rows
    from ultrashape_cli.commands.keep import keep_many, require_none_kept
    from ultrashape_cli.commands.settings import resolve_settings, show_settings
    from ultrashape_cli.data.layout import Dataset
    from ultrashape_cli.errors import UsageError
    from ultrashape_cli.evaluation.curve import curve_ways
    from ultrashape_cli.evaluation.rows import held_out_assets
    from ultrashape_cli.files import check_outputs
    from ultrashape_cli.models.sources import find_weights, resolve_named
    from ultrashape_cli.runs import RunFolder
    from ultrashape_cli.ui import UI

    ui = UI("evaluate", json_output=json_output, quiet=quiet, verbose=verbose, progress=progress)
    if pairs is not None and (checkpoint or against or model or vae or ablation or coarse or curve):
        raise UsageError(
            "--pairs takes no weights", hint=f"ushape evaluate --pairs {shlex.quote(str(pairs))}"
        )
    require_none_kept(out, keep, others=bool(pairs or against or vae or ablation or curve))
    sources: dict[str, WeightSource] = {}
    ways: dict[str, Way] = {}
    if pairs is None:
        sources = {_label(checkpoint, model): find_weights(checkpoint, model)}
        for path in against or ():
            sources[_unique(_label(path, None), sources)] = resolve_named(path)
    resolved = resolve_settings(
        {"profile": profile, "device": device, "seed": seed},
        *(config, overrides, no_config),
        model=next(iter(sources.values())).model if sources else None,
    )
    if show_config:
        show_settings(ui, resolved, ("refine", "evaluate"))
        return
    read = [coarse, pairs or data, *(path for one in sources.values() for path in one.inputs)]
    check_outputs([out], [path for path in read if path], hint="-o evaluation")
    if RunFolder(out).is_run() or Dataset(out).exists():
        raise UsageError(f"`{out}` is a run or a dataset with a report of its own",
                         hint=f"-o {out / 'evaluation'}")  # fmt: skip
    about = f"meshes of {pairs}"
    if pairs is not None:
        assets, rows = read_pairs(pairs, limit)
    else:
        assets = held_out_assets(data, split, coarse, limit)
        if keep:
            given = ui, resolved, next(iter(sources.values())), assets, out
            keep_many(*given, count=keep, data=data, split=split, checkpoint=checkpoint,
                      dry_run=dry_run)  # fmt: skip
            return
        if curve:
            ways = curve_ways(resolved, sources)
            rows = curve_rows_of(resolved, sources, ways, vae or ablation)
        else:
            rows = refined_rows(resolved, sources, assets, vae=vae, ablation=ablation)
        about = f"{len(assets)} assets of {data}, list {split}, seed {resolved.config.seed}"
    ui.info(f"{len(assets)} assets, rows: {', '.join(row.name for row in rows)}")
    if dry_run:
        ui.result(inputs={"assets": len(assets)}, outputs={})
        return
    _run(ui, resolved, assets, rows, out, about, ways)


def _run(
    ui: UI,
    resolved: Resolved,
    assets: list[Asset],
    rows: list[Row],
    out: Path,
    about: str,
    ways: dict[str, Way],
) -> None:
    from ultrashape_cli.evaluation.curve import curve_charts, curve_comparisons
    from ultrashape_cli.evaluation.evaluate import evaluate as measure
    from ultrashape_cli.evaluation.evaluate import summary
    from ultrashape_cli.evaluation.perceptual import load_perceptual
    from ultrashape_cli.evaluation.report import write_csv, write_report
    from ultrashape_cli.evaluation.scores import Sampling
    from ultrashape_cli.files import write_json

    settings = resolved.config.evaluate
    sampling = Sampling(
        points=settings.points,
        earth_movers_points=settings.earth_movers_points,
        views=settings.views,
        view_size=settings.view_size,
        seed=resolved.config.seed,
    )
    perceptual, missing = load_perceptual() if settings.views else ([], {})
    for name, why in missing.items():
        ui.info(f"not measured: {name} ({why})")
    with ui.progress("evaluate", len(assets) * len(rows)) as bar:
        result = measure(assets, rows, out, sampling, perceptual=perceptual, progress=bar.update)
        bar.update(len(assets) * len(rows))
    against = curve_comparisons(ways) if ways else _comparisons([row.name for row in rows])
    found = summary(result, against)
    body = {"about": about, "not_measured": missing, **found}
    write_json(out / "results.json", body)
    write_csv(result, out)
    subject = next(iter(against), rows[0].name)
    base = against.get(subject, [rows[0].name])[0]
    charts = curve_charts(found["rows"], ways)
    report = write_report(
        result, found, out, subject=subject, base=base, about=about, charts=charts
    )
    _show(ui, found, base=rows[0].name)
    for failure in result.failures:
        ui.warn(f"{failure['row']} {failure['asset']}: {failure['error']}")
    failed = len(result.failures)
    ui.result(
        status="error" if failed else "ok",
        inputs={"assets": len(assets)},
        outputs={"report": str(report), "results": str(out / "results.json"), **_short(found)},
        verdicts=[
            {name: comparison[name] for name in ("row", "against", "verdict")}
            for comparison in found["comparisons"]
        ],
        counts={"made": len(assets) * len(rows) - failed, "failed": failed},
    )
    if failed:
        raise typer.Exit(1)


def _comparisons(names: list[str]) -> dict[str, list[str]]:
    """Returns which rows are compared with which: what was refined with its input and the others.

    The first row is the input, the second may be the truth through the autoencoder; without them
    (pairs), tools with the first.
    """
    from ultrashape_cli.evaluation.rows import INPUT, ROUND_TRIP

    if INPUT not in names:
        return {name: [names[0]] for name in names[1:]}
    refined = [name for name in names if name != INPUT and not name.startswith(ROUND_TRIP)]
    if not refined:
        return {name: [INPUT] for name in names[1:]}
    return {refined[0]: [INPUT, *refined[1:]], **{name: [INPUT] for name in refined[1:]}}


def _show(ui: UI, found: dict[str, Any], base: str) -> None:
    """Shows a line per row, red where it is worse than the base, and what each comparison says."""
    from rich.text import Text

    from ultrashape_cli.evaluation.verdict import LEGEND, MEASURES, is_worse, show_mean

    means = {row["name"]: row["means"] for row in found["rows"]}
    names = [name for name in MEASURES if any(name in values for values in means.values())]
    sign = "+-" if ui.ascii_only else "±"
    lines = []
    for row, values in means.items():
        # Names differ at their ends, too: `mine, wrong image`.
        cells = [Text(row if len(row) <= 26 else f"{row[:11]}...{row[-12:]}")]
        for name in names:
            worse = all(name in m for m in (values, means[base])) and is_worse(
                name, values[name]["mean"], means[base][name]["mean"]
            )
            text = show_mean(values[name], sign) if name in values else "-"
            cells.append(Text(text, style="red" if worse else ""))
        lines.append(cells)
    ui.table(("row", *(MEASURES[name][0] for name in names)), lines)
    ui.info(LEGEND)
    for comparison in found["comparisons"]:
        verdict = comparison["verdict"]
        if verdict:
            chamfer = comparison["scores"].get("chamfer_l1", {})
            p_value = chamfer.get("p_value")
            test = "" if p_value is None else f" (p {p_value:.1g} for Chamfer-L1)"
            ui.verdict(f"{comparison['row']}: {verdict['text']}{test}", verdict["good"])


def _short(found: dict[str, Any]) -> dict[str, Any]:
    return {
        "means": {
            row["name"]: {name: value["mean"] for name, value in row["means"].items()}
            for row in found["rows"]
        }
    }


def _label(path: Path | None, model: str | None) -> str:
    if path is None:
        return model or "newest"
    return path.stem if path.is_file() else path.resolve().name


def _unique(name: str, taken: dict[str, Any]) -> str:
    number = 2
    wanted = name
    while wanted in taken:
        wanted, number = f"{name}-{number}", number + 1
    return wanted
