"""Several processes under accelerate, as a user starts them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
import torch
from process_pair import free_port, train_in_two
from safetensors.torch import load_file

from ultrashape_cli.config.schema import LaunchConfig
from ultrashape_cli.errors import UsageError
from ultrashape_cli.processes import supervise
from ultrashape_cli.runs import EMA_FILE, MODEL_FILE, RunFolder, complete_checkpoints
from ultrashape_cli.training.ownership import owning
from ultrashape_cli.training.worker import train_run

SETTINGS = [
    *("--model", "tiny", "--device", "cpu", "--profile", "cpu"),
    *("--set", "train.num_latents=16", "--set", "train.surface_points=256"),
    *("--set", "train.query_points=64", "--set", "train.num_workers=0"),
    *("--set", "train.log_every_steps=1", "--set", "train.validate_every_steps=0"),
]


def _train(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "ultrashape_cli", "train"]
    text = [str(part) for part in (*command, *arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        text, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def _lines(run: RunFolder) -> list[dict[str, float]]:
    return [json.loads(line) for line in run.metrics.read_text().splitlines()]


def _losses(run: RunFolder) -> list[float]:
    return [line["loss"] for line in _lines(run)]


def _newest(run: RunFolder, file: str) -> dict[str, torch.Tensor]:
    return load_file(complete_checkpoints(run.checkpoints)[-1] / file)


def _finish(process: subprocess.Popen[str]) -> None:
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors


@pytest.mark.parametrize(
    ("strategy", "twin"),
    [
        pytest.param("full", "full", marks=pytest.mark.slow),
        pytest.param("full-offload", "full-offload", marks=pytest.mark.slow),
        pytest.param("lora", "lora", marks=pytest.mark.slow),
        ("sharded", "full"),
    ],
)
def test_two_processes_train_what_one_trains(make_run, strategy: str, twin: str) -> None:
    # Routing is balanced per microbatch, so both sides have the same ones.
    # Other processes than the tests' own know no further model.
    by_command = strategy == "lora"
    common = {"model": "tiny" if by_command else "small", "steps": 3, "microbatch": 2}
    common |= {"condition_dropout": 0.5, "ema_decay": 0.9}
    # The last step refines a held-out mesh, which with shards takes both processes.
    meshes = strategy in ("full", "sharded")
    common |= {"validate_every_steps": 9, "validate_meshes": int(meshes), "mesh_resolution": 32}
    if strategy == "sharded":
        common |= {"train_conditioner": False}
    two, _ = make_run("two", processes=2, strategy=strategy, **common)
    one, config = make_run("one", strategy=twin, accumulation=2, **common)
    if by_command:
        # The way of a user, with all that starts processes.
        port = f"launch.main_process_port={free_port()}"
        _finish(_train("--config", two.config, "--out", two.root, "--set", port))
    else:
        train_in_two(two.root)
    assert train_run(one, config) == 0
    assert _losses(two) == pytest.approx(_losses(one), rel=1e-5)
    last = [_lines(run)[-1] for run in (two, one)]
    assert last[0]["val_loss"] == pytest.approx(last[1]["val_loss"], rel=1e-5)
    names = {"val_surface", "val_ema_surface", "val_base_surface", "val_coarse_chamfer_l1"}
    assert all((names <= values.keys()) == meshes for values in last)
    if strategy != "lora":
        means = [_newest(run, EMA_FILE) for run in (two, one)]
        for key, value in means[1].items():
            torch.testing.assert_close(means[0][key], value, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_two_sharded_processes_resume_bitwise(make_run) -> None:
    settings = {
        "strategy": "sharded",
        "microbatch": 1,
        "save_every_steps": 2,
        "ema_decay": 0.9,
    }
    run, _ = make_run(processes=2, steps=4, **settings)

    def train() -> dict[str, torch.Tensor]:
        train_in_two(run.root)
        average = {f"ema {k}": v for k, v in _newest(run, EMA_FILE).items()}
        return _newest(run, MODEL_FILE) | average

    straight = train()
    shutil.rmtree(complete_checkpoints(run.checkpoints)[-1])
    resumed = train()
    assert all(torch.equal(straight[key], resumed[key]) for key in straight)


@pytest.mark.slow
def test_torchrun_starts_the_command_itself(ball_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"),
        *("--master-port", str(free_port()), "-m", "ultrashape_cli", "train"),
        *("--data", str(ball_data), "--out", str(out), "--steps", "2", *SETTINGS),
        *("--stage", "vae"),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert run.returncode == 0, run.stderr
    lines = (out / "metrics.jsonl").read_text().splitlines()
    # Two processes of microbatch 4: the world was two, not twice one.
    assert json.loads(lines[-1])["samples"] == 2 * 2 * 4


def _wait_for_steps(process: subprocess.Popen[str], out: Path) -> None:
    deadline = time.monotonic() + 120
    while not (out / "metrics.jsonl").exists() or not (out / "metrics.jsonl").read_text():
        assert time.monotonic() < deadline, "training did not start"
        assert process.poll() is None, process.communicate()
        time.sleep(0.2)


@pytest.mark.slow
def test_ctrl_c_saves_and_exits_130(ball_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = _train(
        "--data", ball_data, "--out", out, *SETTINGS, "--stage", "vae", "--steps", 100_000
    )
    _wait_for_steps(process, out)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "ushape train --config" in errors
    run = RunFolder(out)
    assert run.read_status()["state"] == "stopped"
    assert complete_checkpoints(run.checkpoints)


@pytest.mark.slow
def test_nobody_trains_on_when_the_command_is_killed(ball_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = _train(
        *("--data", ball_data, "--out", out, *SETTINGS, "--stage", "vae"),
        *("--steps", 100_000, "--num-processes", 2),
    )
    _wait_for_steps(process, out)
    workers = psutil.Process(process.pid).children(recursive=True)
    with pytest.raises(UsageError, match=f"by process {process.pid}"), owning(RunFolder(out)):
        pass
    process.kill()
    process.communicate(timeout=60)
    assert psutil.wait_procs(workers, timeout=60)[1] == []
    # They were told as by TERM, so that nothing is lost.
    assert complete_checkpoints(out / "checkpoints")


STUB = """
import os, sys, time
from pathlib import Path
from ultrashape_cli.interrupts import SignalFlag
time.sleep(0.5)  # as imports take
with SignalFlag(lambda: None) as flag:
    for _ in range(300):
        if flag:
            break
        time.sleep(0.1)
text = f"{flag.exit_code} {os.environ['ACCELERATE_MIXED_PRECISION']}"
Path(sys.argv[1], os.environ["RANK"]).write_text(text)
"""


def test_a_signal_before_there_are_workers_reaches_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stub_worker.py").write_text(STUB)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    # What the user has told accelerate does not matter.
    (tmp_path / "accelerate").mkdir()
    (tmp_path / "accelerate" / "default_config.yaml").write_text(
        "distributed_type: DEEPSPEED\nnum_processes: 1\nmixed_precision: fp16\n"
    )
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    launch = LaunchConfig(num_processes=2, main_process_port=free_port())
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
    flag, code = supervise(
        "stub_worker", [str(tmp_path)], launch, device="cpu", on_signal=lambda: None
    )
    assert (flag.exit_code, code) == (143, 0)
    assert [(tmp_path / rank).read_text() for rank in "01"] == ["143 no"] * 2
