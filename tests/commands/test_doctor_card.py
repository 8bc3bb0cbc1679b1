"""`ushape doctor --card`: the command around the report, with few cases."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from ultrashape_cli.diagnosis.card import parts
from ultrashape_cli.diagnosis.card.parts import SIZES, Part

ON_CPU = ("--set", "device=cpu", "--no-config")
SCRIPT = Path(__file__).parent.parent.parent / "examples" / "bench" / "card.sh"


@pytest.fixture(autouse=True)
def own_lock(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lets other tests make reports at the same time; returns where the lock is."""
    folder = tmp_path_factory.mktemp("lock")
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves the report two quick cases and one without time."""
    chosen = (
        Part(name="device", share=0.9, cases=("bandwidth",)),
        Part(name="kernels", share=0.1, cases=("compile-train",)),
    )
    monkeypatch.setattr(parts, "all_parts", lambda sizes: chosen)


@pytest.mark.slow
def test_a_report_is_written_shown_and_gone_on_with(ushape, few, tmp_path: Path) -> None:
    out = tmp_path / "card.json"
    first = ushape("doctor", "--card", "--minutes", 0.3, "-o", out, *ON_CPU)
    assert first.code == 0, first.err
    body = json.loads(out.read_text())
    assert body["results"]["device/bandwidth"]["status"] == "ok"
    assert body["results"]["kernels/compile-train"]["status"] == "not run"
    assert body["line"] in first.out
    assert "0 red, 1 not run" in body["line"]
    assert first.out.splitlines()[-1] == str(out)
    assert list(tmp_path.iterdir()) == [out]
    second = ushape("doctor", "--card", "--minutes", 0.2, "-o", out, *ON_CPU, "--json")
    found = json.loads(second.out)
    assert (second.code, found["status"], found["counts"]["ok"]) == (0, "ok", 1)
    assert "1 of 2 cases are done" in second.err
    measured = found["results"]["device/bandwidth"]
    assert measured == body["results"]["device/bandwidth"]


@pytest.mark.slow
def test_a_failed_case_is_red_and_exits_1(ushape, monkeypatch, tmp_path: Path) -> None:
    wrong = (Part(name="twins", share=1.0, cases=("no-such-check",)),)
    monkeypatch.setattr(parts, "all_parts", lambda sizes: wrong)
    out = tmp_path / "card.json"
    result = ushape("doctor", "--card", "--minutes", 1, "-o", out, *ON_CPU, "--json")
    found = json.loads(result.out)
    assert (result.code, found["status"], found["counts"]["red"]) == (1, "error", 1)
    assert "KeyError" in found["results"]["twins/no-such-check"]["reason"]


def test_a_file_of_others_is_left_alone(ushape, tmp_path: Path) -> None:
    out = tmp_path / "notes.json"
    out.write_text("mine")
    result = ushape("doctor", "--card", "-o", out, "--force", *ON_CPU)
    assert (result.code, out.read_text()) == (2, "mine")
    assert "did not make it" in result.err


def test_two_reports_at_once_would_measure_each_other(ushape, tmp_path: Path) -> None:
    code = (
        "from ultrashape_cli.diagnosis.card.runner import alone_on_card\n"
        "with alone_on_card():\n"
        "    print('held', flush=True); input()"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        out = tmp_path / "card.json"
        result = ushape("doctor", "--card", "-o", out, *ON_CPU)
        other.kill()
    assert (result.code, out.exists()) == (2, False)
    assert "is measuring here" in result.err


def test_a_report_of_nothing_is_no_success(ushape, monkeypatch, tmp_path: Path) -> None:
    late = (Part(name="kernels", share=1.0, cases=("compile-train",)),)
    monkeypatch.setattr(parts, "all_parts", lambda sizes: late)
    result = ushape("doctor", "--card", "--minutes", 0.05, "-o", tmp_path / "card.json", *ON_CPU)
    assert result.code == 1
    assert "nothing was measured" in result.err


@pytest.mark.parametrize(
    "options", [("--minutes", 5), ("-o", "x.json"), ("--force",), ("--model", "tiny")]
)
def test_options_of_the_report_need_it(ushape, options: tuple[object, ...]) -> None:
    result = ushape("doctor", *options)
    assert result.code == 2
    assert "only with --card" in result.err


@pytest.mark.parametrize("option", ["--fix-hints", "--data", "--init"])
def test_options_of_the_checks_are_not_for_it(ushape, option: str) -> None:
    value = () if option == "--fix-hints" else (".",)
    result = ushape("doctor", "--card", option, *value)
    assert result.code == 2
    assert option in result.err


def test_a_model_that_is_unknown_is_refused(ushape, tmp_path: Path) -> None:
    result = ushape("doctor", "--card", "-o", tmp_path / "c.json", "--model", "tyni", *ON_CPU)
    assert (result.code, "`tiny`" in result.err) == (2, True)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_stopped_report_is_kept_and_exits_130(tmp_path: Path) -> None:
    out = tmp_path / "card.json"
    command = [sys.executable, "-m", "ultrashape_cli", "doctor", "--card", "-o", str(out)]
    process = subprocess.Popen(
        [*command, "--json", *ON_CPU],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if out.exists() and '"status": "ok"' in out.read_text():
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    text, _ = process.communicate(timeout=30)
    assert (process.returncode, json.loads(text)["status"]) == (130, "stopped")
    results = json.loads(out.read_text())["results"]
    assert results["device/products"]["status"] == "ok"
    assert results["decode/16"]["status"] == "not run"
    assert list(results) == list(parts.all_names(parts.all_parts(SIZES["cpu"])))


def _run_script(folder: Path, minutes: float) -> tuple[int, dict]:
    folders = [str(Path(sys.executable).parent), os.environ["PATH"]]
    done = subprocess.run(
        ["bash", SCRIPT, "--minutes", str(minutes), *ON_CPU],
        cwd=folder,
        env=os.environ | {"PATH": os.pathsep.join(folders)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert [path.name for path in folder.iterdir()] == ["card.json"], done.stderr
    return done.returncode, json.loads((folder / "card.json").read_text())


def test_the_script_passes_its_options_on(tmp_path: Path) -> None:
    # No time at all: what is left is to ask the machine what it is, and to write that down.
    code, body = _run_script(tmp_path, 0.05)
    found = {result["status"] for result in body["results"].values()}
    assert found <= {"not run", "ok"}
    assert code == (0 if "ok" in found else 1)
    assert body["machine"]["device"] == "cpu"


@pytest.mark.slow
def test_everything_runs_on_a_cpu(tmp_path: Path) -> None:
    code, body = _run_script(tmp_path, 6.0)
    ended = {name: result["status"] for name, result in body["results"].items()}
    assert set(ended.values()) == {"ok", "skipped"}
    absent = {name for name, status in ended.items() if status == "skipped"}
    assert absent == {"twins/attention-cudnn", "twins/attention-flash"}
    assert code == 0
