"""One owner per run: whoever trains it holds a lock that dies with the process."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ultrashape_cli.errors import UsageError
from ultrashape_cli.files import disk_errors, read_json, try_lock
from ultrashape_cli.runs import RunFolder, describe_state

NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


@contextmanager
def owning(run: RunFolder) -> Iterator[None]:
    """Holds the run for this process; its folder is made if need be.

    Where the file system has no locks, the heartbeat in status.json decides.

    Raises:
        UsageError: Another process has it; named by pid, host and start.
        DiskError: The folder cannot be written.
    """
    with disk_errors(run.owner):
        run.root.mkdir(parents=True, exist_ok=True)
        file = os.open(run.owner, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        _lock(run, file)
        here = {"pid": os.getpid(), "host": os.uname().nodename, "time": time.time()}
        os.ftruncate(file, 0)
        os.pwrite(file, json.dumps(here).encode() + b"\n", 0)
        yield
    finally:
        # A lock of fcntl goes when the file is closed, and with the process, however it ends.
        with suppress(OSError):
            os.close(file)


def _lock(run: RunFolder, file: int) -> None:
    try:
        if not try_lock(file):
            raise _refused(run, read_json(run.owner))
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        status = run.read_status()
        if describe_state(status) == "running":
            raise _refused(run, status) from error


def _refused(run: RunFolder, owner: object) -> UsageError:
    found = owner if isinstance(owner, dict) else {}
    pid, host = found.get("pid", "?"), found.get("host", "?")
    began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(float(found.get("time") or 0)))
    return UsageError(
        f"`{run.root}` is being trained by process {pid} on `{host}` (since {began})",
        hint=f"ushape monitor {run.root} watches it; `kill {pid}` there lets it save and stop",
    )
