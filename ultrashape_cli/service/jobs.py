"""What happens to a job, each step one transaction of the store.

queued -> running -> done, failed or cancelled. A worker has a job for as long as its lease lasts
and it alone knows the fence, a number that grows with each lease: whatever one with an old number
says counts no more, so nothing is delivered twice. A lease that ends by itself has taken a worker
down; after so many of them the job fails and cannot take down more.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ultrashape_cli.errors import UShapeError
from ultrashape_cli.service.store import Store, clock

State = Literal["queued", "running", "done", "failed", "cancelled"]
ENDED = ("done", "failed", "cancelled")
LOCAL = "local:"
"""What the names of workers that end with the service begin with."""
_MOST_STARTS = 10
"""Leases of a job after which a service that ends with it counts against it, too."""


@dataclass(frozen=True, slots=True)
class NewJob:
    """What a client asks for."""

    id: str
    model: str
    options: dict[str, Any]
    inputs: dict[str, Any]
    priority: int = 0
    webhook: str | None = None
    size: int = 0
    """Bytes of its files."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A job and the right to work on it."""

    job: str
    fence: int
    model: str
    options: dict[str, Any]
    inputs: dict[str, Any]
    attempt: int
    owner: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended."""

    state: Literal["done", "failed", "cancelled", "crashed", "released"]
    """`crashed` is tried again, and counts; `released` is tried again, and does not."""
    result: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    """What there is to download -> path below the job's folder."""
    error: dict[str, Any] | None = None
    size: int = 0
    """Bytes of the files."""


class KeyConflict(UShapeError):
    """An idempotency key that stood for another request before."""


class QueueFull(UShapeError):
    """No more jobs are taken for now."""


def submit(
    store: Store,
    owner: str,
    jobs: Sequence[NewJob],
    *,
    key: str | None = None,
    body: str = "",
    most: int = 1_000_000,
    most_of_owner: int = 1_000_000,
) -> tuple[list[str], bool]:
    """Queues the jobs of a request, all or none; returns their ids, and whether they were there.

    Args:
        store: Whose queue.
        owner: Name of the token.
        jobs: What to do; their files lie on the disk by now.
        key: Of the client's own choice; the same one again gives the same jobs.
        body: Hash of the request, which tells a repetition from another request.
        most: Jobs waiting or running, of all.
        most_of_owner: The same of this owner.

    Raises:
        KeyConflict: The key stood for another request.
        QueueFull: There are too many jobs.
    """
    with store.writing() as db:
        if key is not None and (known := find_request(db, owner, key, body)) is not None:
            return known, True
        check_room(db, owner, len(jobs), most, most_of_owner)
        now = time.time()
        for job in jobs:
            cursor = db.execute(
                "INSERT INTO jobs(id, state, priority, owner, model, options, inputs, webhook, "
                "created, bytes) VALUES (?, 'queued', ?, ?, ?, ?, ?, ?, ?, ?)",
                (job.id, job.priority, owner, job.model, json.dumps(job.options),
                 json.dumps(job.inputs), job.webhook, now, job.size),
            )  # fmt: skip
            assert cursor.lastrowid is not None
            _tell(db, cursor.lastrowid, "queued", {})
        ids = [job.id for job in jobs]
        if key is not None:
            db.execute(
                "INSERT INTO requests VALUES (?, ?, ?, ?)", (owner, key, body, json.dumps(ids))
            )
    return ids, False


def find_request(db: sqlite3.Connection, owner: str, key: str, body: str) -> list[str] | None:
    """Returns the jobs that a key stands for, None where it is new.

    Raises:
        KeyConflict: It stands for a request with another body.
    """
    row = db.execute(
        "SELECT body, jobs FROM requests WHERE owner = ? AND key = ?", (owner, key)
    ).fetchone()
    if row is None:
        return None
    if row["body"] != body:
        raise KeyConflict(
            f"the idempotency key `{key[:80]}` stands for another request",
            hint="a new key for a new request",
        )
    return json.loads(row["jobs"])


