"""Coarse meshes of many jobs, made before any network is loaded: generators need the same card."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from ultrashape_cli.claims import open_claims
from ultrashape_cli.errors import AssetError
from ultrashape_cli.files import read_json, write_json
from ultrashape_cli.inference.batch import failure_of, failure_record
from ultrashape_cli.inference.coarse_files import Say, is_own, make_coarse
from ultrashape_cli.inference.coarse_mesh import Stopped
from ultrashape_cli.inference.files import Job

_STAGE = "coarse"
"""Of the records of failures here."""


def make_all(
    jobs: list[Job],
    out: Path,
    *,
    say: Say = lambda text: None,
    on_end: Callable[[Job, str], None] = lambda job, message: None,
    stop: Callable[[], bool] = lambda: False,
    fail_fast: bool = False,
) -> dict[str, str]:
    """Makes the coarse meshes of jobs that no other process has in hand.

    Args:
        jobs: With a `coarse` recipe.
        out: Folder of the results, and of the records of failures.
        say: Is told what is going on.
        on_end: Called after each, with the reason where it failed.
        stop: Ends a command that runs, and the work.
        fail_fast: Stop at the first failure.

    Returns:
        Names of those that failed, and why.
    """
    failed: dict[str, str] = {}
    with open_claims(out) as claims:
        for job in jobs:
            if stop() or (fail_fast and failed):
                break
            if not claims.take(job.name):
                continue
            message = ""
            try:
                assert job.coarse is not None
                make_coarse(job.coarse, job.target, say, stop)
                if _has_failed(job, out):
                    failure_record(out, job).unlink()
            except Stopped:
                break
            except Exception as error:
                # One bad image or one bad answer, whatever it trips over, must not end the batch.
                message = failed[job.name] = _record(error, failure_record(out, job))
            finally:
                claims.release(job.name)
            on_end(job, message)
    return failed


def is_ready(job: Job, out: Path) -> bool:
    """Says whether the coarse mesh of a job is there, and not one of an earlier image."""
    return is_own(job.mesh) and not _has_failed(job, out)


def _has_failed(job: Job, out: Path) -> bool:
    return (read_json(failure_record(out, job)) or {}).get("stage") == _STAGE


def _record(error: Exception, path: Path) -> str:
    """Writes why a job failed, as `run_batch` does; returns the message."""
    if isinstance(error, FileNotFoundError):
        error = AssetError(f"{error.filename}: {error.strerror}")
    failure = failure_of(error)
    write_json(path, {**failure, "run": f"{os.getpid()}-{time.time_ns()}", "stage": _STAGE})
    return str(failure["message"])
