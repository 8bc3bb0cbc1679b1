"""`ushape weights`: its commands."""

from __future__ import annotations

import typer

from ultrashape_cli.commands.weights.convert import convert
from ultrashape_cli.commands.weights.export import export
from ultrashape_cli.commands.weights.inspect import inspect
from ultrashape_cli.commands.weights.pull import pull
from ultrashape_cli.commands.weights.push import push
from ultrashape_cli.commands.weights.quantise import quantise
from ultrashape_cli.commands.weights.verify import verify
from ultrashape_cli.options import add_verb

weights = typer.Typer(
    name="weights",
    help="Download, convert, quantise, export, inspect, verify or upload weights",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for command in (pull, export, convert, quantise, inspect, verify, push):
    add_verb(weights, command)