def check_room(
    db: sqlite3.Connection, owner: str, more: int, most: int, most_of_owner: int
) -> None:
    """Raises QueueFull where so many more jobs have no room."""
    open_states = "state IN ('queued', 'running')"
    total = db.execute(f"SELECT count(*) FROM jobs WHERE {open_states}").fetchone()[0]
    if total + more > most:
        raise QueueFull(f"the queue is full: {total:,} jobs", hint="try again later")
    own = db.execute(
        f"SELECT count(*) FROM jobs WHERE {open_states} AND owner = ?", (owner,)
    ).fetchone()[0]
    if own + more > most_of_owner:
        raise QueueFull(
            f"`{owner}` has {own:,} jobs waiting or running, and may have {most_of_owner:,}",
            hint="try again when some are done",
        )


def claim(store: Store, worker: str, models: Sequence[str], lease_s: float) -> Lease | None:
    """Returns the job that is next and leases it to a worker; None where none waits."""
    marks = ", ".join("?" * len(models))
    query = (
        "SELECT * FROM jobs WHERE state = 'queued' AND model IN "
        f"({marks}) ORDER BY priority DESC, seq LIMIT 1"
    )
    # Looked at first without the write lock: mostly there is nothing.
    if store.connection.execute(query, models).fetchone() is None:
        return None
    with store.writing() as db:
        row = db.execute(query, models).fetchone()
        if row is None:
            return None
        fence, attempt = row["fence"] + 1, row["attempts"] + 1
        db.execute(
            "UPDATE jobs SET state = 'running', fence = ?, attempts = ?, worker = ?, stage = '', "
            "lease_until = ?, percent = 0, started = coalesce(started, ?) WHERE seq = ?",
            (fence, attempt, worker, clock() + lease_s, time.time(), row["seq"]),
        )
        _tell(db, row["seq"], "running", {"attempt": attempt})
    options, inputs = json.loads(row["options"]), json.loads(row["inputs"])
    return Lease(row["id"], fence, row["model"], options, inputs, attempt, row["owner"])


def beat(
    store: Store,
    job: str,
    fence: int,
    lease_s: float,
    stage: str = "",
    percent: int = 0,
    notes: Sequence[str] = (),
) -> Literal["go", "cancel", "lost"]:
    """Keeps a lease alive and notes how far the work is; says whether to go on with it."""
    with store.writing() as db:
        row = _held(db, job, fence)
        if row is None:
            return "lost"
        db.execute(
            "UPDATE jobs SET lease_until = ?, stage = ?, percent = ? WHERE seq = ?",
            (clock() + lease_s, stage or row["stage"], percent, row["seq"]),
        )
        for note in notes:
            _tell(db, row["seq"], "warning", {"message": note})
        if (stage, percent) != (row["stage"], row["percent"]):
            _tell(db, row["seq"], "progress", {"stage": stage, "percent": percent})
        return "cancel" if row["cancel"] else "go"


def finish(store: Store, job: str, fence: int, outcome: Outcome, attempts: int) -> bool:
    """Ends an attempt; False where it counts no more, since the job went to another worker.

    Args:
        store: Whose job.
        job: Which.
        fence: Of the lease.
        outcome: How it ended.
        attempts: Workers a job may take down.
    """
    with store.writing() as db:
        row = _held(db, job, fence)
        if row is None:
            return False
        if outcome.state == "crashed":
            _crashed(db, row, attempts, outcome.error)
        elif outcome.state == "released":
            db.execute("UPDATE jobs SET attempts = attempts - 1 WHERE seq = ?", (row["seq"],))
            _requeue(db, row, "released")
        else:
            _end(db, row, outcome)
    return True


def cancel(store: Store, job: str) -> State | None:
    """Cancels a job that has not ended; returns the state that it had, None where it is unknown.

    One that runs ends between two steps of its worker, which its next sign of life is told.
    """
    with store.writing() as db:
        row = db.execute("SELECT * FROM jobs WHERE id = ?", (job,)).fetchone()
        if row is None:
            return None
        if row["state"] == "queued":
            _end(db, row, Outcome("cancelled"))
        elif row["state"] == "running" and not row["cancel"]:
            db.execute("UPDATE jobs SET cancel = 1 WHERE seq = ?", (row["seq"],))
            _tell(db, row["seq"], "cancelling", {})
        return row["state"]


def expire(store: Store, attempts: int) -> list[str]:
    """Takes back the jobs whose lease has ended; returns their ids."""
    query = "SELECT * FROM jobs WHERE state = 'running' AND lease_until < ?"
    if store.connection.execute(query, (clock(),)).fetchone() is None:
        return []
    with store.writing() as db:
        rows = db.execute(query, (clock(),)).fetchall()
        for row in rows:
            _crashed(db, row, attempts, None)
    return [row["id"] for row in rows]


