"""`ushape report` on runs and datasets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from synthetic_run import make_run

from ultrashape_cli.data.layout import Dataset, Record
from ultrashape_cli.files import write_atomic


def test_a_run_gets_its_page(ushape, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = make_run(tmp_path / "runs" / "shoes")
    assert ushape("report") == (0, "runs/shoes/report.html\n", "")
    assert "shoes - ushape run" in (run.root / "report.html").read_text()


def test_several_runs_get_one_page(ushape, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("shoes", "hats"):
        make_run(tmp_path / "runs" / name)
    assert ushape("report", "runs/shoes", "runs/hats").out == "runs/comparison.html\n"
    assert "shoes, hats - ushape runs" in Path("runs/comparison.html").read_text()
    result = ushape("report", "runs/shoes", "runs", "-o", "new.html")
    assert (result.code, "`runs` is no run" in result.err) == (2, True)
    assert not Path("new.html").exists()


def test_a_dataset_gets_its_page(ushape, tmp_path: Path) -> None:
    dataset = Dataset(tmp_path / "data")
    dataset.write_record(Record("a", {"path": "/m/a.obj", "sha256": "a"}))
    out = tmp_path / "page.html"
    result = ushape("report", dataset.root, "-o", out, "--json")
    assert json.loads(result.out)["outputs"] == {"report": str(out)}
    assert "data - ushape dataset" in out.read_text()
    assert not (dataset.root / "report.html").exists()


@pytest.mark.parametrize("arguments", [(), (".",)])
def test_what_is_neither_is_refused(ushape, tmp_path: Path, monkeypatch, arguments) -> None:
    monkeypatch.chdir(tmp_path)
    assert ushape("report", *arguments).code == 2


@pytest.mark.parametrize("name", ["report.json", "records/a.json", "render.json", "meshes"])
def test_a_page_replaces_nothing_that_it_is_about(ushape, tmp_path: Path, name: str) -> None:
    dataset = Dataset(tmp_path / "data")
    dataset.write_record(Record("a", {"path": "/m/a.obj", "sha256": "a"}))
    for own in ("report.json", "render.json", "meshes/a.ply"):
        write_atomic(dataset.root / own, lambda file: file.write(b"{}"))
    before = {path: path.read_bytes() for path in dataset.root.rglob("*.*")}
    assert ushape("report", dataset.root, "-o", dataset.root / name).code == 2
    assert {path: path.read_bytes() for path in dataset.root.rglob("*.*")} == before
    for _ in range(2):
        assert ushape("report", dataset.root, "-o", dataset.root / "mine.html").code == 0


@pytest.mark.parametrize("name", ["keep.ply", "config.toml", "page.html"])
def test_no_file_of_others_becomes_a_page(ushape, tmp_path: Path, name: str) -> None:
    run = make_run(tmp_path / "run")
    target = tmp_path / name
    target.write_text("precious")
    result = ushape("report", run.root, "-o", target)
    assert result.code == 2
    assert target.read_text() == "precious"
    assert ushape("report", run.root, "-o", tmp_path / "new.html").code == 0
    assert ushape("report", run.root, "-o", tmp_path / "new.html").code == 0
