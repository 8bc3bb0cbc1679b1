"""Runs checks side by side. One that hangs is reported and left behind; one that breaks says so."""

from __future__ import annotations

import shlex
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ultrashape_cli.config.resolve import Resolved
from ultrashape_cli.config.schema import flatten
from ultrashape_cli.errors import UShapeError

OK, WARN, FAIL = "ok", "warn", "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found."""

    name: str
    status: str
    """`ok`, `warn` or `fail`."""
    message: str
    fix: str = ""
    """A command that helps."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is checked."""

    resolved: Resolved
    data: Path | None = None
    """Dataset; None leaves it out."""
    weights: Path | None = None
    """Weights to start from; None leaves them out."""
    runs: Path = Path("runs")
    """Where runs will be written."""

    def train(self, options: str) -> str:
        """Returns the command that trains on what is checked, with further options."""
        named = {"--data": self.data, "--init": self.weights}
        given = {"--profile": "profile", "--model": "train.model"}
        words = ["ushape", "train"]
        for flag, value in named.items():
            words += [flag, str(value)] if value is not None else []
        for flag, key in given.items():
            if self.resolved.origins[key] in ("flag", "--set") and flag not in options:
                words += [flag, flatten(self.resolved.config)[key]]
        return f"{shlex.join(words)} {options}"


@dataclass(frozen=True, slots=True)
class Check:
    """One check, or several that belong together."""

    name: str
    run: Callable[[Subject], Iterable[Finding]]
    limit_s: float = 10.0


def run_checks(checks: Sequence[Check], subject: Subject) -> list[Finding]:
    """Returns the findings of all checks, in the order of the checks.

    All run at once, each in a thread that does not keep the process alive: whatever hangs in
    native code or in the resolver of the network costs its time limit and nothing else.
    """
    results: list[list[Finding] | None] = [None] * len(checks)

    def run(index: int) -> None:
        results[index] = _run(checks[index], subject)

    threads = [
        threading.Thread(target=run, args=(index,), daemon=True) for index in range(len(checks))
    ]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread, check in zip(threads, checks, strict=True):
        thread.join(max(0.0, started + check.limit_s - time.monotonic()))
    findings: list[Finding] = []
    for check, found in zip(checks, results, strict=True):
        late = Finding(check.name, WARN, f"no answer within {check.limit_s:.0f} s")
        findings += [late] if found is None else found
    return findings


def _run(check: Check, subject: Subject) -> list[Finding]:
    try:
        return list(check.run(subject))
    except UShapeError as error:
        return [Finding(check.name, FAIL, error.message, error.hint or "")]
    except Exception as error:  # a check that breaks must not hide what the others found
        return [Finding(check.name, WARN, f"the check itself failed: {error!r}")]
