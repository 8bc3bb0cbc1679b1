"""The queue on disk: one SQLite file that web, parent and workers share.

A power cut may come at any moment: the write-ahead log is synced at every commit. Leases are
counted on the monotonic clock of the machine, which all its processes share and nobody can set; a
restart of the machine begins that clock anew, so whoever starts the service renews all leases
(`jobs.recover`) before anything else looks at them. The time of day is for people only: no
decision about a job depends on it.
"""

from __future__ import annotations

import fnmatch
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ultrashape_cli.errors import DiskError, UsageError
from ultrashape_cli.files import disk_errors, sync, temporary_path, try_lock

FORMAT = 1
"""Of the tables; another one is refused."""
WAIT_S = 10.0
"""How long a writer waits for another."""
_OPEN_WAIT_S = 3.0
BALLAST_BYTES = 8 << 20

_TABLES = """
CREATE TABLE IF NOT EXISTS meta(name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS jobs(
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'done', 'failed', 'cancelled')),
    priority INTEGER NOT NULL DEFAULT 0,
    owner TEXT NOT NULL,
    model TEXT NOT NULL,
    options TEXT NOT NULL,
    inputs TEXT NOT NULL,
    webhook TEXT,
    attempts INTEGER NOT NULL DEFAULT 0,
    fence INTEGER NOT NULL DEFAULT 0,
    worker TEXT,
    lease_until REAL,
    cancel INTEGER NOT NULL DEFAULT 0,
    stage TEXT NOT NULL DEFAULT '',
    percent INTEGER NOT NULL DEFAULT 0,
    result TEXT,
    files TEXT,
    error TEXT,
    created REAL NOT NULL,
    started REAL,
    ended REAL,
    bytes INTEGER NOT NULL DEFAULT 0,
    purged INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS jobs_waiting ON jobs(state, priority DESC, seq);
CREATE INDEX IF NOT EXISTS jobs_of_owner ON jobs(owner, seq);
CREATE TABLE IF NOT EXISTS requests(
    owner TEXT NOT NULL, key TEXT NOT NULL, body TEXT NOT NULL, jobs TEXT NOT NULL,
    PRIMARY KEY (owner, key)
);
CREATE TABLE IF NOT EXISTS events(
    job INTEGER NOT NULL, n INTEGER NOT NULL, time REAL NOT NULL, kind TEXT NOT NULL,
    data TEXT NOT NULL, PRIMARY KEY (job, n)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS workers(
    name TEXT PRIMARY KEY, seen REAL NOT NULL, state TEXT NOT NULL, data TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS deliveries(
    job TEXT PRIMARY KEY, tries INTEGER NOT NULL DEFAULT 0, due REAL NOT NULL DEFAULT 0,
    state TEXT NOT NULL DEFAULT 'waiting', note TEXT NOT NULL DEFAULT ''
);
CREATE TABLE IF NOT EXISTS totals(
    kind TEXT NOT NULL, name TEXT NOT NULL, count INTEGER NOT NULL, sum REAL NOT NULL,
    PRIMARY KEY (kind, name)
) WITHOUT ROWID;
"""


def clock() -> float:
    """Returns seconds of the machine's monotonic clock, the same in all of its processes."""
    return time.monotonic()


