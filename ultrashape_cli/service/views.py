"""What is read of the store: jobs, the queue, events and totals, as plain values."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ultrashape_cli.service.store import Store, clock

RECENT = 20
"""Jobs whose times say how long one takes."""
PACE_S = 5.0
PAGE = 50
"""Jobs of a page, unless more are asked for."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a job."""

    n: int
    kind: str
    data: dict[str, Any]


def find(store: Store, job: str, owner: str | None) -> sqlite3.Row | None:
    """Returns the row of a job, None where there is none of this owner; None sees all."""
    row = store.connection.execute("SELECT * FROM jobs WHERE id = ?", (job,)).fetchone()
    return None if row is None or (owner is not None and row["owner"] != owner) else row


def describe(store: Store, row: sqlite3.Row) -> dict[str, Any]:
    """Returns a job as its owner sees it."""
    files = [] if row["purged"] else list(json.loads(row["files"] or "{}"))
    return {
        "job_id": row["id"],
        "owner": row["owner"],
        "state": row["state"],
        "cancelling": bool(row["cancel"]) and row["state"] == "running",
        "place": place(store, row),
        "stage": row["stage"],
        "percent": row["percent"],
        "seconds_left": seconds_left(store, row),
        "priority": row["priority"],
        "model": row["model"],
        "attempts": row["attempts"],
        "created": moment(row["created"]),
        "started": moment(row["started"]),
        "ended": moment(row["ended"]),
        "options": json.loads(row["options"]),
        "inputs": {
            name: {key: each[key] for key in ("name", "type", "bytes", "sha256")}
            for name, each in inputs_of(row).items()
        },
        "result": json.loads(row["result"] or "{}") or None,
        "files": files,
        "warnings": warnings(store, row),
        "error": json.loads(row["error"]) if row["error"] else None,
        "links": {
            "self": f"/v1/jobs/{row['id']}",
            "events": f"/v1/jobs/{row['id']}/events",
            **{file: f"/v1/jobs/{row['id']}/download?file={file}" for file in files},
        },
    }


def warnings(store: Store, row: sqlite3.Row) -> list[str]:
    """Returns what the work on a job had to say."""
    query = "SELECT data FROM events WHERE job = ? AND kind = 'warning' ORDER BY n"
    found = (
        json.loads(data)["message"] for (data,) in store.connection.execute(query, (row["seq"],))
    )
    # A job that was begun again says it again.
    return list(dict.fromkeys(found))


def inputs_of(row: sqlite3.Row) -> dict[str, dict[str, Any]]:
    """Returns `mesh` and `image` of a job: name, type, size, hash, and the file in its folder."""
    return json.loads(row["inputs"])


def place(store: Store, row: sqlite3.Row) -> int | None:
    """Returns the place of a job in the queue, 1 for the next; None where it does not wait."""
    if row["state"] != "queued":
        return None
    before = store.connection.execute(
        "SELECT count(*) FROM jobs WHERE state = 'queued' AND "
        "(priority > ? OR (priority = ? AND seq < ?))",
        (row["priority"], row["priority"], row["seq"]),
    ).fetchone()[0]
    return before + 1


def seconds_left(store: Store, row: sqlite3.Row) -> float | None:
    """Returns how long a job will still take, from how long others took; None while unknown."""
    if row["state"] not in ("queued", "running"):
        return None
    usual = pace(store, row["model"])
    if usual is None:
        return None
    if row["state"] == "running":
        return round(usual * (100 - row["percent"]) / 100, 1)
    busy = store.connection.execute(
        "SELECT count(*) FROM workers WHERE state IN ('idle', 'busy')"
    ).fetchone()[0]
    return round(usual * ((place(store, row) or 1) / max(busy, 1) + 0.5), 1)


_paces: dict[tuple[Path, str], tuple[float, float | None]] = {}


def pace(store: Store, model: str) -> float | None:
    """Returns what a job of a model takes at present; looked up every few seconds only."""
    known = _paces.get((store.path, model))
    if known is None or clock() - known[0] > PACE_S:
        known = _paces[store.path, model] = (clock(), _usual_seconds(store, model))
    return known[1]


