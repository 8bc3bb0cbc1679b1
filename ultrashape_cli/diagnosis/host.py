"""Checks of the machine around the card: Python, packages, limits, disk, variables, Blender."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from ultrashape_cli import __version__
from ultrashape_cli.diagnosis.check import FAIL, OK, WARN, Finding, Subject
from ultrashape_cli.dotenv import PREFIXES, load_dotenv, masked

PYTHONS = ((3, 11), (3, 14))
"""First version that works, first that does not."""
SHARED_GIB = 1.0
"""Shared memory below which loader processes may die of a bus error."""
OPEN_FILES = 4096
MIN_CACHE_GIB = 20.0
"""Free disk for the released weights and what belongs to them."""
FALLBACKS = {
    "flash_attn": ("flash-attn", "attention by torch's own kernels"),
    "peft": ("peft", "no strategy `lora`"),
    "deepspeed": ("deepspeed", "no launch.engine=deepspeed; strategy `sharded` divides as well"),
    "pymeshlab": ("pymeshlab", "repairs and loaders of our own"),
    "open3d": ("open3d", "distances by our own search"),
    "ray": ("ray", "workers on this machine only"),
    "bpy": ("bpy", "views by our own ray caster"),
    "tensorboard": ("tensorboard", "`ushape monitor` without --tensorboard"),
}
"""Optional module -> its package, and what happens without it."""
LOADED = ("pymeshlab", "open3d")
"""Modules whose system libraries may be missing, so that only loading tells."""


def check_python(subject: Subject) -> Iterator[Finding]:
    """Tells the versions of Python and of this package."""
    good = PYTHONS[0] <= sys.version_info[:2] < PYTHONS[1]
    message = f"{platform.python_version()} at {sys.executable}"
    yield Finding("python", OK if good else FAIL, message, "" if good else "pyenv install 3.12")
    yield Finding("ushape", OK, f"{__version__} at {Path(__file__).parents[1]}")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("system", OK, f"{platform.platform()}, {cores} cores")


def check_packages(subject: Subject) -> Iterator[Finding]:
    """Tells which optional packages load, and what is used instead of the others."""
    reasons = _load_reasons()
    there, absent = [], []
    for module, (package, fallback) in FALLBACKS.items():
        if importlib.util.find_spec(module) is None:
            absent.append(f"{package} ({fallback})")
        elif reason := reasons.get(module):
            message, _, fix = reason.rpartition(": ")
            yield Finding(package, WARN, f"{message}; instead: {fallback}", fix)
        else:
            there.append(package)
    yield Finding("optional", OK, ", ".join(there) or "none")
    if absent:
        yield Finding("optional", OK, f"not installed: {', '.join(absent)}")


def _load_reasons() -> dict[str, str | None]:
    """Returns why modules with system libraries cannot load, asked in a process of its own.

    Loaded in a thread of this one, they corrupted memory at its end.
    """
    code = (
        "import json; from ultrashape_cli.geometry.optional import missing_reason\n"
        f"print('\\n' + json.dumps({{name: missing_reason(name) for name in {LOADED!r}}}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        reason = f"{' or '.join(LOADED)} crash when loaded: pip install --force-reinstall"
        return {LOADED[0]: f"{reason} {' '.join(LOADED)}"}
    found: dict[str, str | None] = json.loads(lines[-1])
    return found


def check_limits(subject: Subject) -> Iterator[Finding]:
    """Looks at shared memory and at the number of files a process may open."""
    workers = subject.resolved.config.train.num_workers
    try:
        shared = os.statvfs("/dev/shm")
    except OSError:
        yield Finding("shared memory", WARN, "no /dev/shm: loader processes cannot share arrays")
    else:
        size = shared.f_blocks * shared.f_frsize / 2**30
        low = size < SHARED_GIB and workers > 0
        message = f"/dev/shm has {size:.2f} GiB for {workers} loader processes"
        fix = "docker run --shm-size=8g ...   (or ushape train --set train.num_workers=0)"
        yield Finding("shared memory", WARN if low else OK, message, fix if low else "")
    import resource  # Windows has none

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    low = 0 <= soft < OPEN_FILES
    fix = f"ulimit -n {hard if 0 < hard < 65536 else 65536}"
    text = "unlimited" if soft < 0 else f"{soft:,}"
    yield Finding("open files", WARN if low else OK, f"at most {text}", fix if low else "")


def check_cache(subject: Subject) -> Iterator[Finding]:
    """Looks at the folder where the hub's files are kept."""
    home = os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface"
    folder = Path(home).expanduser()
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    free = shutil.disk_usage(there).free / 2**30
    if not os.access(there, os.W_OK):
        yield Finding("cache", FAIL, f"{folder} cannot be written", "export HF_HOME=/a/larger/disk")
        return
    low = free < MIN_CACHE_GIB
    fix = "export HF_HOME=/a/larger/disk" if low else ""
    yield Finding("cache", WARN if low else OK, f"{folder}, {free:.1f} GiB free", fix)


def check_blender(subject: Subject) -> Iterator[Finding]:
    """Asks Blender for its version, where there is one."""
    program = subject.resolved.config.render.blender or "blender"
    found = shutil.which(program)
    wanted = subject.resolved.config.render.renderer == "blender"
    if found is None:
        there = importlib.util.find_spec("bpy") is not None
        message = (
            "as the package bpy" if there else "not installed; only --renderer blender needs it"
        )
        status = FAIL if wanted and not there else OK
        yield Finding("blender", status, message, "pip install bpy" if status == FAIL else "")
        return
    done = subprocess.run(
        [found, "--version"], capture_output=True, text=True, timeout=15, check=False
    )
    line = (done.stdout.strip().splitlines() or [f"`{found} --version` says nothing"])[0]
    words = line.split()
    numbers = words[1].split(".") if len(words) > 1 and words[0] == "Blender" else []
    old = not numbers or not numbers[0].isdigit() or (int(numbers[0]), int(numbers[1])) < (4, 2)
    message = f"{line} at {found}" + (", 4.2 or later is needed" if old else "")
    yield Finding("blender", WARN if old else OK, message)


def check_variables(subject: Subject) -> Iterator[Finding]:
    """Shows the variables that matter, secrets masked, and what `.env` does."""
    yield from describe_variables(os.environ, Path())


def describe_variables(environ: Mapping[str, str], folder: Path) -> Iterator[Finding]:
    """Yields the variables with known prefixes, and what a folder's `.env` does."""
    shown = sorted(name for name in environ if name.startswith(PREFIXES))
    text = ", ".join(f"{name}={masked(name, environ[name])}" for name in shown)
    yield Finding("variables", OK, text or "none of WANDB_, HF_, USHAPE_, CUDA_, NCCL_")
    found = load_dotenv(folder, {})
    if found.taken or found.ignored:
        message = f"sets {', '.join(found.taken) or 'nothing'} where they are not set"
        if found.ignored:
            message += f"; not read, of other prefixes: {', '.join(found.ignored)}"
        yield Finding(".env", OK, message)
