"""Where a worker's agent gets jobs from and tells how they went: this machine's store."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from ultrashape_cli.config.serve import ServeConfig
from ultrashape_cli.service import jobs, views
from ultrashape_cli.service.jobs import Lease, Outcome
from ultrashape_cli.service.store import Store, sync_tree

Answer = Literal["go", "cancel", "lost"]


class Lessor(Protocol):
    """Gives jobs out. Every call may raise OSError where there is no way to it for now."""

    poll_s: float
    """Pause between two questions for a job."""

    def lease(self) -> Lease | None:
        """Returns a job to work on, None where none waits."""

    def fetch(self, lease: Lease) -> Path:
        """Returns the folder with the inputs of a job, which gets what is made, too."""

    def beat(self, lease: Lease, stage: str, percent: int, notes: Sequence[str]) -> Answer:
        """Keeps the lease; says whether to go on."""

    def finish(self, lease: Lease, outcome: Outcome) -> bool:
        """Ends the lease; False where it counts no more."""

    def drop(self, lease: Lease) -> None:
        """Removes what was made under a lease that counts no more."""

    def has_room(self) -> bool:
        """Says whether the disk has room for what a job makes."""

    def tell(self, state: str, data: dict[str, Any]) -> None:
        """Says what the worker is doing."""


@dataclass(slots=True)
class StoreLessor:
    """The store itself, for workers of its own machine."""

    store: Store
    worker: str
    """Name of the worker; it begins with `jobs.LOCAL`."""
    models: Sequence[str]
    config: ServeConfig
    poll_s: float = 0.1

    def lease(self) -> Lease | None:
        """Returns a job to work on, None where none waits."""
        return jobs.claim(self.store, self.worker, self.models, self.config.lease_s)

    def fetch(self, lease: Lease) -> Path:
        """Returns the folder of a job."""
        return self.store.job_folder(lease.job)

    def beat(self, lease: Lease, stage: str, percent: int, notes: Sequence[str]) -> Answer:
        """Keeps the lease; says whether to go on."""
        args = (lease.job, lease.fence, self.config.lease_s, stage, percent, notes)
        return jobs.beat(self.store, *args)

    def finish(self, lease: Lease, outcome: Outcome) -> bool:
        """Ends the lease; what was made is on the disk before the store says so."""
        made = attempt_folder(self.store.job_folder(lease.job), lease.fence)
        if outcome.state == "done":
            outcome = replace(outcome, size=sync_tree(made))
        else:
            shutil.rmtree(made, ignore_errors=True)
        counted = jobs.finish(self.store, lease.job, lease.fence, outcome, self.config.attempts)
        if not counted:
            shutil.rmtree(made, ignore_errors=True)
        return counted

    def drop(self, lease: Lease) -> None:
        """Removes what was made under a lease that counts no more."""
        folder = attempt_folder(self.store.job_folder(lease.job), lease.fence)
        shutil.rmtree(folder, ignore_errors=True)

    def has_room(self) -> bool:
        """Says whether the disk has room for what a job makes."""
        return self.store.free_bytes() > needed_bytes(self.config)

    def tell(self, state: str, data: dict[str, Any]) -> None:
        """Says what the worker is doing."""
        if state == "gone":
            views.drop_worker(self.store, self.worker)
        else:
            data = {"host": os.uname().nodename, **data}
            views.set_worker(self.store, self.worker, state, data)


def needed_bytes(config: ServeConfig) -> float:
    """Returns the free space below which no job begins; new ones are refused well before."""
    return 1e8 * min(1.0, config.min_free_gb)


def attempt_folder(job: Path, fence: int) -> Path:
    """Returns where an attempt writes; another one, late or early, never writes there."""
    return job / f"attempt-{fence}"
