"""The page of several runs."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from synthetic_run import VALIDATED, add_lines, make_run, set_config

from ultrashape_cli.files import write_json
from ultrashape_cli.reporting.runs_report import render_runs
from ultrashape_cli.runs import RunFolder


def _run(folder: Path, value: float, **settings: object) -> RunFolder:
    run = make_run(folder)
    set_config(run, **settings)
    for step in (21, 22):
        add_lines(run, [step], **VALIDATED | {"val_f_score@0.01": value, "val_chamfer_l1": 0.01})
    return run


def _pictures(run: RunFolder, *assets: str) -> None:
    folder = run.root / "samples" / "step-00000020"
    folder.mkdir(parents=True)
    for asset in assets:
        for kind in ("reference", "coarse", "current", "truth"):
            Image.fromarray(np.zeros((8, 8, 4), np.uint8)).save(folder / f"{asset}-{kind}.png")
    write_json(folder / "metrics.json", {"assets": [{"id": asset} for asset in assets]})


@pytest.fixture
def runs(tmp_path: Path) -> list[RunFolder]:
    return [
        _run(tmp_path / "slow", 0.8, learning_rate=1e-5, model="tiny"),
        _run(tmp_path / "<fast>", 0.9, learning_rate=1e-4, model="tiny", lora_rank=4),
    ]


def _rows(page: str, title: str) -> list[list[str]]:
    section = page[page.index(f"<h2>{title}") :].split("</table>")[0]
    return [re.findall(r"<t[dh]>(.*?)(?=<t[dh]>|$)", row) for row in section.split("<tr>")[1:]]


def test_curves_of_all_runs_lie_over_each_other(runs: list[RunFolder]) -> None:
    page = render_runs(runs)
    data = [json.loads(html.unescape(text)) for text in re.findall(r"data-series='([^']*)'", page)]
    assert [[curve["n"] for curve in chart] for chart in data].count(["slow", "<fast>"]) >= 5
    assert [curve["c"] for curve in data[0]] == [0, 1]
    assert "<fast>" not in page


def test_only_settings_that_differ_are_shown(runs: list[RunFolder]) -> None:
    rows = _rows(render_runs(runs), "Settings that differ")
    assert rows == [
        ["setting", "slow", "&lt;fast&gt;"],
        ["train.learning_rate", "1e-05", "0.0001"],
        ["train.lora_rank", "-", "4"],
    ]
    assert "have the same settings" in render_runs([runs[0], runs[0]])


def test_the_best_score_is_marked_beside_that_of_the_input(runs: list[RunFolder]) -> None:
    rows = {row[0]: row[1:] for row in _rows(render_runs(runs), "Best scores")}
    assert rows["F-score@0.01"] == ["0.8", "<em class=good>0.9</em>", "0.4"]
    assert rows["Chamfer-L1"] == ["<em class=good>0.01</em>"] * 2 + ["-"]


def test_pictures_of_shared_assets_are_side_by_side(runs: list[RunFolder]) -> None:
    assert "Pictures" not in render_runs(runs)
    _pictures(runs[0], "a", "b")
    assert "Pictures" not in render_runs(runs)
    _pictures(runs[1], "b")
    page = render_runs(runs)
    assert "<h3>b</h3>" in page
    assert "<h3>a</h3>" not in page
    assert page.count("<img") == 5
    assert "slow, step 20" in page


def test_runs_of_one_name_are_told_by_their_folders(tmp_path: Path) -> None:
    runs = [_run(tmp_path / place / "mine", 0.5) for place in ("here", "there")]
    page = render_runs(runs)
    assert str(tmp_path / "here" / "mine") in page


def test_runs_that_have_only_begun_have_a_page(tmp_path: Path) -> None:
    runs = [RunFolder(tmp_path / name) for name in "ab"]
    for run in runs:
        run.root.mkdir()
        run.write_status("running", step=0, steps=10)
    assert "0/10" in render_runs(runs)
