"""Starts training in several processes under accelerate."""

from __future__ import annotations

import time
from collections.abc import Callable

from ultrashape_cli.config.schema import Config
from ultrashape_cli.errors import TrainingError
from ultrashape_cli.processes import supervise
from ultrashape_cli.runs import RunFolder


def wait_for_run_folder(run: RunFolder, timeout_s: float = 120.0) -> None:
    """Blocks a further machine until the first one has written the run's settings.

    Raises:
        TrainingError: It did not appear, as on machines that do not share the folder.
    """
    deadline = time.monotonic() + timeout_s
    while not run.config.is_file():
        if time.monotonic() > deadline:
            raise TrainingError(
                f"`{run.config}` did not appear within {timeout_s:g} s",
                hint="all machines need --out on a shared folder",
            )
        time.sleep(0.2)


def launch_processes(
    run: RunFolder, config: Config, module: str, on_signal: Callable[[], None]
) -> int:
    """Starts this machine's share of the processes and waits; returns their exit code.

    Each runs `python -m module RUN`. A signal is passed on to every worker, which saves and stops.

    Raises:
        TrainingError: The workers failed.
    """
    started = time.time()
    flag, code = supervise(
        module, [str(run.root)], config.launch, device=config.device, on_signal=on_signal
    )
    status = run.read_status()
    state = status.get("state") if float(status.get("time") or 0) >= started else None
    if state == "failed" or (code != 0 and not flag):
        error = status["error"] if state == "failed" else f"exit code {code}"
        raise TrainingError(f"the workers failed: {error}", hint=f"see {run.log()}")
    # A signal may have come too late to stop anything, or to the workers alone.
    if state == "stopped":
        return flag.exit_code if flag else 143
    return flag.exit_code if flag and state != "finished" else 0
