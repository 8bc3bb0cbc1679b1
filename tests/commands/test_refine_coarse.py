"""`ushape refine --coarse-with`: programs that make the coarse mesh, and what they may do wrong."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ball_networks import FAST
from PIL import Image

from ultrashape_cli.meshfiles.load import load_mesh

MAKE = """
import os, sys, shutil, time
from pathlib import Path
mode, source, out = sys.argv[1:4]
more = sys.argv[4:]
with open(os.environ["CALLS"], "a") as file:
    file.write(" ".join([mode, *more]) + "\\n")
print("loading the weights")
if mode == "good":
    assert Path(more[0]).read_bytes()[:4] == b"\\x89PNG" or "lion" in more[0]
    shutil.copy(source, out)
elif mode == "draw":
    shutil.copy(Path(source).with_name("image.png"), out)
elif mode == "fails":
    print("CUDA out of memory", file=sys.stderr)
    sys.exit(7)
elif mode == "hangs":
    if os.fork() == 0:
        time.sleep(60)
    time.sleep(60)
elif mode == "leaves":
    import subprocess
    for own in (False, True):
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(97)"],
                         start_new_session=own, stdout=None if own else subprocess.DEVNULL)
    time.sleep(0.5)
    shutil.copy(source, out)
elif mode == "talks":
    for _ in range(3000):
        print("x" * 4000)
    sys.exit(1)
elif mode == "rubbish":
    Path(out).write_bytes(b"not a mesh")
elif mode == "empty":
    Path(out).write_bytes(b"")
elif mode == "dies":
    os.kill(os.getpid(), 9)
"""


@pytest.fixture
def coarse(ushape, inputs: Path, tmp_path: Path, monkeypatch) -> Callable:
    """Runs `ushape refine --coarse-with MODE` with a program of this mode."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    program, calls = tmp_path / "make.py", tmp_path / "calls.txt"
    program.write_text(MAKE)
    calls.write_text("")
    start = shlex.join([sys.executable, str(program)])
    mesh = shlex.quote(str(inputs / "mesh.ply"))
    tables = [
        f"[coarse.{mode}]\ncommand = '''{start} {mode} {mesh} {{out}} {{image}} {{seed}}'''\n"
        f"suffix = '.ply'\ntimeout_seconds = {2 if mode == 'hangs' else 60}\n"
        f"env = {{ CALLS = '{calls}', TOKEN = 'hush' }}\n"
        for mode in (
            "good",
            "fails",
            "hangs",
            "rubbish",
            "nothing",
            "empty",
            "dies",
            "leaves",
            "talks",
        )
    ]
    tables.append(
        f"[coarse.words]\nimage_command = '''{start} draw {mesh} {{out}} {{text}}'''\n"
        f"command = '''{start} good {mesh} {{out}} {{image}}'''\nsuffix = '.ply'\n"
        f"env = {{ CALLS = '{calls}' }}\n[coarse.gone]\ncommand = 'no-such-program {{out}}'\n"
    )
    file = tmp_path / "run.toml"
    file.write_text("".join(tables))

    def call(mode: str, *more: object, image: object = inputs / "image.png"):
        given = () if image is None else ("--image", image)
        return ushape("refine", *given, "--coarse-with", mode, "--config", file, "--checkpoint",
                      inputs / "weights.safetensors", *FAST, *more)  # fmt: skip

    call.calls = lambda: calls.read_text().splitlines()  # type: ignore[attr-defined]
    return call


