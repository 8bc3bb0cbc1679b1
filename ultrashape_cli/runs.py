"""The run folder: its paths, its status file and its checkpoints. Standard library only.

runs/NAME/
  config.toml        resolved settings; `ushape train --config` repeats the run
  command.txt        what was typed
  environment.json   versions, device, git state
  base.json          component -> weights file the run started from
  metrics.jsonl      one line per logged step
  log.txt            log of the main process; log-rank3.txt of the others
  status.json        state, step, pid, last update
  events.jsonl       one line per start and end of a process that trained
  origins.json       setting -> where its value came from
  checkpoints/step-00001200/
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ultrashape_cli.files import disk_errors, read_json, write_json

STALE_AFTER_S = 120.0


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Paths of one training run."""

    root: Path

    @property
    def config(self) -> Path:
        """Resolved settings."""
        return self.root / "config.toml"

    @property
    def base(self) -> Path:
        """Where the weights came from that the run does not train."""
        return self.root / "base.json"

    @property
    def metrics(self) -> Path:
        """One JSON object per line."""
        return self.root / "metrics.jsonl"

    @property
    def status(self) -> Path:
        """State, step, pid and last update."""
        return self.root / "status.json"

    @property
    def checkpoints(self) -> Path:
        """Parent of the `step-NNNNNNNN` folders."""
        return self.root / "checkpoints"

    @property
    def events(self) -> Path:
        """One JSON object per start and end of a process that trained."""
        return self.root / "events.jsonl"

    @property
    def origins(self) -> Path:
        """Setting -> where its value came from."""
        return self.root / "origins.json"

    def log(self, rank: int = 0) -> Path:
        """Returns the log file of one rank."""
        return self.root / ("log.txt" if rank == 0 else f"log-rank{rank}.txt")

    def is_run(self) -> bool:
        """Says whether the folder holds a run."""
        return any(path.is_file() for path in (self.config, self.status, self.metrics))

    def write_status(self, state: str, **values: Any) -> None:
        """Replaces status.json; readers never see half of it."""
        write_json(
            self.status,
            {
                "state": state,
                "pid": os.getpid(),
                "time": time.time(),
                "host": os.uname().nodename,
                **values,
            },
        )

    def read_status(self) -> dict[str, Any]:
        """Returns status.json, or an empty dict while there is none."""
        status = read_json(self.status)
        return status if isinstance(status, dict) else {}


def record_event(run: RunFolder, event: str, *, step: int = 0, **values: Any) -> None:
    """Appends a line to events.jsonl: `start`, `finish`, `stop`, `fail`, or `died`.

    A `start` after a process that did not end its run is preceded by `died`, with the step and the
    time of that process's last sign of life. `message` says why a run failed.
    """
    here = {"pid": os.getpid(), "host": os.uname().nodename}
    lines = [{"event": event, "time": time.time(), "step": step, **here, **values}]
    status = run.read_status() if event == "start" else {}
    if status.get("state") == "running":
        names = ("time", "step", "pid", "host")
        lines.insert(0, {"event": "died"} | {name: status.get(name) for name in names})
    with disk_errors(run.events), run.events.open("a", encoding="utf-8") as file:
        file.write("".join(json.dumps(line) + "\n" for line in lines))


def find_runs(root: Path) -> list[RunFolder]:
    """Returns the runs below `root`, newest first."""
    if not root.is_dir():
        return []
    found = [RunFolder(path.parent) for path in root.glob("*/config.toml")]
    return sorted(found, key=_config_time, reverse=True)


def _config_time(run: RunFolder) -> float:
    try:
        return run.config.stat().st_mtime
    except FileNotFoundError:  # removed since it was listed
        return 0.0


def describe_state(status: dict[str, Any], now: float | None = None) -> str:
    """Returns the state a reader should show: a run whose process is gone is `dead`."""
    state = str(status.get("state", "unknown"))
    if state != "running":
        return state
    age = (time.time() if now is None else now) - float(status.get("time") or 0.0)
    host = status.get("host")
    if host in (None, os.uname().nodename) and not _alive(int(status.get("pid") or 0)):
        return "dead"
    return "stalled" if age > STALE_AFTER_S else "running"


def _alive(pid: int) -> bool:
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    """Says whether the process has ended and only its parent has not noticed (Linux)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[:1] == ["Z"]


CHECKPOINT_MANIFEST = "manifest.json"
MODEL_FILE = "model.safetensors"
EMA_FILE = "ema.safetensors"
ADAPTER_FILE = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"


def checkpoint_name(step: int) -> str:
    """Returns the folder name of the checkpoint after `step` steps."""
    return f"step-{step:08d}"


def complete_checkpoints(folder: Path) -> list[Path]:
    """Returns the whole checkpoints below `folder`, oldest first.

    Whole means: a manifest, and every file it lists has its size. Folders are renamed into place
    after their files are synced, so a half-written one has no such name.
    """
    return [path for path in sorted(folder.glob("step-*")) if _is_whole(path)]


def _is_whole(checkpoint: Path) -> bool:
    manifest = read_json(checkpoint / CHECKPOINT_MANIFEST)
    if not isinstance(manifest, dict):
        return False
    try:
        sizes = {name: entry["bytes"] for name, entry in manifest["files"].items()}
    except (KeyError, TypeError, AttributeError):
        return False
    return bool(sizes) and all(
        (checkpoint / name).is_file() and (checkpoint / name).stat().st_size == size
        for name, size in sizes.items()
    )
