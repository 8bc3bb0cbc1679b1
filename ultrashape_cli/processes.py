"""Several processes of one command: started under accelerate, told of signals, told apart."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import NoReturn

from ultrashape_cli.config.schema import LaunchConfig
from ultrashape_cli.interrupts import SignalFlag

SHUTDOWN_S = 600
"""Seconds the workers get to save after a signal; torchrun's own default is 30."""


def is_distributed_child() -> bool:
    """Says whether torchrun or `accelerate launch` started this process."""
    return "LOCAL_RANK" in os.environ and "WORLD_SIZE" in os.environ


def is_main_process() -> bool:
    """Says whether this process is the only one, or the first of those started together."""
    return os.environ.get("RANK", "0") == "0"


def leave(code: int) -> NoReturn:
    """Ends one of several processes without native destructors.

    Those of gloo's process group hang now and then: finished runs under torchrun waited for ever
    for one of their two processes. Those of a loader process made 2 of 24 busy runs abort
    ("terminate called without an active exception"), and torch raises in the training process then.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def supervise(
    module: str,
    arguments: list[str],
    launch: LaunchConfig,
    *,
    device: str,
    on_signal: Callable[[], None],
) -> tuple[SignalFlag, int]:
    """Runs `python -m module` in several processes under accelerate and passes signals on.

    Args:
        module: What each process runs.
        arguments: Of its command line.
        launch: How many processes, on which machines.
        device: "cpu" keeps them off the GPUs.
        on_signal: Called at the first signal.

    Returns:
        The flag, set where a signal came, and the launcher's exit code.
    """
    cpu = device == "cpu" or not _has_gpu()
    environment = {**os.environ, "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(SHUTDOWN_S)}
    if cpu:
        # `accelerate launch --cpu` silently starts one process; this is the way to several.
        environment |= {"ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": _threads(launch)}
    command = [sys.executable, "-m", "accelerate.commands.launch", *_arguments(launch)]
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
