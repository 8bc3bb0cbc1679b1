"""`ushape doctor --require`, from recorded answers: the suite runs without a card."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ultrashape_cli.config.resolve import resolve
from ultrashape_cli.diagnosis import gpu, required
from ultrashape_cli.diagnosis.check import FAIL, OK, Finding, Subject
from ultrashape_cli.errors import UsageError


def _subject(weights: Path | None = None) -> Subject:
    return Subject(resolve(flags={"train.model": "tiny"}, environ={}), weights=weights)


@pytest.mark.parametrize(
    ("driver", "build", "status", "words"),
    [
        ("570.86.15", (13, 0), FAIL, "CUDA 13.0, which needs driver 580.65.06 or newer; .*570.86"),
        ("580.65.06", (13, 0), OK, "580.65.06"),
        ("525.60.11", (12, 8), FAIL, "needs driver 525.60.13 or newer"),
        ("550.54", (12, 6), OK, "550.54"),
        # As numbers: 1000 is newer than 580.
        ("1000.1", (13, 2), OK, "1000.1"),
        (None, (12, 6), FAIL, "this machine has no NVIDIA driver"),
        ("580.65.06", None, FAIL, "built for the CPU"),
    ],
)
def test_the_driver_that_the_installed_torch_needs_is_named(
    driver: str | None, build: tuple[int, int] | None, status: str, words: str
) -> None:
    found = required.judge_driver(driver and {"version": driver}, "2.13.0", build)
    assert found.status == status
    assert re.search(words, found.message)


def test_the_build_of_torch_is_read_without_loading_it() -> None:
    import torch

    version, build = required.installed_torch()
    assert version == torch.__version__
    cuda = torch.version.cuda
    assert build == (cuda and tuple(int(n) for n in cuda.split(".")[:2]))


def test_what_is_not_required_is_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = [Finding("torch", OK, ""), Finding("gpu0", OK, "A40"), Finding("disk", OK, "")]
    monkeypatch.setattr(gpu, "check_torch", lambda subject: [*seen, Finding("plan", FAIL, "")])
    assert required.check_required(["gpu"], _subject()) == seen[:2]
    assert required.check_required(["disk"], _subject()) == seen[2:]
    assert required.check_required(["gpu", "disk"], _subject()) == seen


def test_an_answer_that_is_missing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "check_torch", lambda subject: [Finding("torch", OK, "")])
    found = required.check_required(["gpu", "disk", "weights"], _subject())
    assert {f.name: f.status for f in found} == {
        "torch": OK, "gpu": FAIL, "disk": FAIL, "weights": FAIL
    }  # fmt: skip
    (weights,) = required.check_required(["weights"], _subject(Path("nowhere.pt")))
    assert weights.status == FAIL
    assert "nowhere.pt" in weights.message


def test_names_are_checked() -> None:
    assert required.parse_requirements("gpu, disk,gpu") == ["gpu", "disk"]
    for text in ("gpus", "", ","):
        with pytest.raises(UsageError, match="cannot require"):
            required.parse_requirements(text)
