"""Causes in one line, without numbers and type names of others."""

from __future__ import annotations

import subprocess
import urllib.error

import pytest
from pydantic import BaseModel, ValidationError, field_validator

from ultrashape_cli.formatting import cause, duration


class Settings(BaseModel):
    mode: str = ""

    @field_validator("mode")
    @classmethod
    def check(cls, value: str) -> str:
        raise ValueError(f"{value!r} is not a mode")


def _invalid() -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        Settings(mode="foo")
    return caught.value


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ConnectionRefusedError(111, "Connection refused"), "connection refused"),
        (urllib.error.URLError(OSError(-2, "Name or service not known")),
         "name or service not known"),
        (urllib.error.URLError("no host given"), "no host given"),
        (RuntimeError("[Errno 111] Connection refused\nlong trace"), "Connection refused"),
        (ValueError(), "ValueError"),
        (subprocess.TimeoutExpired("x", 3), "Command 'x' timed out after 3 seconds"),
        (_invalid(), "`mode` is wrong: 'foo' is not a mode"),
    ],
)  # fmt: skip
def test_a_cause_is_one_line_of_words(error: Exception, text: str) -> None:
    assert cause(error) == text


def test_durations_are_short() -> None:
    assert [duration(s) for s in (-1, 59.6, 61, 3900)] == ["0s", "1m00s", "1m01s", "1h05m"]
