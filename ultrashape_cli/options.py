"""Option types, declared once so that the same name means the same thing in every verb.

Help follows one convention, which `add_verb` sees to: an argument and the value of an option are
named in capitals (`MODELS_DIR`, `N`, `GIB`), choices are listed in lower case (`dit|vae`), a
flag has no value to name; paragraphs reflow to the terminal.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer

from ultrashape_cli.config.profiles import PROFILES

_INPUT, _OUTPUT, _HARDWARE, _RUN, _DISPLAY = "Input", "Output", "Hardware", "Run", "Display"


def complete_profile(incomplete: str) -> list[str]:
    """Returns the profiles whose names begin so."""
    return [name for name in ("auto", *PROFILES) if name.startswith(incomplete)]


def _parse_workers(text: str) -> int:
    if text == "auto":
        return 0
    if not text.isdecimal() or int(text) == 0:
        raise typer.BadParameter(f"`{text}` is not a number of workers: `auto`, or 1 or more")
    return int(text)


ConfigOpt = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="TOML file with settings; flags win over it.",
        exists=True,
        dir_okay=False,
        rich_help_panel=_INPUT,
    ),
]
SetOpt = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change one setting; repeatable. `--show-config` lists the keys.",
        rich_help_panel=_INPUT,
    ),
]
NoConfigOpt = Annotated[
    bool,
    typer.Option(
        "--no-config", help="Ignore config files and USHAPE_* variables.", rich_help_panel=_INPUT
    ),
]
ProfileOpt = Annotated[
    str | None,
    typer.Option(
        "--profile",
        help="Hardware profile; sets dtype, strategy, checkpointing, batch and workers. "
        "Default: auto (detected).",
        autocompletion=complete_profile,
        rich_help_panel=_HARDWARE,
    ),
]
DeviceOpt = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="DEVICE",
        help="auto, cpu, cuda or mps. Default: auto.",
        rich_help_panel=_HARDWARE,
    ),
]
WorkersOpt = Annotated[
    int | None,
    typer.Option(
        "--workers",
        parser=_parse_workers,
        metavar="N|auto",
        help="Worker processes. Default: auto, one per core as far as memory allows.",
        rich_help_panel=_HARDWARE,
    ),
]
SeedOpt = Annotated[
    int | None,
    typer.Option("--seed", min=0, help="Seed of everything random. Default: 0.",
                 rich_help_panel=_RUN),
]  # fmt: skip
LimitOpt = Annotated[
    int | None,
    typer.Option("--limit", min=1, help="Handle at most this many assets.", rich_help_panel=_RUN),
]
FailFastOpt = Annotated[
    bool, typer.Option("--fail-fast", help="Stop at the first failed asset.", rich_help_panel=_RUN)
]
ForceOpt = Annotated[
    bool,
    typer.Option(
        "--force",
        help="Redo what this command made before, and nothing else.",
        rich_help_panel=_RUN,
    ),
]
DryRunOpt = Annotated[
    bool,
    typer.Option("--dry-run", help="Plan, print the plan, write nothing.", rich_help_panel=_RUN),
]
ShowConfigOpt = Annotated[
    bool,
    typer.Option(
        "--show-config",
        help="Print every setting with its origin and exit.",
        rich_help_panel=_DISPLAY,
    ),
]
JsonOpt = Annotated[
    bool,
    typer.Option(
        "--json", help="Print one JSON object on stdout; no bars.", rich_help_panel=_DISPLAY
    ),
]
QuietOpt = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="Print result paths only.", rich_help_panel=_DISPLAY),
]
VerboseOpt = Annotated[
    bool, typer.Option("--verbose", "-v", help="Show debug logs.", rich_help_panel=_DISPLAY)
]
ProgressOpt = Annotated[
    bool,
    typer.Option(
        "--progress/--no-progress", help="Draw progress on stderr.", rich_help_panel=_DISPLAY
    ),
]
LicenceOverrideOpt = Annotated[
    bool,
    typer.Option(
        "--licence-override",
        help="Upload although licences of imported meshes stand against it: the place is not "
        "public, or you have the rights.",
        rich_help_panel=_RUN,
    ),
]
DatasetArg = Annotated[
    Path,
    typer.Argument(
        metavar="DATA", help="Prepared dataset.", exists=True, file_okay=False, show_default=True
    ),
]


def add_verb(app: typer.Typer, verb: Callable[..., None], name: str | None = None) -> None:
    """Registers a verb whose help follows the convention of this module."""
    app.command(name, help=_conventional(verb))(verb)


def add_group(app: typer.Typer, verb: Callable[..., None]) -> None:
    """Registers what a group of verbs does where none of them is named."""
    app.callback(invoke_without_command=True, help=_conventional(verb))(verb)


def _conventional(verb: Callable[..., None]) -> str:
    """Names the values of a verb's options and returns its help."""
    hints = get_type_hints(verb, include_extras=True)
    # Typer is to see these very objects, not others made of the same text.
    verb.__annotations__.update(hints)
    for name, hint in hints.items():
        if get_origin(hint) is Annotated:
            kind, info = get_args(hint)
            if info.metavar is None:
                is_argument = isinstance(info, typer.models.ArgumentInfo)
                info.metavar = name.upper() if is_argument else _placeholder(kind, info)
    # Lines that are indented, such as examples, stay as they are.
    paragraphs = inspect.cleandoc(verb.__doc__ or "").split("\n\n")
    flowing = [p if p.startswith(" ") else p.replace("\n", " ") for p in paragraphs]
    return "\n\n".join(flowing)


def _placeholder(kind: Any, info: Any) -> str:
    """Returns what stands for the value of an option."""
    kinds = [each for each in get_args(kind) if each is not NoneType] or [kind]
    kind = kinds[0] if get_origin(kind) is not Literal else kind
    if get_origin(kind) is Literal:
        return "|".join(get_args(kind))
    if issubclass(kind, Enum):
        return "|".join(each.value for each in kind)
    if issubclass(kind, Path):
        return "PATH" if info.dir_okay and info.file_okay else "FILE" if info.file_okay else "DIR"
    return {bool: "", int: "N", str: "NAME"}[kind]
