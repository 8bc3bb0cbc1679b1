"""examples/GUIDE.md does what it says: every command is known, and all run with the tiny model."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import command_lines
import pytest
import trimesh
from s3_server import s3_server

from ultrashape_cli.config.profiles import PROFILES
from ultrashape_cli.config.resolve import resolve
from ultrashape_cli.training.memory.plan import plan_run

TOP = Path(__file__).parent.parent
GUIDE = (TOP / "examples" / "GUIDE.md").read_text()
LINES = command_lines.blocks(GUIDE)
OURS = [line for line in LINES if line.startswith("ushape ")]
# Programs of others, which need a daemon, a cluster or an account.
THEIRS = ("docker", "curl", "sbatch", "sky", "dstack")


def test_every_line_is_ours_or_a_program_that_is_named() -> None:
    assert len(OURS) > 20
    for line in LINES:
        assert line.split()[0] in {"ushape", "export", *THEIRS}, line


@pytest.mark.parametrize("line", sorted(set(OURS)))
def test_every_command_is_known(ushape, line: str) -> None:
    command_lines.check(ushape, shlex.split(line))


def test_every_command_within_a_sentence_is_known(ushape) -> None:
    within = [" ".join(found.split()) for found in re.findall(r"`(ushape [^`]+)`", GUIDE)]
    assert within
    for line in within:
        command_lines.check(ushape, line.split())
    options = " ".join(re.findall(r"`(--[^`]+)`", GUIDE)).split()
    known = "".join(ushape(verb, "--help").out for verb in ("prepare", "train"))
    for option in (word for word in options if word.startswith("--")):
        assert option in known + "--build-arg", option


@pytest.mark.parametrize("line", [line for line in LINES if line.split()[0] in THEIRS])
def test_the_files_that_other_programs_read_are_there(line: str) -> None:
    for name in re.findall(r"examples/[\w./-]+", line):
        assert (TOP / name).exists()
    if line.startswith("docker build"):
        target = re.search(r"--target (\w+)", line)
        text = (TOP / "examples" / "docker" / "Dockerfile").read_text()
        assert target is None or f" AS {target[1]}\n" in text


@pytest.mark.slow
@pytest.mark.parametrize(("card", "steps", "price"), [("a40", 7000, 0.4), ("h100", 40000, 2.5)])
def test_the_costs_are_what_the_plan_says(card: str, steps: int, price: float) -> None:
    profile = PROFILES[card]
    flags = {"profile": card, "train.strategy": profile.strategy, "train.steps": steps}
    plan = plan_run(resolve(flags=flags, environ={}).config, profile)
    hours = steps * plan.seconds_per_step / 3600
    for quoted in (f"{plan.seconds_per_step:.2f} s ", f"{hours:.1f} h", f"{hours * price:.2f}"):
        assert quoted in GUIDE


# All that differs from what is written; settings of quickstart.toml come as variables.
SUBSTITUTES = {
    "weights/ultrashape_v1.pt": "tiny",
    "--steps 7000 --price-per-hour 0.40": "--steps 4 --price-per-hour 0.40",
    "--steps 40000 --price-per-hour 2.50": "--steps 4 --price-per-hour 2.50",
    # Six shapes have no twentieth.
    "--val 0.05 --group-by folder": "--val 0.3 --group-by folder",
    # Nothing is downloaded: the licence is shown, and a server that is not there is told.
    "ushape weights pull -o weights --accept-license": "ushape weights pull -o weights --dry-run",
}
# What ends otherwise on a machine without a card or a network, or with six shapes.
CODES = {"doctor": {0, 1}, "weights pull": {1}, "evaluate": {0, 1}}
SMALLER = {"sample.surface_points": 8000, "sample.curvature_points": 8000,
           "sample.near_points": 4000, "sample.near_curvature_points": 4000,
           "sample.space_points": 2000, "sample.coarse_points": 8192, "train.num_latents": 256,
           "watertight.resolution": 64, "evaluate.points": 5000, "split.val": 0.4,
           "refine.quality": "draft", "train.validate_every_steps": 2}  # fmt: skip


@pytest.fixture
def studio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """A folder with models, a store, and the variables of the tiny model."""
    monkeypatch.chdir(tmp_path)
    examples = TOP / "examples"
    for words in (["make_shapes.py", "models", "--family", "studio", "--count", "6",
                   "--resolution", "48"],
                  ["coarsen.py", "models/studio_0000.ply", "coarse.glb"],
                  ["preview.py", "view.png", "models/studio_0000.ply"]):  # fmt: skip
        subprocess.run([sys.executable, examples / words[0], *words[1:]], check=True)
    trimesh.load("models/studio_0000.ply").export("models/dragon.obj")
    for path in Path("models").glob("*.ply"):
        folder = path.with_suffix("")
        folder.mkdir()
        path.rename(folder / path.name)
    with s3_server(monkeypatch):
        settings = tomllib.loads((examples / "tiny" / "quickstart.toml").read_text())
        values = {
            f"{room}.{key}": v for room, table in settings.items() for key, v in table.items()
        }
        values |= SMALLER
        named = {f"USHAPE_{key.replace('.', '_').upper()}": str(v) for key, v in values.items()}
        yield {**os.environ, **named, "HF_ENDPOINT": "http://127.0.0.1:9", "NO_COLOR": "1"}


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_whole_way_runs_with_the_tiny_model(studio: dict[str, str], tmp_path: Path) -> None:
    port = _free_port()
    ushape = [sys.executable, "-m", "ultrashape_cli"]
    background: list[subprocess.Popen[bytes]] = []
    tokens: dict[str, str] = {}
    try:
        for original in LINES:
            line = original
            for written, instead in SUBSTITUTES.items():
                line = line.replace(written, instead)
            line = line.replace("http://studio:8000", f"http://127.0.0.1:{port}")
            words = shlex.split(line.replace("--port 8000", f"--port {port}"))
            if words[0] in THEIRS:
                continue
            if words[0] == "export":
                name, _, value = words[1].partition("=")
                studio[name] = tokens[value.removeprefix("TOKEN_OF_").lower()]
                continue
            if words[1] == "serve" and words[2] != "token":
                background.append(subprocess.Popen([*ushape, *words[1:]], env=studio))
                if "--join" not in words:
                    _wait_for(port)
                continue
            began = time.monotonic()
            done = subprocess.run([*ushape, *words[1:]], env=studio, capture_output=True, text=True,
                                  check=False)  # fmt: skip
            sys.stderr.write(f"{time.monotonic() - began:5.0f} s  {line}\n")
            verbs = {words[1], " ".join(words[1:3])}
            codes = next((c for verb, c in CODES.items() if verb in verbs), {0})
            assert done.returncode in codes, f"{line}\n{done.stdout}\n{done.stderr}"
            if words[1:4] == ["serve", "token", "add"]:
                tokens[words[4]] = done.stdout.split()[-1]
        # The worker that joined stays.
        with pytest.raises(subprocess.TimeoutExpired):
            background[1].wait(10)
    finally:
        for process in reversed(background):
            process.send_signal(signal.SIGTERM)
            process.wait(60)
    made = ["dragon.png", "models.png", "trial/report.html", "evaluation/report.html",
            "refined.glb", "trial.html", "data/report.html", "mine.safetensors",
            "served.glb"]  # fmt: skip
    assert [name for name in made if not (tmp_path / name).exists()] == []
    shutil.rmtree(tmp_path / "runs")


def _wait_for(port: int) -> None:
    for _ in range(600):
        with socket.socket() as found:
            if found.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError("the service never listened")
