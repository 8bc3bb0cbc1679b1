"""Processes of ours: several under accelerate or Ray, children with a pipe, signals to all."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import IO, Any, NoReturn

import psutil

from ultrashape_cli.config.schema import LaunchConfig
from ultrashape_cli.errors import DependencyError, UsageError
from ultrashape_cli.interrupts import SignalFlag

SHUTDOWN_S = 600
"""Seconds the workers get to save after a signal; torchrun's own default is 30."""
_PR_SET_PDEATHSIG = 1


_DISTRIBUTED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_OF_OTHERS = ("ACCELERATE_", "FSDP_", "MEGATRON_", "PARALLELISM_CONFIG_")
_OF_MPI = ("PMI_", "OMPI_COMM_WORLD_", "MV2_COMM_WORLD_")


def is_distributed_child() -> bool:
    """Says whether torchrun or `accelerate launch` started this process.

    Only the whole set of their variables says so: single ones are left over from other programs.
    """
    return all(os.environ.get(name) for name in _DISTRIBUTED)


def is_main_process() -> bool:
    """Says whether this process is the only one, or the first of those started together."""
    return not is_distributed_child() or os.environ["RANK"] == "0"


def forget_others() -> str | None:
    """Removes the variables by which other programs would decide how this one trains.

    accelerate reads dozens of them and of MPI's, and gets all it needs from us.

    Returns:
        What to tell where some but not all variables of a distributed process were set.

    Raises:
        UsageError: They ask for several processes, but do not say which one this is.
    """
    child = is_distributed_child()
    partial = [name for name in _DISTRIBUTED[:3] if not child and name in os.environ]
    lacking = [name for name in _DISTRIBUTED if name not in os.environ]
    if os.environ.get("WORLD_SIZE", "1") not in ("", "1") and not child:
        raise UsageError(
            f"WORLD_SIZE={os.environ['WORLD_SIZE']} is set, but not {', '.join(lacking)}: neither "
            "torchrun nor accelerate started this process",
            hint="unset WORLD_SIZE, or use --num-processes, --num-machines and --machine-rank",
        )
    prefixes = _OF_OTHERS if child else (*_OF_OTHERS, *_OF_MPI)
    for name in list(os.environ):
        if name.startswith(prefixes) or name in partial:
            del os.environ[name]
    if not partial:
        return None
    return f"{', '.join(partial)} ignored: set without {', '.join(lacking)}"


def start_with_pipe(
    module: str, arguments: Sequence[str], environ: Mapping[str, str], output: IO[bytes]
) -> tuple[subprocess.Popen[bytes], Connection]:
    """Starts `python -m module PIPE_FD *arguments` in a session of its own.

    Args:
        module: What it runs.
        arguments: After the number of its end of the pipe.
        environ: Variables beside those of this process.
        output: File that gets what it prints.

    Returns:
        The process, and this side's end of the pipe.
    """
    ours, theirs = socket.socketpair()
    # The parent's modules, and none that happens to lie in the current folder.
    modules = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", module, str(theirs.fileno()), *arguments],
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env={**os.environ, **environ, **modules},
        )
    return process, Connection(ours.detach())


def join_cluster(address: str) -> tuple[Any, bool]:
    """Joins a Ray cluster; returns the package, and whether this process has joined just now.

    Raises:
        DependencyError: Ray is not installed.
        UsageError: There is no cluster at the address.
    """
    try:
        import ray
    except ImportError as error:
        raise DependencyError(
            f"the engine `ray` needs the package {error.name or 'ray'}",
            hint='pip install "ultrashape-cli[cluster]"',
        ) from error
    if ray.is_initialized():
        return ray, False
    # `auto` takes the cluster of RAY_ADDRESS or of this machine, else starts one.
    options: dict[str, Any] = {"address": address}
    if address == "auto":
        options = {"include_dashboard": False}
    try:
        ray.init(logging_level=logging.ERROR, **options)
    except (ConnectionError, ValueError) as error:
        raise UsageError(
            f"no Ray cluster at `{address}`: {str(error).splitlines()[0]}",
            hint="ray start --head, then --address HOST:6379",
        ) from error
    return ray, True


def end_with_parent(number: signal.Signals, parent: int | None = None) -> None:
    """Lets this process get a signal when its parent ends, however that ends.

    Args:
        number: The signal.
        parent: Who started this process, which may be gone already; None for who is there now.
    """
    parent = parent or os.getppid()
    try:
        set_option = ctypes.CDLL(None, use_errno=True).prctl
    except (OSError, AttributeError):  # another system than Linux
        threading.Thread(target=_watch, args=(parent, number), daemon=True).start()
        return
    set_option(_PR_SET_PDEATHSIG, int(number))
    if os.getppid() != parent:  # it ended in between
        os.kill(os.getpid(), number)


def _watch(parent: int, number: signal.Signals) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), number)


def available_cores() -> int:
    """Returns the cores that this process may run on; all of them on macOS, which binds none."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


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
    kept = {k: v for k, v in os.environ.items() if not k.startswith((*_OF_OTHERS, *_OF_MPI))}
    environment = {**kept, "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(SHUTDOWN_S)}
    if cpu:
        # `accelerate launch --cpu` silently starts one process; this is the way to several.
        environment["ACCELERATE_USE_CPU"] = "1"
    # The launcher would give each process one thread, and offloaded optimizers compute on the host.
    environment.setdefault("OMP_NUM_THREADS", _threads(launch))
    command = [sys.executable, "-m", "ultrashape_cli.launcher", str(os.getpid())]
    command += _arguments(launch)
    command += ["-m", module, *arguments]
    with SignalFlag(on_signal) as flag:
        # What launchers print is not data: our stdout stays clean.
        process = subprocess.Popen(command, env=environment, stdout=2, start_new_session=True)
        told: set[int] = set()
        while process.poll() is None:
            time.sleep(0.2)
            if flag:
                # Again and again: the workers may not all be there yet.
                _signal_workers(process.pid, module, told)
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
    return str(max(1, available_cores() // local))


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _signal_workers(launcher: int, module: str, told: set[int]) -> None:
    """Sends TERM to workers not told yet, not to the launcher, which would kill them after it.

    They are born with TERM blocked, so that it waits until they can save.
    """
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(launcher).children(recursive=True):
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied, ProcessLookupError):
                if child.pid not in told and any(module in part for part in child.cmdline()):
                    told.add(child.pid)
                    os.kill(child.pid, signal.SIGTERM)
