"""A coarse mesh from another program: run, watched, checked, and kept by what it was made from."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray

from ultrashape_cli.config.coarse import CoarseCommand, filled
from ultrashape_cli.errors import AssetError, ImageError, MeshError
from ultrashape_cli.files import disk_errors, temporary_path
from ultrashape_cli.meshfiles.load import load_mesh
from ultrashape_cli.rendering.output import save_png

CACHE_VERSION = 1
MAX_BYTES = 4 << 30
"""Size of a mesh that a command may write."""
MAX_LOG = 4 << 20
"""Bytes kept of what a command says."""
_LAST_LINES = 6
_PAUSE_S = 0.1


def cache_folder() -> Path:
    """Returns where meshes of commands are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "ushape" / "coarse"


def mesh_of_command(
    command: CoarseCommand,
    rgba: NDArray[np.uint8] | None,
    text: str,
    seed: int,
    say: Callable[[str], None] = lambda text: None,
) -> Path:
    """Returns the mesh that a command makes of an image [H, W, 4] or a text, in the cache.

    Args:
        command: From the settings.
        rgba: The reference, background cut; None where the command reads a text.
        text: What to show.
        seed: For `{seed}`.
        say: Is told what is going on.

    Raises:
        AssetError: It failed, took too long, or wrote no mesh; the message has its last lines.
    """
    kept = cache_folder() / _key(command, rgba, text, seed) / f"mesh{command.suffix}"
    log = kept.with_name("log.txt")
    if kept.is_file():
        say(f"coarse mesh of `{command.name}` as it was made before: {kept}")
        return kept
    with disk_errors(kept.parent):
        kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="ushape-coarse-") as folder:
        image, out = Path(folder) / "image.png", Path(folder) / f"mesh{command.suffix}"
        if rgba is not None:
            save_png(rgba, image)
        values = {"image": str(image), "text": text, "out": str(out), "seed": str(seed)}
        say(f"`{command.name}` makes the coarse mesh, at most {command.timeout_seconds:g} s")
        _run(command, filled(command.command, values), log)
        _check(command, out, log)
        # Two at once write the same file, each in one step.
        with temporary_path(kept) as temporary:
            shutil.copyfile(out, temporary)
    return kept


def image_of_command(command: CoarseCommand, text: str, seed: int, target: Path) -> None:
    """Writes the image that a command makes of a text.

    Raises:
        AssetError: It failed, took too long, or wrote no image.
    """
    from ultrashape_cli.data.images import load_rgba

    log = cache_folder() / _key(command, None, text, seed) / "image.txt"
    with tempfile.TemporaryDirectory(prefix="ushape-coarse-") as folder:
        out = Path(folder) / "image.png"
        values = {"text": text, "out": str(out), "seed": str(seed)}
        _run(command, filled(command.image_command, values), log)
        if not out.is_file():
            raise _failed(command, "wrote no image", log)
        try:
            load_rgba(out)
        except ImageError as error:
            raise _failed(command, f"wrote no image: {error.message}", log) from error
        with temporary_path(target) as temporary:
            shutil.copyfile(out, temporary)


def _key(command: CoarseCommand, rgba: NDArray[np.uint8] | None, text: str, seed: int) -> str:
    """Returns a name for all that a mesh depends on; values of variables go in as a hash alone."""
    seen = "" if rgba is None else hashlib.sha256(rgba.tobytes() + repr(rgba.shape).encode())
    parts = [
        CACHE_VERSION, command.command, command.cwd, sorted(command.env.items()), command.suffix,
        seen if isinstance(seen, str) else seen.hexdigest(), text, seed,
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _run(command: CoarseCommand, arguments: list[str], log: Path) -> None:
    """Runs a program; it and all that it started end with it, whatever ends the wait."""
    cwd = command.cwd or None
    with disk_errors(log.parent):
        log.parent.mkdir(parents=True, exist_ok=True)
        log.unlink(missing_ok=True)
    try:
        process = subprocess.Popen(
            arguments, cwd=cwd, env={**os.environ, **command.env}, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        what = error.filename or arguments[0]
        raise AssetError(
            f"`{command.name}` cannot start: {what}: {error.strerror}",
            hint=f"see `command` and `cwd` of [coarse.{command.name}]",
        ) from error
    listener = threading.Thread(target=_listen, args=(process, log), daemon=True)
    listener.start()
    started: set[psutil.Process] = set()
    try:
        ended = _wait(process, command.timeout_seconds, started)
    finally:
        _end(process, started)
        # What holds the pipe open still has nothing more to say.
        listener.join(2.0)
    if not ended:
        raise _failed(
            command, f"was not ready after {command.timeout_seconds:g} s", log,
            hint=f"timeout_seconds of [coarse.{command.name}]",
        )  # fmt: skip
    if code := process.returncode:
        reason = f"ended with {code}" if code > 0 else f"was killed by {signal.Signals(-code).name}"
        raise _failed(command, reason, log)


def _listen(process: subprocess.Popen[bytes], log: Path) -> None:
    """Writes what a program says, the first of it where it says much."""
    assert process.stdout is not None
    left = MAX_LOG
    with contextlib.suppress(OSError, ValueError), process.stdout, log.open("wb") as file:
        while said := process.stdout.read1(1 << 16):  # type: ignore[attr-defined]
            file.write(said[:left])
            file.flush()
            left -= min(left, len(said))


def _wait(process: subprocess.Popen[bytes], seconds: float, started: set[psutil.Process]) -> bool:
    """Says whether a program ended in time; collects what it starts, also out of its group."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(psutil.Error):
            started.update(psutil.Process(process.pid).children(recursive=True))
        # Not reaped yet, so that its number stays its own until its group has ended.
        if not hasattr(os, "waitid"):  # macOS, before Python 3.13
            if process.poll() is not None:
                return True
        elif os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return True
        time.sleep(_PAUSE_S)
    return False


def _end(process: subprocess.Popen[bytes], started: set[psutil.Process]) -> None:
    """Ends a program, its group, and what has left that: a card's memory would stay taken."""
    with contextlib.suppress(psutil.Error):
        started.update(psutil.Process(process.pid).children(recursive=True))
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    for other in started:
        with contextlib.suppress(psutil.Error):
            other.kill()  # knows by its start whether it is still the same
    process.wait()


def _check(command: CoarseCommand, out: Path, log: Path) -> None:
    if not out.is_file():
        raise _failed(command, "wrote no mesh", log, hint="does it write to {out}?")
    size = out.stat().st_size
    if size == 0 or size > MAX_BYTES:
        raise _failed(command, f"wrote a mesh of {size:,} bytes", log)
    try:
        load_mesh(out)
    except MeshError as error:
        told = error.message.replace(str(out), out.name)
        raise _failed(
            command, f"wrote what is no {command.suffix} mesh: {told}", log,
            hint=f"suffix of [coarse.{command.name}] is the format it writes",
        ) from error  # fmt: skip


def _failed(command: CoarseCommand, reason: str, log: Path, hint: str | None = None) -> AssetError:
    lines = log.read_text(errors="replace").splitlines() if log.is_file() else []
    last = [line.strip() for line in lines if line.strip()][-_LAST_LINES:]
    said = f"; it said: {' | '.join(last)}"[:600] if last else ""
    return AssetError(f"`{command.name}` {reason}{said}", hint=hint or f"all it said: {log}")
