"""`ushape refine` with several views, a region, several seeds and swept settings."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from ultrashape_cli.commands.refine.request import Request
from ultrashape_cli.commands.refine.sweep import parse_sweep
from ultrashape_cli.errors import UsageError
from ultrashape_cli.geometry.distance import DistanceField
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.geometry.normalize import fit_frame
from ultrashape_cli.inference.candidates import best_of
from ultrashape_cli.meshfiles.load import load_mesh
from ultrashape_cli.rendering.cameras import bounding_radius, camera_at
from ultrashape_cli.rendering.output import save_png
from ultrashape_cli.rendering.renderer import render_views
from ultrashape_cli.rendering.scene import Scene


@pytest.fixture(scope="module")
def pictures(inputs: Path) -> Path:
    """front.png, back.png and side.png of the mesh of `inputs`."""
    mesh = load_mesh(inputs / "mesh.ply")
    placed = Mesh(fit_frame(mesh).to_normalised(mesh.vertices), mesh.faces)
    radius = bounding_radius(placed)
    for name, azimuth in (("front", 0), ("back", 180), ("side", 90)):
        camera = camera_at(azimuth, 0, radius=radius, size=128)
        save_png(next(iter(render_views(Scene(placed), [camera]))), inputs / f"{name}.png")
    return inputs


def record(path: Path) -> dict:
    return json.loads(path.with_name(f"{path.name}.json").read_text())


def test_views_are_placed_asked_and_recorded(refine, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.glb"
    more = ("--view", f"back={pictures / 'back.png'}", "--view", f"90,0={pictures / 'side.png'}")
    result = refine(*more, "-o", out, image=pictures / "front.png")
    assert result.code == 0, result.err
    made = record(out)
    views = made["result"]["views"]
    assert [view["azimuth"] for view in views] == [0, 180, 90]
    assert sum(view["share"] for view in views) == pytest.approx(1, abs=1e-3)
    assert all(view["overlap"] > 0.8 for view in views)
    assert [view["direction"] for view in made["inputs"]["views"]] == [[0, 0], [180, 0], [90, 0]]
    again = refine(*more, "-o", out, image=pictures / "front.png")
    assert "already made" in again.err
    other = refine(*more[:2], "-o", out, image=pictures / "front.png")
    assert other.code == 2
    assert "was made from something else" in other.err


def test_a_wrong_view_ends_before_the_work(refine, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.glb"
    wrong = ("--view", f"top={pictures / 'front.png'}")
    result = refine(*wrong, "-o", out, image=pictures / "front.png")
    assert result.code == 2
    assert "of the mesh seen from `top`" in result.err
    assert "refine.view_overlap=0" in result.err
    assert not out.exists()


def test_a_view_is_enough_without_an_image(ushape, pictures: Path, tmp_path: Path) -> None:
    arguments = ("refine", pictures / "mesh.ply", "--view", f"back={pictures / 'back.png'}")
    result = ushape(*arguments, "--checkpoint", pictures / "weights.safetensors", "--dry-run")
    assert result.code == 0, result.err
    nothing = ushape("refine", pictures / "mesh.ply")
    assert nothing.code == 2
    assert "a mesh and an image are needed" in nothing.err


def test_a_folder_in_place_of_a_file_is_told_its_option(ushape, pictures: Path) -> None:
    meshes = ushape("refine", pictures)
    assert meshes.code == 2
    assert f"hint: --batch {pictures}" in meshes.err
    views = ushape("refine", pictures / "mesh.ply", pictures)
    assert views.code == 2
    assert f"hint: --view {pictures}" in views.err


def test_beside_a_region_the_result_is_the_input(refine, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.ply"
    result = refine("--region", "side=y", "-o", out, image=pictures / "front.png")
    assert result.code == 0, result.err
    before, after = load_mesh(pictures / "mesh.ply"), load_mesh(out)
    frame = fit_frame(before)
    points = frame.to_normalised(after.vertices)
    off = DistanceField(before).unsigned(after.vertices)[0] * frame.scale
    assert off[points[:, 1] <= 0].max() < 1e-6
    assert off[points[:, 1] > 0.3].max() > 0.01
    assert record(out)["result"]["watertight"]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--region", "box=50,50,50,60,60,60"), "misses the mesh"),
        (("--region", "ball=1"), "is no region"),
        (("--region", "side=x", "--faces", "100"), "reduces the whole mesh"),
        (("--region", "mask={}/mesh.ply"), "tells no region"),
    ],
)
def test_a_region_that_is_none_is_told(refine, inputs: Path, tmp_path, more, told: str) -> None:
    out = tmp_path / "out.glb"
    result = refine(*(part.format(inputs) for part in more), "-o", out)
    assert result.code in (1, 2)
    assert told in result.err
    assert not out.exists()


def test_the_best_of_several_seeds_is_written(refine, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.glb"
    more = ("--best-of", 3, "--keep-candidates", "--seed", 5, "-o", out, "--json")
    result = refine(*more, image=pictures / "front.png")
    assert result.code == 0, result.err
    made = record(out)["result"]
    scores = {each["seed"]: each["score"] for each in made["candidates"]}
    assert list(scores) == [5, 6, 7]
    assert len(set(scores.values())) > 1
    assert scores[made["seed"]] == max(scores.values())
    others = {seed for seed in scores if (tmp_path / f"out_seed{seed}.glb").exists()}
    assert others == set(scores) - {made["seed"]}
    # The one that is written is what its seed alone gives.
    alone = tmp_path / "alone.glb"
    refine("--seed", made["seed"], "-o", alone, image=pictures / "front.png")
    assert np.array_equal(load_mesh(alone).vertices, load_mesh(out).vertices)


@pytest.mark.slow
def test_a_sweep_fills_a_folder_and_goes_on(refine, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "swept"
    more = ("--sweep", "strength=.5,1", "--seeds", 2, "-o", out, "--json")
    result = refine(*more, image=pictures / "front.png")
    assert result.code == 0, result.err
    told = json.loads(result.out)
    assert told["counts"] == {"made": 4, "skipped": 0}
    points = json.loads((out / "sweep.json").read_text())["points"]
    assert [(point["strength"], point["seed"]) for point in points] == [
        (".5", "0"), (".5", "1"), ("1", "0"), ("1", "1")
    ]  # fmt: skip
    assert len({point["from_input"] for point in points}) == 4
    assert (out / "sheet.png").stat().st_size > 1000
    (out / points[1]["mesh"]).unlink()
    again = json.loads(refine(*more, image=pictures / "front.png").out)
    assert again["counts"] == {"made": 1, "skipped": 3}


@pytest.mark.parametrize("name", ["sheet.png", "sweep.json", "strength-1.glb"])
def test_a_sweep_replaces_no_file_of_the_user(refine, pictures: Path, tmp_path, name) -> None:
    own = tmp_path / name
    own.write_text("mine")
    for more in ((), ("--force",)):
        result = refine("--sweep", "strength=1", "-o", tmp_path, *more,
                        image=pictures / "front.png")  # fmt: skip
        assert result.code == 2
        assert "no sweep made it" in result.err
        assert own.read_text() == "mine"
        assert os.listdir(tmp_path) == [name]


def test_what_another_command_made_meanwhile_is_not_replaced(
    refine, pictures: Path, tmp_path: Path, monkeypatch
) -> None:
    out = tmp_path / "out.glb"
    record_file = tmp_path / "out.glb.json"

    def meanwhile(*given, **named):
        record_file.write_text("{}")
        return best_of(*given, **named)

    monkeypatch.setattr("ultrashape_cli.inference.candidates.best_of", meanwhile)
    result = refine("-o", out, image=pictures / "front.png")
    assert result.code == 1
    assert "was made by another command" in result.err
    assert not out.exists()


@pytest.mark.parametrize(
    ("sweep", "seeds", "told"),
    [
        (("device=cpu,cuda",), None, "cannot be swept"),
        (("strength=.5,",), None, "lacks values"),
        (("seed=1,2",), 2, "swept twice"),
        (("strength=.1,.2,.3,.4,.5", "steps=2,3,4,5,6,7,8"), 2, "70 results are too many"),
    ],
)
def test_what_cannot_be_swept_is_told(sweep, seeds, told: str) -> None:
    nothing = dict.fromkeys(Request._fields)
    request = Request(**{**nothing, "sweep": sweep, "seeds": seeds})  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=told):
        parse_sweep(request, 0)


def test_a_batch_has_views_and_one_bad_view_is_one_failure(
    ushape, pictures: Path, tmp_path: Path
) -> None:
    rows = ["mesh,image,name,views"]
    for name, view in (("good", "back=back.png"), ("bad", "back=none.png")):
        rows.append(f"mesh.ply,front.png,{name},{view}")
    jobs = pictures / "jobs.csv"
    jobs.write_text("\n".join(rows))
    from ball_networks import FAST

    out = tmp_path / "refined"
    result = ushape("refine", "--batch", jobs, "-o", out, "--checkpoint",
                    pictures / "weights.safetensors", *FAST, "--json")  # fmt: skip
    assert result.code == 1
    told = json.loads(result.out)
    assert told["counts"] == {"made": 1, "skipped": 0, "failed": 1}
    assert "none.png" in told["failures"]["bad"]
    assert len(record(out / "good.glb")["result"]["views"]) == 2
