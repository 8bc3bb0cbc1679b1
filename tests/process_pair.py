"""Two training processes without their start: forked from one that has imported all.

What starts them for a user, accelerate and torchrun, has its own tests in test_launch.py; each such
start takes three imports of torch.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

WORLD = 2


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def train_in_two(run: Path) -> None:
    """Trains a run that asks for two processes to its end."""
    run_in_two(_train, run)


def run_in_two(work: Callable[..., None], *arguments: Any) -> None:
    """Calls `work(rank, *arguments)` in two processes that torchrun could have started."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ultrashape_cli.training.worker"])
    port = free_port()
    pair = [
        context.Process(target=_as_by_torchrun, args=(rank, port, work, arguments))
        for rank in range(WORLD)
    ]
    for process in pair:
        process.start()
    for process in pair:
        process.join(240)
    assert [process.exitcode for process in pair] == [0] * WORLD


def _as_by_torchrun(
    rank: int, port: int, work: Callable[..., None], arguments: tuple[Any, ...]
) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(WORLD),
        "LOCAL_WORLD_SIZE": str(WORLD),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "ACCELERATE_USE_CPU": "1",
    }
    work(rank, *arguments)


def _train(rank: int, root: Path) -> None:
    import small_model  # noqa: F401

    from ultrashape_cli.config.resolve import resolve
    from ultrashape_cli.processes import leave
    from ultrashape_cli.runs import RunFolder
    from ultrashape_cli.training import mesh_validation
    from ultrashape_cli.training.worker import train_run

    mesh_validation.METRIC_POINTS = 2000  # as in conftest.py
    run = RunFolder(root)
    leave(train_run(run, resolve(file=run.config, environ={}).config))
