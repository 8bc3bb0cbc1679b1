"""`ushape import`: collections of meshes to a source manifest, and their files."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ultrashape_cli import options as opt
from ultrashape_cli.commands.import_.sources import ON_DISK, Source, check_options, read_source
from ultrashape_cli.commands.settings import make_ui

if TYPE_CHECKING:
    from ultrashape_cli.collections.fetch import Fetched, FetchSettings
    from ultrashape_cli.collections.manifest import SourceItem
    from ultrashape_cli.collections.wanted import Tally
    from ultrashape_cli.ui import UI

GIB = 1 << 30
_SHOWN = 10


def import_(
    source: Annotated[Source, typer.Argument(help="Collection.", show_default=False)],
    directory: Annotated[
        Path | None,
        typer.Argument(
            metavar="DIR",
            help="Of folder, shapenet and abc: the meshes. Of the others: a copy of their index, "
            "where their client is not to be asked.",
            exists=True,
            file_okay=False,
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help="Manifest to write.", dir_okay=False, rich_help_panel="Output"
        ),
    ] = Path("manifest.jsonl"),
    fetch: Annotated[
        Path | None,
        typer.Option(
            "--fetch",
            metavar="DIR",
            help="Also fetch the files, into a folder beside the manifest or below it.",
            file_okay=False,
            rich_help_panel="Output",
        ),
    ] = None,
    max_gb: Annotated[
        float | None,
        typer.Option(
            "--max-gb",
            metavar="GB",
            min=0.0,
            help="Of all files in the folder of --fetch; none is begun that would pass it.",
            rich_help_panel="Output",
        ),
    ] = None,
    licence_allow: Annotated[
        list[str] | None,
        typer.Option(
            "--licence-allow",
            metavar="SPDX",
            help="Take these licences only, with or without version (cc0, cc-by), unknown, or "
            "any; repeatable. Default: all that permit redistribution and commercial use.",
            rich_help_panel="Input",
        ),
    ] = None,
    licence: Annotated[
        str | None,
        typer.Option(
            "--licence",
            metavar="SPDX",
            help="Of folder: the licence of meshes that have none stated. Default: your own.",
            rich_help_panel="Input",
        ),
    ] = None,
    series_from: Annotated[
        str | None,
        typer.Option(
            "--series-from",
            metavar="depth:N|REGEX",
            help="Of folder: the series of a mesh is its first N folders, or what the pattern "
            "finds in its path (the group `series`, or the first).",
            rich_help_panel="Input",
        ),
    ] = None,
    min_faces: Annotated[
        int,
        typer.Option("--min-faces", min=0, help="Where told. Default: 0.", rich_help_panel="Input"),
    ] = 0,
    max_faces: Annotated[
        int | None,
        typer.Option("--max-faces", min=1, help="Where told.", rich_help_panel="Input"),
    ] = None,
    category: Annotated[
        list[str] | None,
        typer.Option(
            "--category",
            metavar="NAME",
            help="Take this category or tag only; repeatable.",
            rich_help_panel="Input",
        ),
    ] = None,
    animated: Annotated[
        bool,
        typer.Option(
            "--animated/--no-animated",
            help="Take meshes that move, as they are at rest.",
            rich_help_panel="Input",
        ),
    ] = True,
    limit: opt.LimitOpt = None,
    workers: Annotated[
        int,
        typer.Option(
            "--workers", min=1, max=64, help="Files fetched at once.", rich_help_panel="Run"
        ),
    ] = 8,
    retry_gone: Annotated[
        bool,
        typer.Option(
            "--retry-gone",
            help="Ask again for files that were gone or had another content.",
            rich_help_panel="Run",
        ),
    ] = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Of folder: make a manifest anew, whose lines were edited or would go.",
            rich_help_panel="Run",
        ),
    ] = False,
    dry_run: opt.DryRunOpt = False,
    json_output: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
    verbose: opt.VerboseOpt = False,
    progress: opt.ProgressOpt = True,
) -> None:
    """Write a manifest of a collection's meshes, and fetch them

    Reads what the collection says of its meshes, by its client or from DIR. Writes a line of JSON
    for each that is taken: where it is, its licence as SPDX, author, series, category, tags. What
    is not taken is counted by reason before anything is fetched. Repeated with --fetch, only what
    failed or is missing is fetched; edited lines of a folder change only with
    --force. Objaverse needs the package objaverse, Thingi10K the package thingi10k; ShapeNet and
    ABC you download under their terms.

    Examples:

      ushape import folder ./studio --series-from depth:1 -o studio.jsonl

      ushape import objaverse --licence-allow cc0,cc-by --min-faces 5000 --dry-run

      ushape import objaverse --limit 5000 -o objaverse.jsonl --fetch objaverse --max-gb 50

      ushape prepare objaverse.jsonl -o data
    """  # fmt: skip
    from ultrashape_cli.collections.fetch import FetchSettings
    from ultrashape_cli.collections.wanted import Tally, Wanted

    ui = make_ui("import", json_output, quiet, verbose, progress)
    check_options(source, directory, out, fetch, max_gb, series_from, licence, dry_run)
    wanted = Wanted(
        licences=_split(licence_allow),
        min_faces=min_faces,
        max_faces=max_faces,
        categories=_split(category),
        animated=animated,
    )
    settings = FetchSettings(
        workers=workers,
        max_bytes=None if max_gb is None else int(max_gb * 1e9),
        retry_gone=retry_gone,
    )
    found = read_source(source, directory, out, fetch, series_from, licence)
    tally = Tally()
    items = tally.select(found, wanted, limit)
    if dry_run:
        for _ in items:  # read and counted
            pass
    else:
        _write(out, items, guarded=source is Source.FOLDER and not force)
    _show(ui, tally)
    if series_from and tally.series == 0 and sum(tally.kept.values()):
        ui.warn(f"`--series-from {series_from}` finds no series in any path")
    kept = sum(tally.kept.values())
    counts = {"kept": kept, "excluded": sum(tally.excluded.values())}
    more: dict[str, Any] = {"licences": dict(tally.kept), "excluded": dict(tally.excluded)}
    inputs = {"source": source.value, "directory": str(directory) if directory else None}
    if dry_run:
        ui.info(f"would write {kept:,} items to {out}{_size(tally)}")
        ui.result(inputs=inputs, counts=counts, bytes=tally.bytes, **more)
        return
    outputs = {"manifest": str(out)}
    if fetch is None or source in ON_DISK:
        ui.hint(_next(out, source, fetch))
        ui.result(inputs=inputs, outputs=outputs, counts=counts, **more)
        return
    done = _fetch(ui, out, fetch, settings, kept)
    _conclude(ui, done, out, inputs, outputs, counts, more)


def _split(texts: Iterable[str] | None) -> tuple[str, ...]:
    return tuple(part.strip() for text in texts or () for part in text.split(",") if part.strip())


def _write(out: Path, items: Iterator[SourceItem], *, guarded: bool) -> None:
    """Writes the manifest; files that a former one tells of stay known.

    Raises:
        UsageError: Guarded, and lines of the former one would change or go.
    """
    from ultrashape_cli.collections.manifest import read_manifest, write_manifest
    from ultrashape_cli.errors import UsageError

    known = {}
    if out.exists():
        known = {item.key: item for item in read_manifest(out)
                 if guarded or (item.path and item.url)}  # fmt: skip

    def merged() -> Iterator[SourceItem]:
        left, changed = set(known), []
        for item in items:
            old = known.get(item.key)
            left.discard(item.key)
            if old is not None and old.origin() != item.origin():
                changed.append(item.key)
            same = old is not None and old.url == item.url
            if old is not None and same and item.sha256 in ("", old.sha256):
                item = replace(item, path=old.path, sha256=old.sha256, bytes=old.bytes)
            yield item
        if guarded and (changed or left):
            parts = [f"change {len(changed)} lines (`{changed[0]}`)"] if changed else []
            parts += [f"leave {len(left)} out (`{min(left)}`)"] if left else []
            raise UsageError(f"this would {' and '.join(parts)} of `{out}`",
                             hint="another -o, or --force to make it anew")  # fmt: skip

    write_manifest(out, merged())


def _fetch(ui: UI, out: Path, folder: Path, settings: FetchSettings, total: int) -> Fetched:
    """Fetches what is missing and enters it in the manifest; exits with the code of a signal."""
    from ultrashape_cli.collections.fetch import fetch_items, has_file, read_journal, target_of
    from ultrashape_cli.collections.manifest import read_manifest, stored_path, write_manifest
    from ultrashape_cli.interrupts import SignalFlag

    stopping = "Stopping; what was fetched is kept. Press Ctrl-C again to quit at once"
    with SignalFlag(lambda: ui.warn(stopping)) as flag, ui.progress("fetch", total) as bar:
        done = fetch_items(
            read_manifest(out), folder, settings, on_progress=bar.update, stop=lambda: bool(flag)
        )
    journal = read_journal(folder)

    def merged() -> Iterator[SourceItem]:
        for item in read_manifest(out):
            entry = journal.get(item.key)
            if entry is not None and has_file(item, entry, folder):
                path = stored_path(target_of(item, folder), out)
                item = replace(item, path=path, sha256=entry.sha256, bytes=entry.bytes)
            yield item

    # Read as it is replaced: the new one is a file of its own until it is whole.
    write_manifest(out, merged())
    if flag:
        ui.hint("repeat the command to go on")
        ui.result(status="stopped", outputs={"manifest": str(out)},
                  counts={"fetched": done.fetched, "left": done.left})  # fmt: skip
        raise typer.Exit(flag.exit_code)
    return done


def _conclude(
    ui: UI,
    done: Fetched,
    out: Path,
    inputs: dict[str, Any],
    outputs: dict[str, Any],
    counts: dict[str, int],
    more: dict[str, Any],
) -> None:
    for key, why in list(done.failed.items())[:_SHOWN]:
        ui.warn(f"{key}: {why}")
    if len(done.failed) > _SHOWN:
        ui.warn(f"and {len(done.failed) - _SHOWN:,} further failures")
    if done.left:
        ui.warn(f"{done.left:,} files would pass --max-gb and are left")
    fetched = {"fetched": done.fetched, "had": done.had, "failed": len(done.failed),
               "gone": len(done.gone), "left": done.left}  # fmt: skip
    ui.table(tuple(fetched), [tuple(f"{count:,}" for count in fetched.values())])
    ui.hint("repeat the command: only what failed is fetched again" if done.failed
            else f"ushape prepare {shlex.quote(str(out))}")  # fmt: skip
    ui.result(
        status="failed" if done.failed else "ok",
        inputs=inputs,
        outputs=outputs,
        counts=counts | fetched,
        bytes=done.bytes,
        failures=done.failed,
        gone=done.gone,
        **more,
    )
    if done.failed:
        raise typer.Exit(1)


def _show(ui: UI, tally: Tally) -> None:
    """Shows what was taken by licence and what was left by reason."""
    from ultrashape_cli.collections.licences import forbids_public_weights

    rows = [(name, f"{count:,}") for name, count in tally.kept.most_common()]
    ui.table(("licence", "kept"), rows)
    if tally.excluded:
        rows = [(why, f"{count:,}") for why, count in tally.excluded.most_common()]
        ui.table(("excluded", "items"), rows)
    if bound := [name for name in tally.kept if forbids_public_weights(name)]:
        ui.warn(f"{', '.join(sorted(bound))}: not for commercial use or not to be handed on; "
                "weights that learn from these are not pushed to a public place")  # fmt: skip


def _size(tally: Tally) -> str:
    if not tally.bytes:
        return ""
    some = f" ({tally.unsized:,} of unknown size)" if tally.unsized else ""
    return f", {tally.bytes / GIB:,.1f} GiB{some}"


def _next(out: Path, source: Source, fetch: Path | None) -> str:
    if source in ON_DISK or fetch is not None:
        return f"ushape prepare {shlex.quote(str(out))}"
    return f"repeat the command with --fetch {shlex.quote(str(out.with_suffix('')))}"
