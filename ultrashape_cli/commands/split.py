"""`ushape split`: lists of a prepared dataset, its check, and its export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ultrashape_cli import options as opt
from ultrashape_cli.commands.dataset_steps import place_assets, say_changes, split_rule
from ultrashape_cli.commands.settings import make_ui, resolve_settings, show_settings

if TYPE_CHECKING:
    from ultrashape_cli.config.schema import Config
    from ultrashape_cli.data.layout import Dataset
    from ultrashape_cli.ui import UI

_Share = float | None


def split(
    data: opt.DatasetArg = Path("data"),
    train: Annotated[_Share, typer.Option(
        "--train", metavar="SHARE", min=0.0, max=1.0,
        help="Share that trains. Default: all the others leave.",
        rich_help_panel="Run")] = None,
    val: Annotated[_Share, typer.Option(
        "--val", metavar="SHARE", min=0.0, max=0.9,
        help="Share of validation. Default: 0.1.",
        rich_help_panel="Run")] = None,
    test: Annotated[_Share, typer.Option(
        "--test", metavar="SHARE", min=0.0, max=0.9,
        help="Share held out for the end. Default: 0, no such list.",
        rich_help_panel="Run")] = None,
    group_by: Annotated[str | None, typer.Option(
        "--group-by", metavar="none|folder|prefix|duplicates|series|author",
        help="Keep together assets of one source folder, of one file name but for its number or "
        "variant, near-duplicates, or imported ones of one series or author. Default: none.",
        rich_help_panel="Run")] = None,
    stratify: Annotated[str | None, typer.Option(
        "--stratify", metavar="MEASURE",
        help="Give every list the same quarters of a measure, such as detail or faces.",
        rich_help_panel="Run")] = None,
    layout: Annotated[tuple[str, Path] | None, typer.Option(
        "--layout", metavar="reference DIR",
        help="Also write the folder that the reference trainer reads.",
        rich_help_panel="Output")] = None,
    check: Annotated[bool, typer.Option(
        "--check", help="Write nothing; open and verify every file of the lists.",
        rich_help_panel="Run")] = False,
    config: opt.ConfigOpt = None,
    overrides: opt.SetOpt = None,
    no_config: opt.NoConfigOpt = False,
    workers: opt.WorkersOpt = None,
    seed: opt.SeedOpt = None,
    dry_run: opt.DryRunOpt = False,
    show_config: opt.ShowConfigOpt = False,
    json_output: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
    verbose: opt.VerboseOpt = False,
    progress: opt.ProgressOpt = True,
) -> None:  # fmt: skip
    """Write the train, validation and test lists

    Reads DATA/records. Writes DATA/data_list/train.json, val.json, test.json and
    DATA/render.json. An asset keeps its place when others are added. What is not given stays as
    it was (DATA/settings.toml).

    Examples:

      ushape split data --val 0.05 --test 0.05

      ushape split data --group-by folder --stratify detail

      ushape split data --layout reference exported

      ushape split data --check
    """
    from ultrashape_cli.data.layout import Dataset
    from ultrashape_cli.data.remembered import write_settings
    from ultrashape_cli.data.splits import plan_splits
    from ultrashape_cli.errors import UsageError

    ui = make_ui("split", json_output, quiet, verbose, progress)
    flags = {
        "split.train": train,
        "split.val": val,
        "split.test": test,
        "split.group_by": group_by,
        "split.stratify": stratify,
        "engine.workers": workers,
        "seed": seed,
    }
    resolved = resolve_settings(flags, config, overrides, no_config, data=data)
    if show_config:
        show_settings(ui, resolved, ("split",))
        return
    if layout is not None and layout[0] != "reference":
        raise UsageError(f"unknown layout `{layout[0]}`", hint="--layout reference DIR")
    dataset = Dataset(data)
    dataset.require()
    if check:
        _check(ui, dataset, resolved.config)
        return
    changed, _ = say_changes(ui, dataset, resolved, ("split",))
    rule, records = split_rule(resolved.config), dataset.load_records()
    outputs: dict[str, Any] = {}
    exported: dict[str, int] = {}
    if layout is not None:
        # First what may fail: the lists change when all is there.
        exported = _export(ui, dataset, plan_splits(dataset, rule, records), layout[1], dry_run)
        outputs = {} if dry_run else {"layout": str(layout[1])}
    lists = place_assets(ui, dataset, rule, records, dry=dry_run)
    counts = {name: len(ids) for name, ids in lists.items()}
    ui.table(("split", "assets"), counts.items())
    if not dry_run:
        write_settings(dataset, resolved.config, ("split",))
        outputs |= {name: str(dataset.list_path(name)) for name in lists}
    ui.result(
        inputs={"data": str(data)}, outputs=outputs, counts=counts | exported, changed=changed
    )


def _export(
    ui: UI, dataset: Dataset, lists: dict[str, list[str]], target: Path, dry_run: bool
) -> dict[str, int]:
    from ultrashape_cli.data.export import check_exportable, export_reference
    from ultrashape_cli.data.layout import Dataset
    from ultrashape_cli.errors import UsageError
    from ultrashape_cli.files import check_outputs

    other = dataset.root.with_name(f"{dataset.root.resolve().name}-reference")
    hint = f"ushape split {dataset.root} --layout reference {other}"
    check_outputs([target], [dataset.root], hint=hint)
    if Dataset(target).exists():
        raise UsageError(f"`{target}` is a dataset of its own", hint=hint)
    if dry_run:
        check_exportable(dataset, lists)
        return {}
    total = sum(len(ids) for ids in lists.values())
    with ui.progress("export", total) as bar:
        return export_reference(dataset, lists, target, bar.update)


def _check(ui: UI, dataset: Dataset, config: Config) -> None:
    from ultrashape_cli.data.check import check_dataset
    from ultrashape_cli.preparation.limits import usable_cores

    total = sum(len(dataset.read_split(name)) for name in ("train", "val"))
    with ui.progress("check", total) as bar:
        problems = check_dataset(dataset, config.engine.workers or usable_cores(), bar.update)
    for asset_id, found in list(problems.items())[:20]:
        ui.warn(f"{asset_id}: {'; '.join(found)}")
    counts = {"checked": total, "bad": len(problems)}
    ui.table(tuple(counts), [tuple(counts.values())])
    if problems:
        ui.hint(f"ushape sample {dataset.root} && ushape render {dataset.root} redo what is gone")
    ui.result(status="failed" if problems else "ok", inputs={"data": str(dataset.root)},
              counts=counts, problems=problems)  # fmt: skip
    if problems:
        raise typer.Exit(1)
