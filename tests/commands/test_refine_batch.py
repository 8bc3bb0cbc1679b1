"""`ushape refine --batch`: pairs, failures, resuming, the report, several processes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from ball_networks import FAST

from ultrashape_cli.inference.batch import failure_record
from ultrashape_cli.inference.batch_jobs import read_jobs
from ultrashape_cli.inference.refiner import Refiner


@pytest.fixture
def folder(inputs: Path, tmp_path: Path) -> Path:
    """Two pairs, one of them in a subfolder, and a broken one."""
    folder = tmp_path / "jobs"
    for name in ("a", "sub/b", "broken"):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(inputs / "mesh.ply", target.with_suffix(".ply"))
        shutil.copy(inputs / "image.png", target.with_suffix(".png"))
    (folder / "broken.ply").write_text("no mesh")
    return folder


@pytest.fixture
def batch(ushape, inputs: Path, tmp_path: Path) -> Callable:
    def call(source: Path, *more: object, out: Path = tmp_path / "out"):
        weights = ("--checkpoint", inputs / "weights.safetensors")
        return ushape("refine", "--batch", source, "-o", out, *weights, *FAST, *more)

    return call


def test_a_folder_is_refined_and_one_bad_mesh_does_not_stop_it(
    batch, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = []
    load = Refiner.load.__func__
    counted = classmethod(lambda cls, *given: loads.append(1) or load(cls, *given))
    monkeypatch.setattr(Refiner, "load", counted)
    out = tmp_path / "out"
    result = batch(folder, "--json")
    body = json.loads(result.out)
    assert result.code == 1
    assert body["counts"] == {"made": 2, "skipped": 0, "failed": 1}
    assert "broken.ply" in body["failures"]["broken"]
    for name in ("a", "sub/b"):
        assert (out / f"{name}.glb").exists()
        assert (out / "previews" / f"{name}.png").exists()
    report = json.loads((out / "report.json").read_text())
    assert {job["name"]: job["state"] for job in report["jobs"]} == {
        "a": "made", "sub/b": "made", "broken": "failed",
    }  # fmt: skip
    page = (out / "report.html").read_text()
    assert "previews/sub/b.png" in page
    assert "broken.ply" in page
    assert loads == [1]

    # What is made is skipped, what failed is tried again; the mended one is made.
    shutil.copy(folder / "a.ply", folder / "broken.ply")
    before = (out / "a.glb").stat().st_mtime_ns
    result = batch(folder, "--json")
    assert result.code == 0, result.err
    assert json.loads(result.out)["counts"] == {"made": 1, "skipped": 2, "failed": 0}
    assert (out / "a.glb").stat().st_mtime_ns == before
    assert loads == [1, 1]
    assert not list((out / "records").glob("*.json"))

    # With nothing to do no weights are loaded; --force makes everything again.
    assert batch(folder).code == 0
    assert loads == [1, 1]
    result = batch(folder, "--json", "--force")
    assert json.loads(result.out)["counts"]["made"] == 3
    assert (out / "a.glb").stat().st_mtime_ns > before


def test_a_batch_gives_the_bytes_of_single_runs(
    batch, refine, folder: Path, tmp_path: Path
) -> None:
    batch(folder)
    single = tmp_path / "single.glb"
    assert refine("-o", single, mesh=folder / "a.ply", image=folder / "a.png").code == 0
    assert single.read_bytes() == (tmp_path / "out" / "a.glb").read_bytes()


def test_a_csv_names_results_seeds_and_ground_truths(batch, folder: Path, tmp_path: Path) -> None:
    table = folder / "jobs.csv"
    table.write_text(
        "mesh,image,name,seed,ground_truth\n"
        "a.ply,a.png,first,5,\n"
        "sub/b.ply,a.png,,,a.ply\n"
        "gone.ply,a.png,,,\n"
    )
    result = batch(table, "--json")
    assert result.code == 1
    body = json.loads(result.out)
    assert body["counts"] == {"made": 2, "skipped": 0, "failed": 1}
    assert "gone.ply" in body["failures"]["gone"]
    out = tmp_path / "out"
    assert json.loads((out / "first.glb.json").read_text())["seed"] == 5
    second = json.loads((out / "b.glb.json").read_text())
    assert second["seed"] == 0
    assert "to_ground_truth" in second["result"]["metrics"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("mesh,picture\na,b\n", "no column `image`"),
        ("mesh,image\na.ply,\n", "line 2"),
        ("mesh,image,seed\na.ply,a.png,x\n", "seed `x`"),
        ("mesh,image,name\na.ply,a.png,../../etc\n", "no name"),
        ("mesh,image\na.ply,a.png\na.ply,b.png\n", "two meshes for `a`"),
        ("mesh,image\n", "no pair"),
    ],
)
def test_a_csv_that_cannot_be_understood_is_bad_usage(
    batch, tmp_path: Path, text: str, reason: str
) -> None:
    table = tmp_path / "jobs.csv"
    table.write_text(text)
    result = batch(table)
    assert result.code == 2
    assert reason in result.err


def test_results_below_the_folder_are_no_inputs(folder: Path) -> None:
    out = folder / "refined"
    for path in (out / "a.glb", out / "a.png"):
        path.parent.mkdir(exist_ok=True)
        path.write_text("")
    jobs = read_jobs(folder, out, 0, metrics=False, keep_full=False)
    assert {job.name for job in jobs} == {"a", "sub/b", "broken"}


def test_results_never_go_where_the_folder_lies(batch, folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    for out in (folder, folder.parent):
        result = batch(folder, "-o", out)
        assert result.code == 2
        assert "the results would lie among the inputs" in result.err
    assert sorted(folder.rglob("*")) == before


def test_a_dry_run_counts_and_writes_nothing(batch, folder: Path, tmp_path: Path) -> None:
    result = batch(folder, "--dry-run", "--json", "--limit", 2)
    assert json.loads(result.out)["counts"] == {"planned": 2, "skipped": 0, "failed": 0}
    assert not (tmp_path / "out").exists()


def test_a_job_that_took_its_process_down_is_given_up(batch, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (folder / "broken.ply").unlink()
    (job, *_) = read_jobs(folder, out, 0, metrics=False, keep_full=False)
    record = failure_record(out, job)
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps({"status": "running", "crashes": 3, "run": "gone"}))
    result = batch(folder, "--json")
    assert "3 times" in json.loads(result.out)["failures"]["a"]
    # Repeating the command tries it again.
    assert batch(folder).code == 0


def test_several_meshes_and_a_single_one_do_not_mix(batch, folder: Path, tmp_path: Path) -> None:
    result = batch(folder, "--preview", tmp_path / "p.png")
    assert result.code == 2
    assert "--preview" in result.err


def test_settings_that_suit_no_mesh_are_told_once(batch, folder: Path, tmp_path: Path) -> None:
    result = batch(folder, "--uv")
    assert result.code == 2
    assert result.err.count("--faces 20000") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_two_processes_share_the_jobs(inputs: Path, folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ultrashape_cli", "refine", "--batch", folder]
    command += ["-o", tmp_path / "out", "--checkpoint", inputs / "weights.safetensors", *FAST]
    command += ["--num-processes", "2", "--json", "--device", "cpu", "--profile", "cpu"]
    done = subprocess.run(
        [str(part) for part in command],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert json.loads(done.stdout)["counts"] == {"made": 2, "skipped": 0, "failed": 1}


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        # The output of one row is the input of another.
        ("jobs/a.ply,jobs/a.png,one\nout/one.glb,jobs/a.png,two", "is the input"),
        ("jobs/a.ply,jobs/a.png,a\njobs/a.ply,jobs/a.png,./a", "are one file"),
        ("jobs/a.ply,jobs/a.png,a/b\njobs/a.ply,jobs/a.png,a__b", "are one file"),
        ("jobs/a.ply,jobs/a.png,a\njobs/a.ply,jobs/a.png,a_full", "are one file"),
        ("jobs/a.ply,out/previews/a.png,a", "is the input"),
    ],
)
def test_no_job_writes_what_a_job_reads_or_writes(
    batch, folder: Path, tmp_path: Path, rows: str, told: str
) -> None:
    csv = tmp_path / "jobs.csv"
    csv.write_text(f"mesh,image,name\n{rows}\n")
    result = batch(csv, "--keep-full", "--force")
    assert result.code == 2
    assert told in result.err
    assert not (tmp_path / "out").exists()
