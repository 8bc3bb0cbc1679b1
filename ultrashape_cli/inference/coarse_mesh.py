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
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ultrashape_cli.config.coarse import CoarseCommand, filled
from ultrashape_cli.dotenv import masked_text
from ultrashape_cli.errors import AssetError, ImageError, MeshError
from ultrashape_cli.files import disk_errors, temporary_path
from ultrashape_cli.meshfiles.load import load_mesh
from ultrashape_cli.rendering.output import save_png

CACHE_VERSION = 1
MAX_BYTES = 4 << 30
"""Size of a file that a command may write."""
MAX_LOG_BYTES = 256 << 20
"""Size of what a command may say."""
_LAST_LINES, _LAST_LETTERS = 6, 600
_POLL_S = 0.1


class Stopped(Exception):
    """A command was ended because the user wants to stop."""


def cache_folder() -> Path:
    """Returns where meshes of commands are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "ushape" / "coarse"


def mesh_of_command(
    command: CoarseCommand,
    rgba: NDArray[np.uint8] | None,
    text: str,
    seed: int,
    log: Path,
    say: Callable[[str], None] = lambda text: None,
    stop: Callable[[], bool] = lambda: False,
) -> Path:
    """Returns the mesh that a command makes of an image [H, W, 4] or a text, in the cache.

    Args:
        command: From the settings.
        rgba: The reference, background cut; None where the command reads a text alone.
        text: What to show.
        seed: For `{seed}`.
        log: File for what the command says.
        say: Is told what is going on.
        stop: Asked while it runs; true ends it.

    Raises:
        AssetError: It failed, took too long, said or wrote too much, or wrote no mesh; the message
            has its last lines.
        Stopped: By `stop`.
    """
    kept = cache_folder() / _key(command, rgba, text, seed) / f"mesh{command.suffix}"
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


def image_of_command(command: CoarseCommand, text: str, seed: int, target: Path, log: Path) -> None:
    """Writes the image that a command makes of a text.

    Raises:
        AssetError: It failed, took too long, or wrote no image.
    """
    from ultrashape_cli.data.images import load_rgba

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
    """Runs a program in a group of its own, which ends as a whole, whatever ends the wait."""
    with disk_errors(log.parent):
        log.parent.mkdir(parents=True, exist_ok=True)
    with disk_errors(log), log.open("wb") as said:
        try:
            process = subprocess.Popen(
                arguments, cwd=_folder(command), env={**os.environ, **command.env},
                stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            what = error.filename or arguments[0]
            raise AssetError(
                f"`{command.name}` cannot start: {what}: {error.strerror}",
                hint=f"see `command` and `cwd` of [coarse.{command.name}]",
            ) from error
        try:
            _wait(process, command, out, log, stop)
        finally:
            _end_group(process)
    if code := process.returncode:
        reason = f"ended with {code}" if code > 0 else f"was killed by {_signal_name(-code)}"
        raise _failed(command, reason, log)


def _wait(
    process: subprocess.Popen[bytes],
    command: CoarseCommand,
    out: Path,
    log: Path,
    stop: Callable[[], bool],
) -> None:
    """Returns when a program has ended; raises where it will not, or fills the disk."""
    last = time.monotonic() + command.timeout_seconds
    while process.poll() is None:
        if stop():
            raise Stopped
        if time.monotonic() > last:
            raise _failed(
                command, f"was not ready after {command.timeout_seconds:g} s", log,
                hint=f"timeout_seconds of [coarse.{command.name}]; all it said: {log}",
            )  # fmt: skip
        for path, most, does in ((log, MAX_LOG_BYTES, "says"), (out, MAX_BYTES, "writes")):
            if path.is_file() and path.stat().st_size > most:
                raise _failed(command, f"{does} more than {most:,} bytes", log)
        time.sleep(_POLL_S)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Ends a program and all that it has started and left behind."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


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
        file.seek(max(0, log.stat().st_size - 8 * _LAST_LETTERS))
        return file.read().decode(errors="replace")


def _failed(command: CoarseCommand, reason: str, log: Path, hint: str | None = None) -> AssetError:
    lines = [line.strip() for line in _end_of(log).splitlines()]
    last = " | ".join([line for line in lines if line][-_LAST_LINES:])
    last = masked_text("".join(c for c in last if c.isprintable()), {**os.environ, **command.env})
    said = f"; it said: {last[-_LAST_LETTERS:]}" if last else ""
    return AssetError(f"`{command.name}` {reason}{said}", hint=hint or f"all it said: {log}")
