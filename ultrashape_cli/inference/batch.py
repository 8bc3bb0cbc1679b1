"""Many refinements: one model, with loading, networks and export at the same time.

A thread reads and voxelises the next mesh while the networks work on this one and another thread
extracts, cleans, writes and renders the one before. Several processes may share the work: each
claims its jobs. A job that is made is skipped by its record, and one that fails is recorded.
"""

from __future__ import annotations

import logging
import os
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ultrashape_cli.claims import Claims, open_claims
from ultrashape_cli.config.schema import Config
from ultrashape_cli.errors import AssetError, UShapeError
from ultrashape_cli.files import read_json, write_json
from ultrashape_cli.inference.candidates import Field, best_of, evaluate_all
from ultrashape_cli.inference.files import Job, is_made
from ultrashape_cli.inference.job import (
    Inputs,
    prepare_inputs,
    read_inputs,
    recipe_of,
    write_outputs,
)
from ultrashape_cli.inference.prepared import Prepared
from ultrashape_cli.inference.refiner import Refiner
from ultrashape_cli.models.sources import WeightSource
from ultrashape_cli.processes import is_distributed_child

logger = logging.getLogger(__name__)

AHEAD = 2
"""Jobs read ahead, and jobs whose export may lag behind; each holds a mesh or a field."""
MAX_CRASHES = 3
"""Times a job may take its process down before it counts as failed."""


class Event(NamedTuple):
    """A job ended."""

    job: Job
    state: str
    """`made`, `skipped` or `failed`."""
    message: str = ""


@dataclass(slots=True)
class Outcome:
    """How a batch ended, by the names of its jobs."""

    made: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    """Name and reason."""


class _Loaded(NamedTuple):
    job: Job
    recipe: dict[str, Any]
    inputs: Inputs
    prepared: Prepared


def failure_record(out: Path, job: Job) -> Path:
    """Returns the file that says why a job failed, or that it is being worked on."""
    return out / "records" / f"{job.name.replace('/', '__')}.json"


def failure_of(error: Exception) -> dict[str, Any]:
    """Returns what the record of a failed job says: message, hint, and of a bug the traceback."""
    message, hint, trace = f"{type(error).__name__}: {error}", None, ""
    if isinstance(error, UShapeError):
        message, hint = error.message, error.hint
    else:
        trace = "".join(traceback.format_exception(error))
    return {"status": "failed", "message": message, "hint": hint, "traceback": trace}


def run_batch(
    jobs: list[Job],
    out: Path,
    source: WeightSource,
    config: Config,
    load: Callable[[], Refiner],
    *,
    on_event: Callable[[Event], None] = lambda event: None,
    stop: Callable[[], bool] = lambda: False,
    fail_fast: bool = False,
) -> Outcome:
    """Works on the jobs that are neither made nor in the hands of another process.

    Args:
        jobs: From `read_jobs`.
        out: Folder of the results.
        source: Weights, for the records.
        config: All settings.
        load: Makes the refiner; not called where nothing is left to do.
        on_event: Called in this thread when a job ends.
        stop: Asked before each job; true ends the batch after those begun.
        fail_fast: Stop at the first failure.
    """
    outcome = Outcome()

    def note(event: Event) -> None:
        if event.state == "failed":
            outcome.failed[event.job.name] = event.message
        else:
            getattr(outcome, event.state).append(event.job.name)
        on_event(event)

    with open_claims(out) as claims:
        run = _Run(out, source, config, claims, note)
        run.work(jobs, load, lambda: stop() or (fail_fast and bool(outcome.failed)))
    return outcome


