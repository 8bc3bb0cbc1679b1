"""`ushape serve token`: who may use a service."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ultrashape_cli import options as opt
from ultrashape_cli.options import add_verb

if TYPE_CHECKING:
    from ultrashape_cli.service.auth import Tokens

token = typer.Typer(
    name="token",
    help="Add, list or remove the tokens of a service",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

NameArg = Annotated[str, typer.Argument(help="Who it is for.")]
DataOpt = Annotated[
    Path | None,
    typer.Option(
        "--data",
        help="Folder of the service. Default: as of serve.",
        file_okay=False,
        rich_help_panel="Input",
    ),
]
RoleOpt = Annotated[
    Literal["user", "worker", "admin"],
    typer.Option(
        "--role",
        help="user: own jobs; worker: also works on jobs, for --join; admin: all jobs and the log.",
        rich_help_panel="Run",
    ),
]


def add(
    name: NameArg,
    role: RoleOpt = "user",
    data: DataOpt = None,
    json_output: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
) -> None:
    """Make a token and print it, once

    The service keeps its hash only. It counts from now on, also for a service that runs; with the
    first one, every request needs one.

    Examples:

      ushape serve token add anna

      ushape serve token add node7 --role worker
    """
    from ultrashape_cli.commands.settings import make_ui

    ui = make_ui("serve token add", json_output, quiet, False, False)
    tokens = _tokens(data)
    secret = tokens.add(name, role)
    ui.info(f"token of `{name}` ({role}), kept as a hash in {tokens.path}; it is shown only now:")
    ui.result(outputs={"token": secret}, name=name, role=role)


def list_tokens(
    data: DataOpt = None, json_output: opt.JsonOpt = False, quiet: opt.QuietOpt = False
) -> None:
    """List names and roles of the tokens

    Example:

      ushape serve token list
    """
    from ultrashape_cli.commands.settings import make_ui
    from ultrashape_cli.service.views import moment

    ui = make_ui("serve token list", json_output, quiet, False, False)
    rows = [
        {"name": each.name, "role": each.role, "created": moment(each.created)}
        for each in _tokens(data).all()
    ]
    if json_output:
        ui.result(counts={"tokens": len(rows)}, tokens=rows)
    else:
        ui.data_table(("name", "role", "created"), [tuple(row.values()) for row in rows])


def remove(
    name: NameArg,
    data: DataOpt = None,
    json_output: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
) -> None:
    """Remove a token, at once also for a service that runs

    Example:

      ushape serve token remove anna
    """
    from ultrashape_cli.commands.settings import make_ui

    ui = make_ui("serve token remove", json_output, quiet, False, False)
    _tokens(data).remove(name)
    ui.info(f"the token of `{name}` counts no more")
    ui.result(counts={"removed": 1})


def _tokens(data: Path | None) -> Tokens:
    from ultrashape_cli.config.resolve import resolve
    from ultrashape_cli.service.auth import TOKENS_FILE, Tokens

    # A named profile, so that no card is looked for.
    flags = {"profile": "cpu", "serve.data": None if data is None else str(data)}
    return Tokens(Path(resolve(flags=flags).config.serve.data) / TOKENS_FILE)


for command in (add, remove):
    add_verb(token, command)
add_verb(token, list_tokens, name="list")
