"""`ushape refine --batch --coarse-with`: images alone become meshes, and bad ones stop nothing."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import trimesh
from ball_networks import FAST
from PIL import Image
from shapes import as_mesh

from ultrashape_cli.config.coarse import CoarseCommand
from ultrashape_cli.inference.batch import failure_record
from ultrashape_cli.inference.batch_jobs import read_jobs
from ultrashape_cli.inference.coarse_batch import is_ready, make_all
from ultrashape_cli.inference.coarse_files import CoarseRecipe
from ultrashape_cli.meshfiles.save import save_mesh


@pytest.fixture
def pictures(inputs: Path, tmp_path: Path) -> Path:
    """Two images, one of them in a subfolder, and one that shows nothing."""
    folder = tmp_path / "pictures"
    (folder / "sub").mkdir(parents=True)
    shutil.copy(inputs / "image.png", folder / "a.png")
    shutil.copy(inputs / "image.png", folder / "sub" / "b.png")
    Image.fromarray(np.zeros((40, 40, 4), np.uint8)).save(folder / "blank.png")
    return folder


@pytest.fixture
def batch(ushape, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def call(source: Path, *more: object, name: str = "hull"):
        weights = ("--checkpoint", inputs / "weights.safetensors")
        result = ushape("refine", "--batch", source, "-o", tmp_path / "out", "--coarse-with", name,
                        "--json", *weights, *FAST, *more)  # fmt: skip
        return result, json.loads(result.out)

    return call


@pytest.mark.slow
def test_a_folder_of_images_becomes_meshes(batch, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result, body = batch(pictures, "--dry-run")
    assert (result.code, body["counts"]["planned"]) == (0, 3)
    assert not out.exists()

    result, body = batch(pictures)
    assert result.code == 1
    assert body["counts"] == {"made": 2, "skipped": 0, "failed": 1}
    assert "every pixel is transparent" in body["failures"]["blank"]
    for name in ("a", "sub/b"):
        assert (out / f"{name}.glb").is_file()
        assert (out / f"{name}_coarse.glb").is_file()
        assert (out / "previews" / f"{name}.png").is_file()
        assert json.loads((out / f"{name}.glb.json").read_text())["settings"]["repair"] is True
    states = {
        job["name"]: job["state"] for job in json.loads((out / "report.json").read_text())["jobs"]
    }
    assert states == {"a": "made", "sub/b": "made", "blank": "failed"}

    # The mended one is made, the others are not; previews of the results are no new images.
    shutil.copy(pictures / "a.png", pictures / "blank.png")
    before = [(out / name).stat().st_mtime_ns for name in ("a.glb", "a_coarse.glb")]
    result, body = batch(pictures)
    assert result.code == 0, result.err
    assert body["counts"] == {"made": 1, "skipped": 2, "failed": 0}
    assert before == [(out / name).stat().st_mtime_ns for name in ("a.glb", "a_coarse.glb")]
    assert not list((out / "records").glob("*.json"))


def test_a_mesh_of_an_earlier_image_is_not_refined(batch, pictures: Path, tmp_path: Path) -> None:
    (pictures / "blank.png").unlink()
    assert batch(pictures)[0].code == 0
    Image.fromarray(np.zeros((40, 40, 4), np.uint8)).save(pictures / "a.png")
    result, body = batch(pictures, "--fail-fast")
    assert result.code == 1
    assert body["counts"] == {"made": 0, "skipped": 0, "failed": 1}
    assert batch(pictures)[1]["counts"] == {"made": 0, "skipped": 1, "failed": 1}
    # As it was: no trace of the failure is left.
    shutil.copy(pictures / "sub" / "b.png", pictures / "a.png")
    assert batch(pictures)[1]["counts"] == {"made": 0, "skipped": 2, "failed": 0}
    assert not list((tmp_path / "out" / "records").glob("*.json"))


def test_a_csv_names_images_views_and_seeds(batch, pictures: Path, tmp_path: Path) -> None:
    # As the images show it.
    save_mesh(as_mesh(trimesh.creation.box((2, 3, 2))), tmp_path / "box.ply")
    config = tmp_path / "run.toml"
    code = "import shutil, sys; sys.exit(3) if sys.argv[1] == '9' else shutil.copy(*sys.argv[2:4])"
    command = [sys.executable, "-c", code, "{seed}", str(tmp_path / "box.ply"), "{out}", "{image}"]
    config.write_text(f"[coarse.mine]\nsuffix = '.ply'\ncommand = {json.dumps(command)}\n")
    table = pictures / "jobs.csv"
    table.write_text(
        "image,name,seed,views\na.png,one,5,back=sub/b.png\na.png,two,9,\ngone.png,,,\n"
    )
    result, body = batch(table, "--config", config, name="mine")
    assert result.code == 1
    assert body["counts"] == {"made": 1, "skipped": 0, "failed": 2}
    assert "`mine` ended with 3" in body["failures"]["two"]
    assert "gone.png: No such file" in body["failures"]["gone"]
    made = json.loads((tmp_path / "out" / "one_coarse.ply.json").read_text())
    assert made["seed"] == 5
    assert [Path(view["image"]).name for view in made["views"]] == ["a.png", "b.png"]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--text", "x"), "`--text` has no meaning with --batch"),
        (("--image", "{image}"), "`IMAGE` has no meaning with --batch"),
        ((), "has a column `mesh`"),
    ],
)
def test_what_a_batch_of_images_does_not_take_is_told(
    batch, inputs: Path, pictures: Path, more: tuple[str, ...], told: str
) -> None:
    table = pictures / "jobs.csv"
    table.write_text("mesh,image\na.ply,a.png\n")
    result, _ = batch(table, *(part.format(image=inputs / "image.png") for part in more))
    assert result.code == 2
    assert told in result.err


def test_two_images_of_one_name_are_told(batch, pictures: Path) -> None:
    table = pictures / "jobs.csv"
    table.write_text("image\na.png\nsub/../a.png\n")
    result, _ = batch(table)
    assert result.code == 2
    assert "two images for `a`" in result.err


def test_a_stop_ends_the_command_that_runs(pictures: Path, tmp_path: Path) -> None:
    command = CoarseCommand("slow", ("sh", "-c", "sleep 60", "{image}", "{out}"))
    recipe = CoarseRecipe(command=command, views=())
    out = tmp_path / "out"
    jobs = read_jobs(pictures, out, 0, metrics=False, keep_full=False, coarse=recipe)
    asked: list[int] = []
    failed = make_all(jobs, out, stop=lambda: len(asked) > 3 or asked.append(1) is not None)
    assert failed == {}
    assert len(asked) == 4
    assert not any(is_ready(job, out) or failure_record(out, job).exists() for job in jobs)


@pytest.mark.slow
def test_processes_share_what_one_has_made(
    batch, inputs: Path, pictures: Path, tmp_path: Path
) -> None:
    arguments = ["refine", "--batch", pictures, "-o", tmp_path / "out", "--coarse-with", "hull",
                 "--json", "--checkpoint", inputs / "weights.safetensors", *FAST,
                 "--num-processes", "2"]  # fmt: skip
    command = [sys.executable, "-m", "ultrashape_cli", *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=400)  # noqa: PLW1510
    assert result.returncode == 1, shlex.join(command) + result.stderr
    assert json.loads(result.stdout)["counts"] == {"made": 2, "skipped": 0, "failed": 1}
