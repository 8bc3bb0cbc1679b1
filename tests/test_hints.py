"""No hint names a command, an option or a setting that does not exist."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer

from ultrashape_cli.cli import app
from ultrashape_cli.config.schema import Config, flatten

PACKAGE = Path(__file__).parent.parent / "ultrashape_cli"
VALUE = "X"
"""Stands for what a hint fills in."""
COMMAND = re.compile(
    r"\bushape ((?:weights |serve token )?[a-z]+)((?:(?! && |; |, |`|\)).)*)", re.DOTALL
)
OPTION = re.compile(r"(?<![-\w])--[a-z][-a-z0-9]*")
SETTING = re.compile(r"(?<![-\w])--set ([a-z_.0-9]+)=")


class Hint(NamedTuple):
    where: str
    text: str


def _text(node: ast.AST) -> str | None:
    """Returns a literal, with VALUE for what is filled in; None for anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) or VALUE for part in node.values)
    return None


def _literals(node: ast.AST) -> Iterator[str]:
    """Yields the literals of an expression: `a if b else c`, `a or b`, `join(("a", b))`."""
    text = _text(node)
    if text is not None:
        yield text
    elif isinstance(node, ast.Tuple | ast.List):
        yield " ".join(_text(item) or VALUE for item in node.elts)
    else:
        for child in ast.iter_child_nodes(node):
            yield from _literals(child)


def _hint_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Yields what is given as a hint or a fix, or put into a variable of such a name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield from (k.value for k in node.keywords if k.arg in ("hint", "fix"))
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name == "hint":
                yield from node.args
            elif name == "Finding":
                yield from node.args[3:]
        elif isinstance(node, ast.Assign):
            names = {target.id for target in node.targets if isinstance(target, ast.Name)}
            if names & {"hint", "fix", "_REDO", "_HINT", "EXPORT_HINT"}:
                yield node.value
        elif isinstance(node, ast.FunctionDef) and node.name in (
            "_fix",
            "lower_strategy",
            "_lower",
        ):
            yield from (n.value for n in ast.walk(node) if isinstance(n, ast.Return) and n.value)


def _hints() -> list[Hint]:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in _hint_nodes(ast.parse(path.read_text())):
            where = f"{path.relative_to(PACKAGE)}:{getattr(node, 'lineno', 0)}"
            found += [Hint(where, text) for text in _literals(node)]
    return sorted(set(found))


def _options() -> dict[str, set[str]]:
    """Returns verb -> its options."""

    def visit(command: Any, name: str) -> Iterator[tuple[str, set[str]]]:
        for verb, child in getattr(command, "commands", {}).items():
            yield from visit(child, f"{name} {verb}".strip())
        names = {o for p in command.params for o in (*p.opts, *p.secondary_opts)}
        yield name, names | {"--help"}

    return dict(visit(typer.main.get_command(app), ""))


HINTS, OPTIONS = _hints(), _options()
KEYS = flatten(Config())


def test_hints_are_found() -> None:
    """The test of the test: hints of every form, and the verbs of the app."""
    texts = [hint.text for hint in HINTS]
    assert len(texts) > 150
    for text in (
        "ushape split X",
        "ushape train --config X --out X",
        "--set train.ema_decay=0.999",
        "ushape weights pull",
    ):
        assert any(text in found for found in texts), text
    assert "--val" in OPTIONS["split"]
    assert "--accept-license" in OPTIONS["weights pull"]


def _problems(hint: Hint) -> Iterator[str]:
    for verb, rest in COMMAND.findall(hint.text):
        if verb not in OPTIONS:
            yield f"no verb `{verb}`"
            continue
        yield from (f"`{verb}` has no {o}" for o in OPTION.findall(rest) if o not in OPTIONS[verb])
    known = set().union(*OPTIONS.values()) | FOREIGN
    yield from (f"no option {o}" for o in OPTION.findall(hint.text) if o not in known)
    yield from (f"no setting {key}" for key in SETTING.findall(hint.text) if key not in KEYS)


FOREIGN = {"--index-url", "--upgrade", "--shm-size", "--address", "--head"}
"""Options of pip, docker and ray."""


@pytest.mark.parametrize("text", ["ushape fly X", "ushape train --wings", "--no-such",
                                  "--set train.wings=2", "ushape weights melt"])  # fmt: skip
def test_a_hint_that_cannot_work_is_found(text: str) -> None:
    assert list(_problems(Hint("", text)))


def test_every_command_option_and_setting_of_a_hint_exists() -> None:
    wrong = [f"{hint.where}: {p}: {hint.text}" for hint in HINTS for p in _problems(hint)]
    assert not wrong, "\n".join(wrong)


def test_no_hint_leaves_out_the_dataset() -> None:
    """`ushape split` alone would mean `data`, wherever the user's dataset is."""
    verbs = {verb: f"ushape {verb}" for verb in ("split", "render", "sample")}
    rooms = ("evaluation/", "models/", "inference/", "monitoring/", "diagnosis/", "reporting/")
    wrong = [
        f"{hint.where}: {hint.text}"
        for hint in HINTS
        for command in verbs.values()
        if hint.where.startswith(rooms) and re.search(rf"{command}(?= --|$)", hint.text)
    ]
    assert not wrong, "\n".join(wrong)
