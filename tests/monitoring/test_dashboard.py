from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest
from rich.console import Console
from synthetic_run import VALIDATED, add_checkpoint, add_lines, make_run, set_config

from ultrashape_cli.config.alerts import AlertConfig
from ultrashape_cli.data.layout import TRAINING_STEPS, Dataset, Record, StepRecord
from ultrashape_cli.errors import UsageError
from ultrashape_cli.files import write_json
from ultrashape_cli.monitoring.alerts import AlertBook
from ultrashape_cli.monitoring.dashboard import RunView, plain, render, to_json
from ultrashape_cli.monitoring.panels import Snapshot, compare
from ultrashape_cli.monitoring.system import Gpu, Machine
from ultrashape_cli.monitoring.views import open_view
from ultrashape_cli.runs import RunFolder


def _book(run: RunFolder) -> AlertBook:
    return AlertBook(run.root, AlertConfig(off=("disk-low", "disk-full")))


def _text(renderable: object, width: int = 80, height: int = 24) -> str:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True)
    rows = console.render_lines(renderable, pad=False)
    assert len(rows) <= height
    assert all(sum(segment.cell_length for segment in row) <= width for row in rows)
    return "\n".join("".join(segment.text for segment in row) for row in rows)


def _full(folder: Path) -> RunFolder:
    run = make_run(folder / "shoes")
    set_config(run, launch="price_per_hour = 2.5\n", save_every_steps=10)
    bins = {f"loss_t{index}": 0.9 - 0.05 * index for index in range(10)}
    start = run.read_status()["time"] - 40
    run.metrics.unlink()
    add_lines(run, range(1, 21), start=start)
    add_lines(run, range(21, 41), start=start, mfu=0.31, memory_gib=61.5, **bins, **VALIDATED)
    add_checkpoint(run, 40, size=3 * 2**20)
    run.write_status("running", step=40, steps=100)
    return run


def _look(run: RunFolder) -> Snapshot:
    shot = RunView(run, book=_book(run)).look()
    gpu = Gpu(0, "NVIDIA H100", 97, 61.0, 79.6, 65, 690.4)
    machine = Machine(cpu=12.0, used_gib=40.0, total_gib=256.0, disk_free_gib=1.0, gpus=(gpu,))
    return Snapshot(shot.state, shot.history, machine, shot.alerts)


@pytest.mark.parametrize(("width", "height"), [(80, 24), (100, 30), (200, 50)])
def test_the_view_shows_everything_that_matters(tmp_path: Path, width: int, height: int) -> None:
    text = _text(render(_look(_full(tmp_path)), width, height), width, height)
    for part in (
        *("shoes  RUNNING  step 40 of 100  40.0 %  1m00s left  cost 0.03 of 0.07", "loss", "⠒"),
        *(".900", "lr 0.0001", "grad norm 0.5", "MFU 31 %", "backward 60%", "data 2%", "base"),
        *("F-score@0.01", "0.8", "+60.0 % better", "Chamfer-L1", "-50.0 % better"),
        *("step-00000040  3.0 MiB", "gpu0 NVIDIA H100", "97 %", "61.0/79.6 GiB", "65 C", "690 W"),
        *("cpu 12 %", "memory 40.0/256.0 GiB", "GiB free", "second"),
    ):
        assert part in text, part


@pytest.mark.parametrize(("width", "height"), [(20, 5), (40, 12), (80, 24), (131, 24), (300, 100)])
def test_any_terminal_is_filled_and_not_more(tmp_path: Path, width: int, height: int) -> None:
    empty = RunFolder(tmp_path / "empty")
    empty.root.mkdir()
    for run in (empty, _full(tmp_path)):
        text = _text(render(_look(run), width, height), width, height)
        assert text.splitlines()[0].startswith(run.root.name)


def test_an_empty_run_waits(tmp_path: Path) -> None:
    shot = _look(RunFolder(tmp_path))
    assert "waiting for values" in _text(render(shot, 80, 24))
    assert plain(shot.state) == "unknown  step 0/0"


