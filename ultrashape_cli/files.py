"""Atomic writes: a reader sees the old file or the new one, never half. Standard library only."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from ultrashape_cli.errors import DiskError, UsageError


def write_json(path: Path, value: Any) -> None:
    """Writes JSON atomically."""
    # File names may hold bytes that are no UTF-8; escaped, they come back as they were.
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomic(path, lambda file: file.write(text.encode(errors="backslashreplace")))


def read_json(path: str | Path) -> Any:
    """Returns the parsed file, or None where it is absent or not JSON."""
    try:
        with open(path, "rb") as file:
            return json.loads(file.read())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, RecursionError):  # digits or brackets without end, too, are made to hurt
        return None


def end_torn_line(path: Path) -> None:
    """Ends the last line of a file of lines where a killed writer left it open, if there is one."""
    with suppress(FileNotFoundError), path.open("rb+") as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")


def file_hash(path: Path) -> str:
    """Returns the SHA-256 of a file's content as text."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomic(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Calls `write(file)` on a temporary neighbour, then renames it to `path`.

    Raises:
        DiskError: The disk is full or read-only; nothing is left behind.
    """
    with temporary_path(path) as temporary, temporary.open("wb") as file:
        write(file)


def sync(path: str | Path) -> None:
    """Brings what a file, or the list of names of a folder, holds to the disk."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def try_lock(file: int) -> bool:
    """Locks an open file until it is closed or the process ends; False where another has it.

    Raises:
        OSError: The file system has no locks.
    """
    import fcntl  # Windows has none

    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


def partial_path(path: Path, pid: int) -> Path:
    """Returns where a process keeps the unfinished `path`."""
    # The suffix stays last because mesh and image writers choose the format by it.
    return path.with_name(f".{path.stem}.{pid}.tmp{path.suffix}")


@contextmanager
def temporary_path(path: Path) -> Iterator[Path]:
    """Yields a path beside `path` that is renamed to it on success and removed on failure."""
    temporary = partial_path(path, os.getpid())
    try:
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turns full, read-only and forbidden storage below `path` into a DiskError."""
    reasons = {
        errno.ENOSPC: ("no space left on device", "free some space or choose another `--out`"),
        errno.EDQUOT: ("disk quota exceeded", "free some space or choose another `--out`"),
        errno.EROFS: ("the file system is read-only", "choose another `--out`"),
        errno.EACCES: ("permission denied", "choose another `--out`"),
        errno.EPERM: ("operation not permitted", "choose another `--out`"),
        errno.ENOTDIR: ("a parent is a file, not a folder", "choose another `--out`"),
        errno.EEXIST: ("a file is in the place of a folder", "choose another `--out`"),
        errno.EFBIG: ("the file system's size limit is reached", "choose another `--out`"),
    }
    try:
        yield
    except OSError as error:
        if error.errno not in reasons:
            raise
        reason, hint = reasons[error.errno]
        raise DiskError(f"cannot write `{path}`: {reason}", hint=hint) from error


def user_cache(name: str) -> Path:
    """Returns the folder of what is kept for later commands under a name; it may not exist yet."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "ushape" / name


def check_outputs(outputs: Iterable[Path], inputs: Iterable[Path], *, hint: str) -> None:
    """Sees to it that writing loses nothing: neither what is read nor another output.

    Files are compared by what they are, not by name: links, other spellings and, where the file
    system ignores it, the case of letters hide nothing.

    Args:
        outputs: Files, or folders whose content will be replaced. They need not exist.
        inputs: Files; folders, of which nothing may be written into. They need not exist.
        hint: What to type instead.

    Raises:
        UsageError: An output is an input, lies in one or holds one, or is another output too.
    """
    kept = {_identity(path): path for path in inputs}
    holding = {_identity(p): path for path in kept.values() for p in _real(path).parents}
    above: dict[Path, Path | None] = {}
    seen: dict[Path, Path] = {}

    def input_above(folder: Path) -> Path | None:
        if folder not in above:
            own = kept.get(_identity(folder))
            last = folder == folder.parent
            above[folder] = own if own or last else input_above(folder.parent)
        return above[folder]

    for output in outputs:
        # A link is replaced, and not what it points to; neither may be an input.
        place, target = _real(output.parent) / output.name, _real(output)
        known = _identity(target)
        around = input_above(place.parent) or input_above(target.parent)
        for how, found in (("is", kept.get(known)), ("lies in", around),
                           ("holds", holding.get(known))):  # fmt: skip
            if found is not None:
                raise UsageError(f"the output `{output}` {how} the input `{found}`", hint=hint)
        if place in seen:
            raise UsageError(f"`{seen[place]}` and `{output}` are one file", hint=hint)
        seen[place] = output


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _identity(path: Path) -> tuple[int, int] | str:
    """Returns what tells a file or folder from all others, whatever name leads to it."""
    try:
        found = os.stat(path)
    except OSError:
        return str(_real(path))
    return found.st_dev, found.st_ino
