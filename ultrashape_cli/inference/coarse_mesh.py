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
from ultrashape_cli.dotenv import masked_text
from ultrashape_cli.errors import AssetError, ImageError, MeshError
from ultrashape_cli.files import disk_errors, temporary_path, user_cache
from ultrashape_cli.meshfiles.load import load_mesh
from ultrashape_cli.rendering.output import save_png

CACHE_VERSION = 1
MAX_BYTES = 4 << 30
"""Size of a file that a command may write."""
MAX_LOG = 4 << 20
"""Bytes kept of what a command says."""
_TAIL = 16 << 10
_LAST_LINES, _LAST_LETTERS = 6, 600
_PAUSE_S = 0.1


class Stopped(Exception):
    """A command was ended because the user wants to stop."""


def mesh_of_command(
    command: CoarseCommand,
    rgba: NDArray[np.uint8] | None,
    text: str,
    seed: int,
    say: Callable[[str], None] = lambda text: None,
    stop: Callable[[], bool] = lambda: False,
) -> Path:
    """Returns the mesh that a command makes of an image [H, W, 4] or a text, in the cache.

    Args:
        command: From the settings.
        rgba: The reference, background cut; None where the command reads a text alone.
        text: What to show.
        seed: For `{seed}`.
        say: Is told what is going on.
        stop: Asked while it runs; true ends it.

    Raises:
        AssetError: It failed, took too long, wrote too much, or wrote no mesh; the message has its
            last lines.
        Stopped: By `stop`.
    """
    kept = user_cache("coarse") / _key(command, rgba, text, seed) / f"mesh{command.suffix}"
    log = kept.with_name("log.txt")
    if kept.is_file():
        say(f"coarse mesh of `{command.name}` as it was made before; remove {kept} for another")
        return kept
    with disk_errors(kept.parent):
        kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="ushape-coarse-") as folder:
        image, out = Path(folder) / "image.png", Path(folder) / f"mesh{command.suffix}"
        if rgba is not None:
            save_png(rgba, image)
        values = {"image": str(image), "text": text, "out": str(out), "seed": str(seed)}
        limit = f"{command.timeout_seconds:g} s"
        say(f"`{command.name}` makes the coarse mesh, at most {limit}; what it says: {log}")
        _run(command, filled(command.command, values), out, log, stop)
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

    log = user_cache("coarse") / _key(command, None, text, seed) / "image.txt"
    with tempfile.TemporaryDirectory(prefix="ushape-coarse-") as folder:
        out = Path(folder) / "image.png"
        values = {"text": text, "out": str(out), "seed": str(seed)}
        _run(command, filled(command.image_command, values), out, log, lambda: False)
        if not out.is_file():
            raise _failed(command, "wrote no image", log, hint="does it write to {out}?")
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
        CACHE_VERSION, command.command, _folder(command), sorted(command.env.items()),
        command.suffix,
        seen if isinstance(seen, str) else seen.hexdigest(), text, seed,
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _folder(command: CoarseCommand) -> str | None:
    """Returns where a command runs; None where it does not say."""
    return os.path.abspath(os.path.expanduser(command.cwd)) if command.cwd else None


def _run(
    command: CoarseCommand, arguments: list[str], out: Path, log: Path, stop: Callable[[], bool]
) -> None:
    """Runs a program; it and all that it started end with it, whatever ends the wait."""
    with disk_errors(log.parent):
        log.parent.mkdir(parents=True, exist_ok=True)
        log.unlink(missing_ok=True)
    try:
        process = subprocess.Popen(
            arguments, cwd=_folder(command), env={**os.environ, **command.env},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True,
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
    grown = False

    def is_over() -> bool:
        nonlocal grown
        grown = out.is_file() and out.stat().st_size > MAX_BYTES
        return grown or stop()

    try:
        ended = _wait(process, command.timeout_seconds, started, is_over)
    finally:
        _end(process, started)
        # What holds the pipe open still has nothing more to say.
        listener.join(2.0)
    if grown:
        raise _failed(command, f"writes more than {MAX_BYTES:,} bytes", log)
    if not ended and stop():
        raise Stopped
    if not ended:
        raise _failed(
            command, f"was not ready after {command.timeout_seconds:g} s", log,
            hint=f"timeout_seconds of [coarse.{command.name}]; all it said: {log}",
        )  # fmt: skip
    if code := process.returncode:
        reason = f"ended with {code}" if code > 0 else f"was killed by {_signal_name(-code)}"
        raise _failed(command, reason, log)


def _listen(process: subprocess.Popen[bytes], log: Path) -> None:
    """Writes what a program says, where it says much the first and the last of it."""
    assert process.stdout is not None
    last, gap = b"", b"\n...\n"
    left = MAX_LOG - _TAIL - len(gap)
    with contextlib.suppress(OSError, ValueError), process.stdout, log.open("wb") as file:
        while said := process.stdout.read1(1 << 16):  # type: ignore[attr-defined]
            file.write(said[:left])
            file.flush()
            last = (last + said[left:])[-_TAIL:]
            left -= min(left, len(said))
        if last:
            file.write(gap + last)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def _wait(
    process: subprocess.Popen[bytes],
    seconds: float,
    started: set[psutil.Process],
    is_over: Callable[[], bool],
) -> bool:
    """Says whether a program ended in time; collects what it starts, also out of its group."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not is_over():
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


def _end_of(log: Path) -> str:
    """Returns the last of what a command said."""
    if not log.is_file():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL))
        return file.read().decode(errors="replace")


def _failed(command: CoarseCommand, reason: str, log: Path, hint: str | None = None) -> AssetError:
    lines = [line.strip() for line in _end_of(log).splitlines()]
    last = " | ".join([line for line in lines if line][-_LAST_LINES:])
    last = masked_text("".join(c for c in last if c.isprintable()), {**os.environ, **command.env})
    said = f"; it said: {last[-_LAST_LETTERS:]}" if last else ""
    return AssetError(f"`{command.name}` {reason}{said}", hint=hint or f"all it said: {log}")
