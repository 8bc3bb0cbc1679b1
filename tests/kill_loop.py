"""Kills a training run with SIGKILL at random moments and checks that it ends as if undisturbed.

    python tests/kill_loop.py [--kills 20] [--strategy full] [--seed 0]

Not part of the suite: it takes minutes. Exit code 0 if the weights of both runs are the same
bytes, 1 if not.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

from ultrashape_cli.runs import complete_checkpoints


def prepare(root: Path) -> Path:
    """Makes a small dataset with the product's own commands."""
    examples = Path(__file__).parents[1] / "examples"
    meshes, data = root / "meshes", root / "data"
    run([sys.executable, examples / "make_figurines.py", meshes, "--count", 4])
    ushape("prepare", meshes, "--out", data, "--config", examples / "tiny" / "quickstart.toml")
    return data


def ushape(*arguments: object) -> None:
    """Runs the command to its end."""
    run([sys.executable, "-m", "ultrashape_cli", *arguments])


def run(command: list[object]) -> None:
    subprocess.run([str(part) for part in command], check=True)


def training(data: Path, out: Path, options: argparse.Namespace) -> list[str]:
    settings = (
        *("num_latents=32", "surface_points=512", "num_workers=1", "microbatch=1"),
        *(f"save_every_steps={options.save_every}", "log_every_steps=1"),
        *("validate_every_steps=20", f"strategy={options.strategy}", f"dtype={options.dtype}"),
    )
    return [
        *(sys.executable, "-m", "ultrashape_cli", "train", "--data", str(data), "--out", str(out)),
        *("--model", "tiny", "--profile", "cpu", "--steps", str(options.steps), "--no-progress"),
        *(part for setting in settings for part in ("--set", f"train.{setting}")),
    ]


def disturbed(
    command: list[str], out: Path, kills: int, longest: float, draw: random.Random
) -> None:
    """Starts the run again and again; each time but the last it is killed."""
    for number in range(kills):
        process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
        wait = draw.uniform(0.0, longest)
        try:
            process.wait(wait)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        found = complete_checkpoints(out / "checkpoints")
        newest = found[-1].name if found else "none"
        print(
            f"kill {number + 1}/{kills} after {wait:.1f} s: newest checkpoint {newest}", flush=True
        )
    subprocess.run(command, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--longest", type=float, default=25.0, help="seconds before a kill")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--save-every", type=int, default=2)
    parser.add_argument("--strategy", default="full")
    parser.add_argument("--dtype", default="fp32")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        data = prepare(root)
        run(training(data, root / "straight", options))
        started = time.perf_counter()
        command = training(data, root / "killed", options)
        draw = random.Random(options.seed)
        disturbed(command, root / "killed", options.kills, options.longest, draw)
        ends = [complete_checkpoints(root / name / "checkpoints")[-1] for name in
                ("straight", "killed")]  # fmt: skip
        files = sorted(path.name for path in ends[0].glob("*.safetensors"))
        first, second = ({f: load_file(end / f) for f in files} for end in ends)
        same = all(torch.equal(first[f][key], second[f][key]) for f in files for key in first[f])
        verdict = "the same weights" if same else "DIFFERENT weights"
        print(f"{options.kills} kills in {time.perf_counter() - started:.0f} s: {verdict}")
        sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
