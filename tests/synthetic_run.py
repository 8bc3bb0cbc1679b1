"""Run folders as training leaves them, without training."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from ultrashape_cli.runs import CHECKPOINT_MANIFEST, RunFolder, checkpoint_name


def make_run(folder: Path, *, steps: int = 20, state: str = "running", **status: Any) -> RunFolder:
    """A run that logged every step, one second apart, the last one now, of 100 steps."""
    run = RunFolder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    set_config(run)
    now = time.time()
    add_lines(run, range(1, steps + 1), start=now - steps)
    run.write_status(state, **{"step": steps, "steps": 100, **status})
    run.log().write_text("first\nsecond\n")
    return run


def set_config(run: RunFolder, launch: str = "", **train: Any) -> None:
    settings = {"save_every_steps": 50, "keep_checkpoints": 2, "log_every_steps": 1} | train
    body = "".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items())
    run.config.write_text(f"[train]\n{body}[launch]\nnum_processes = 1\n{launch}")


def add_lines(run: RunFolder, steps: Any, *, start: float = 0.0, **values: Any) -> None:
    with run.metrics.open("a") as file:
        for step in steps:
            line = {
                "step": step,
                "time": start + step,
                "loss": 1 / step,
                "loss_smooth": 1 / step,
                "learning_rate": 1e-4,
                "grad_norm": 0.5,
                "seconds": 1.0,
                "data_wait": 0.02,
                "forward": 0.3,
                "backward": 0.6,
            }
            file.write(json.dumps(line | values) + "\n")


def add_checkpoint(run: RunFolder, step: int, size: int = 1000, age_s: float = 0.0) -> Path:
    path = run.checkpoints / checkpoint_name(step)
    path.mkdir(parents=True)
    (path / "w").write_bytes(bytes(size))
    manifest = path / CHECKPOINT_MANIFEST
    manifest.write_text(json.dumps({"files": {"w": {"bytes": size}}}))
    os.utime(manifest, (time.time() - age_s,) * 2)
    return path


VALIDATED = {
    "val_loss": 0.25,
    **{f"val_loss_t{index}": 0.3 - 0.01 * index for index in range(8)},
    **{f"val_{name}f_score@0.01": value
       for name, value in (("", 0.8), ("base_", 0.5), ("ema_", 0.7), ("coarse_", 0.4))},
    **{f"val_{name}chamfer_l1": value for name, value in (("", 0.01), ("base_", 0.02))},
}  # fmt: skip
