"""Starts training: in this process, or in several under accelerate."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

from ultrashape_cli.config.schema import Config, LaunchConfig
from ultrashape_cli.errors import TrainingError
from ultrashape_cli.interrupts import SignalFlag
from ultrashape_cli.runs import RunFolder

SHUTDOWN_S = 600
"""Seconds the workers get to save after a signal; torchrun's own default is 30."""


def is_distributed_child() -> bool:
    """Says whether torchrun or `accelerate launch` started this process."""
    return "LOCAL_RANK" in os.environ and "WORLD_SIZE" in os.environ


def is_main_process() -> bool:
    """Says whether this process is the only one, or the first of those started together."""
    return os.environ.get("RANK", "0") == "0"


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


def launch_processes(run: RunFolder, config: Config, on_signal: Callable[[], None]) -> int:
    """Starts this machine's share of the processes and waits; returns their exit code.

    A signal is passed on to every worker, which saves and stops.

    Raises:
        TrainingError: The workers failed.
    """
    flag, code = supervise("ultrashape_cli.training.build", [str(run.root)], config, on_signal)
    if flag:
        return flag.exit_code
    if code != 0:
        error = run.read_status().get("error", f"exit code {code}")
        raise TrainingError(f"the workers failed: {error}", hint=f"see {run.log()}")
    return 0


def supervise(
    module: str, arguments: list[str], config: Config, on_signal: Callable[[], None]
) -> tuple[SignalFlag, int]:
    """Runs `python -m module` in several processes under accelerate and passes signals on.

    Returns:
        The flag, set where a signal came, and the launcher's exit code.
    """
    cpu = config.device == "cpu" or not _has_gpu()
    environment = {**os.environ, "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(SHUTDOWN_S)}
    if cpu:
        # `accelerate launch --cpu` silently starts one process; this is the way to several.
        environment |= {"ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": _threads(config.launch)}
    command = [sys.executable, "-m", "accelerate.commands.launch", *_arguments(config.launch)]
    command += ["-m", module, *arguments]
    # What launchers print is not data: our stdout stays clean.
    process = subprocess.Popen(command, env=environment, stdout=2, start_new_session=True)
    with SignalFlag(on_signal) as flag:
        forwarded = False
        while process.poll() is None:
            time.sleep(0.2)
            if flag and not forwarded:
                forwarded = True
                _signal_workers(process.pid, module)
    return flag, process.returncode


def _arguments(launch: LaunchConfig) -> list[str]:
    return [
        "--multi_gpu",
        *("--num_processes", str(launch.num_processes)),
        *("--num_machines", str(launch.num_machines)),
        *("--machine_rank", str(launch.machine_rank)),
        *("--main_process_ip", launch.main_process_ip),
        *("--main_process_port", str(launch.main_process_port)),
        *("--mixed_precision", "no"),
        *("--dynamo_backend", "no"),
    ]


def _threads(launch: LaunchConfig) -> str:
    local = max(1, launch.num_processes // launch.num_machines)
    return str(max(1, len(os.sched_getaffinity(0)) // local))


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _signal_workers(launcher: int, module: str) -> None:
    """Sends TERM to the workers, not to the launcher, which would kill them after it."""
    import psutil

    for child in psutil.Process(launcher).children(recursive=True):
        if any(module in part for part in child.cmdline()):
            os.kill(child.pid, signal.SIGTERM)
