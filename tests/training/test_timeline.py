"""events.jsonl of a run that stops, resumes and fails."""

from __future__ import annotations

import json

import pytest

from ultrashape_cli.config.resolve import resolve
from ultrashape_cli.errors import TrainingError
from ultrashape_cli.training import worker


def test_stops_resumes_and_failures_are_a_timeline(make_run, stop_after, monkeypatch) -> None:
    run, _ = make_run(steps=4)
    config = resolve(file=run.config, environ={}).config
    assert worker.train_run(run, config, on_step=stop_after(2)) == 143
    assert worker.train_run(run, config) == 0

    def refuse(*_: object) -> None:
        raise TrainingError("no such card")

    monkeypatch.setattr(worker, "build_trainer", refuse)
    with pytest.raises(TrainingError):
        worker.train_run(run, config)
    events = [json.loads(line) for line in run.events.read_text().splitlines()]
    assert [(event["event"], event["step"]) for event in events] == [
        *(("start", 0), ("stop", 2), ("start", 2), ("finish", 4), ("fail", 0)),
    ]
    assert events[-1]["message"] == "no such card"
    times = [event["time"] for event in events]
    assert times == sorted(times)
