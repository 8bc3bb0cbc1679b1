"""A Dockerfile as its instructions: a small part of the format, and an error for all else."""

from __future__ import annotations

import re
from dataclasses import dataclass, field


class StepError(Exception):
    """An instruction that is not understood, or a step that failed."""


@dataclass
class Step:
    """One instruction: RUN, its flags and the rest of its line."""

    name: str
    flags: list[str]
    rest: str


@dataclass
class Stage:
    """What one FROM begins."""

    name: str
    parent: str
    steps: list[Step] = field(default_factory=list)


def parse(text: str) -> tuple[dict[str, str], list[Stage]]:
    """Returns the arguments before the first FROM, and the stages in order.

    Raises:
        StepError: An instruction or a form of one that is not known here.
    """
    lines = [line for line in text.splitlines() if not re.match(r"\s*(#|$)", line)]
    outer: dict[str, str] = {}
    stages: list[Stage] = []
    for line in re.sub(r"\\\n\s*", " ", "\n".join(lines)).splitlines():
        name, _, rest = line.partition(" ")
        flags = []
        while name != "HEALTHCHECK" and (found := re.match(r"\s*(--\S+)\s+", rest)):
            flags.append(found[1])
            rest = rest[found.end() :]
        rest = rest.strip()
        if name == "FROM":
            parts = rest.split()
            if len(parts) != 3 or parts[1] != "AS" or flags:
                raise StepError(f"FROM image AS name, not `{line}`")
            stages.append(Stage(parts[2], parts[0]))
        elif name not in _KNOWN or (name == "RUN" and (rest.startswith("[") or "<<" in rest)):
            raise StepError(f"not known here: `{line}`")
        elif not stages:
            if name != "ARG":
                raise StepError(f"{name} before FROM")
            outer.update([pair(rest)])
        else:
            stages[-1].steps.append(Step(name, flags, rest))
    return outer, stages


_KNOWN = {"RUN", "COPY", "ENV", "ARG", "WORKDIR", "USER", "ENTRYPOINT", "CMD", "EXPOSE",
          "HEALTHCHECK"}  # fmt: skip


def pair(text: str) -> tuple[str, str]:
    key, _, value = text.partition("=")
    return key, value


def fill(text: str, values: dict[str, str]) -> str:
    return re.sub(r"\$\{?(\w+)\}?", lambda m: values.get(m[1], ""), text)
