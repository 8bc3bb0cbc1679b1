"""The example scripts run as their first lines say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from ultrashape_cli.config.resolve import resolve

EXAMPLES = Path(__file__).parent.parent / "examples"


def _run(script: str, *arguments: object) -> None:
    command = [sys.executable, EXAMPLES / script, *arguments]
    subprocess.run([str(part) for part in command], check=True, capture_output=True)


def test_figurines_are_made_coarsened_and_previewed(tmp_path: Path) -> None:
    _run("make_figurines.py", tmp_path, "--count", 1, "--resolution", 32)
    figurine = tmp_path / "figurine_000.ply"
    _run("coarsen.py", figurine, tmp_path / "coarse.glb")
    _run("preview.py", tmp_path / "preview.png", tmp_path / "coarse.glb", figurine, "--size", 64)
    with Image.open(tmp_path / "preview.png") as image:
        assert image.size == (128, 64)
        left, right = image.crop((0, 0, 64, 64)), image.crop((64, 0, 128, 64))
        assert left.getchannel("A").getbbox()
        assert right.getchannel("A").getbbox()
        assert left.tobytes() != right.tobytes()


def test_shapes_of_all_families_are_made_in_turn_and_once(tmp_path: Path) -> None:
    _run("make_shapes.py", tmp_path, "--count", 2, "--start", 10, "--resolution", 24)
    first = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len({path.name.split("_")[0] for path in first}) == 2
    _run("make_shapes.py", tmp_path, "--count", 3, "--start", 10, "--resolution", 24)
    assert len(list(tmp_path.iterdir())) == 3
    assert {path: path.stat().st_mtime_ns for path in first} == first
    _run("make_shapes.py", tmp_path, "--family", "vase", "--count", 1, "--resolution", 24, "--vary")
    assert (tmp_path / "vase_0000_varied.ply").exists()


def test_the_quickstarts_settings_are_valid() -> None:
    config = resolve(file=EXAMPLES / "tiny" / "quickstart.toml", environ={}).config
    assert config.train.model == "tiny"
    assert config.sample.contents == "full"


@pytest.mark.parametrize("script", [*EXAMPLES.glob("*.sh"), *EXAMPLES.glob("*/*.sh")], ids=str)
def test_every_script_is_well_formed(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)


@pytest.mark.parametrize("file", [*EXAMPLES.glob("*/*.toml")], ids=lambda path: path.stem)
def test_every_config_is_valid(file: Path) -> None:
    resolve(file=file, environ={})


def test_the_batch_file_gives_every_machine_its_rank(tmp_path: Path) -> None:
    # Stand-ins for the scheduler and the command, which prints what it was given.
    for name, body in {
        "scontrol": "seq --format node%g 1 100000",  # more than a pipe holds
        "srun": 'SLURM_NODEID=1 exec "$@"',
        "ushape": 'printf "%s " "$@"',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    job = {"SLURM_JOB_NODELIST": "node[1-2]", "SLURM_NNODES": "2", "SLURM_GPUS_ON_NODE": "4"}
    result = subprocess.run(
        ["bash", EXAMPLES / "train.sbatch", "my data", "runs/a", "--steps", "5"],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", **job},
        capture_output=True,
        text=True,
        check=True,
    )
    words = result.stdout.split()
    assert "--data my data --out runs/a" in result.stdout
    assert words[words.index("--num-processes") + 1] == "8"
    assert words[words.index("--machine-rank") + 1] == "1"
    assert words[words.index("--main-process-ip") + 1] == "node1"
    assert words[-2:] == ["--steps", "5"]
