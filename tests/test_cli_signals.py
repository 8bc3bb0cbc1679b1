"""Signals that arrive in compiled code, which turns what they raise into SystemError."""

from __future__ import annotations

import pytest

from ultrashape_cli import cli


@pytest.mark.parametrize(("cause", "code"), [(SystemExit(143), 143), (KeyboardInterrupt(), 130)])
def test_a_signal_in_compiled_code_is_no_bug(
    monkeypatch: pytest.MonkeyPatch, cause: BaseException, code: int
) -> None:
    def stopped(args: list[str]) -> None:
        raise SystemError("returned a result with an exception set") from cause

    monkeypatch.setattr(cli, "app", stopped)
    assert cli.run(["show"]) == code


def test_other_system_errors_are_bugs(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(args: list[str]) -> None:
        raise SystemError("bad")

    monkeypatch.setattr(cli, "app", broken)
    assert cli.run(["show"]) == 3
