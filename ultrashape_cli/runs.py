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
  run.json           a random id, by which trackers know the run; only `ushape train` writes it
  ATTRIBUTION.md     works that the imported ones of these were made from
  data.json          training and validation assets -> digest of their samples
  owner.json         who trains it, locked as long as they do
  checkpoints/step-00001200/
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ultrashape_cli.files import disk_errors, end_torn_line, file_hash, read_json, write_json

logger = logging.getLogger(__name__)

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

    @property
    def identity(self) -> Path:
        """The run's random id."""
        return self.root / "run.json"

    @property
    def plan(self) -> Path:
        """Memory and time that were planned when the run was begun or continued last."""
        return self.root / "plan.json"

    @property
    def data(self) -> Path:
        """Training and validation assets -> digest of their samples."""
        return self.root / "data.json"

    @property
    def owner(self) -> Path:
        """Who trains the run."""
        return self.root / "owner.json"

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
    with disk_errors(run.events):
        end_torn_line(run.events)
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


def checkpoint_step(checkpoint: Path) -> int:
    """Returns the step that a checkpoint's folder is named after."""
    return int(checkpoint.name.removeprefix("step-"))


def complete_checkpoints(folder: Path) -> list[Path]:
    """Returns the checkpoints below `folder` that look whole, oldest first; cheap.

    Whole means: a manifest, and every file it lists has its size. Folders are renamed into place
    after their files are synced, so a half-written one has no such name.
    """
    return [path for path in sorted(folder.glob("step-*")) if _manifest(path)]


def verified_checkpoints(
    folder: Path, *, last_step: int | None = None, names: Collection[str] | None = None
) -> Iterator[Path]:
    """Yields the checkpoints whose files are what their manifest says, newest first.

    Files are read as the caller asks for more; a damaged checkpoint is logged once and passed over.

    Args:
        folder: Parent of all checkpoints of the run.
        last_step: Leave out those of later steps.
        names: Only these files are read and compared; None stands for all.
    """
    for path in reversed(complete_checkpoints(folder)):
        early = last_step is None or checkpoint_step(path) <= last_step
        if early and damaged_file(path, names) is None:
            yield path


def best_checkpoint(
    folder: Path, *, last_step: int | None = None, names: Collection[str] | None = None
) -> Path | None:
    """Returns the checkpoint with the lowest score, the older one of equals.

    Damaged ones are passed over; arguments as of `verified_checkpoints`.
    """
    scored = []
    for path in complete_checkpoints(folder):
        score = (read_json(path / CHECKPOINT_MANIFEST) or {}).get("score")
        early = last_step is None or checkpoint_step(path) <= last_step
        if early and isinstance(score, float) and math.isfinite(score):
            scored.append((score, path))
    return next((path for _, path in sorted(scored) if damaged_file(path, names) is None), None)


def damaged_file(checkpoint: Path, names: Collection[str] | None = None) -> Path | None:
    """Returns a file of a checkpoint that differs from the manifest, or None where all agree.

    Args:
        checkpoint: Its folder.
        names: Only these files are read and compared; None stands for all.
    """
    manifest = _manifest(checkpoint)
    if manifest is None:
        return checkpoint / CHECKPOINT_MANIFEST
    for name, entry in manifest["files"].items():
        if (names is None or name in names) and digest(checkpoint / name) != entry.get("sha256"):
            _warn_once(checkpoint / name)
            return checkpoint / name
    return None


def digest(file: Path) -> str:
    """Returns a file's SHA-256, read once a process for each state of the file."""
    state = file.stat()
    key = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns)
    if key not in _digests:
        _digests[key] = file_hash(file)
    return _digests[key]


_digests: dict[tuple[int, int, int, int], str] = {}


@cache
def _warn_once(file: Path) -> None:
    logger.warning(
        "`%s` differs from its manifest (damaged on disk?): %s is passed over",
        file,
        file.parent.name,
    )


def _manifest(checkpoint: Path) -> dict[str, Any] | None:
    """Returns the manifest of a checkpoint; None where a file is missing or has another size."""
    manifest = read_json(checkpoint / CHECKPOINT_MANIFEST)
    if not isinstance(manifest, dict) or not checkpoint.name[5:].isdecimal():
        return None
    try:
        for name, entry in manifest["files"].items():
            if (checkpoint / name).stat().st_size != entry["bytes"]:
                return None
    except (KeyError, TypeError, AttributeError, OSError):
        return None
    return manifest if manifest["files"] else None
