"""`ushape doctor`: output, exit codes, and one whole run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ultrashape_cli.diagnosis import all_checks
from ultrashape_cli.diagnosis.check import FAIL, OK, WARN, Check, Finding, Subject


@pytest.fixture
def some_checks(monkeypatch) -> None:
    found = [Finding("a", OK, "fine"), Finding("b", WARN, "[slow]", "do this")]
    monkeypatch.setattr(all_checks, "CHECKS", (Check("a", lambda subject: found),))
    monkeypatch.setattr(all_checks, "NETWORK_CHECKS", ())


def _fail(monkeypatch) -> None:
    bad = Finding("c", FAIL, "broken", "do that")
    monkeypatch.setattr(all_checks, "NETWORK_CHECKS", (Check("c", lambda subject: [bad]),))


def test_each_finding_is_printed_once_without_the_home(ushape, some_checks, monkeypatch) -> None:
    home = Finding("c", OK, "at /home/ann/.cache")
    monkeypatch.setattr(all_checks, "NETWORK_CHECKS", (Check("c", lambda subject: [home]),))
    monkeypatch.setenv("HOME", "/home/ann")
    result = ushape("doctor")
    assert result.code == 0
    assert [line.split() for line in result.out.splitlines()] == [
        ["ok", "a", "fine"],
        ["warn", "b", "[slow]"],
        ["try:", "do", "this"],
        ["ok", "c", "at", "~/.cache"],
    ]
    assert "3 looked at, 1 to mind, 0 failed" in result.err


def test_a_failed_check_exits_1(ushape, some_checks, monkeypatch) -> None:
    _fail(monkeypatch)
    assert ushape("doctor").code == 1
    assert ushape("doctor", "--no-network").code == 0


def test_fix_hints_are_commands_and_nothing_else(ushape, some_checks, monkeypatch) -> None:
    _fail(monkeypatch)
    assert ushape("doctor", "--fix-hints") == (1, "do this\ndo that\n", "")


def test_bad_settings_are_a_finding_among_the_others(ushape, some_checks) -> None:
    result = ushape("doctor", "--set", "train.lerning_rate=1", "--json")
    assert result.code == 1
    checks = json.loads(result.out)["checks"]
    assert [check["name"] for check in checks] == ["settings", "a", "b"]
    assert "did you mean `train.learning_rate`" in checks[0]["message"]


def test_the_plan_is_that_of_the_weights(ushape, monkeypatch, tmp_path: Path) -> None:
    def tell(subject: Subject) -> list[Finding]:
        return [Finding("model", OK, subject.resolved.config.train.model)]

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(all_checks, "CHECKS", (Check("a", tell),))
    monkeypatch.setattr(all_checks, "NETWORK_CHECKS", ())
    for weights, model in (("tiny", "tiny"), ("none.pt", "ultrashape-1.0")):
        assert ushape("doctor", "--init", weights).out.split() == ["ok", "model", model]
    explicit = ("--set", "train.model=ultrashape-1.0")
    assert ushape("doctor", "--init", "tiny", *explicit).out.split()[-1] == "ultrashape-1.0"


@pytest.mark.slow
def test_this_machine_is_looked_at_as_a_whole(ushape, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    result = ushape("doctor", "--set", "train.model=tiny", "--profile", "cpu", "--no-network",
                    "--json")  # fmt: skip
    said = {check["name"]: check["message"] for check in json.loads(result.out)["checks"]}
    for name in (
        *("python", "driver", "torch", "attention", "profile", "host memory", "disk", "optional"),
        *("shared memory", "open files", "cache", "blender", "variables"),
    ):
        assert name in said
    assert said["attention"].startswith("sdpa ")
    assert said["profile"].startswith("cpu: full in fp32, tiny, needs about 0.")
    assert "0123456789" not in result.out
    assert list(tmp_path.iterdir()) == []