def test_an_image_becomes_a_mesh(coarse, inputs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.glb"
    result = coarse("good", "-o", out, "--seed", 4)
    assert result.code == 0, result.err
    assert load_mesh(out).vertices.shape[0] > 100
    made = json.loads((tmp_path / "out_coarse.ply.json").read_text())
    assert made["coarse_with"] == "good"
    assert made["seed"] == 4
    assert made["env"] == ["CALLS", "TOKEN"]
    assert "hush" not in json.dumps(made)
    settings = json.loads((tmp_path / "out.glb.json").read_text())["settings"]
    assert settings["repair"] is True
    # The same again asks nothing of the program, nor of the networks.
    again = coarse("good", "-o", out, "--seed", 4)
    assert "already made" in again.err
    assert len(coarse.calls()) == 1
    coarse("good", "-o", tmp_path / "other.glb", "--seed", 4, "--no-repair")
    assert len(coarse.calls()) == 1
    own = json.loads((tmp_path / "other.glb.json").read_text())["settings"]
    assert own["repair"] is False
    coarse("good", "-o", tmp_path / "third.glb", "--seed", 5)
    assert len(coarse.calls()) == 2


@pytest.mark.parametrize(
    ("mode", "told"),
    [
        ("fails", "`fails` ended with 7; it said: loading the weights | CUDA out of memory"),
        ("rubbish", "`rubbish` wrote what is no .ply mesh"),
        ("nothing", "`nothing` wrote no mesh; it said: loading the weights"),
        ("empty", "`empty` wrote a mesh of 0 bytes"),
        ("dies", "`dies` was killed by SIGKILL"),
        ("gone", "`gone` cannot start: no-such-program"),
    ],
)
def test_a_program_that_goes_wrong_is_told(coarse, tmp_path: Path, mode: str, told: str) -> None:
    out = tmp_path / "out.glb"
    result = coarse(mode, "-o", out)
    assert result.code == 1
    assert told in result.err
    assert "Traceback" not in result.err
    assert not out.exists()
    assert not list(tmp_path.glob("cache/**/mesh*"))


def test_a_program_that_hangs_is_ended_with_its_children(coarse, tmp_path: Path) -> None:
    started = time.monotonic()
    result = coarse("hangs", "-o", tmp_path / "out.glb")
    assert result.code == 1
    assert "`hangs` was not ready after 2 s" in result.err
    assert time.monotonic() - started < 40
    lines = [Path(f"/proc/{pid}/cmdline") for pid in os.listdir("/proc") if pid.isdigit()]
    running = [line.read_bytes() for line in lines if line.exists()]
    assert not any(b"make.py\0hangs" in line for line in running)


def test_what_a_program_leaves_behind_ends_with_it(coarse, tmp_path: Path) -> None:
    result = coarse("leaves", "-o", tmp_path / "out.glb")
    assert result.code == 0, result.err
    lines = [Path(f"/proc/{pid}/cmdline") for pid in os.listdir("/proc") if pid.isdigit()]
    assert not any(b"time.sleep(97)" in line.read_bytes() for line in lines if line.exists())


def test_what_a_program_says_is_bounded_and_not_beside_the_result(coarse, tmp_path: Path) -> None:
    notes = tmp_path / "out_coarse.log"
    notes.write_text("my own notes")
    assert coarse("talks", "-o", tmp_path / "out.glb").code == 1
    assert notes.read_text() == "my own notes"
    logs = list(tmp_path.glob("cache/**/log.txt"))
    assert len(logs) == 1
    assert 1 << 20 < logs[0].stat().st_size <= 4 << 20


def test_a_text_becomes_an_image_and_then_a_mesh(coarse, tmp_path: Path) -> None:
    out = tmp_path / "lion.glb"
    result = coarse("words", "--text", "a stone lion", "-o", out, image=None)
    assert result.code == 0, result.err
    assert (tmp_path / "lion_image.png").is_file()
    assert coarse.calls()[0] == "draw a stone lion"
    again = coarse("words", "--text", "a stone lion", "-o", out, image=None)
    assert "already made" in again.err
    assert len(coarse.calls()) == 2


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--text", "x"), "has no meaning beside an image"),
        (("--batch", "."), "do not go together"),
    ],
)
def test_what_does_not_go_with_it_is_told(coarse, more, told: str) -> None:
    result = coarse("good", *more)
    assert result.code == 2
    assert told in result.err
    assert coarse.calls() == []


def test_the_usage_is_checked_before_a_program_starts(
    ushape, coarse, inputs: Path, tmp_path: Path
) -> None:
    assert coarse("goood").code == 2
    assert "needs an image or a text" in coarse("good", image=None).err
    both = ushape("refine", inputs / "mesh.ply", "--coarse-with", "hull")
    assert "is one" in both.err
    assert both.code == 2
    assert "`--text` needs" in ushape("refine", inputs / "mesh.ply", "--text", "x").err
    assert coarse("good", "--dry-run").code == 0
    assert coarse.calls() == []


def test_a_file_of_the_user_is_not_replaced(coarse, tmp_path: Path) -> None:
    sculpt = tmp_path / "out_coarse.ply"
    sculpt.write_bytes(b"a year of work")
    for more in ((), ("--force",)):
        result = coarse("good", "-o", tmp_path / "out.glb", *more)
        assert result.code == 2
        assert sculpt.read_bytes() == b"a year of work"


def test_a_picture_alone_becomes_a_mesh(ushape, inputs: Path, tmp_path: Path) -> None:
    pixels = np.zeros((60, 60, 4), np.uint8)
    pixels[10:50, 20:40] = 255
    picture = tmp_path / "tower.png"
    Image.fromarray(pixels).save(picture)
    weights = ("--checkpoint", inputs / "weights.safetensors")
    result = ushape("refine", picture, "--coarse-with", "hull", *weights, *FAST)
    assert result.code == 0, result.err
    hull = load_mesh(tmp_path / "tower_refined_coarse.glb")
    assert hull.extents[1] / hull.extents[0] == pytest.approx(2, rel=0.1)
    assert (tmp_path / "tower_refined.glb").is_file()
