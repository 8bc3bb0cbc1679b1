from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ultrashape_cli.data.layout import TRAINING_STEPS, Dataset, Record, StepRecord
from ultrashape_cli.files import write_json
from ultrashape_cli.preparation import ranking, report, report_page
from ultrashape_cli.preparation.ranking import worst_by_measure, worst_first
from ultrashape_cli.preparation.report import write_report


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return Dataset(tmp_path / "data")


def _add(dataset: Dataset, name: str, *, done: int = 3, cause: str = "", path: str = "") -> None:
    """Adds an asset with its first steps done and, with a cause, the next one failed."""
    measured = {"rung": "remesh", "faces": 1234, "ratio": 0.51}
    names = TRAINING_STEPS
    steps = {step: StepRecord("done", "k", seconds=1.5) for step in names[:done]}
    if done:
        steps["watertight"].measurements = measured
    if cause:
        error = {"cause": cause, "message": f"{cause}: <b>&", "hint": None}
        steps[names[done]] = StepRecord("failed", "k", error=error)
    source = {"path": path or f"/models/{name}.obj", "sha256": name}
    dataset.write_record(Record(name, source, steps))


def _view(dataset: Dataset, name: str) -> Path:
    path = dataset.views(name) / "view_000.png"
    path.parent.mkdir(parents=True)
    Image.fromarray(np.full((64, 64, 4), 200, np.uint8)).save(path)
    return path


class _Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href") and value]

    def handle_data(self, data) -> None:
        self.text.append(data)


def _read(dataset: Dataset) -> tuple[dict, _Page, str]:
    text = write_report(dataset).read_text()
    return json.loads((dataset.root / "report.json").read_text()), _Page(text), text


def test_the_counts_are_exact(dataset: Dataset) -> None:
    for name in "abc":
        _add(dataset, name)
    _add(dataset, "d", done=1)
    _add(dataset, "e", done=0, cause="crash")
    _add(dataset, "f", done=0, cause="error")
    _add(dataset, "g", done=2, cause="error")
    write_json(dataset.list_path("train"), ["a", "b"])
    write_json(dataset.list_path("val"), ["c"])
    summary, page, _ = _read(dataset)
    assert summary["assets"] == 7
    assert summary["complete"] == 3
    assert summary["steps"] == {
        "watertight": {"done": 5, "failed": 2, "seconds": 7.5},
        "quality": {"done": 0, "failed": 0, "seconds": 0},
        "render": {"done": 4, "failed": 0, "seconds": 6.0},
        "sample": {"done": 3, "failed": 1, "seconds": 4.5},
    }
    assert summary["rungs"] == {"remesh": 5}
    assert summary["failures_by_cause"] == {"crash": 1, "error": 2}
    assert [(f["id"], f["step"]) for f in summary["failures"]] == [
        ("e", "watertight"),
        ("f", "watertight"),
        ("g", "sample"),
    ]
    assert summary["splits"] == {"train": 2, "val": 1}
    assert page.tags.count("tr") == 1 + 7


def test_hostile_names_and_messages_are_text(dataset: Dataset) -> None:
    name = "<script>alert(1)</script>.obj"
    _add(dataset, "a", done=0, cause="error", path=f"/models/{name}")
    _, page, text = _read(dataset)
    assert "script" not in page.tags
    # A file name ends at its last slash, also at the one of a closing tag.
    assert Path(name).name in "".join(page.text)
    assert "error: <b>&" in "".join(page.text)
    assert "<script" not in text


def test_a_hostile_folder_name_is_text(tmp_path: Path) -> None:
    _, page, _ = _read(Dataset(tmp_path / "<script>{rows}"))
    assert "script" not in page.tags
    assert "<script>{rows} - ushape dataset" in page.text


def test_a_name_that_is_no_unicode_is_shown(dataset: Dataset) -> None:
    _add(dataset, "a", path="/models/caf\udce9.obj")
    assert "caf" in "".join(_read(dataset)[1].text)


def test_the_page_needs_nothing_else(dataset: Dataset) -> None:
    _add(dataset, "a")
    _view(dataset, "a")
    _, page, text = _read(dataset)
    assert page.links
    assert all(link.startswith("data:image/") for link in page.links)
    assert "http" not in re.sub(r"base64,[^']*", "", text)
    assert not {"script", "link", "iframe"} & set(page.tags)


@pytest.mark.parametrize("cut", [0, 20, 45, 60, 90])
def test_a_damaged_picture_is_left_out(dataset: Dataset, cut: int) -> None:
    _add(dataset, "a")
    path = _view(dataset, "a")
    path.write_bytes(path.read_bytes()[:cut])
    assert not _read(dataset)[1].links


def test_an_empty_dataset_has_a_report(dataset: Dataset) -> None:
    summary, page, _ = _read(dataset)
    assert (summary["assets"], summary["failures"]) == (0, [])
    assert page.tags.count("tr") == 1


def test_what_does_not_fit_is_counted_and_failures_come_first(dataset, monkeypatch) -> None:
    monkeypatch.setattr(report, "MAX_ROWS", 2)
    for name in "abc":
        _add(dataset, name)
    _add(dataset, "z", done=0, cause="crash")
    _, page, _ = _read(dataset)
    assert page.tags.count("tr") == 1 + 2
    text = "".join(page.text)
    assert text.index("crash") < text.index("a.obj")
    assert "2 further assets" in text


def test_the_report_replaces_the_former_one(dataset: Dataset) -> None:
    _add(dataset, "a")
    write_report(dataset)
    _add(dataset, "b")
    assert _read(dataset)[0]["assets"] == 2
    assert sorted(path.name for path in dataset.root.iterdir()) == [
        "records",
        "report.html",
        "report.json",
    ]