class _Run:
    """The pipeline of one process."""

    def __init__(
        self,
        out: Path,
        source: WeightSource,
        config: Config,
        claims: Claims,
        note: Callable[[Event], None],
    ) -> None:
        self.out = out
        self.source = source
        self.config = config
        self.claims = claims
        self.note = note
        # One for all processes that a command has started, another for the next command.
        own = f"{os.getpid()}-{time.time_ns()}"
        self.run_id = f"group-{os.getppid()}" if is_distributed_child() else own

    def work(self, jobs: list[Job], load: Callable[[], Refiner], stop: Callable[[], bool]) -> None:
        refiner: Refiner | None = None
        exports: deque[tuple[Job, Future[None]]] = deque()
        todo = self._todo(jobs, stop)
        with ThreadPoolExecutor(1, "load") as loader, ThreadPoolExecutor(1, "export") as exporter:
            waiting: deque[tuple[Job, Future[_Loaded]]] = deque()
            while True:
                while len(waiting) < AHEAD and (item := next(todo, None)) is not None:
                    if refiner is None:
                        refiner = load()
                    waiting.append((item[0], loader.submit(self._load, *item, refiner)))
                if not waiting:
                    break
                assert refiner is not None
                job, future = waiting.popleft()
                if stop():
                    self._put_back(job)
                    continue
                try:
                    loaded = future.result()
                    for warning in loaded.inputs.warnings:
                        logger.warning("%s", warning)
                    fields = evaluate_all(refiner, loaded.prepared)
                except Exception as error:
                    # One bad asset, whatever it trips over, must not end the batch.
                    self._fail(job, error)
                    continue
                exports.append((job, exporter.submit(self._export, loaded, fields, refiner)))
                while exports and (len(exports) >= AHEAD or exports[0][1].done()):
                    self._conclude(*exports.popleft())
            for item_ in exports:
                self._conclude(*item_)

    def _todo(
        self, jobs: list[Job], stop: Callable[[], bool]
    ) -> Iterator[tuple[Job, dict[str, Any]]]:
        """Yields the jobs to do, claimed, with their recipes."""
        for job in jobs:
            if stop():
                return
            if not self.claims.take(job.name):
                continue
            try:
                recipe = recipe_of(job, self.source, self.config)
            except OSError as error:
                self._fail(job, AssetError(f"{error.filename}: {error.strerror}"))
                continue
            state = read_json(failure_record(self.out, job)) or {}
            if is_made(job, recipe):
                self.note(Event(job, "skipped"))
            elif state.get("status") == "failed" and state.get("run") == self.run_id:
                pass  # by another process of this command
            elif state.get("crashes", 0) >= MAX_CRASHES:
                self._fail(job, AssetError(f"took its process down {state['crashes']} times"))
                continue
            else:
                crashes = state.get("crashes", 0) + (state.get("status") == "running")
                self._record(job, {"status": "running", "crashes": crashes})
                yield job, recipe
                continue
            self.claims.release(job.name)

    def _load(self, job: Job, recipe: dict[str, Any], refiner: Refiner) -> _Loaded:
        inputs = read_inputs(job, self.config.refine)
        prepared = prepare_inputs(job, inputs, refiner.spec, refiner.config)
        return _Loaded(job, recipe, inputs, prepared)

    def _export(self, loaded: _Loaded, fields: list[Field], refiner: Refiner) -> None:
        best = best_of(refiner, fields, keep=loaded.job.candidates > 0)
        write_outputs(loaded.job, loaded.inputs, best, loaded.recipe, refiner.device)

    def _conclude(self, job: Job, future: Future[None]) -> None:
        try:
            future.result()
        except Exception as error:
            # As above.
            self._fail(job, error)
            return
        self._put_back(job)
        self.note(Event(job, "made"))

    def _put_back(self, job: Job) -> None:
        failure_record(self.out, job).unlink(missing_ok=True)
        self.claims.release(job.name)

    def _fail(self, job: Job, error: Exception) -> None:
        failure = failure_of(error)
        self._record(job, failure)
        self.claims.release(job.name)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.note(Event(job, "failed", failure["message"]))

    def _record(self, job: Job, values: dict[str, Any]) -> None:
        write_json(failure_record(self.out, job), {**values, "run": self.run_id})
