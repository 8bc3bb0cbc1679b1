from __future__ import annotations

import json
import os
import random
from itertools import pairwise
from pathlib import Path

import pytest
from synthetic_run import add_lines

from ultrashape_cli.monitoring import history
from ultrashape_cli.monitoring.events import truncate_after
from ultrashape_cli.monitoring.history import MetricsHistory, sample_file
from ultrashape_cli.runs import RunFolder


def _long(path: Path, count: int, *, validate: int = 100) -> None:
    """Lines of different lengths; the loss is the step."""
    rng = random.Random(0)
    with path.open("w") as file:
        for step in range(1, count + 1):
            line = {"step": step, "loss": step, "pad": "x" * rng.randrange(300)}
            if step % validate == 0:
                line |= {"val_loss": -step, "more": "y" * 500}
            file.write(json.dumps(line) + "\n")


def test_a_short_file_is_kept_whole(tmp_path: Path) -> None:
    _long(tmp_path / "m", 500)
    found = MetricsHistory(tmp_path / "m")
    assert found.update() == 500
    assert found.series("loss") == [(step, step) for step in range(1, 501)]
    assert found.series("val_loss") == [(step, -step) for step in range(100, 501, 100)]
    assert found.update() == 0


def test_a_long_file_is_sampled_evenly_and_its_end_is_whole(tmp_path: Path) -> None:
    _long(tmp_path / "m", 20_000)
    found = MetricsHistory(tmp_path / "m", tail_bytes=50_000)
    assert found.update() < 500
    steps = [step for step, _ in found.series("loss")]
    assert steps == sorted(set(steps))
    assert all(step == value for step, value in found.series("loss"))
    assert steps[0] == 1
    assert max(b - a for a, b in pairwise(steps)) < 60
    assert steps[-100:] == list(range(19_901, 20_001))


def test_the_validations_of_a_long_file_are_found_by_seeking(tmp_path: Path) -> None:
    _long(tmp_path / "m", 20_000, validate=100)
    found = MetricsHistory(tmp_path / "m", tail_bytes=80_000)
    found.update()
    steps = [step for step, _ in found.series("val_loss")]
    # At most 160 are looked for before the end, of 196 there every one.
    assert len(steps) > 150
    assert steps[0] == 100
    assert all(value == -step for step, value in found.series("val_loss"))


def test_samples_come_whole_from_any_place(tmp_path: Path) -> None:
    path = tmp_path / "m"
    _long(path, 50)
    size = path.stat().st_size
    for start in (0, 1, 60, 199, 300):
        lines, _ = sample_file(path, start, size, 0)
        assert all(line["loss"] == line["step"] for line in lines)


def test_memory_is_bounded_and_the_newest_lines_stay(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(history, "MAX_LINES", 100)
    run = RunFolder(tmp_path)
    found = MetricsHistory(run.metrics)
    for start in range(1, 3001, 30):
        add_lines(run, range(start, start + 30))
        found.update()
        assert len(found.lines) <= 100
    steps = [int(line["step"]) for line in found.lines]
    assert steps[-50:] == list(range(2951, 3001))
    assert steps[0] == 1
    assert steps == sorted(steps)


def test_steps_that_are_done_again_replace_the_former_ones(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    found = MetricsHistory(run.metrics)
    add_lines(run, range(1, 31))
    found.update()
    truncate_after(run.metrics, 15)
    add_lines(run, range(16, 26), loss=9.0)
    found.update()
    assert [line["step"] for line in found.lines] == list(range(1, 26))
    assert found.lines[-1]["loss"] == 9.0


def test_a_deleted_file_leaves_what_was_read(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    found = MetricsHistory(run.metrics)
    add_lines(run, range(1, 4))
    found.update()
    os.remove(run.metrics)
    assert found.update() == 0
    assert len(found.lines) == 3


def test_a_file_that_vanishes_while_it_is_sampled_gives_nothing(tmp_path: Path) -> None:
    assert sample_file(tmp_path / "gone", 0, 1000, 10) == ([], [])


@pytest.mark.parametrize("value", ["null", "NaN", '"x"'])
def test_a_loss_that_is_no_number_is_remembered_until_one_is(tmp_path: Path, value: str) -> None:
    run = RunFolder(tmp_path)
    found = MetricsHistory(run.metrics)
    run.metrics.write_text(f'{{"step": 7, "loss": {value}}}\n')
    found.update()
    assert found.lost_step == 7
    add_lines(run, [8])
    found.update()
    assert found.lost_step is None


def test_a_mean_leaves_out_lines_without_the_metric(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.metrics.write_text('{"step": 1, "loss_t0": 2}\n{"step": 2, "loss_t0": null}\n'
                           '{"step": 3, "loss_t0": 4}\n')  # fmt: skip
    found = MetricsHistory(run.metrics)
    found.update()
    assert found.mean("loss_t0") == 3
    assert found.mean("loss_t1") is None