def _measured(dataset: Dataset, name: str, verdict: dict | None = None, **values: float) -> None:
    steps = {step: StepRecord("done", "k") for step in TRAINING_STEPS}
    steps["quality"] = StepRecord("done", "k", measurements=values)
    source = {"path": f"/models/{name}.obj", "sha256": name}
    dataset.write_record(Record(name, source, steps, verdict=verdict or {}))


def _order(dataset: Dataset) -> list[str]:
    return [entry.record.id for entry in worst_first(list(dataset.load_records().values()))]


def test_the_worst_come_first(dataset: Dataset) -> None:
    for number in range(5):
        _measured(dataset, f"fine-{number}", detail=3.0 + number, components=1)
    _measured(dataset, "noisy", detail=5.5, components=90)
    _measured(dataset, "one-rule", {"filter": "f", "rejected": ["a"]}, detail=5.0)
    _measured(dataset, "two-rules", {"filter": "f", "rejected": ["a", "b"]}, detail=5.0)
    _measured(dataset, "copy", {"filter": "f", "rejected": [], "twin": "noisy",
                                "twin_distance": 0.01}, detail=5.0)  # fmt: skip
    _add(dataset, "broken", done=0, cause="error")
    _measured(dataset, "gone", detail=5.0)
    dataset.mark("gone", stale="deleted")
    order = _order(dataset)
    assert order[:5] == ["broken", "two-rules", "one-rule", "gone", "copy"]
    assert set(order[5:7]) == {"noisy", "fine-0"}  # most parts; least detail
    _, page, _ = _read(dataset)
    assert "components 90: highest" in "".join(page.text)


def test_where_all_are_equal_nobody_stands_out(dataset: Dataset) -> None:
    for name in "abc":
        _measured(dataset, name, detail=2.0, components=1)
    entries = worst_first(list(dataset.load_records().values()))
    assert [(entry.badness, entry.reason) for entry in entries] == [(0.0, "")] * 3


def test_verdicts_are_counted(dataset: Dataset) -> None:
    _measured(dataset, "a", {"filter": "f", "rejected": ["plain"]}, detail=1.0)
    _measured(dataset, "b", {"filter": "f", "rejected": []}, detail=4.0)
    _measured(dataset, "c", {"filter": "f", "rejected": [], "twin": "b", "twin_distance": 0.01})
    dataset.mark("c", stale="edited")
    summary, _, _ = _read(dataset)
    assert (summary["complete"], summary["usable"], summary["near_duplicates"]) == (3, 1, 1)
    assert summary["rejected"] == {"a": ["plain"]}
    assert summary["rejected_by_rule"] == {"plain": 1}
    assert summary["stale"] == {"edited": 1}
    assert summary["filter"] == "f"


def test_pictures_are_bounded(dataset: Dataset, monkeypatch) -> None:
    monkeypatch.setattr(report, "MAX_WORST", 2)
    monkeypatch.setattr(report, "MAX_SAMPLE", 1)
    for name in "abcdef":
        _measured(dataset, name, detail=2.0)
        _view(dataset, name)
    assert len(_read(dataset)[1].links) == 3


def test_twins_are_shown_side_by_side(dataset: Dataset, monkeypatch) -> None:
    monkeypatch.setattr(report, "MAX_WORST", 0)
    _measured(dataset, "a", detail=2.0)
    _measured(dataset, "b", {"filter": "f", "rejected": [], "twin": "a", "twin_distance": 0.02})
    for name in "ab":
        _view(dataset, name)
    _, page, _ = _read(dataset)
    assert "distance 0.020" in "".join(page.text)
    assert len(page.links) == 3  # the pair, and the sample of assets without a finding


def test_the_files_of_every_cause_are_listed(dataset: Dataset, monkeypatch) -> None:
    monkeypatch.setattr(report_page, "MAX_FILES", 2)
    for name in "abc":
        _add(dataset, name, done=1, cause="crash")
    _add(dataset, "d", done=0, cause="timeout")
    _, page, _ = _read(dataset)
    text = "".join(page.text)
    assert page.tags.count("li") == 2 + 1
    assert "crash: 3 files, the first 2" in text
    assert "a.obj render: crash: <b>&" in text


def test_the_worst_of_every_measure_have_pictures(dataset: Dataset, monkeypatch) -> None:
    monkeypatch.setattr(report, "MAX_WORST", 0)
    monkeypatch.setattr(report, "MAX_SAMPLE", 0)
    monkeypatch.setattr(ranking, "MAX_PER_MEASURE", 2)
    for number in range(7):
        _measured(dataset, f"a{number}", detail=number, components=number, genus=1)
        _view(dataset, f"a{number}")
    entries = worst_first(list(dataset.load_records().values()))
    found = {
        name: [entry.record.id for entry in worst] for name, worst in worst_by_measure(entries)
    }
    # Much detail is good and many parts are bad; where all are equal nobody is worst.
    assert found == {"components": ["a6", "a5"], "detail": ["a0", "a1"]}
    _, page, _ = _read(dataset)
    assert len(page.links) == 4
    assert "parts of the closed mesh" in "".join(page.text)


def test_a_page_elsewhere_leaves_the_dataset_alone(dataset: Dataset, tmp_path: Path) -> None:
    _add(dataset, "a")
    out = tmp_path / "page.html"
    assert write_report(dataset, out=out) == out
    assert [path.name for path in dataset.root.iterdir()] == ["records"]
