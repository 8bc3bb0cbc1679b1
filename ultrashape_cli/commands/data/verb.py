"""`ushape data`: its commands."""

from __future__ import annotations

import typer

from ultrashape_cli.commands.data.pack import pack
from ultrashape_cli.commands.data.pull import pull
from ultrashape_cli.commands.data.push import push
from ultrashape_cli.commands.data.unpack import unpack
from ultrashape_cli.commands.data.verify import verify
from ultrashape_cli.options import add_verb

data = typer.Typer(
    name="data",
    help="Pack a dataset into a few large files, verify, upload or download them",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for command in (pack, verify, push, pull, unpack):
    add_verb(data, command)
