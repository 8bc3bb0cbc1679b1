"""The worker process: holds the loaded model and refines what it is sent.

Started as `python -m ultrashape_cli.service.worker PIPE_FD PLAN_FILE`. It says `loaded` once, or
why it cannot load; then it answers each job with its progress and how it ended. It looks into the
pipe between two steps of the solver, where a job can be cancelled.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from ultrashape_cli.errors import (
    CheckpointError,
    DependencyError,
    DiskError,
    ImageError,
    MeshError,
    UsageError,
    UShapeError,
)
from ultrashape_cli.service.child import end_with_starter
from ultrashape_cli.service.plan import Plan
from ultrashape_cli.service.telling import Cancelled, Teller, receive, send

BEHIND = 5
"""How much a worker whose computing takes the cores lets the web go first, as of `nice`."""
_CODES = (
    (MeshError, "bad-mesh"),
    (ImageError, "bad-image"),
    (UsageError, "bad-options"),
    (DependencyError, "missing-package"),
    (DiskError, "disk-full"),
    (CheckpointError, "bad-weights"),
)


def serve(pipe: Connection, plan: Plan) -> None:
    """Loads the first model, then answers until the pipe closes."""
    from ultrashape_cli.service.models import LoadedModels
    from ultrashape_cli.service.refining import refine_job

    models = LoadedModels(plan)
    try:
        about = models.load_first()
    except UShapeError as error:
        send(pipe, {"error": {"message": error.message, "hint": error.hint}})
        return
    if models.device.type == "cpu":
        os.nice(BEHIND)
    send(pipe, {"loaded": about})
    while True:
        try:
            task = receive(pipe)
        except EOFError:
            return
        if task["do"] != "refine":  # a cancellation that came too late
            continue
        healthy, end = True, dict[str, Any]()
        started = time.monotonic()
        try:
            end = refine_job(task, models, Teller(pipe, task["job"]))
            end["result"]["total_seconds"] = round(time.monotonic() - started, 3)
        except Cancelled:
            end = {"state": "cancelled"}
        except UShapeError as error:
            end = {"state": "failed", "error": describe(error, task)}
        except Exception as error:
            traceback.print_exc()
            message = f"{type(error).__name__}: {error}"[:300]
            bug = {"code": "bug", "message": message, "hint": "the service's log has the details"}
            end = {"state": "failed", "error": bug}
            # A card that has met an error of its own answers nothing right any more.
            healthy = not isinstance(error, RuntimeError)
        send(pipe, {"end": end})
        if not healthy:
            return


def describe(error: UShapeError, task: dict[str, Any]) -> dict[str, Any]:
    """Returns an error for the owner of a job: names of our folders are not theirs to know."""
    from ultrashape_cli.inference.memory import OutOfMemory

    code = next((code for kind, code in _CODES if isinstance(error, kind)), "failed")
    if isinstance(error, OutOfMemory):
        code = "out-of-memory"
    texts = []
    for text in (error.message, error.hint):
        for name in ("mesh", "image"):
            text = text and text.replace(task[name], task["inputs"][name]["name"])
        texts.append(text and text.replace(str(Path(task["made"]).parent), "the job"))
    return {"code": code, "message": texts[0], "hint": texts[1]}


def main() -> None:
    """Serves the inherited pipe."""
    pipe, plan = Connection(int(sys.argv[1])), Plan.read(Path(sys.argv[2]))
    end_with_starter()
    # The parent is told by the terminal, and tells.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s worker %(levelname)s %(message)s")
    serve(pipe, plan)


if __name__ == "__main__":
    main()