def test_alerts_and_errors_are_shown_first(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", state="failed", error="loss [nan] at step 1\x1b[31m")
    shot = _look(run)
    rows = _text(render(shot, 80, 24)).splitlines()
    assert rows[2] == "error: loss [nan] at step 1"
    assert [alert.rule for alert in shot.alerts] == ["failed"]
    assert plain(shot.state, shot.alerts).endswith("error: loss [nan] at step 1")
    run.status.write_text(json.dumps({"state": "running", "pid": 2**22 + 1, "step": 7}))
    assert _text(render(_look(run), 80, 24)).splitlines()[2].startswith("!! the process is gone")


def test_a_terminal_that_knows_ascii_only_gets_that(tmp_path: Path) -> None:
    shot = RunView(_full(tmp_path), ascii_only=True).look()
    assert _text(render(shot, 160, 40), 160, 40).isascii()


def test_a_look_is_plain_json(tmp_path: Path) -> None:
    found = json.loads(json.dumps(to_json(_look(_full(tmp_path))), allow_nan=False))
    assert (found["state"], found["step"], found["checkpoint"]) == ("running", 40, "step-00000040")
    assert found["metrics"]["mfu"] == 0.31
    assert found["machine"]["gpus"][0]["celsius"] == 65
    assert found["cost"] > 0


def test_changes_against_the_base_have_the_right_sign() -> None:
    assert compare("f_score@0.01", 0.9, 0.6) == (True, "+50.0 % better")
    assert compare("chamfer_l1", 0.9, 0.6) == (False, "+50.0 % worse")
    assert compare("chamfer_l1", 0.3, 0.6) == (True, "-50.0 % better")
    assert compare("chamfer_l1", 0.33, 0.01) == (False, "33x worse")
    assert compare("normals", 0.3, None) is compare("normals", 0.3, 0.0) is None


def test_meshes_stay_in_view_when_a_later_validation_refines_none(tmp_path: Path) -> None:
    run = _full(tmp_path)
    add_lines(run, [41], val_loss=0.2)
    text = _text(render(_look(run), 80, 30), 80, 30)
    assert "val_loss 0.2 at step 41" in text
    assert "step 40  " in text
    assert "+60.0 % better" in text


@pytest.mark.parametrize("stage", ["dit", "vae"])
def test_a_run_that_is_worse_than_its_input_says_so(tmp_path: Path, stage: str) -> None:
    run = _full(tmp_path)
    set_config(run, stage=stage)
    worse = {"val_coarse_f_score@0.01": 0.9, "val_coarse_chamfer_l1": 0.001}
    add_lines(run, [41], **VALIDATED | worse)
    text = _text(render(_look(run), 80, 30), 80, 30)
    said = "worse than the input: F-score@0.01 -11.1 %, Chamfer-L1 10x"
    # The input of an autoencoder is the truth.
    assert (said in text) == (stage == "dit")
    assert "worse than the input" not in _text(
        render(_look(_full(tmp_path / "good")), 80, 30), 80, 30
    )


def test_a_folder_of_runs_has_a_line_for_each(tmp_path: Path) -> None:
    _full(tmp_path)
    make_run(tmp_path / "dead", state="failed", error="boom")
    look = open_view(tmp_path, _book).look()
    assert sorted(line.split()[0] for line in look.plain.splitlines()) == ["dead", "shoes"]
    assert (look.alarm, look.ended) == (True, False)
    rows = {row["run"].rsplit("/", 1)[1]: row for row in look.json["runs"]}
    assert rows["dead"]["alerts"] == ["failed"]
    text = _text(look.render(100, 24), 100, 24)
    assert "40/100" in text
    assert "failed" in text


def _add(dataset: Dataset, name: str, step_time: float, *, done: int = 3, cause: str = "") -> None:
    steps = {s: StepRecord("done", "k", time=step_time) for s in TRAINING_STEPS[:done]}
    if cause:
        error = {"cause": cause, "message": "[red] broken", "hint": None}
        steps[TRAINING_STEPS[done]] = StepRecord("failed", "k", error=error, time=step_time)
    source = {"path": f"/m/{name}.obj", "sha256": name}
    dataset.write_record(Record(name, source, steps))


def test_a_dataset_shows_steps_pace_and_failures(tmp_path: Path, monkeypatch) -> None:
    dataset = Dataset(tmp_path / "data")
    now = 1_000_000.0
    monkeypatch.setattr("time.time", lambda: now)
    for index in range(5):
        _add(dataset, f"a{index}", now - 60 * index)
    _add(dataset, "bad", now, done=1, cause="crash")
    _add(dataset, "half", now, done=2)
    _add(dataset, "new", now, done=0)
    write_json(dataset.list_path("train"), ["a0"])
    look = open_view(dataset.root, _book).look()
    assert look.json["steps"]["watertight"] == {"done": 7, "failed": 0}
    assert look.json["steps"]["render"] == {"done": 6, "failed": 1}
    assert (look.json["assets"], look.json["complete"], look.json["failed"]) == (8, 5, 1)
    # Six assets ended within four minutes, two are left.
    assert look.json["per_minute"] == pytest.approx(5 / 4)
    assert look.json["seconds_left"] == pytest.approx(2 * 4 / 5 * 60)
    assert look.json["failures_by_cause"] == {"crash": 1}
    assert look.json["splits"] == {"train": 1}
    text = _text(look.render(80, 24))
    for part in ("PREPARING", "5 of 8", "1 failed", "crash", "bad.obj: [red] broken", "train 1"):
        assert part in text
    assert look.plain.startswith("preparing  5/8 complete  watertight 7")


def test_a_dataset_is_followed_by_what_changed(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path / "data")
    _add(dataset, "a", 1.0, done=1)
    view = open_view(dataset.root, _book)
    assert view.look().json["complete"] == 0
    view._reader._next_scan = 0.0
    _add(dataset, "a", 2.0)
    _add(dataset, "b", 2.0)
    os.unlink(dataset.record_path("a"))
    found = view.look()
    assert (found.json["assets"], found.json["complete"], found.ended) == (1, 1, True)


def test_damaged_records_are_survived(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path / "data")
    _add(dataset, "a", 1.0)
    for name, text in (("b", "{"), ("c", "[]"), ("d", '{"steps": {"render": 3}, "source": 7}')):
        dataset.record_path(name).write_text(text)
    assert open_view(dataset.root, _book).look().json["complete"] == 1


def test_what_cannot_be_watched_is_refused(tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(UsageError, match="neither a run, a dataset"):
        open_view(tmp_path, _book)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="no runs"):
        open_view(None, _book)
