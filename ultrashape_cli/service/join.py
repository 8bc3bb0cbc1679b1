"""A machine that works for the service of another one."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import time
from pathlib import Path

from ultrashape_cli.errors import UsageError
from ultrashape_cli.interrupts import SignalFlag
from ultrashape_cli.service.plan import Plan
from ultrashape_cli.service.remote import HttpLessor, Service, greet
from ultrashape_cli.service.supervisor import LOG_FILE, make_agents, stop_agents

logger = logging.getLogger(__name__)


def check_models(plan: Plan, service: Service) -> list[str]:
    """Returns the checkpoints that this machine and the service both have, by name.

    Raises:
        UsageError: There are none, or the token is not a worker's.
        UShapeError: The service cannot be reached.
    """
    status = greet(service)
    if not status["caller"].get("works", True):
        raise UsageError(f"the token of `{status['caller']['name']}` is not one of a worker",
                         hint="ushape serve token add NAME --role worker")  # fmt: skip
    theirs = status["models"]
    both = [
        name
        for name, family in plan.models.items()
        if name in theirs and theirs[name]["model"] == family
    ]
    if not both:
        raise UsageError(
            f"this machine has {', '.join(plan.models)}, the service {', '.join(theirs)}",
            hint=f"--checkpoint {next(iter(theirs))}=PATH, or --model as the service has it",
        )
    return both


def run(plan: Plan, service: Service, models: list[str], folder: Path, flag: SignalFlag) -> None:
    """Works until a signal comes.

    Args:
        plan: Settings and checkpoints of this machine.
        service: Whose jobs.
        models: Which checkpoints.
        folder: For files at work and the log.
        flag: Set by a signal.
    """
    folder.mkdir(parents=True, exist_ok=True)
    work = folder / f"join-{os.getpid()}"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    file = plan.write(work)
    # Two machines may have one name, and a restarted one must not be taken for itself.
    host = f"{os.uname().nodename}-{secrets.token_hex(3)}"
    agents = make_agents(
        plan, file, folder / LOG_FILE,
        lambda name: HttpLessor(service, f"{host}/{name}".replace("/", ":"), models, work),
    )  # fmt: skip
    for agent in agents:
        agent.start()
    try:
        while not flag:
            time.sleep(0.2)
        stop_agents(agents, plan.serve.grace_s, plan.serve.cancel_s)
    finally:
        shutil.rmtree(work, ignore_errors=True)