def recover(store: Store, attempts: int, lease_s: float) -> int:
    """Sets right what a service that ended without notice left; returns the jobs taken back.

    Its own workers ended with it. Those of other machines may go on: their leases begin anew.
    """
    with store.writing() as db:
        running = db.execute("SELECT * FROM jobs WHERE state = 'running'").fetchall()
        own = [row for row in running if str(row["worker"]).startswith(LOCAL)]
        for row in own:
            if row["fence"] < _MOST_STARTS:
                # Whatever ended the service is no fault of what it worked on.
                db.execute("UPDATE jobs SET attempts = attempts - 1 WHERE seq = ?", (row["seq"],))
                _requeue(db, row, "service ended")
            else:
                _crashed(db, row, attempts, None)
        db.execute("UPDATE jobs SET lease_until = ? WHERE state = 'running'", (clock() + lease_s,))
        db.execute("DELETE FROM workers")
        db.execute("UPDATE deliveries SET due = 0 WHERE state = 'waiting'")
    return len(own)


def _held(db: sqlite3.Connection, job: str, fence: int) -> sqlite3.Row | None:
    return db.execute(
        "SELECT * FROM jobs WHERE id = ? AND fence = ? AND state = 'running'", (job, fence)
    ).fetchone()


def _crashed(
    db: sqlite3.Connection, row: sqlite3.Row, attempts: int, error: dict[str, Any] | None
) -> None:
    if row["cancel"]:
        _end(db, row, Outcome("cancelled"))
    elif row["attempts"] >= attempts:
        last = f"; the last time: {error['message']}" if error else ""
        found = {
            "code": "crashed",
            "message": f"crashed {row['attempts']} times{last}",
            "hint": "the mesh may be too large for the machine, or damaged: try it reduced",
        }
        _end(db, row, Outcome("failed", error=found))
    else:
        _requeue(db, row, "crashed", error)


def _requeue(
    db: sqlite3.Connection, row: sqlite3.Row, why: str, error: dict[str, Any] | None = None
) -> None:
    if row["cancel"]:
        _end(db, row, Outcome("cancelled"))
        return
    db.execute(
        "UPDATE jobs SET state = 'queued', worker = NULL, lease_until = NULL, stage = '', "
        "percent = 0 WHERE seq = ?",
        (row["seq"],),
    )
    _tell(db, row["seq"], "queued", {"again": why, **({"error": error} if error else {})})


def _end(db: sqlite3.Connection, row: sqlite3.Row, outcome: Outcome) -> None:
    error = json.dumps(outcome.error) if outcome.error else None
    db.execute(
        "UPDATE jobs SET state = ?, result = ?, files = ?, error = ?, ended = ?, worker = NULL, "
        "lease_until = NULL, bytes = bytes + ?, percent = CASE ? WHEN 'done' THEN 100 "
        "ELSE percent END WHERE seq = ?",
        (outcome.state, json.dumps(outcome.result), json.dumps(outcome.files), error,
         time.time(), outcome.size, outcome.state, row["seq"]),
    )  # fmt: skip
    _tell(db, row["seq"], outcome.state, {"error": outcome.error} if outcome.error else {})
    if row["webhook"]:
        db.execute("INSERT OR REPLACE INTO deliveries(job) VALUES (?)", (row["id"],))
    _count(db, "jobs", outcome.state, 1.0)
    if outcome.error:
        _count(db, "errors", outcome.error["code"], 1.0)
    for stage, seconds in outcome.result.get("seconds", {}).items():
        _count(db, "seconds", stage, seconds)


def _count(db: sqlite3.Connection, kind: str, name: str, value: float) -> None:
    db.execute(
        "INSERT INTO totals VALUES (?, ?, 1, ?) ON CONFLICT (kind, name) DO UPDATE SET "
        "count = count + 1, sum = sum + excluded.sum",
        (kind, name, value),
    )


def _tell(db: sqlite3.Connection, seq: int, kind: str, data: dict[str, Any]) -> None:
    n = db.execute("SELECT coalesce(max(n), 0) + 1 FROM events WHERE job = ?", (seq,)).fetchone()[0]
    db.execute(
        "INSERT INTO events VALUES (?, ?, ?, ?, ?)", (seq, n, time.time(), kind, json.dumps(data))
    )
    db.execute("UPDATE meta SET value = value + 1 WHERE name = 'changes'")
