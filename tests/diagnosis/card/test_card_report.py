"""The file, what is red, the table and the line to paste."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ultrashape_cli.diagnosis.card.parts import SIZES, all_parts
from ultrashape_cli.diagnosis.card.report import (
    Report,
    check_target,
    is_red,
    memory_off,
    open_report,
)
from ultrashape_cli.diagnosis.card.table import case_row, counts, paste_line, rows
from ultrashape_cli.errors import UsageError

GIB = 2**30
MACHINE: dict[str, Any] = {
    **{"version": "0.1.0", "torch": "2.13.0+cu130", "driver": "580.1", "device": "cuda"},
    **{"name": "NVIDIA A40", "capability": "sm_86", "gib": 44.4},
}
SETTINGS = {"device": "cuda", "model": "ultrashape-1.0", "profile": "a40", "seed": 0}
PARTS = all_parts(SIZES["cuda"])


def _step(measured: float, **more: Any) -> dict[str, Any]:
    figures = {
        **{"cap": "48 GB", "accumulation": 2, "planned_seconds": 9.5, "seconds_per_step": 7.2},
        **{"seconds_per_run_step": 13.1, "mfu": 0.31, "split": {"forward": 2.0, "update": 1.4}},
        **{"planned_bytes": int(32.7 * GIB), "measured_bytes": int(measured * GIB)},
    }
    return {"status": "ok", "figures": figures | more}


def _filled(path: Path) -> Report:
    report = Report(path, MACHINE, SETTINGS, seconds=540.0)
    report.results = {
        "device/products": {
            "status": "ok",
            "figures": {"tflops": 134.0, "datasheet_tflops": 149.7, "by_shape": {"8x8x8": 134.0}},
        },
        "device/bandwidth": {"status": "ok", "figures": {"gb_per_s": {"memory": 620.0}}},
        "twins/rounding": {"status": "ok", "figures": {"error": 1e-4, "allowed": 2e-3}},
        "twins/stream": {"status": "ok", "figures": {"error": 0, "allowed": 0, "note": "bitwise"}},
        "twins/attention-flash": {"status": "skipped", "reason": "at /home/ann/x"},
        "twins/offload": {"status": "failed", "reason": "error 3, 1 allowed"},
        "steps/full-8bit": _step(32.0),
        "steps/lora": _step(36.0),
        "refine/8192/resident": {"status": "not run", "reason": "time: its turn did not come"},
    }
    return report


def test_nothing_that_is_no_report_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    check_target(path)
    for content in ("{}", "[1]", "no JSON", '{"kind": "another"}'):
        path.write_text(content)
        with pytest.raises(UsageError, match="did not make it"):
            check_target(path)
    with pytest.raises(UsageError, match="is a folder"):
        check_target(tmp_path)


def _changes(found: dict[str, Any], name: str) -> None:
    if name == "a figure":
        found["results"]["twins/rounding"]["figures"]["error"] = 0.0
    elif name == "results":
        found["results"] = [1, 2]
    elif name == "seconds":
        found["seconds"] = "abc"
    else:
        found["results"]["made/up"] = {"status": "ok"}


@pytest.mark.parametrize("name", ["a figure", "results", "seconds", "a case"])
def test_what_was_changed_by_hand_is_not_believed(tmp_path: Path, name: str) -> None:
    path = tmp_path / "card.json"
    _filled(path).save(line="free to change")
    found = json.loads(path.read_text())
    _changes(found, name)
    path.write_text(json.dumps(found))
    check_target(path)
    with pytest.raises(UsageError, match="changed by hand"):
        open_report(path, MACHINE, SETTINGS, force=False)
    assert open_report(path, MACHINE, SETTINGS, force=True).results == {}


@pytest.mark.parametrize("size", [0, 150, 900])
def test_a_torn_report_may_be_begun_anew(tmp_path: Path, size: int) -> None:
    path = tmp_path / "card.json"
    _filled(path).save()
    path.write_bytes(path.read_bytes()[:size])
    check_target(path)
    if size:
        with pytest.raises(UsageError, match="is damaged"):
            open_report(path, MACHINE, SETTINGS, force=False)
    assert open_report(path, MACHINE, SETTINGS, force=True).results == {}


def test_a_report_goes_on_and_one_of_another_card_does_not(tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    _filled(path).save()
    check_target(path)
    again = open_report(path, MACHINE, SETTINGS, force=False)
    assert again.seconds == 540.0
    assert again.waiting(["steps/lora", "twins/offload", "refine/8192/resident", "new"]) == [
        *("refine/8192/resident", "new"),
    ]
    for change in ({"name": "NVIDIA H100"}, {"torch": "2.14"}):
        with pytest.raises(UsageError, match=f"{next(iter(change.values()))}"):
            open_report(path, MACHINE | change, SETTINGS, force=False)
    # The driver may change without a new report.
    open_report(path, MACHINE | {"driver": "590"}, SETTINGS, force=False)
    assert open_report(path, MACHINE | {"torch": "2.14"}, SETTINGS, force=True).results == {}


def test_numbers_that_are_not_finite_do_not_break_the_file(tmp_path: Path) -> None:
    report = Report(tmp_path / "card.json", MACHINE, SETTINGS)
    report.record("twins/rounding", {"status": "failed", "figures": {"error": float("inf")}})
    body = json.loads(report.path.read_text())
    assert body["results"]["twins/rounding"]["figures"]["error"] is None


def test_words_of_others_name_no_folder(tmp_path: Path) -> None:
    report = Report(tmp_path / "card.json", MACHINE, SETTINGS)
    words = "ImportError: /home/ann/venv/lib/flash.so: undefined symbol (GB/s, refine/8192/int8)"
    report.record("steps/lora", {"status": "failed", "reason": words, "hint": None})
    told = report.results["steps/lora"]["reason"]
    assert told == "ImportError: flash.so: undefined symbol (GB/s, refine/8192/int8)"


@pytest.mark.parametrize(
    ("measured", "red"), [(32.7, False), (35.2, False), (35.4, True), (30.2, False), (30.0, True)]
)
def test_memory_off_its_plan_is_red_either_way(measured: float, red: bool) -> None:
    off = memory_off(_step(measured))
    assert off == pytest.approx(measured / 32.7 - 1, abs=1e-6)
    assert is_red(_step(measured)) == red


def test_a_broken_cap_is_red_and_what_was_not_measured_is_not() -> None:
    assert is_red({"status": "failed", "figures": _step(32.7, out_of_memory=True)["figures"]})
    assert not is_red(_step(0.0, measured_bytes=None))
    assert not is_red({"status": "skipped", "reason": "no room"})
    assert not is_red({"status": "not run"})
    assert not is_red({"status": "timed out"})


def test_the_table_has_a_row_for_all_that_is_not_well(tmp_path: Path) -> None:
    found = {row.name: row for row in rows(_filled(tmp_path / "card.json"), PARTS)}
    assert found["twins"].text == "2/3 agree; bitwise: stream; not here: attention-flash"
    assert "twins/rounding" not in found
    assert found["twins/offload"].red
    assert found["twins/offload"].text == "failed: error 3, 1 allowed"
    assert found["steps/full-8bit"].cells[2:] == ("32.00", "32.70", "-2.1%")
    assert found["steps/lora"].off == "+10.1%"
    assert (found["steps/lora"].red, found["steps/full-8bit"].red) == (True, False)
    assert found["refine/8192/resident"].text == "not run: time: its turn did not come"


def test_the_line_is_one_and_names_no_place(tmp_path: Path) -> None:
    report = _filled(tmp_path / "card.json")
    assert paste_line(report, PARTS) == (
        "ushape 0.1.0 | NVIDIA A40 44.4 GiB sm_86, driver 580.1, torch 2.13.0+cu130 | "
        "134 TFLOP/s 620 GB/s | twins 2/3 | steps: full-8bit @48 13.1 s 32.00/32.70 GiB, "
        "lora OFF ITS PLAN @48 13.1 s 36.00/32.70 GiB | 2 red, 1 not run, 9.0 min"
    )
    assert counts(report) == {
        **{"ok": 6, "failed": 1, "skipped": 1, "timed out": 0, "not run": 1, "red": 2},
    }


@pytest.mark.parametrize(
    ("figures", "text"),
    [
        (
            {"seconds": {"loop": 0.004, "grouped": 0.002}, "gain": 2.0},
            "loop 4.00 ms, grouped 2.00 ms: grouped 2.00 times as fast as loop",
        ),
        ({"seconds": {"loop": 0.004}, "gain": None}, "loop 4.00 ms"),
        (
            {"seconds": {"plain": 0.2, "compiled": 0.1}, "gain": 2.0, "seconds_to_compile": 41.2},
            "plain 200.00 ms, compiled 100.00 ms: compiled 2.00 times as fast as plain, "
            "41 s to compile",
        ),
        (
            {"seconds": {"forward": {}, "both": {"sdpa": 0.3, "cudnn": 0.2}}, "gain": 1.5,
             "fastest": "cudnn"},
            "sdpa 300.00 ms, cudnn 200.00 ms: cudnn 1.50 times as fast as sdpa",
        ),
    ],
)  # fmt: skip
def test_kernels_are_told_beside_each_other(figures: dict[str, Any], text: str) -> None:
    assert case_row("kernels/x", {"status": "ok", "figures": figures}).text == text
