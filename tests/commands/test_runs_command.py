"""`ushape runs`: one line per run."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from synthetic_run import VALIDATED, add_checkpoint, add_lines, make_run, set_config

from ultrashape_cli.files import write_json
from ultrashape_cli.runs import CHECKPOINT_MANIFEST, RunFolder, record_event


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run with a price, and a newer one without a validation."""
    monkeypatch.chdir(tmp_path)
    shoes = make_run(tmp_path / "runs" / "shoes", state="stopped")
    set_config(shoes, launch="price_per_hour = 2.5\n", best_metric="val_f_score@0.01")
    record_event(shoes, "start", time=time.time() - 7200)
    record_event(shoes, "finish")
    for step, score in ((30, 0.7), (40, 0.8), (50, 0.75)):
        add_lines(
            shoes, [step], start=time.time() - 3600, **VALIDATED | {"val_f_score@0.01": score}
        )
    shoes.write_status("finished", step=50, steps=50)
    os.utime(shoes.config, (time.time() - 7200,) * 2)
    make_run(tmp_path / "runs" / "hats", state="failed", error="boom")
    return tmp_path / "runs"


def test_runs_are_listed_with_state_best_score_and_cost(ushape, root: Path) -> None:
    result = ushape("runs")
    assert (result.code, result.err) == (0, "")
    head, *rows = [line.split() for line in result.out.splitlines()]
    assert head == ["run", "state", "step", "best", "cost", "updated"]
    assert rows[0][:5] == ["hats", "failed", "20/100", "-", "-"]
    assert rows[1][:6] == ["shoes", "finished", "50/50", "0.8", "val_f_score@0.01", "5.00"]
    assert all(row[-1] == "ago" for row in rows)
    assert all(len(line) <= 80 for line in result.out.splitlines())


def test_a_long_name_keeps_its_line(ushape, root: Path) -> None:
    name = "a-very-long-name-of-a-run-of-shoes-ultrashape-1.0-dit"
    (root / "hats").rename(root / name)
    rows = ushape("runs").out.splitlines()
    assert len(rows) == 3
    assert rows[1].split()[:3] == [name, "failed", "20/100"]


def test_json_holds_every_run(ushape, root: Path) -> None:
    body = json.loads(ushape("runs", root, "--json").out)
    assert body["counts"] == {"runs": 2}
    hats, shoes = body["runs"]
    assert (hats["state"], hats["best"], hats["cost"]) == ("failed", None, None)
    assert (shoes["metric"], shoes["best"], shoes["best_step"]) == ("val_f_score@0.01", 0.8, 40)
    assert shoes["cost"] == pytest.approx(5.0, abs=0.01)
    assert shoes["updated"] < 60


def test_the_best_of_a_long_run_is_that_of_its_checkpoints_too(ushape, root: Path) -> None:
    path = add_checkpoint(RunFolder(root / "shoes"), 10)
    manifest = json.loads((path / CHECKPOINT_MANIFEST).read_text())
    write_json(path / CHECKPOINT_MANIFEST, manifest | {"score": -0.9})
    (shoes,) = json.loads(ushape("runs", root / "shoes", "--json").out)["runs"]
    assert (shoes["best"], shoes["best_step"]) == (0.9, 10)


def test_nothing_but_reading_is_done(ushape, root: Path) -> None:
    def state() -> dict[str, int]:
        return {str(path): path.stat().st_mtime_ns for path in root.rglob("*")}

    before = state()
    assert ushape("runs", "--quiet").out.split() == ["runs/hats", "runs/shoes"]
    assert state() == before


def test_a_folder_without_runs_is_refused(ushape, tmp_path: Path) -> None:
    result = ushape("runs", tmp_path / "none")
    assert (result.code, f"no runs in `{tmp_path / 'none'}`" in result.err) == (2, True)


def test_a_damaged_run_is_listed(ushape, root: Path) -> None:
    for name in ("metrics.jsonl", "status.json", "events.jsonl", "config.toml"):
        (root / "hats" / name).write_bytes(b"\xff[")
    assert "hats" in ushape("runs").out
