from __future__ import annotations

import json
import math
import os
from pathlib import Path

from ultrashape_cli.monitoring.events import (
    MetricsReader,
    MetricsWriter,
    parse_line,
    truncate_after,
)


def _steps(reader: MetricsReader) -> list[int]:
    return [line["step"] for line in reader.read_new()]


def _write(path: Path, *steps: int) -> None:
    writer = MetricsWriter(path)
    for step in steps:
        writer.write({"step": step})
    writer.close()


def test_lines_are_seen_at_once_and_once(tmp_path: Path) -> None:
    path = tmp_path / "run" / "metrics.jsonl"
    writer, reader = MetricsWriter(path), MetricsReader(path)
    writer.write({"step": 1, "loss": 0.5})
    assert list(reader.read_new()) == [{"step": 1, "loss": 0.5}]
    assert list(reader.read_new()) == []
    writer.write({"step": 2})
    assert _steps(reader) == [2]
    writer.close()


def test_numbers_that_json_cannot_hold_become_null(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    writer = MetricsWriter(path)
    writer.write({"a": math.nan, "b": math.inf, "c": -math.inf, "d": 1.0})
    writer.close()
    text = path.read_text()
    assert json.loads(text, parse_constant=lambda name: 1 / 0) == {
        "a": None,
        "b": None,
        "c": None,
        "d": 1.0,
    }


def test_a_line_that_is_still_being_written_waits(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    reader = MetricsReader(path)
    path.write_text('{"step": 1}\n{"st')
    assert _steps(reader) == [1]
    with path.open("a") as file:
        file.write('ep": 2}\n')
    assert _steps(reader) == [2]


def test_a_torn_line_costs_itself_only(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n{"st')
    _write(path, 2)
    assert _steps(MetricsReader(path)) == [1, 2]


def test_a_line_behind_a_torn_one_is_read(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(
        b'{"step": 1}\n{"step": 2, "lo{"step": 3}\n{"step": 4, "a": "\xc3{"step": 5}\n'
    )
    assert _steps(MetricsReader(path)) == [1, 3, 5]
    assert parse_line(b'{"message": "odd {\\"x"}') == {"message": 'odd {"x'}
    assert parse_line(b'{"message": "torn {\\"x') is None


def test_lines_that_are_no_objects_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'\n[1]\n3\n\xff\xfe\n{"step": 1}\n')
    assert _steps(MetricsReader(path)) == [1]


def test_an_absent_file_has_no_lines_yet(tmp_path: Path) -> None:
    reader = MetricsReader(tmp_path / "metrics.jsonl")
    assert _steps(reader) == []
    _write(reader.path, 1)
    assert _steps(reader) == [1]


def test_a_truncated_file_is_read_from_the_start(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    _write(path, 1, 2, 3)
    reader = MetricsReader(path)
    assert _steps(reader) == [1, 2, 3]
    os.truncate(path, 0)
    _write(path, 1)
    assert _steps(reader) == [1]


def test_a_replaced_file_is_read_from_the_start_however_long(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    _write(path, 1, 2, 3)
    reader = MetricsReader(path)
    assert _steps(reader) == [1, 2, 3]
    truncate_after(path, 1)
    _write(path, 2, 3, 4, 5, 6)
    assert _steps(reader) == [1, 2, 3, 4, 5, 6]


def test_truncation_keeps_the_steps_up_to_the_resumed_one(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": null}\n{"x": 1}\n{"step": 2}\n{"step": 3}\n{"st')
    truncate_after(path, 2)
    kept = [{"step": 1}, {"step": None}, {"x": 1}, {"step": 2}]
    assert list(MetricsReader(path).read_new()) == kept
    assert os.listdir(tmp_path) == ["metrics.jsonl"]


def test_truncating_nothing_makes_no_file(tmp_path: Path) -> None:
    truncate_after(tmp_path / "metrics.jsonl", 2)
    assert not list(tmp_path.iterdir())
