"""Which room of the package may use which: arrows run down, and never in a circle."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = "ultrashape_cli"

GROUND = ("errors", "formatting", "files", "streams", "interrupts", "dotenv", "claims", "runs",
          "hub", "devices", "config", "processes", "launcher")  # fmt: skip
"""What every room may use; each of them those before it."""
ROOMS: dict[str, tuple[str, ...]] = {
    "geometry": (),
    "meshfiles": ("geometry",),
    "watertight": ("geometry",),
    "synthetic": ("geometry", "watertight"),
    "rendering": ("geometry", "meshfiles"),
    "models": (),
    "exporting": ("models",),
    "diffusion": (),
    "data": ("geometry", "synthetic"),
    "packing": ("data",),
    "monitoring": ("data",),
    "reporting": ("monitoring",),
    "finishing": ("geometry", "meshfiles"),
    "inference": ("geometry", "meshfiles", "watertight", "rendering", "models", "exporting",
                  "diffusion", "data", "reporting", "finishing"),
    "rewards": ("geometry", "rendering", "inference"),
    "preparation": ("geometry", "meshfiles", "watertight", "rendering", "models", "data",
                    "packing", "reporting", "inference"),
    "collections": ("meshfiles", "data", "preparation"),
    "evaluation": ("geometry", "meshfiles", "synthetic", "rendering", "models", "exporting",
                   "diffusion", "data", "reporting", "inference", "rewards"),
    "service": ("geometry", "meshfiles", "models", "finishing", "inference"),
    "training.objectives": ("models", "diffusion", "data"),
    "training.memory": ("models", "inference", "training.objectives"),
    "training": ("geometry", "meshfiles", "synthetic", "rendering", "models", "data", "packing",
                 "monitoring", "inference", "rewards", "training.objectives", "training.memory"),
    "diagnosis": ("models", "data", "monitoring", "training.memory"),
    "diagnosis.card": ("geometry", "models", "diffusion", "data", "monitoring", "inference",
                       "training.memory", "training", "diagnosis"),
}  # fmt: skip
"""Room -> rooms it may use beside the ground; from the ground floor up."""
TOP = ("options", "ui", "commands", "cli", "__main__")
"""The command line: each may use everything but those behind it."""

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 80

ALLOWED = {
    **{room: set(GROUND[:place]) for place, room in enumerate(GROUND)},
    **{room: {*GROUND, *uses} for room, uses in ROOMS.items()},
    **{room: {*GROUND, *ROOMS, *TOP[:place]} for place, room in enumerate(TOP)},
}


def _module(path: Path) -> str:
    parts = path.relative_to(ROOT / PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def _modules() -> dict[str, ast.Module]:
    files = sorted((ROOT / PACKAGE).rglob("*.py"))
    return {_module(path): ast.parse(path.read_text()) for path in files}


@cache
def _imports(module: str) -> frozenset[str]:
    """Returns the modules of the package that one imports anywhere, for types too."""
    found = set()
    for node in ast.walk(_modules()[module]):
        names = []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            # What is imported may be a module or a name in one.
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [n if _below(n) in _modules() else node.module or "" for n in whole]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        found |= {below for name in names if (below := _below(name))}
    return frozenset(found)


def _below(name: str) -> str:
    return name.removeprefix(f"{PACKAGE}.") if name.startswith(f"{PACKAGE}.") else ""


def _room(module: str) -> str | None:
    """Returns the room of a module: the longest entry of the table that its name begins with."""
    parts = module.split(".")
    names = [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
    return next((name for name in names if name in ALLOWED), None)


def _functions() -> Iterator[tuple[str, ast.FunctionDef]]:
    for module, tree in _modules().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                yield module, node


def test_every_module_has_a_room() -> None:
    assert [module for module in _modules() if module and _room(module) is None] == []


def test_no_arrow_runs_up() -> None:
    wrong = [
        f"{module} uses {other}, but {room} may not use {_room(other)}"
        for module in _modules()
        for other in _imports(module)
        if (room := _room(module)) and room != _room(other) and _room(other) not in ALLOWED[room]
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("graph", ["rooms", "modules"])
def test_there_is_no_circle(graph: str) -> None:
    edges = ALLOWED if graph == "rooms" else {module: _imports(module) for module in _modules()}
    try:
        tuple(TopologicalSorter(edges).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_an_import_is_seen_wherever_it_stands() -> None:
    """The test of the test: imports at the top, in a function and for types alone."""
    assert "errors" in _imports("files")
    assert "preparation.report" in _imports("commands.dataset_steps")
    assert "inference.job" in _imports("commands.refine.one")


def test_the_map_of_the_readme_is_the_table() -> None:
    readme = (ROOT / "README.md").read_text()
    section = readme[readme.index("## Working on ushape") :]
    rows = re.findall(r"^\| `(\S+)` \| [^|]+ \| ([^|]*) \|$", section, re.MULTILINE)
    assert rows == [(room, ", ".join(uses) or "-") for room, uses in ROOMS.items()]


def test_no_file_is_a_heap() -> None:
    files = [path for folder in (PACKAGE, "tests", "examples")
             for path in (ROOT / folder).rglob("*.py")]  # fmt: skip
    long = {str(p): n for p in files if (n := len(p.read_text().splitlines())) > MAX_FILE_LINES}
    assert not long


def test_no_function_is_a_heap() -> None:
    """Of a verb, whose options are declared in its signature, the body counts."""
    long = {}
    for module, node in _functions():
        first = node.body[0] if _room(module) == "commands" else node
        assert node.end_lineno is not None
        lines = node.end_lineno - first.lineno + 1
        if lines > MAX_FUNCTION_LINES:
            long[f"{module}.{node.name}"] = lines
    assert not long
