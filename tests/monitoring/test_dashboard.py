from __future__ import annotations

import io
import json
import time
from pathlib import Path

import pytest
from rich.console import Console

from ultrashape_cli.monitoring.dashboard import RunView, plot
from ultrashape_cli.monitoring.events import MetricsWriter, truncate_after
from ultrashape_cli.runs import CHECKPOINT_MANIFEST, RunFolder, checkpoint_name

BLOCKS = " ▁▂▃▄▅▆▇█"


def _run(folder: Path, state: str = "running", steps: int = 20) -> RunFolder:
    run = RunFolder(folder / "run")
    writer = MetricsWriter(run.metrics)
    for step in range(1, steps + 1):
        line = {"step": step, "loss": 1 / step, "loss_smooth": 1 / step, "seconds": 2.0}
        writer.write(line | ({"val_loss": 0.25} if step == 10 else {}))
    writer.close()
    run.write_status(state, step=steps, steps=100)
    run.log().write_text("first\nsecond\n")
    return run


def _text(view: RunView, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, height=24, force_terminal=True)
    console.print(view.render(width))
    text = console.file.getvalue()
    rendered = console.render_lines(view.render(width), pad=False)
    assert all(sum(segment.cell_length for segment in line) <= width for line in rendered)
    return text


def _heights(rows: list) -> list[int]:
    bars = [row.plain[11:] for row in rows]
    return [sum(BLOCKS.index(bar[i]) for bar in bars) for i in range(len(bars[0]))]


def test_a_running_run_shows_step_loss_and_time_left(tmp_path: Path) -> None:
    run = _run(tmp_path)
    state = RunView(run).read()
    assert (state["state"], state["step"], state["steps"]) == ("running", 20, 100)
    assert state["seconds_left"] == 160.0
    assert state["validation"]["step"] == 10
    text = _text(RunView(run))
    for part in ("RUNNING", "step 20 of 100", "2m40s left", "val_loss 0.25 at 10", "second"):
        assert part in text


def test_a_reading_is_plain_json(tmp_path: Path) -> None:
    state = RunView(_run(tmp_path)).read()
    assert json.loads(json.dumps(state, allow_nan=False))["metrics"] == state["metrics"]


def test_the_newest_whole_checkpoint_is_named(tmp_path: Path) -> None:
    run = _run(tmp_path)
    for step in (10, 20):
        path = run.checkpoints / checkpoint_name(step)
        path.mkdir(parents=True)
        (path / "w").write_bytes(b"1")
        size = 1 if step == 10 else 2
        (path / CHECKPOINT_MANIFEST).write_text(json.dumps({"files": {"w": {"bytes": size}}}))
    assert RunView(run).read()["checkpoint"] == "step-00000010"


@pytest.mark.parametrize("state", ["finished", "failed", "stopped"])
def test_an_ended_run_has_no_time_left(tmp_path: Path, state: str) -> None:
    view = RunView(_run(tmp_path, state))
    assert view.read()["seconds_left"] is None
    assert state.upper() in _text(view)
    assert view.plain().startswith(state)


def test_the_error_of_a_failed_run_is_shown(tmp_path: Path) -> None:
    run = _run(tmp_path, "failed")
    run.write_status("failed", step=1, steps=2, error="loss [nan] at step 1")
    view = RunView(run)
    assert "loss [nan] at step 1" in _text(view)
    assert "loss [nan] at step 1" in view.plain()


def test_a_dead_run_is_called_dead(tmp_path: Path) -> None:
    run = _run(tmp_path)
    status = run.read_status() | {"pid": 2**22 + 1, "time": time.time()}
    run.status.write_text(json.dumps(status))
    assert "DEAD" in _text(RunView(run))


@pytest.mark.parametrize("width", [20, 80, 200])
def test_an_empty_run_is_shown(tmp_path: Path, width: int) -> None:
    view = RunView(RunFolder(tmp_path))
    assert "waiting for values" in _text(view, max(width, 30))
    assert view.read()["state"] == "unknown"
    assert view.plain().startswith("unknown  step 0/0")


def test_damaged_files_are_survived(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.status.write_text('{"state": "running", "step": null, "steps": null, "pid": null}')
    lines = ['{"step": null, "loss_smooth": NaN, "seconds": "x"}', '{"val_loss": null}', "[", "3"]
    run.metrics.write_text("\n".join(lines) + "\n")
    run.log().write_bytes(b"\xff\xfe[red]\x1b[31m\n")
    view = RunView(run)
    assert view.plain().startswith("dead")
    _text(view)


def test_a_resumed_run_replaces_the_steps_it_does_again(tmp_path: Path) -> None:
    run = _run(tmp_path)
    view = RunView(run)
    view.read()
    truncate_after(run.metrics, 15)
    writer = MetricsWriter(run.metrics)
    for step in range(16, 40):
        writer.write({"step": step, "loss_smooth": 9.0})
    writer.close()
    view.read()
    assert [line["step"] for line in view._lines] == list(range(1, 40))
    assert view.read()["validation"]["step"] == 10


def test_a_plot_rises_with_its_values() -> None:
    rows = plot([float(n) for n in range(40)], 20, 6)
    heights = _heights(rows)
    assert len(rows) == 6
    assert len(heights) == 20
    assert heights == sorted(heights)
    assert (heights[0], heights[-1]) == (1, 48)
    assert rows[0].plain.split()[0] == "38.5"
    assert rows[-1].plain.split()[0] == "0.5"


def test_a_constant_series_is_a_line() -> None:
    assert set(_heights(plot([2.0] * 30, 10, 4))) == {1}


@pytest.mark.parametrize("values", [[], [1.0]])
def test_too_few_values_say_so(values: list[float]) -> None:
    assert plot(values, 10, 4)[0].plain == "waiting for values"


def test_extreme_values_are_plotted() -> None:
    assert len(plot([1e300, -1e300, 0.0, 1e-300], 4, 3)) == 3
