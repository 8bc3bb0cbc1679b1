"""Command lines of documents and examples: found in a text, and checked against the program."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Callable
from typing import Any

from ultrashape_cli.config.resolve import resolve

GROUPS = ("weights", "data")


def blocks(markdown: str) -> list[str]:
    """Returns the lines of all fenced shell blocks."""
    fenced = re.findall(r"^```sh\n(.*?)^```", markdown, re.MULTILINE | re.DOTALL)
    return [line for block in fenced for line in block.splitlines()]


def found_in(text: str) -> list[list[str]]:
    """Returns the words of every `ushape` command of a shell text, joined over line ends."""
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    commands = []
    for line in lines:
        if line.lstrip().startswith("#"):
            continue
        words = shlex.split(line, comments=True)
        while "ushape" in words:
            words = words[words.index("ushape") :]
            ends = [i for i, word in enumerate(words) if word in {"||", "|", "&&", ";", "&", ">"}]
            commands.append(words[: ends[0]] if ends else words)
            words = words[1:]
    return commands


def check(ushape: Callable[..., Any], words: list[str]) -> None:
    """Asserts that the program knows the command, its options and its settings."""
    assert words[0] == "ushape"
    if words[1] in GROUPS:
        path = words[1:3]
    elif words[1] == "serve" and words[2:3] == ["token"]:
        path = words[1:4]
    else:
        path = words[1:2]
    result = ushape(*path, "--help")
    assert result.code == 0, words
    for word in words:
        if word.startswith("-") and word != "-":
            name = re.escape(word.partition("=")[0])
            assert re.search(rf"(?<![\w-]){name}(?![\w-])", result.out), (word, words)
    settings = [value for flag, value in itertools.pairwise(words) if flag == "--set"]
    resolve(overrides=settings, environ={})
