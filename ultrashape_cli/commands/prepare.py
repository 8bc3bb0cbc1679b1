"""`ushape prepare`: dirty meshes to a watertight, rendered, sampled, split dataset."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from ultrashape_cli import options as opt
from ultrashape_cli.commands.dataset_steps import conclude, report_outcome, run_steps, say_changes
from ultrashape_cli.commands.prepare_sources import read_sources, with_grouping
from ultrashape_cli.commands.settings import make_ui, resolve_settings, show_settings
from ultrashape_cli.config.choices import FrontAxis

if TYPE_CHECKING:
    from ultrashape_cli.commands.prepare_sources import Sources
    from ultrashape_cli.config.resolve import Resolved
    from ultrashape_cli.data.layout import Dataset, Record
    from ultrashape_cli.ui import UI


class Until(StrEnum):
    """Last step to run."""

    WATERTIGHT = "watertight"
    QUALITY = "quality"
    RENDER = "render"
    SAMPLE = "sample"
    SPLIT = "split"


class EngineKind(StrEnum):
    """Where workers run."""

    LOCAL = "local"
    RAY = "ray"


class Shard(NamedTuple):
    """Part `part` (from 1) of `parts` equal parts."""

    part: int
    parts: int


def _parse_shard(text: str | Shard) -> Shard:
    if isinstance(text, Shard):
        return text
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise typer.BadParameter(f"`{text}` is not I/N with I from 1 to N, such as 2/8")
    return Shard(int(part), int(parts))


def prepare(
    models_dir: Annotated[
        str | None,
        typer.Argument(
            help="Folder with meshes, read recursively; s3://, gs://, hf:// or sftp://, from which "
            "they are brought one by one; or a manifest of `ushape import`. Not needed with "
            "--review.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help="Dataset to write.", file_okay=False, rich_help_panel="Output"
        ),
    ] = Path("data"),
    until: Annotated[
        Until, typer.Option("--until", help="Last step to run.", rich_help_panel="Run")
    ] = Until.SPLIT,
    filter_: Annotated[
        str | None,
        typer.Option(
            "--filter",
            metavar="NAME|FILE",
            help="Rules that keep assets out of the splits: none, collectibles, or a TOML file "
            "with a table for each rule (see below). Default: none.",
            rich_help_panel="Run",
        ),
    ] = None,
    views: Annotated[
        int | None,
        typer.Option("--views", min=1, help="Views per asset. Default: 8.", rich_help_panel="Run"),
    ] = None,
    resolution: Annotated[
        int | None,
        typer.Option(
            "--resolution",
            min=32,
            max=2048,
            help="Cells along the longest side of a mesh that has to be rebuilt to be closed; "
            "not the pixels of a view, which are `--set render.size`. Default: 512.",
            rich_help_panel="Run",
        ),
    ] = None,
    front: Annotated[
        FrontAxis | None,
        typer.Option(
            "--front",
            help="Axis that the front of upright meshes looks along; auto is x where the symmetry "
            "of a mesh says so, else z. Default: z.",
            rich_help_panel="Run",
        ),
    ] = None,
    review: Annotated[
        bool,
        typer.Option(
            "--review",
            help="Only judge what is measured and write report.html, worst first.",
            rich_help_panel="Run",
        ),
    ] = False,
    vae_check: Annotated[
        str | None,
        typer.Option(
            "--vae-check",
            metavar="CHECKPOINT",
            help="Also encode and decode every asset with this VAE and record the F-score.",
            rich_help_panel="Run",
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only",
            metavar="ID",
            help="Only this asset or file name; repeatable.",
            rich_help_panel="Run",
        ),
    ] = None,
    shard: Annotated[
        Shard | None,
        typer.Option(
            "--shard",
            parser=_parse_shard,
            metavar="I/N",
            help="Handle part I of N; run the other parts on other machines, same folder.",
            rich_help_panel="Hardware",
        ),
    ] = None,
    engine: Annotated[
        EngineKind | None,
        typer.Option(
            "--engine",
            help="Run workers here or on a Ray cluster. Default: local.",
            rich_help_panel="Hardware",
        ),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            "--address",
            metavar="HOST:PORT",
            help="Ray cluster. Default: this machine's.",
            rich_help_panel="Hardware",
        ),
    ] = None,
    config: opt.ConfigOpt = None,
    overrides: opt.SetOpt = None,
    no_config: opt.NoConfigOpt = False,
    workers: opt.WorkersOpt = None,
    seed: opt.SeedOpt = None,
    limit: opt.LimitOpt = None,
    fail_fast: opt.FailFastOpt = False,
    retry_failed: Annotated[
        bool,
        typer.Option(
            "--retry-failed",
            help="Try failed assets again, though neither they nor the limits have changed.",
            rich_help_panel="Run",
        ),
    ] = False,
    force: opt.ForceOpt = False,
    dry_run: opt.DryRunOpt = False,
    show_config: opt.ShowConfigOpt = False,
    json_output: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
    verbose: opt.VerboseOpt = False,
    progress: opt.ProgressOpt = True,
) -> None:
    """Turn a folder of meshes into a training dataset

    Reads OBJ, STL, PLY, GLB, GLTF, OFF and 3MF. Writes watertight meshes, views, samples, splits,
    one record per asset and report.html. Of a manifest, records keep licence and author, a series
    (or author) stays in one list, and data_list/ATTRIBUTION.md names the works. Repeating it does
    only what is missing or changed, with the settings of the first time unless others are given
    (DATA/settings.toml).

    Examples:

      ushape prepare ./models

      ushape prepare ./models -o data --until watertight --set watertight.resolution=1024

      ushape prepare ./models --shard 2/8 --filter collectibles

      ushape prepare s3://studio/models -o data
      ushape prepare objaverse.jsonl -o data

      ushape prepare --review -o data --filter my_rules.toml

    A rule in my_rules.toml has a measure (a wrong name lists them all), and min, max or both:

      \\[too-plain]
      measure = "detail"
      min = 1.2
    """
    from ultrashape_cli.data.layout import Dataset
    from ultrashape_cli.data.remembered import SECTIONS, write_settings
    from ultrashape_cli.preparation.pipeline import plan_steps, steps_until

    ui = make_ui("prepare", json_output, quiet, verbose, progress)
    flags = {
        "quality.filter": filter_,
        "quality.vae_check": vae_check,
        "render.views": views,
        "watertight.resolution": resolution,
        "watertight.front": front,
        "engine.kind": engine.value if engine else None,
        "engine.address": address,
        "engine.workers": workers,
        "seed": seed,
    }
    resolved = resolve_settings(flags, config, overrides, no_config, data=out)
    if show_config:
        show_settings(ui, resolved, (*SECTIONS, "engine"))
        return
    dataset = Dataset(out)
    resolved = _checked_files(resolved, dataset)
    settings = resolved.config
    if review:
        _review(ui, dataset, resolved, dry_run)
        return
    sources = read_sources(ui, dataset, models_dir)
    resolved = with_grouping(resolved, sources)
    settings = resolved.config
    known = dataset.load_records()
    records = _assets(ui, dataset, known, sources, limit, only, shard, dry_run)
    steps = steps_until(until.value, vae_check=bool(settings.quality.vae_check))
    plan = plan_steps(dataset, records, steps, settings, force=force, retry_failed=retry_failed)
    made = [name for name in ("watertight", "render", "sample") if name in steps]
    judged = ["quality"] if "quality" in steps else []
    judged += ["split"] if until is Until.SPLIT else []
    # Assets that are passed over this time would differ from those that are not.
    few = bool(only or limit) and bool(known.keys() - {record.id for record in records})
    changed, trial = say_changes(ui, dataset, resolved, (*made, *judged), plan, few=few)
    if not dry_run:
        write_settings(dataset, settings, judged if trial else [*made, *judged])
    outcome = run_steps(ui, dataset, plan, settings, dry_run=dry_run, fail_fast=fail_fast)
    inputs = {"models": models_dir, "assets": len(records)}
    to_split = until is Until.SPLIT
    report_outcome(ui, dataset, plan, outcome, settings, inputs, changed=changed,
                   judge="quality" in steps, split=to_split, dry=dry_run)  # fmt: skip


def _checked_files(resolved: Resolved, dataset: Dataset) -> Resolved:
    """Returns the settings with whole paths, which hold wherever the next command is run.

    Raises:
        ConfigError: The filter is gone or malformed, before a night of work.
    """
    from ultrashape_cli.config.resolve import DATA_SET
    from ultrashape_cli.errors import ConfigError
    from ultrashape_cli.preparation.filters import PRESETS, load_filter

    quality = resolved.config.quality
    if quality.filter not in PRESETS and Path(quality.filter).exists():
        quality = replace(quality, filter=str(Path(quality.filter).absolute()))
    if quality.vae_check and Path(quality.vae_check).exists():
        quality = replace(quality, vae_check=str(Path(quality.vae_check).absolute()))
    try:
        load_filter(quality.filter)
    except ConfigError as error:
        if resolved.origins["quality.filter"] != DATA_SET:
            raise
        raise ConfigError(
            f"{error.message}; `{dataset.root}` was made with it",
            hint="--filter FILE says where it is now, --filter none goes on without",
        ) from error
    return replace(resolved, config=replace(resolved.config, quality=quality))


def _assets(
    ui: UI,
    dataset: Dataset,
    known: dict[str, Record],
    sources: Sources,
    limit: int | None,
    only: list[str] | None,
    shard: Shard | None,
    dry_run: bool,
) -> list[Record]:
    """Returns the assets to handle, and writes records of new ones unless `dry_run`."""
    from ultrashape_cli.claims import in_shard
    from ultrashape_cli.preparation.discover import new_records, select_assets
    from ultrashape_cli.preparation.verdicts import find_stale

    # Without a selection, --limit also limits what is read to find out ids.
    files = sources.files[: None if only or shard else limit]
    records = list(new_records(files, known, sources.origins))
    copies = [path for record in records for path in record.duplicates]
    if copies:
        ui.info(f"{len(copies):,} files have the content of others, such as {copies[0]}")
    if not limit:
        found = {record.id: record for record in records}
        stale = find_stale(known, found, sources.folder, sources.manifest)
        for asset_id, reason in stale.items():
            if not dry_run:
                dataset.mark(asset_id, stale=reason)
        gone = sum(bool(stale.get(r.id, r.stale)) for r in known.values())
        if gone:
            ui.warn(f"the sources of {gone} assets were deleted or edited: their files stay, the "
                    "splits leave them out")  # fmt: skip
    if only:
        records = select_assets(records, only)
    if shard:
        records = [r for r in records if in_shard(r.id, *shard)]
    records = records[:limit]
    for record in records:
        if not dry_run and (record.id not in known or known[record.id].source != record.source):
            dataset.add_record(record)
    return records


def _review(ui: UI, dataset: Dataset, resolved: Resolved, dry_run: bool) -> None:
    from ultrashape_cli.data.remembered import write_settings

    dataset.require()
    split = dataset.list_path("train").exists()
    sections = ("quality", "split") if split else ("quality",)
    changed, _ = say_changes(ui, dataset, resolved, sections)
    if not dry_run:
        write_settings(dataset, resolved.config, sections)
    counts, outputs = conclude(ui, dataset, resolved.config, judge=True, split=split, dry=dry_run)
    ui.table(tuple(counts), [tuple(counts.values())])
    ui.result(inputs={"data": str(dataset.root)}, outputs=outputs, counts=counts, changed=changed)