def _usual_seconds(store: Store, model: str) -> float | None:
    """Returns what the last jobs of a model took on average."""
    rows = store.connection.execute(
        "SELECT result FROM jobs WHERE state = 'done' AND model = ? ORDER BY ended DESC LIMIT ?",
        (model, RECENT),
    ).fetchall()
    times = [sum(json.loads(row["result"]).get("seconds", {}).values()) for row in rows]
    return sum(times) / len(times) if times else None


def page(
    store: Store, owner: str | None, *, limit: int, before: int | None, state: str | None
) -> tuple[list[sqlite3.Row], int | None]:
    """Returns jobs, newest first, and where the next page begins; None where there is none.

    Args:
        store: Whose jobs.
        owner: Whose they are; None for all.
        limit: Most jobs.
        before: Where the page begins, from the one before.
        state: Only those.
    """
    conditions, values = ["1"], list[Any]()
    for condition, value in (
        ("owner = ?", owner),
        ("seq < ?", before),
        ("state = ?", state),
    ):
        if value is not None:
            conditions.append(condition)
            values.append(value)
    rows = store.connection.execute(
        f"SELECT * FROM jobs WHERE {' AND '.join(conditions)} ORDER BY seq DESC LIMIT ?",
        (*values, limit + 1),
    ).fetchall()
    return rows[:limit], rows[limit - 1]["seq"] if len(rows) > limit else None


def counts(store: Store) -> dict[str, int]:
    """Returns how many jobs are in each state."""
    found = dict.fromkeys(("queued", "running", "done", "failed", "cancelled"), 0)
    for row in store.connection.execute("SELECT state, count(*) AS n FROM jobs GROUP BY state"):
        found[row["state"]] = row["n"]
    return found


def events_after(store: Store, seq: int, n: int) -> list[Event]:
    """Returns what happened to a job after its event `n`."""
    rows = store.connection.execute(
        "SELECT n, kind, data FROM events WHERE job = ? AND n > ? ORDER BY n", (seq, n)
    ).fetchall()
    return [Event(row["n"], row["kind"], json.loads(row["data"])) for row in rows]


def totals(store: Store, kind: str) -> dict[str, tuple[int, float]]:
    """Returns count and sum by name of what has been counted since the beginning."""
    rows = store.connection.execute("SELECT * FROM totals WHERE kind = ?", (kind,)).fetchall()
    return {row["name"]: (row["count"], row["sum"]) for row in rows}


def set_worker(store: Store, name: str, state: str, data: dict[str, Any]) -> None:
    """Notes what a worker is doing: `loading`, `idle`, `busy`, `failing` or `gone`."""
    with store.writing() as db:
        db.execute(
            "INSERT OR REPLACE INTO workers VALUES (?, ?, ?, ?)",
            (name, clock(), state, json.dumps(data)),
        )


def drop_worker(store: Store, name: str) -> None:
    """Forgets a worker that has left."""
    with store.writing() as db:
        db.execute("DELETE FROM workers WHERE name = ?", (name,))


def forget_workers(store: Store, silence_s: float) -> None:
    """Forgets workers that have given no sign of life for so long: their machine is gone."""
    query, limit = "FROM workers WHERE seen < ?", (clock() - silence_s,)
    if store.connection.execute(f"SELECT 1 {query}", limit).fetchone():
        with store.writing() as db:
            db.execute(f"DELETE {query}", limit)


def workers(store: Store) -> list[dict[str, Any]]:
    """Returns all workers: name, state, seconds since a sign of life, and what they told."""
    rows = store.connection.execute("SELECT * FROM workers ORDER BY name").fetchall()
    return [
        {
            **json.loads(row["data"]),
            "name": row["name"],
            "state": row["state"],
            "seen_s": round(max(0.0, clock() - row["seen"]), 1),
        }
        for row in rows
    ]


def moment(seconds: float | None) -> str | None:
    """Returns a time as people and programs read it."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
