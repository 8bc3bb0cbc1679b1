"""The main job end to end: meshes -> dataset -> trained model -> refined mesh."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ultrashape_cli.geometry.check import topology
from ultrashape_cli.meshfiles.load import load_mesh

SMALL = [
    *("--set", "watertight.resolution=48", "--set", "render.size=64", "--set", "render.views=4"),
    *("--set", "sample.surface_points=2000", "--set", "sample.curvature_points=2000"),
    *("--set", "sample.contents=full", "--set", "sample.near_points=4000"),
    *("--set", "sample.near_curvature_points=2000", "--set", "sample.space_points=2000"),
    *("--set", "sample.coarse_points=2000"),
]
TRAIN = [
    *("--model", "tiny", "--device", "cpu", "--profile", "cpu"),
    *("--set", "train.num_latents=64", "--set", "train.surface_points=1024"),
    *("--set", "train.query_points=256", "--set", "train.num_workers=0"),
    *("--set", "train.microbatch=2", "--set", "train.log_every_steps=1"),
    *("--set", "train.validate_meshes=1", "--set", "train.mesh_resolution=24"),
]


def test_the_main_job_runs_end_to_end(
    ushape, figurine_folder: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (figurine_folder / "broken.stl").write_text("solid nothing\nendsolid nothing\n")

    prepared = ushape("prepare", figurine_folder, "-o", "data", "--json", *SMALL)
    body = json.loads(prepared.out)
    assert prepared.code == 1  # the broken one
    assert body["counts"] == {"made": 4, "skipped": 0, "failed": 1, "train": 3, "val": 1}
    assert Path("data/report.html").is_file()

    again = ushape("prepare", figurine_folder, "-o", "data", "--json", *SMALL)
    assert json.loads(again.out)["counts"]["skipped"] == 4

    vae = ushape("train", "--stage", "vae", "--steps", 80, "--out", "runs/vae", *TRAIN)
    assert vae.code == 0, vae.err
    dit = ushape("train", "--init", "runs/vae", "--steps", 12, "--out", "runs/dit", *TRAIN)
    assert dit.code == 0, dit.err
    for run, steps in (("vae", 80), ("dit", 12)):
        lines = Path(f"runs/{run}/metrics.jsonl").read_text().splitlines()
        losses = [json.loads(line)["loss"] for line in lines]
        assert len(losses) == steps
        assert np.mean(losses[-4:]) < np.mean(losses[:4])
        assert "val_base_surface" in json.loads(lines[-1])

    watched = ushape("monitor", "runs/dit", "--once", "--json")
    assert json.loads(watched.out)["state"] == "finished"

    asset = json.loads(Path("data/data_list/val.json").read_text())[0]
    mesh, image = f"data/meshes/{asset}.ply", f"data/renders/{asset}/view_000.png"
    options = ("--steps", 3, "--grid-resolution", 24, "--set", "refine.surface_points=4096")
    refined = ushape("refine", mesh, image, "-o", "out.glb", "--json", *options)
    assert refined.code == 0, refined.err
    assert json.loads(refined.out)["result"]["watertight"]
    result = load_mesh(Path("out.glb"))
    assert topology(result).watertight
    assert len(result.faces) > 0
    first = Path("out.glb").read_bytes()
    assert ushape("refine", mesh, image, "-o", "out.glb", "--force", *options).code == 0
    assert Path("out.glb").read_bytes() == first
