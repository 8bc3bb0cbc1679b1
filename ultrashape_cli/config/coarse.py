"""Commands that make a coarse mesh from an image or a text: tables `[coarse.NAME]` of a TOML file.

[coarse.mine]
command = "python generate.py --image {image} --out {out} --seed {seed}"
cwd = "/home/me/generator"
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_args

from ultrashape_cli.config.choices import FrontAxis, UpAxis
from ultrashape_cli.config.toml_file import read_toml
from ultrashape_cli.dotenv import masked_text
from ultrashape_cli.errors import ConfigError

SECTION = "coarse"
HULL = "hull"
"""The name of what needs no command: outlines alone."""
PLACEHOLDERS = ("image", "text", "out", "seed")
SUFFIXES = (".glb", ".obj", ".ply", ".stl", ".off", ".3mf")
"""What a command may write: each is whole in one file, and no `.gltf` needs to be."""
_PLACE = re.compile(r"\{(\w*)\}")


@dataclass(frozen=True, slots=True)
class CoarseCommand:
    """One way to get a coarse mesh."""

    name: str
    command: tuple[str, ...]
    """Program and arguments, which hold placeholders; no shell reads them."""
    image_command: tuple[str, ...] = ()
    """Makes the image of a text first, with `{text}` and `{out}`."""
    timeout_seconds: float = 900.0
    """Of each command."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Variables beside those of ushape itself."""
    cwd: str = ""
    """Folder that it runs in, `~` is the home folder; empty is the present one."""
    suffix: str = ".glb"
    """Format of the mesh that it writes."""
    up: str = "auto"
    front: str = "z"
    """Axes of that mesh, as of `refine.up` and `refine.front`."""

    @property
    def reads_image(self) -> bool:
        """Says whether the command that makes the mesh reads an image."""
        return any("{image}" in part for part in self.command)

    @property
    def reads_text(self) -> bool:
        """Says whether the command that makes the mesh reads a text."""
        return any("{text}" in part for part in self.command)


def read_coarse(file: Path, name: str) -> CoarseCommand:
    """Returns a command by its name.

    Raises:
        ConfigError: The file has no such table, or there is something wrong with it.
    """
    tables = _tables(file)
    if name not in tables:
        known = ", ".join([HULL, *tables])
        close = difflib.get_close_matches(name, [HULL, *tables], n=1)
        raise ConfigError(
            f"`{file}` has no `[coarse.{name}]`; there are {known}",
            hint=f"did you mean `{close[0]}`?" if close else "examples/coarse has some to adapt",
        )
    return _command(name, tables[name])


def coarse_rows(file: Path | None) -> list[tuple[str, str, str]]:
    """Returns (key, value, origin) of what the commands of a file set; of variables the names."""
    rows = []
    for name, table in (_tables(file) if file else {}).items():
        for key, value in table.items():
            shown = ", ".join(sorted(value)) if key == "env" else value
            shown = shlex.join(shown) if isinstance(shown, list) else str(shown)
            rows.append((f"{SECTION}.{name}.{key}", masked_text(shown), f"`{file}`"))
    return rows


def _tables(file: Path) -> dict[str, dict[str, Any]]:
    tables = read_toml(file).get(SECTION, {})
    if problems := coarse_problems(tables, str(file)):
        raise ConfigError("; ".join(problems))
    return dict(tables)


def coarse_problems(tables: Any, where: str) -> list[str]:
    """Returns what is wrong with the tables of a file, all of it."""
    if not isinstance(tables, dict) or not all(isinstance(t, dict) for t in tables.values()):
        return [f"`{SECTION}` in {where} holds tables, as [coarse.mine]"]
    return [problem for name, table in tables.items() for problem in _problems(name, table, where)]


def _problems(name: str, table: dict[str, Any], where: str) -> list[str]:
    at = f"`{SECTION}.{name}"
    if name == HULL:
        return [f"{at}` in {where}: this name is taken by what is built in"]
    known = [item.name for item in fields(CoarseCommand) if item.name != "name"]
    found = []
    for key in sorted(table.keys() - set(known)):
        close = difflib.get_close_matches(key, known, n=1)
        more = f" (did you mean `{close[0]}`?)" if close else ""
        found.append(f"unknown key {at}.{key}` in {where}{more}")
    if "command" not in table:
        found.append(f"{at}` in {where} has no `command`")
    for key in ("command", "image_command"):
        if key in table:
            found += [f"{at}.{key}` in {where} {each}" for each in _bad_command(key, table[key])]
    seconds = table.get("timeout_seconds", 1)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds > 0:
        found.append(f"{at}.timeout_seconds` in {where} must be above 0, got `{seconds}`")
    env = table.get("env", {})
    if not isinstance(env, dict) or not all(isinstance(value, str) for value in env.values()):
        found.append(f'{at}.env` in {where} holds texts, as env = {{ TOKEN = "..." }}')
    elif not all(name and "=" not in name and "\0" not in name + env[name] for name in env):
        found.append(f"{at}.env` in {where} names what cannot be a variable")
    for key, choices in (("up", get_args(UpAxis)), ("front", get_args(FrontAxis))):
        if table.get(key, choices[0]) not in choices:
            found.append(f"{at}.{key}` in {where} is not one of {', '.join(choices)}")
    if not isinstance(cwd := table.get("cwd", ""), str) or "\0" in cwd:
        found.append(f"{at}.cwd` in {where} is no folder")
    if (suffix := table.get("suffix", ".glb")) not in SUFFIXES:
        found.append(f"{at}.suffix` in {where} is one of {' '.join(SUFFIXES)}, got `{suffix}`")
    return found


def _bad_command(key: str, value: Any) -> list[str]:
    try:
        parts = _parts(value)
    except ValueError as error:
        return [f"cannot be read: {error}"]
    used = {place for part in parts for place in _PLACE.findall(part)}
    found = [f"has an unknown placeholder `{{{one}}}`" for one in sorted(used - set(PLACEHOLDERS))]
    if "out" not in used:
        found.append("does not say where to write: `{out}` is missing")
    if key == "image_command" and "text" not in used:
        found.append("has no `{text}`")
    if key == "image_command" and "image" in used:
        found.append("makes the image, and `{image}` is none yet")
    if key == "command" and not used & {"image", "text"}:
        found.append("reads neither `{image}` nor `{text}`")
    return found


def _parts(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        parts = tuple(shlex.split(value))
    elif isinstance(value, list) and all(isinstance(part, str) for part in value):
        parts = tuple(value)
    else:
        raise ValueError("it is neither a text nor a list of texts")
    if not parts or not parts[0]:
        raise ValueError("it is empty")
    if any("\0" in part for part in parts):
        raise ValueError("it holds a zero byte")
    return parts


def _command(name: str, table: dict[str, Any]) -> CoarseCommand:
    own = dict(table)
    own["command"] = _parts(table["command"])
    if "image_command" in table:
        own["image_command"] = _parts(table["image_command"])
    own["timeout_seconds"] = float(table.get("timeout_seconds", 900.0))
    return CoarseCommand(name, **own)


def filled(parts: tuple[str, ...], values: Mapping[str, str]) -> list[str]:
    """Returns program and arguments with their placeholders replaced, each within its argument."""
    return [_PLACE.sub(lambda found: values.get(found[1], found[0]), part) for part in parts]