class Store:
    """The database and the files of a service's folder. Any thread or process may have one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "service.db"
        self.jobs_folder = folder / "jobs"
        self.spool = folder / "spool"
        self.ballast = folder / "ballast"
        """Space that is given free where the disk is full, so that results can end and files go."""
        self._own = threading.local()

    @property
    def connection(self) -> sqlite3.Connection:
        """Returns this thread's connection."""
        found = getattr(self._own, "connection", None)
        if found is None:
            found = _connect(self.path, WAIT_S)
            self._own.connection = found
        return found

    def close(self) -> None:
        """Closes this thread's connection."""
        found = getattr(self._own, "connection", None)
        if found is not None:
            found.close()
            self._own.connection = None

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Holds the one write lock for the block: all of it is kept, or nothing is.

        Raises:
            DiskError: The disk is full.
        """
        connection = self.connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if isinstance(error, sqlite3.OperationalError) and "full" in str(error):
                self.ballast.unlink(missing_ok=True)  # who tries again finds room
                raise no_space(self.path) from error
            raise

    def job_folder(self, job: str) -> Path:
        """Returns where the files of a job are."""
        return self.jobs_folder / job

    def free_bytes(self) -> int:
        """Returns the free space of the disk."""
        return shutil.disk_usage(self.folder).free

    def take_ballast(self) -> None:
        """Takes the space of the ballast where there is plenty."""
        if not self.ballast.exists() and self.free_bytes() > 4 * BALLAST_BYTES:
            with temporary_path(self.ballast) as temporary, temporary.open("wb") as file:
                # Written, not only promised: a file with holes takes no space.
                for _ in range(BALLAST_BYTES >> 20):
                    file.write(b"\1" * (1 << 20))

    def get_meta(self, name: str) -> str | None:
        """Returns a value that web and parent share."""
        row = self.connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if row is None else row["value"]

    def set_meta(self, name: str, value: str) -> None:
        """Sets a value that web and parent share."""
        with self.writing() as db:
            db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))


def no_space(path: Path) -> DiskError:
    """Returns the error of a full disk."""
    return DiskError(f"cannot write `{path}`: no space left on device", hint="free some space")


_OWN = ("service*.db*", "service.lock", "tokens.json*", "log.txt*", "plan.json", "webhook.key",
        "ballast", "jobs", "jobs-before*", "spool", "spool-before*", "lost", "lost+found",
        ".*")  # fmt: skip
"""Names in the folder of a service, which may be the root of a disk, and what hints of ours make
of them."""


def require_own(folder: Path) -> None:
    """Sees to it that what is changed and removed in a folder is a service's.

    Raises:
        UsageError: The folder holds something else, and no database of a service.
        DiskError: There are jobs without the database that knows them.
    """
    try:
        names = sorted(os.listdir(folder))
    except OSError:  # not there yet, or told by who makes it
        return
    with suppress(OSError):
        if (folder / "service.db").stat().st_size:
            return
    foreign = [name for name in names if not any(fnmatch.fnmatch(name, own) for own in _OWN)]
    if foreign:
        raise UsageError(
            f"`{folder}` holds `{foreign[0]}`, and is not the folder of a service",
            hint="--data with a folder of its own; ushape serve makes it",
        )
    for name in ("jobs", "spool"):
        if (folder / name).is_dir() and any((folder / name).iterdir()):
            raise DiskError(
                f"`{folder / name}` is not empty, but the database `service.db` is missing",
                hint=f"restore it from a copy, or: mv {folder / name} {folder / name}-before, and "
                "start with an empty queue",
            )


def prepare(folder: Path) -> Store:
    """Makes the folder and its database where they are missing and proves that they are sound.

    Raises:
        DiskError: The folder cannot be written, the database is damaged, locked, of another
            format, or on storage where its log does not work.
    """
    require_own(folder)
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)  # meshes of customers
    store = Store(folder)
    with disk_errors(folder):
        store.jobs_folder.mkdir(exist_ok=True)
        shutil.rmtree(store.spool, ignore_errors=True)
        store.spool.mkdir()
    try:
        _check(store)
    except sqlite3.OperationalError as error:
        raise _unusable(store.path, error) from error
    except sqlite3.DatabaseError as error:
        raise _damaged(store.path, str(error)) from error
    return store


def _check(store: Store) -> None:
    connection = _connect(store.path, _OPEN_WAIT_S)
    try:
        mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
        if mode != "wal":
            raise DiskError(
                f"`{store.path}` cannot keep a write-ahead log (mode `{mode}`): a network share?",
                hint="--data on a disk of this machine",
            )
        found = [row[0] for row in connection.execute("PRAGMA quick_check(3)")]
        if found != ["ok"]:
            raise _damaged(store.path, found[0])
        # Not `executescript`, which commits first: half a set of tables must not stay.
        connection.execute("BEGIN IMMEDIATE")
        for statement in filter(str.strip, _TABLES.split(";")):
            connection.execute(statement)
        connection.execute("INSERT OR IGNORE INTO meta VALUES ('format', ?)", (str(FORMAT),))
        connection.execute("INSERT OR IGNORE INTO meta VALUES ('changes', '0')")
        known = connection.execute("SELECT value FROM meta WHERE name = 'format'").fetchone()[0]
        connection.execute("COMMIT")
        if known != str(FORMAT):
            raise DiskError(
                f"`{store.path}` has format {known}, this version reads {FORMAT}",
                hint="use the version that made it, or another --data",
            )
    finally:
        connection.close()


def _connect(path: Path, wait_s: float) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=wait_s, isolation_level=None)
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    # Each thread of the web has a connection; the system caches the file for all of them.
    connection.execute("PRAGMA cache_size = -256")
    return connection


def _damaged(path: Path, reason: str) -> DiskError:
    kept = path.with_name(f"{path.stem}-damaged{path.suffix}")
    return DiskError(
        f"`{path}` is damaged ({reason})",
        hint=f"restore it from a copy, or: mv {path} {kept}; mv {path.parent}/jobs "
        f"{path.parent}/jobs-before; then the next start begins with an empty queue, and what was "
        "sent and made is in jobs-before",
    )


def _unusable(path: Path, error: sqlite3.OperationalError) -> DiskError:
    if "locked" in str(error) or "busy" in str(error):
        return DiskError(
            f"another program holds `{path}` ({error})",
            hint=f"fuser {path} names it; end it, or use another --data",
        )
    if "full" in str(error):
        return no_space(path)
    return DiskError(f"cannot use `{path}`: {error}", hint="check who may read and write it")


def hold(folder: Path) -> int:
    """Makes this process the only service of a folder, until it ends; returns the open lock.

    Raises:
        UsageError: Another service has it.
        DiskError: The folder cannot be written.
    """
    require_own(folder)
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = os.open(folder / "service.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if not try_lock(file):
        owner = os.pread(file, 32, 0).decode(errors="replace").strip()
        os.close(file)
        raise UsageError(
            f"`{folder}` belongs to a service that runs (process {owner or 'unknown'})",
            hint="end it, or use another --data",
        )
    os.ftruncate(file, 0)
    os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
    return file


def sync_tree(folder: Path) -> int:
    """Brings a folder and all in it to the disk; returns the bytes of its files."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(root, name)
            total += os.path.getsize(path)
            sync(path)
        sync(root)
    sync(folder.parent)
    return total
