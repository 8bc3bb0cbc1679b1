"""`ushape refine --coarse-with`: programs that make the coarse mesh, and what they may do wrong."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ball_networks import FAST
from PIL import Image

from ultrashape_cli.meshfiles.load import load_mesh

MODES = ("good", "fails", "hangs", "rubbish", "nothing", "empty", "dies", "picture", "faceless",
         "talks", "leaves")  # fmt: skip
MAKE = """
import os, sys, shutil, time
from pathlib import Path
mode, source, out = sys.argv[1:4]
more = sys.argv[4:]
with open(os.environ["CALLS"], "a") as file:
    file.write(" ".join([mode, *more]) + "\\n")
print("loading the weights")
if mode == "good":
    assert "lion" in more[0] or Path(more[0]).read_bytes()[:4] == b"\\x89PNG"
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
elif mode == "rubbish":
    Path(out).write_bytes(b"not a mesh")
elif mode == "empty":
    Path(out).write_bytes(b"")
elif mode == "picture":
    shutil.copy(more[0], out)
elif mode == "faceless":
    Path(out).write_text("ply\\nformat ascii 1.0\\nelement vertex 1\\nproperty float x\\n"
        "property float y\\nproperty float z\\nend_header\\n0 0 0\\n")
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
    print("the reason")
    sys.exit(1)
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
        for mode in MODES
    ]
    tables.append(
        f"[coarse.words]\nimage_command = '''{start} draw {mesh} {{out}} {{text}}'''\n"
        f"command = '''{start} good {mesh} {{out}} {{image}}'''\nsuffix = '.ply'\n"
        f"env = {{ CALLS = '{calls}' }}\n"
        f"[coarse.speaks]\ncommand = '''{start} good {mesh} {{out}} {{text}}'''\nsuffix = '.ply'\n"
        f"env = {{ CALLS = '{calls}' }}\n"
        "[coarse.gone]\ncommand = 'no-such-program {image} {out}'\n"
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
        ("picture", "`picture` wrote what is no .ply mesh: mesh.ply: is a picture"),
        ("faceless", "`faceless` wrote what is no .ply mesh: mesh.ply: "),
        ("talks", "`talks` ended with 1; it said: xxx"),
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
    assert not running("hangs")


def running(mode: str) -> list[int]:
    """Returns the processes of the program in this mode."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if f"make.py\0{mode}".encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(int(pid))
    return found


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
    assert logs[0].read_text().endswith("the reason\n")


@pytest.mark.slow
def test_ctrl_c_ends_the_program_too(coarse, inputs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.glb"
    file = tmp_path / "run.toml"
    file.write_text(file.read_text().replace("timeout_seconds = 2\n", "timeout_seconds = 50\n"))
    process = subprocess.Popen(
        [sys.executable, "-m", "ultrashape_cli", "refine", "--image", inputs / "image.png",
         "--coarse-with", "hangs", "--config", file, "-o", out,
         "--checkpoint", inputs / "weights.safetensors"], stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    ends = time.monotonic() + 60
    while not coarse.calls() and time.monotonic() < ends:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=30)[1]
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert not running("hangs")
    assert not out.exists()
    assert not list(tmp_path.glob("**/.*tmp*"))


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
        (("--text", "x"), "`good` makes nothing of a text beside an image"),
        (("--batch", "."), "`IMAGE` has no meaning with --batch"),
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
    there = ushape("refine", inputs / "image.png", "--coarse-with", "hull", "--server", "http://x")
    assert there.code == 2
    assert "leave out --server" in there.err
    both = ushape("refine", inputs / "mesh.ply", "--coarse-with", "hull")
    assert "is one" in both.err
    assert both.code == 2
    assert "`--text` needs" in ushape("refine", inputs / "mesh.ply", "--text", "x").err
    assert coarse("good", "--dry-run").code == 0
    assert coarse.calls() == []


def test_a_command_that_reads_a_text_gets_one(coarse, inputs: Path, tmp_path: Path) -> None:
    assert "`speaks` reads a text" in coarse("speaks").err
    alone = coarse("speaks", "--text", "a lion", "-o", tmp_path / "o.glb", image=None)
    assert alone.code == 2
    assert "refining needs an image too" in alone.err
    assert coarse.calls() == []
    out = tmp_path / "out.glb"
    result = coarse("speaks", "--text", "a lion", "-o", out)
    assert result.code == 0, result.err
    assert coarse.calls() == ["good a lion"]
    assert json.loads((tmp_path / "out_coarse.ply.json").read_text())["text"] == "a lion"


def test_a_command_of_one_image_needs_that_of_the_front(coarse, inputs: Path) -> None:
    result = coarse("good", "--view", f"back={inputs / 'image.png'}", image=None)
    assert result.code == 2
    assert "none is of the front" in result.err
    assert coarse.calls() == []


def test_a_picture_that_was_retouched_is_kept(coarse, tmp_path: Path) -> None:
    out, image = tmp_path / "lion.glb", tmp_path / "lion_image.png"
    assert coarse("words", "--text", "a lion", "-o", out, image=None).code == 0
    pixels = np.asarray(Image.open(image)).copy()
    pixels[12:20, 12:20, :3] = 9
    Image.fromarray(pixels).save(image)
    content = image.read_bytes()
    assert coarse("words", "--text", "a lion", "-o", out, "--force", image=None).code == 2
    assert "was changed since" in coarse("words", "--text", "cat", "-o", out, image=None).err
    assert image.read_bytes() == content
    again = coarse("words", "--text", "a lion", "-o", out, image=None)
    # Used as it is, for another mesh, which is another result.
    assert "as it was made before" in again.err
    assert len([call for call in coarse.calls() if call.startswith("draw")]) == 1
    assert len(coarse.calls()) == 3


def test_a_mesh_that_is_removed_is_made_anew(coarse, tmp_path: Path) -> None:
    out = tmp_path / "out.glb"
    coarse("good", "-o", out)
    again = coarse("good", "-o", out, "--force")
    kept = Path(json.loads((tmp_path / "out_coarse.ply.json").read_text())["kept"])
    assert f"remove {kept} for another" in "".join(again.err.split("\n"))
    assert len(coarse.calls()) == 1
    kept.unlink()
    coarse("good", "-o", out, "--force")
    assert len(coarse.calls()) == 2


def test_speeds_are_compared_on_a_made_mesh(coarse, tmp_path: Path, monkeypatch) -> None:
    seen = []
    monkeypatch.setattr(
        "ultrashape_cli.commands.refine.verb.refine_compare",
        lambda ui, request, source, resolved: seen.append(request.mesh),
    )
    result = coarse("good", "--compare-speed", "-o", tmp_path / "out.glb")
    assert result.code == 0, result.err
    assert seen == [tmp_path / "out_coarse.ply"]


def test_axes_of_the_command_count_unless_typed(coarse, tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text(file.read_text() + "[refine]\nup = 'z'\nfront = 'x'\n")
    coarse("good", "-o", tmp_path / "one.glb")
    coarse("good", "-o", tmp_path / "two.glb", "--set", "refine.front=-z")
    one, two = (json.loads((tmp_path / f"{name}.glb.json").read_text())["settings"]
                for name in ("one", "two"))  # fmt: skip
    assert (one["up"], one["front"]) == ("auto", "z")
    assert (two["up"], two["front"]) == ("auto", "-z")


def test_the_settings_that_are_shown_have_the_commands(ushape, coarse, tmp_path: Path) -> None:
    shown = ushape("refine", "--config", tmp_path / "run.toml", "--show-config", "--json").out
    settings = json.loads(shown)["settings"]
    assert settings["coarse.good.env"]["value"] == "CALLS, TOKEN"
    assert settings["coarse.hangs.timeout_seconds"]["value"] == "2"
    assert "{out} {image} {seed}" in settings["coarse.good.command"]["value"]
    assert "hush" not in shown


def test_a_file_of_the_user_is_not_replaced(coarse, tmp_path: Path) -> None:
    sculpt = tmp_path / "out_coarse.ply"
    sculpt.write_bytes(b"a year of work")
    for more in ((), ("--force",)):
        result = coarse("good", "-o", tmp_path / "out.glb", *more)
        assert result.code == 2
        assert sculpt.read_bytes() == b"a year of work"
    result = tmp_path / "mine.glb"
    result.write_bytes(b"another year")
    assert coarse("good", "-o", result, "--force").code == 2
    assert result.read_bytes() == b"another year"
    assert coarse.calls() == []


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
