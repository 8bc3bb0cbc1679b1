"""`ushape refine`: the files it writes and what they hold."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ball_networks import FAST
from PIL import Image

from ultrashape_cli.geometry.check import topology
from ultrashape_cli.geometry.mesh import weld
from ultrashape_cli.meshfiles.load import load_mesh
from ultrashape_cli.meshfiles.save import save_mesh


@pytest.mark.parametrize("suffix", ["glb", "obj", "ply", "stl", "3mf"])
def test_every_format_holds_the_same_closed_surface(
    refine, inputs: Path, tmp_path: Path, suffix: str
) -> None:
    out = tmp_path / f"out.{suffix}"
    result = refine("-o", out, "--json")
    assert result.code == 0, result.err
    body = json.loads(result.out)
    assert body["outputs"] == {"mesh": str(out)}
    mesh = weld(load_mesh(out))
    assert topology(mesh).solid
    assert len(mesh.faces) == body["result"]["faces"]
    assert body["result"]["watertight"]
    assert body["result"]["manifold"]
    assert body["result"]["outward"]
    assert body["result"]["inconsistent_edges"] == 0


def test_the_same_seed_gives_the_same_bytes(refine, inputs: Path, tmp_path: Path) -> None:
    files = [tmp_path / f"{name}.glb" for name in "abc"]
    for file, seed in zip(files, (7, 7, 8), strict=True):
        assert refine("-o", file, "--seed", seed).code == 0
    first, again, other = (file.read_bytes() for file in files)
    assert first == again != other


def test_a_preview_shows_reference_input_and_result(refine, inputs: Path, tmp_path: Path) -> None:
    out, preview = tmp_path / "out.ply", tmp_path / "look" / "preview.png"
    result = refine("-o", out, "--preview", preview, "--quiet")
    assert result.code == 0, result.err
    assert result.out.splitlines() == [str(out), str(preview)]
    with Image.open(preview) as picture:
        side = picture.width // 3
        panels = [np.asarray(picture)[:side, k * side : (k + 1) * side] for k in range(3)]
    for panel in panels:
        assert panel.std() > 5
    assert not np.array_equal(panels[1], panels[2])


def test_metrics_against_the_input_and_a_ground_truth(refine, inputs: Path, tmp_path: Path) -> None:
    result = refine(
        *("-o", tmp_path / "o.ply", "--json"),
        *("--ground-truth", inputs / "mesh.ply"),
    )
    body = json.loads(result.out)
    metrics = body["result"]["metrics"]
    assert body["verdict"]["good"] is False
    assert "chamfer_l1" in body["verdict"]["worse"]
    assert body["verdict"]["text"] in result.err
    table = result.err[result.err.index("CD-L1") :].splitlines()[:3]
    assert [line.split()[:3] for line in table[1:]] == [["input", "to", "truth"],
                                                        ["refined", "to", "truth"]]  # fmt: skip
    assert all(len(line) <= 80 for line in table)
    assert metrics["to_input"].keys() == metrics["to_ground_truth"].keys()
    # The ground truth is the input here: only the samples differ.
    near, far = metrics["input_to_ground_truth"], metrics["to_input"]
    assert near["chamfer_l1"] < 0.2 * far["chamfer_l1"]


def test_faces_are_reduced_and_the_full_mesh_is_kept_on_request(
    refine, inputs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.ply"
    result = refine("-o", out, "--faces", 200, "--keep-full", "--json")
    assert result.code == 0, result.err
    few, full = load_mesh(out), load_mesh(tmp_path / "out_full.ply")
    assert 100 < len(few.faces) <= 210 < len(full.faces)
    assert topology(weld(few)).watertight
    assert json.loads(result.out)["outputs"]["full"] == str(tmp_path / "out_full.ply")


def test_the_normalised_frame_is_the_cube_with_y_up(refine, inputs: Path, tmp_path: Path) -> None:
    mesh = load_mesh(inputs / "mesh.ply")
    moved = mesh.vertices[:, [0, 2, 1]] * (30, -30, 30) + 100
    save_mesh(type(mesh)(moved, mesh.faces), tmp_path / "coarse.stl")
    there, cube = tmp_path / "there.ply", tmp_path / "cube.ply"
    coarse = tmp_path / "coarse.stl"
    assert refine("-o", there, mesh=coarse).code == 0
    assert refine("-o", cube, "--frame", "normalised", mesh=coarse).code == 0
    low, high = load_mesh(cube).bounds
    assert np.abs([low, high]).max() <= 1
    span = load_mesh(coarse).bounds
    centre = load_mesh(there).bounds.mean(0)
    assert (centre > span[0]).all()
    assert (centre < span[1]).all()
    # z of the STL became y of the cube, and went back.
    assert np.allclose(
        load_mesh(there).extents / load_mesh(there).extents.max(),
        load_mesh(cube).extents[[0, 2, 1]] / load_mesh(cube).extents.max(),
        atol=1e-4,
    )


def test_repeating_the_command_does_nothing_and_a_preview_is_added(
    refine, inputs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.glb"
    assert refine("-o", out).code == 0
    before = out.stat().st_mtime_ns
    again = refine("-o", out, "--json")
    assert json.loads(again.out)["counts"] == {"skipped": 1}
    assert out.stat().st_mtime_ns == before
    assert refine("-o", out, "--preview", tmp_path / "p.png").code == 0
    assert (tmp_path / "p.png").exists()


def test_a_fragmented_input_is_warned_about_and_repaired_on_request(
    refine, inputs: Path, tmp_path: Path
) -> None:
    mesh = load_mesh(inputs / "mesh.ply")
    torn = mesh.with_faces(mesh.faces[np.random.default_rng(0).random(len(mesh.faces)) < 0.8])
    save_mesh(torn, tmp_path / "torn.ply")
    result = refine("-o", tmp_path / "a.ply", "--json", mesh=tmp_path / "torn.ply")
    assert result.code == 0, result.err
    assert "fragmented" in result.err
    assert "--repair" in result.err
    assert json.loads(result.out)["result"]["input"]["boundary_edges"] > 100
    result = refine(
        *("-o", tmp_path / "b.ply", "--json", "--repair"),
        mesh=tmp_path / "torn.ply",
    )
    assert result.code == 0, result.err
    assert "fragmented" not in result.err
    assert json.loads(result.out)["result"]["input"]["repaired"]


@pytest.mark.parametrize(
    ("name", "mode", "options"),
    [
        ("grey16.png", "I;16", ["--background", "keep"]),
        ("cmyk.jpg", "CMYK", ["--background", "keep"]),
        ("animated.gif", "P", []),
        ("turned.jpg", "RGB", ["--background", "white"]),
    ],
)
def test_images_of_unusual_kinds_are_read(
    refine, inputs: Path, tmp_path: Path, name: str, mode: str, options: list[str]
) -> None:
    path = tmp_path / name
    with Image.open(inputs / "image.png") as picture:
        if mode == "P":
            frames = [picture.convert("RGBA"), picture.rotate(90).convert("RGBA")]
            frames[0].save(path, save_all=True, append_images=frames[1:])
        elif mode == "I;16":
            grey = np.asarray(picture.convert("L")).astype(np.uint16) * 257
            Image.fromarray(grey).save(path)
        elif mode == "CMYK":
            picture.convert("RGB").convert("CMYK").save(path)
        else:
            white = Image.new("RGB", picture.size, "white")
            white.paste(picture, mask=picture.getchannel("A"))
            turned = Image.Exif()
            turned[0x0112] = 6
            white.save(path, quality=95, exif=turned)
    result = refine("-o", tmp_path / "out.ply", "--dry-run", *options, image=path)
    assert result.code == 0, result.err


@pytest.mark.parametrize(
    ("size", "alpha", "reason"),
    [((1, 1), 255, "shows nothing"), ((30, 30), 0, "transparent"), ((9000, 2), 255, "nothing")],
)
def test_images_that_show_nothing_are_named(
    refine, inputs: Path, tmp_path: Path, size: tuple[int, int], alpha: int, reason: str
) -> None:
    path = tmp_path / "bad.png"
    Image.new("RGBA", size, (90, 20, 20, alpha)).save(path)
    result = refine("--background", "keep", image=path)
    assert result.code == 1
    assert str(path) in result.err
    assert reason in result.err


def test_an_opaque_image_asks_what_its_background_is(
    refine, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rembg", None)
    path = tmp_path / "opaque.jpg"
    Image.new("RGB", (40, 30), (90, 20, 20)).save(path)
    result = refine(image=path)
    assert result.code == 2
    assert "what is its background" in result.err
    assert "--background keep" in result.err
    result = refine("--background", "remove", image=path)
    assert result.code == 1
    assert "ultrashape-cli[rembg]" in result.err


def test_an_output_folder_that_cannot_be_written_is_found_before_the_work(
    refine, inputs: Path
) -> None:
    result = refine("-o", "/proc/none/out.glb")
    assert result.code == 1
    assert "/proc/none" in result.err
    assert "Traceback" not in result.err


def test_out_of_memory_names_the_setting_and_the_command(
    refine, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*inputs: object, **more: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr("ultrashape_cli.inference.refiner.sample", exhausted)
    out = tmp_path / "out.glb"
    result = refine("-o", out)
    assert result.code == 1
    assert "out of memory" in result.err
    assert "--tokens 32" in result.err
    assert not list(tmp_path.iterdir())


def test_the_plan_is_shown_and_a_bound_that_is_too_low_refused(
    refine, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound = ("--max-memory-gib", "0.05")
    monkeypatch.setattr("sys.argv", ["ushape", "refine", "a.ply", *bound, "--faces=9"])
    result = refine("-o", tmp_path / "o.glb", *bound)
    assert result.code == 1
    assert "64 tokens need about" in result.err
    assert "0.05 GiB may be used" in result.err
    offered = result.err.split("hint: ushape refine a.ply --faces=9 --max-memory-gib ")[1].split()
    result = refine("-o", tmp_path / "o.glb", "--dry-run", "--max-memory-gib", *offered)
    assert result.code == 0
    result = refine("-o", tmp_path / "o.glb", "--dry-run")
    assert result.code == 0
    assert "memory: resident weights in fp32, 64 tokens" in result.err
    assert not list(tmp_path.iterdir())


def test_the_speed_comparison_prints_deviations_and_writes_no_mesh(
    refine, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ultrashape_cli.inference.speed.METRIC_POINTS", 500)
    monkeypatch.setattr("ultrashape_cli.config.models.plain_steps", lambda model: 8)
    result = refine("--compare-speed", "--json")
    assert result.code == 0, result.err
    trials = json.loads(result.out)["trials"]
    assert trials[0]["name"] == "plain"
    assert trials[0]["velocity_error_max"] == 0.0
    assert trials[-1]["name"] == "as set (standard)"
    assert trials[-1]["velocity_error_mean"] > 0
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(("name", "expected"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_leaves_no_partial_file(
    inputs: Path, tmp_path: Path, name: str, expected: int
) -> None:
    arguments = ["refine", inputs / "mesh.ply", inputs / "image.png", *FAST]
    arguments += ["--checkpoint", inputs / "weights.safetensors", "-o", tmp_path / "new" / "o.glb"]
    # The mesh is being written when the signal comes.
    code = (
        "import os, signal, sys\n"
        # What starts in the background of a script inherits INT as ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from ultrashape_cli.cli import run\n"
        "from ultrashape_cli.meshfiles import save\n"
        "write = save.write_glb\n"
        "def stopped(*arguments):\n"
        "    write(*arguments)\n"
        f"    os.kill(os.getpid(), signal.{name})\n"
        "save.write_glb = stopped\n"
        "sys.exit(run(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == expected, done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "new").iterdir())


def test_one_bar_runs_over_all_stages(refine, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("ultrashape_cli.ui.PLAIN_INTERVAL_S", 0.0)
    result = refine("-o", tmp_path / "out.glb", "--preview", tmp_path / "out.png")
    assert result.code == 0
    lines = [line for line in result.err.splitlines() if line.startswith("refine: ")]
    done = [int(line.split("/")[0].split()[1]) for line in lines]
    stages = list(dict.fromkeys(line.split("left")[1].strip() for line in lines))
    assert done == sorted(done)
    assert done.count(100) == 1
    assert stages[0] == "sample"
    assert stages[-2:] == ["mesh", "write"]
