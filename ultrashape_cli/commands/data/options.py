"""What the commands of `ushape data` share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ultrashape_cli.ui import UI

MIB = 1 << 20

PackArg = Annotated[
    Path,
    typer.Argument(metavar="PACK", help="Packed dataset.", exists=True, file_okay=False),
]
ReplaceOpt = Annotated[
    bool,
    typer.Option(
        "--force",
        help="Replace what is there of another dataset.",
        rich_help_panel="Run",
    ),
]
AddressArg = Annotated[
    str,
    typer.Argument(
        metavar="ADDRESS",
        help="A folder, s3://BUCKET/PATH, gs://BUCKET/PATH, hf://datasets/OWNER/NAME or "
        "sftp://HOST/PATH.",
    ),
]


@contextmanager
def mib_progress(ui: UI, verb: str, total: int) -> Iterator[Callable[[int, str], None]]:
    """Yields what is told the bytes that are done and the file in work; the bar counts MiB."""
    with ui.progress(f"{verb} MiB", max(1, total // MIB)) as bar:
        first = True

        def said(done: int, name: str) -> None:
            nonlocal first
            if first:
                bar.begin(done // MIB)
                first = False
            bar.update(done // MIB, name)

        yield said
