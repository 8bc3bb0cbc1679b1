"""The example scripts run as their first lines say."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
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


@pytest.mark.slow
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


@pytest.mark.parametrize(
    "script", [*EXAMPLES.glob("**/*.sh"), *EXAMPLES.glob("**/*.sbatch")], ids=str
)
def test_every_script_is_well_formed(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)


@pytest.mark.parametrize("file", [*EXAMPLES.glob("*/*.toml")], ids=lambda path: path.stem)
def test_every_config_is_valid(file: Path) -> None:
    resolve(file=file, environ={})


def _stand_in(folder: Path, **programs: str) -> None:
    """Writes programs of the scheduler, each as a line of bash."""
    for name, body in programs.items():
        (folder / name).write_text(f"#!/bin/bash\n{body}\n")
        (folder / name).chmod(0o755)


JOB = {"SLURM_JOB_NODELIST": "node[1-2]", "SLURM_NNODES": "2", "SLURM_GPUS_ON_NODE": "4",
       "SLURM_JOB_ID": "77"}  # fmt: skip
HOSTS = "seq --format node%g 1 100000"  # more than a pipe holds


def test_the_batch_file_gives_every_machine_its_rank(tmp_path: Path) -> None:
    _stand_in(tmp_path, scontrol=HOSTS, srun='SLURM_NODEID=1 exec "$@"', ushape='printf "%s " "$@"')
    result = subprocess.run(
        ["bash", EXAMPLES / "slurm" / "train.sbatch", "my data", "runs/a", "--steps", "5"],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", **JOB},
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


# srun itself ends its tasks on TERM, as the stand-in does by having no trap for it.
# What a training does when it is told to stop: saves (for longer than one signal), is done, fails.
@pytest.mark.parametrize(("ends_with", "requeued"), [(143, True), (0, False), (3, False)])
def test_a_job_whose_time_is_up_saves_before_it_is_queued_again(
    tmp_path: Path, ends_with: int, requeued: bool
) -> None:
    _stand_in(
        tmp_path,
        scontrol=f'[ "$1" = requeue ] && echo "$@" >> {tmp_path}/requeued || {HOSTS}',
        srun='SLURM_NODEID=0 exec "$@"',
        ushape=f"trap 'sleep 0.5; touch {tmp_path}/saved; exit {ends_with}' USR1; "
        f"touch {tmp_path}/trains; while :; do sleep 0.05; done",
    )
    job = subprocess.Popen(
        ["bash", EXAMPLES / "slurm" / "train.sbatch", "data", "run"],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", **JOB},
    )
    while not (tmp_path / "trains").exists():
        time.sleep(0.02)
    # To the batch shell alone, and a second time while it saves, as a scheduler may.
    job.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    job.send_signal(signal.SIGTERM)
    assert job.wait(20) == ends_with
    assert (tmp_path / "saved").exists()
    assert (tmp_path / "requeued").exists() == requeued
    if requeued:
        assert (tmp_path / "requeued").read_text() == "requeue 77\n"


def test_a_worker_of_a_cluster_joins_with_its_token(tmp_path: Path) -> None:
    _stand_in(tmp_path, srun='exec "$@"', ushape='printf "%s " "$@" "$USHAPE_SERVE_TOKEN"')
    command = ["bash", EXAMPLES / "slurm" / "serve.sbatch", "http://studio:8000", "mine=runs/a"]
    path = f"{tmp_path}:/usr/bin:/bin"
    result = subprocess.run(
        command, env={"PATH": path, "USHAPE_SERVE_TOKEN": "t"}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert result.stdout == "serve --join http://studio:8000 --checkpoint mine=runs/a t "
    refused = subprocess.run(command, env={"PATH": path}, capture_output=True, check=False)
    assert refused.returncode != 0
