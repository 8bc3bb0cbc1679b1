"""Time, processes that crash or hang, and going on: with a stand-in for the cases."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from ultrashape_cli.diagnosis.card import runner
from ultrashape_cli.diagnosis.card.parts import Part, Settings
from ultrashape_cli.diagnosis.card.report import Report, open_report
from ultrashape_cli.diagnosis.card.runner import NO_TURN, identify, run_report
from ultrashape_cli.errors import DependencyError

MACHINE = {"version": "1", "torch": "2", "device": "cpu", "name": "CPU", "gib": None}
SETTINGS = Settings(device="cpu", model="tiny", profile="cpu")
STAND_IN = """
import json, os, sys, time
request = json.loads(sys.stdin.read())
open(os.environ["CALLS"], "a").write(" ".join(sys.argv[1:]) + "\\n")
for name in sys.argv[1:]:
    kind = name.split("/")[1]
    result = {"status": "ok", "figures": {"left": request.get("deadline", 0) - time.monotonic()}}
    if kind == "crash":
        os.abort()
    if kind == "quit":
        sys.exit("no card\\nlast words")
    if kind == "hang":
        open(os.environ["CALLS"] + ".pid", "w").write(str(os.getpid()))
        time.sleep(60)
    if kind == "late":
        result = {"status": "not run", "reason": "time: it takes about 90 s", "needs": 90.0}
    if kind == "broken":
        result = {"status": "failed", "reason": "KeyError: x", "broken": True}
    print(json.dumps({"name": name, "result": result}), flush=True)
    if kind == "broken":
        os._exit(1)
"""


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Lets a stand-in run the cases; returns the file where it writes what each process got."""
    script, told = tmp_path / "case.py", tmp_path / "calls.txt"
    script.write_text(STAND_IN)
    monkeypatch.setattr(runner, "CASE", [sys.executable, str(script)])
    monkeypatch.setattr(runner, "LEAST_S", {"cpu": 0.1, "cuda": 0.1})
    monkeypatch.setenv("CALLS", str(told))
    return told


def _report(tmp_path: Path) -> Report:
    return open_report(tmp_path / "card.json", MACHINE, {"model": "tiny"}, force=False)


def _part(*cases: str, name: str = "a", share: float = 1.0, alone: bool = False) -> Part:
    return Part(name=name, share=share, cases=cases, alone=alone)


def _run(report: Report, *parts: Part, seconds: float = 60.0, **options: Any) -> dict[str, str]:
    run_report(report, parts, SETTINGS, seconds, **options)
    return {name: result["status"] for name, result in report.results.items()}


def test_cases_share_a_process_and_one_that_crashes_costs_itself_alone(
    tmp_path: Path, calls: Path
) -> None:
    report = _report(tmp_path)
    found = _run(report, _part("x", "crash", "y", "broken", "z", "quit"))
    assert found == {
        **{"a/x": "ok", "a/crash": "failed", "a/y": "ok", "a/broken": "failed", "a/z": "ok"},
        "a/quit": "failed",
    }
    assert report.results["a/crash"]["reason"] == "the process ended: SIGABRT"
    assert report.results["a/quit"]["reason"] == "the process ended: last words"
    whole = "a/x a/crash a/y a/broken a/z a/quit"
    tails = [whole, "a/y a/broken a/z a/quit", "a/z a/quit", "a/quit"]
    assert calls.read_text().splitlines()[:3] == tails[:3]


def test_on_a_card_cases_that_are_weighed_have_processes_of_their_own(
    tmp_path: Path, calls: Path
) -> None:
    cuda = Settings(device="cuda", model="tiny", profile="a40")
    run_report(_report(tmp_path), [_part("x", "y", alone=True)], cuda, 60.0)
    assert calls.read_text().splitlines() == ["a/x", "a/y"]


def test_a_case_that_hangs_is_killed_when_its_time_is_over(tmp_path: Path, calls: Path) -> None:
    report, started = _report(tmp_path), time.monotonic()
    found = _run(report, _part("x", "hang", "y"), seconds=2.0)
    assert time.monotonic() - started < 8
    assert found["a/x"] == "ok"
    assert found["a/hang"] == "timed out"
    assert found["a/y"] == "not run"
    assert not psutil.pid_exists(int(Path(f"{calls}.pid").read_text()))


def test_every_part_has_its_share_and_those_behind_get_what_it_leaves(
    tmp_path: Path, calls: Path
) -> None:
    report = _report(tmp_path)
    _run(report, _part("x", share=0.1), _part("y", name="b", share=0.3),
         _part("z", name="c", share=0.6), seconds=100.0)  # fmt: skip
    left = [report.figure(name, "left") for name in ("a/x", "b/y", "c/z")]
    assert left == pytest.approx([10.0, 33.0, 99.0], abs=3.0)


def test_what_says_to_need_more_than_its_share_is_tried_again_if_there_is_as_much(
    tmp_path: Path, calls: Path
) -> None:
    small, large = _part("late", share=0.5), _part("x", name="b", share=0.5)
    found = _run(_report(tmp_path), small, large, seconds=60.0)
    assert found == {"a/late": "not run", "b/x": "ok"}
    assert calls.read_text().splitlines() == ["a/late", "b/x"]
    calls.unlink()
    report = _report(tmp_path)
    _run(report, small, large, seconds=200.0)
    assert calls.read_text().splitlines()[0] == "a/late"


def test_what_has_no_turn_is_there_from_the_start(tmp_path: Path, calls: Path) -> None:
    report = _report(tmp_path)
    assert _run(report, _part("x", "y"), seconds=0.0) == {"a/x": "not run", "a/y": "not run"}
    assert {result["reason"] for result in report.results.values()} == {NO_TURN}


def test_results_are_on_disk_after_every_case_and_not_repeated(tmp_path: Path, calls: Path) -> None:
    seen: list[list[str]] = []

    def look(name: str, result: dict[str, Any]) -> None:
        body = json.loads((tmp_path / "card.json").read_text())
        seen.append([n for n, r in body["results"].items() if r["status"] == "ok"])

    part = _part("x", "y", "late")
    _run(_report(tmp_path), part, seconds=20.0, on_result=look)
    assert seen[:2] == [["a/x"], ["a/x", "a/y"]]
    calls.unlink()
    again = _report(tmp_path)
    assert _run(again, part, _part("z", name="b"), seconds=20.0)["b/z"] == "ok"
    assert calls.read_text().splitlines() == ["b/z"]


def test_a_stop_ends_the_case_and_keeps_the_others(tmp_path: Path, calls: Path) -> None:
    report = _report(tmp_path)
    done: list[str] = []
    found = _run(
        *(report, _part("x", "hang", "y")),
        on_result=lambda name, result: done.append(name),
        should_stop=lambda: Path(f"{calls}.pid").exists(),
    )
    assert found == {"a/x": "ok", "a/hang": "not run", "a/y": "not run"}
    assert done == ["a/x"]


def test_a_machine_that_says_nothing_is_an_error(calls: Path, monkeypatch) -> None:
    monkeypatch.setattr(runner, "IDENTIFY", "a/quit")
    with pytest.raises(DependencyError, match="last words"):
        identify("auto", lambda: False)
