"""Creates or continues a run folder: same settings continue, others are refused."""

from __future__ import annotations

import os
import platform
import secrets
import shlex
import shutil
import subprocess
import sys
from collections.abc import Collection, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import tomli_w

from ultrashape_cli import __version__
from ultrashape_cli.config.resolve import resolve
from ultrashape_cli.config.schema import Config, flatten
from ultrashape_cli.dotenv import masked_arguments
from ultrashape_cli.errors import UsageError
from ultrashape_cli.files import disk_errors, read_json, write_atomic, write_json
from ultrashape_cli.runs import RunFolder
from ultrashape_cli.training.provenance import record_data

CHANGEABLE = frozenset(
    {
        *("profile", "device", "train.num_workers", "train.validate_every_steps"),
        *("train.save_every_steps", "train.keep_checkpoints", "train.log_every_steps"),
        *("train.trackers", "train.tracker_alerts", "train.steps", "train.keep_every_steps"),
        *("train.async_checkpoints", "train.skip_bad", "train.max_bad_steps"),
        *("train.validate_meshes", "train.mesh_every_validations", "train.patience"),
        *("launch.price_per_hour", "train.data", "train.cache", "train.cache_gib"),
        *("train.token_cache", "train.pairs", "reward.max_drop"),
        "train.mirror",
        "train.resume_from",
        *("train.compile", "train.attention", "train.expert_dispatch"),
    }
)
"""Keys that may differ when a run is continued: they do not change what it learns per step."""
TOLD = frozenset(
    {"train.learning_rate", "train.clip_norm", "train.spike_factor", "train.condition_dropout"}
)
"""Keys that may differ too, to save a run that has gone wrong; each change is told."""
RECORDED = ("train", "distill", "reward", "launch")
OWNED = ("metrics.jsonl", "log.txt", "status.json", "base.json", "base.safetensors",
         "config.toml", "command.txt", "environment.json", "checkpoints", "latents",
         "tokens", "events.jsonl", "origins.json", "alerts.jsonl", "samples", "run.json",
         "data.json", "base.pending.json", "plan.json", "ATTRIBUTION.md",
         "tensorboard", "wandb")  # fmt: skip
"""What `--force` removes: everything this command made, nothing else."""


def default_run(config: Config) -> Path:
    """Returns the run folder of a dataset, model and stage, so that repeating a command resumes."""
    data = Path(config.train.data).resolve().name
    few = f"-overfit{config.train.overfit}" if config.train.overfit else ""
    objective = config.train.objective
    aim = "" if objective == "flow" else f"-{objective}"
    return Path("runs") / f"{data}-{config.train.model}-{config.train.stage}{aim}{few}"


def check_folder(run: RunFolder) -> None:
    """Raises UsageError where the folder holds something, and no run of ours."""
    if not run.root.exists() or _is_ours(run):
        return
    if not run.root.is_dir() or set(os.listdir(run.root)) - {run.owner.name}:
        raise UsageError(
            f"`{run.root}` exists and is not a run of ushape",
            hint=f"--out {run.root.with_name(f'{run.root.name}-run')}, or any new folder",
        )


def open_run(
    run: RunFolder, config: Config, *, force: bool, command: list[str], finished: bool = False
) -> list[str]:
    """Writes the settings of a new run, or checks them against those of the old one.

    Args:
        run: The folder.
        config: Present settings.
        force: Make the run anew.
        command: What was typed.
        finished: Nothing is left to train: check, and write nothing.

    Returns:
        What to tell: changed settings, and data that is not what the run began with.

    Raises:
        UsageError: The folder holds a run with other settings or of other data, or something else.
        DiskError: It cannot be written.
    """
    check_folder(run)
    if force:
        for name in OWNED:
            _remove(run.root / name)
    told = []
    # Before its first step a run has nothing to lose.
    if run.config.exists() and (run.metrics.exists() or run.checkpoints.exists()):
        differing = changed_keys(run, config)
        if differing:
            raise UsageError(
                f"`{run.root}` was made with other settings: {', '.join(differing)}",
                hint="choose another --out, or redo the run with --force",
            )
        if finished:
            return []
        told = [f"setting {change}" for change in changed_keys(run, config, TOLD)]
    told += record_data(run, config)
    with disk_errors(run.root):
        run.root.mkdir(parents=True, exist_ok=True)
    text = tomli_w.dumps(_tables(config))
    write_json(run.root / "environment.json", environment())
    if not run.identity.exists():
        write_json(run.identity, {"id": secrets.token_hex(8), "ushape": __version__})
    with disk_errors(run.root), (run.root / "command.txt").open("a", encoding="utf-8") as file:
        file.write(shlex.join(masked_arguments(command)) + "\n")
    write_atomic(run.config, lambda file: file.write(text.encode()))
    return told


def _is_ours(run: RunFolder) -> bool:
    made = read_json(run.root / "environment.json")
    return run.identity.is_file() or (
        # Runs of earlier versions have no run.json.
        isinstance(made, dict) and "ushape" in made and run.config.is_file()
    )


def _remove(path: Path) -> None:
    if path.is_symlink() and path.is_dir():  # as of checkpoints that live on a larger disk
        for child in path.iterdir():
            _remove(child)
    elif path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def record_origins(run: RunFolder, origins: Mapping[str, str]) -> None:
    """Writes where the recorded settings came from.

    What a continued run takes from its own config.toml keeps the origin it had at first.
    """
    before = read_json(run.origins)
    before = before if isinstance(before, dict) else {}
    kept = {}
    for key, origin in origins.items():
        if "." in key and key.split(".")[0] not in RECORDED:
            continue
        file = origin.strip("`")
        own = file != origin and Path(file).absolute() == run.config.absolute()
        kept[key] = before.get(key, origin) if own else origin
    write_json(run.origins, kept)


def changed_keys(
    run: RunFolder, config: Config, wanted: Collection[str] | None = None
) -> list[str]:
    """Returns the keys whose recorded value differs, and how.

    Args:
        run: The folder.
        config: Present settings.
        wanted: Which keys; None stands for those that a continued run must not change.
    """
    old = flatten(resolve(file=run.config, environ={}).config)
    return [
        f"{key} ({old[key]} -> {value})"
        for key, value in flatten(config).items()
        if (_is_fixed(key) if wanted is None else key in wanted) and old[key] != value
    ]


def _is_fixed(key: str) -> bool:
    part = key in ("seed", "launch.engine", "launch.zero_stage") or key.startswith(
        ("train.", "distill.", "reward.")
    )
    return part and key not in CHANGEABLE and key not in TOLD


def environment() -> dict[str, Any]:
    """Returns versions, machine and git state."""
    packages = ("torch", "accelerate", "numpy", "trimesh", "safetensors")
    return {
        "ushape": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": platform.node(),
        "packages": {name: metadata.version(name) for name in packages},
        "git": _git_state(),
        "arguments": masked_arguments(sys.argv),
    }


def _tables(config: Config) -> dict[str, Any]:
    tables: dict[str, Any] = {}
    for key, value in flatten(config).items():
        section, dot, name = key.partition(".")
        if not dot:
            tables[key] = value
        elif section in RECORDED:
            tables.setdefault(section, {})[name] = (
                list(value) if isinstance(value, tuple) else value
            )
    return tables


def _git_state() -> str | None:
    try:
        run = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return run.stdout.strip() or None
