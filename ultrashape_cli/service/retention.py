"""What is removed: results after some days, the oldest first where there is no space."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3

from ultrashape_cli.config.serve import ServeConfig
from ultrashape_cli.errors import DiskError
from ultrashape_cli.files import disk_errors
from ultrashape_cli.service.store import Store

logger = logging.getLogger(__name__)

_DAY_S = 86_400
_KEPT_ROWS_DAYS = 365
"""Days that a job without files can still be looked up."""


def purge(store: Store, row: sqlite3.Row) -> None:
    """Removes the files and events of a job that has ended; what became of it stays known."""
    try:
        _note(store, row)
    except DiskError:  # a full disk: what is removed makes the room to say so
        shutil.rmtree(store.job_folder(row["id"]), ignore_errors=True)
        _note(store, row)
    # After the store says so: files that stay behind are found at the next start.
    shutil.rmtree(store.job_folder(row["id"]), ignore_errors=True)


def _note(store: Store, row: sqlite3.Row) -> None:
    with store.writing() as db:
        db.execute("UPDATE jobs SET purged = 1, bytes = 0 WHERE seq = ?", (row["seq"],))
        db.execute("DELETE FROM events WHERE job = ? AND kind = 'progress'", (row["seq"],))
        db.execute("UPDATE meta SET value = value + 1 WHERE name = 'changes'")


def tidy(store: Store, config: ServeConfig, now: float) -> int:
    """Removes what is too old or too much, the oldest first; returns the number of jobs.

    Args:
        store: Whose jobs.
        config: How long and how much.
        now: The time by a clock that was not set since the service started.
    """
    ended = "SELECT * FROM jobs WHERE purged = 0 AND state IN ('done', 'failed', 'cancelled') "
    db = store.connection
    rows = []
    if config.keep_days:
        before = now - config.keep_days * _DAY_S
        rows = db.execute(ended + "AND ended < ? ORDER BY seq", (before,)).fetchall()
        for folder in (store.folder / "lost").glob("*"):
            if folder.stat().st_mtime < before:
                shutil.rmtree(folder, ignore_errors=True)
    if config.max_disk_gb:
        rows += _over(store, ended, config.max_disk_gb * 1e9, {row["seq"] for row in rows})
    for row in rows:
        purge(store, row)
    with store.writing() as writing:
        old = "purged = 1 AND ended < ?"
        limit = (now - max(_KEPT_ROWS_DAYS, config.keep_days) * _DAY_S,)
        writing.execute(
            f"DELETE FROM events WHERE job IN (SELECT seq FROM jobs WHERE {old})", limit
        )
        if writing.execute(f"DELETE FROM jobs WHERE {old}", limit).rowcount:
            known = "(SELECT id FROM jobs)"
            writing.execute(f"DELETE FROM deliveries WHERE job NOT IN {known}")
            # The jobs of a request go together.
            writing.execute(f"DELETE FROM requests WHERE json_extract(jobs, '$[0]') NOT IN {known}")
    if rows:
        logger.info("removed the files of %d jobs", len(rows))
    return len(rows)


def _over(store: Store, query: str, most: float, gone: set[int]) -> list[sqlite3.Row]:
    """Returns the oldest jobs that ended whose files are beyond so many bytes."""
    db = store.connection
    left = db.execute("SELECT coalesce(sum(bytes), 0) FROM jobs WHERE purged = 0").fetchone()[0]
    found = []
    for row in db.execute(query + "ORDER BY seq"):
        if row["seq"] in gone:
            left -= row["bytes"]
        elif left > most:
            left -= row["bytes"]
            found.append(row)
    return found


def set_strays_aside(store: Store) -> int:
    """Moves folders that no job of the store has to `lost/`, and removes attempts that failed.

    Only for a service that is starting: a submission puts its files down before its job. Nothing
    tells an upload that was broken off from a job whose row a damaged database has lost.
    """
    db = store.connection
    known = {
        row["id"]: row["files"] or f'"attempt-{row["fence"]}/'
        for row in db.execute("SELECT id, files, fence FROM jobs WHERE purged = 0")
    }
    strays = 0
    for folder in store.jobs_folder.iterdir():
        if folder.name not in known:
            aside = store.folder / "lost" / folder.name
            with disk_errors(aside):
                aside.parent.mkdir(exist_ok=True)
                folder.replace(aside)
                os.utime(aside)
            strays += 1
            continue
        for attempt in folder.glob("attempt-*"):
            if f'"{attempt.name}/' not in known[folder.name]:
                shutil.rmtree(attempt, ignore_errors=True)
    return strays
