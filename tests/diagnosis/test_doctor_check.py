from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ultrashape_cli.config.resolve import resolve
from ultrashape_cli.diagnosis.all_checks import fixes
from ultrashape_cli.diagnosis.check import FAIL, OK, WARN, Check, Finding, Subject, run_checks
from ultrashape_cli.errors import DependencyError


@pytest.fixture
def subject() -> Subject:
    return Subject(resolve(flags={"profile": "cpu"}, environ={}))


def test_findings_keep_the_order_of_the_checks(subject: Subject) -> None:
    def slow(subject: Subject) -> Iterator[Finding]:
        time.sleep(0.05)
        yield Finding("slow", OK, "1")
        yield Finding("slow", OK, "2")

    checks = [Check("slow", slow), Check("fast", lambda subject: [Finding("fast", OK, "3")])]
    assert [found.message for found in run_checks(checks, subject)] == ["1", "2", "3"]


def test_a_check_that_hangs_costs_its_limit_and_nothing_else(subject: Subject) -> None:
    forever = threading.Event()

    def hang(subject: Subject) -> list[Finding]:
        forever.wait()
        return []

    checks = [Check("hangs", hang, 0.1), Check("fast", lambda subject: [Finding("f", OK, "")])]
    started = time.monotonic()
    late, fast = run_checks(checks, subject)
    assert time.monotonic() - started < 2.0
    assert (late.status, late.message) == (WARN, "no answer within 0 s")
    assert fast.status == OK
    forever.set()


def test_a_check_that_breaks_says_so(subject: Subject) -> None:
    def breaks(subject: Subject) -> list[Finding]:
        raise ZeroDivisionError("odd")

    def known(subject: Subject) -> list[Finding]:
        raise DependencyError("no libGL", hint="apt-get install libgl1")

    odd, missing = run_checks([Check("a", breaks), Check("b", known)], subject)
    assert (odd.status, "odd" in odd.message) == (WARN, True)
    assert missing == Finding("b", FAIL, "no libGL", "apt-get install libgl1")


def test_fixes_come_once() -> None:
    found = [
        Finding("cache", OK, "fine", "never shown"),
        Finding("a", WARN, "x", "fix it"),
        Finding("b", FAIL, "y", "fix it"),
        Finding("c", FAIL, "z"),
    ]
    assert fixes(found) == ["fix it"]


def test_a_fix_repeats_what_the_user_named() -> None:
    resolved = resolve(flags={"profile": "a5000"}, overrides=["train.model=tiny"], environ={})
    subject = Subject(resolved, Path("my data"), Path("w.pt"))
    assert subject.train("--dry-run") == (
        "ushape train --data 'my data' --init w.pt --profile a5000 --model tiny --dry-run"
    )
    assert Subject(resolve(environ={})).train("--dry-run") == "ushape train --dry-run"
