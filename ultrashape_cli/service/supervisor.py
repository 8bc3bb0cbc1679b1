"""The parent of a service: starts the web and the workers, watches and replaces them."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ultrashape_cli.errors import DiskError, UsageError
from ultrashape_cli.interrupts import SignalFlag
from ultrashape_cli.service import jobs, retention, views
from ultrashape_cli.service.agent import Agent
from ultrashape_cli.service.auth import TOKENS_FILE, Tokens
from ultrashape_cli.service.child import PARENT
from ultrashape_cli.service.lessor import Lessor, StoreLessor
from ultrashape_cli.service.plan import Plan
from ultrashape_cli.service.store import hold, prepare
from ultrashape_cli.service.webhooks import Caller

if TYPE_CHECKING:
    from ultrashape_cli.service.ray_workers import RayWorkers

logger = logging.getLogger(__name__)

LOG_FILE = "log.txt"
WEB = __package__ + ".web"
_LARGEST_LOG = 50 << 20
_LOOK_S = 0.2
_TIDY_S = 60.0
_AFTER_ERROR_S = 5.0
_LONGEST_PAUSE_S = 30.0


class Supervisor:
    """A service on one machine."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        """Takes the folder and the port; nothing is answered before `run`.

        Raises:
            UsageError: Folder or port are taken, or there is no Ray cluster where one is needed.
            DiskError: The folder cannot be used.
        """
        self.plan, self.folder = plan, folder.resolve()
        self.socket = bind(plan.serve.host, plan.serve.port)
        try:
            self._lock = hold(self.folder)
            self.store = prepare(self.folder)
            self.port: int = self.socket.getsockname()[1]
            self._cluster = self._join_cluster()
        except BaseException:
            self.socket.close()
            raise
        self.log = self.folder / LOG_FILE
        self._web: subprocess.Popen[bytes] | None = None
        self._web_failures = 0
        self._web_due = 0.0
        self._expire_due = 0.0
        self._agents: list[Agent] = []
        # The clock that retention reads: the time of day as it was at the start, and no jumps.
        self._now = _steady_time()

    def run(self, flag: SignalFlag) -> None:
        """Serves until a signal comes, then lets running jobs end or go back to the queue."""
        config = self.plan.serve
        taken = jobs.recover(self.store, config.attempts, config.lease_s)
        strays = retention.set_strays_aside(self.store)
        self.store.set_meta("state", "running")
        logger.info(
            "starts: %d jobs taken back, %d folders without a job moved to lost/", taken, strays
        )
        file = self.plan.write(self.folder)
        self._agents = [] if self._cluster else self._make_agents(file)
        caller = Caller(self.store, config)
        for thread in (*self._agents, caller):
            thread.start()
        try:
            tidied = 0.0
            while not flag:
                if not self.store.path.exists():
                    raise DiskError(
                        f"`{self.folder}` was removed or moved while the service ran",
                        hint="put it back, and start again: it goes on where it stopped",
                    )
                self._watch_web()
                self._watch_agents(file)
                if self._cluster is not None:
                    self._cluster.watch()
                self._expire()
                if time.monotonic() - tidied > _TIDY_S:
                    tidied = time.monotonic()
                    self._tidy()
                time.sleep(_LOOK_S)
            self._stop_agents()
        finally:
            caller.stop()
            self._end_web()

    def _lessor(self, name: str) -> Lessor:
        return StoreLessor(self.store, name, list(self.plan.models), self.plan.serve)

    def _watch_web(self) -> None:
        if self._web is not None and self._web.poll() is None:
            return
        now = time.monotonic()
        if self._web is not None:
            logger.error("the web process ended with %s", self._web.returncode)
            self._web = None
            self._web_failures += 1
            self._web_due = now + min(_LONGEST_PAUSE_S, 0.1 * 2**self._web_failures)
            # What it was about to take has no job, and no other process puts files there.
            with suppress(sqlite3.OperationalError, OSError):
                retention.set_strays_aside(self.store)
        if now >= self._web_due:
            self._web = self._start_web()

    def _watch_agents(self, file: Path) -> None:
        """Replaces an agent that has ended, which only a bug of ours can make it do."""
        for index, agent in enumerate(self._agents):
            if not agent.is_alive():
                logger.error("the agent of %s ended and is replaced", agent.name)
                self._agents[index] = self._make_agents(file)[index]
                self._agents[index].start()

    def _make_agents(self, file: Path) -> list[Agent]:
        return make_agents(
            self.plan, file, self.log, lambda name: self._lessor(f"{jobs.LOCAL}{name}")
        )

    def _start_web(self) -> subprocess.Popen[bytes]:
        variables = {
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            PARENT: str(os.getpid()),
        }
        file = self.socket.fileno()
        with self.log.open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-P", "-m", WEB, str(self.folder), str(file)],
                pass_fds=(file,),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env={**os.environ, **variables},
            )

    def _expire(self) -> None:
        if time.monotonic() < self._expire_due:
            return
        try:
            for job in jobs.expire(self.store, self.plan.serve.attempts):
                logger.warning("the lease of %s ended", job)
            views.forget_workers(self.store, 2 * self.plan.serve.lease_s)
        except (sqlite3.OperationalError, DiskError) as error:
            logger.warning("leases: %s", error)
            self._expire_due = time.monotonic() + _AFTER_ERROR_S

    def _tidy(self) -> None:
        try:
            retention.tidy(self.store, self.plan.serve, self._now())
            rotate(self.log)
            self.store.take_ballast()
        except (sqlite3.OperationalError, DiskError, OSError) as error:
            logger.warning("retention: %s", error)

    def _join_cluster(self) -> RayWorkers | None:
        """Returns the workers of the engine `ray`, where that is asked for."""
        if self.plan.config.engine.kind != "ray":
            return None
        from ultrashape_cli.service.ray_workers import RayWorkers

        host = self.plan.serve.host
        url = f"http://{f'[{host}]' if ':' in host else host}:{self.port}"
        return RayWorkers(self.plan, url, Tokens(self.folder / TOKENS_FILE))

    def _stop_agents(self) -> None:
        config = self.plan.serve
        logger.info("stops: running jobs have %g s", config.grace_s)
        with suppress(sqlite3.OperationalError, DiskError):
            self.store.set_meta("state", "stopping")
        stop_agents(self._agents, config.grace_s, config.cancel_s)
        if self._cluster is not None:
            self._cluster.stop(config.grace_s, config.cancel_s)

    def _end_web(self) -> None:
        if self._web is not None:
            self._web.terminate()
            try:
                self._web.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(self._web.pid, signal.SIGKILL)
                self._web.wait()


def make_agents(plan: Plan, file: Path, log: Path, lessor: Callable[[str], Lessor]) -> list[Agent]:
    """Returns an agent for each card, or as many as the settings say.

    Args:
        plan: Of the service, or of the machine that joins one.
        file: Where the plan is.
        log: For what the workers print.
        lessor: Name of a worker to where its jobs come from.
    """
    cards = len(plan.devices)
    count = plan.serve.workers or max(1, cards)
    agents = []
    for index in range(count):
        environ: Mapping[str, str] = {}
        if cards > 1 or (cards and count > 1):
            environ = {"CUDA_VISIBLE_DEVICES": visible_card(index % cards)}
        name = f"worker-{index}"
        agents.append(
            Agent(name, lessor(name), plan.serve, module=plan.job, arguments=[str(file)],
                  environ=environ, log=log)
        )  # fmt: skip
    return agents


def visible_card(index: int) -> str:
    """Returns how CUDA calls a card, where this process may itself see only some of them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = [name.strip() for name in visible.split(",") if name.strip()]
    return names[index] if index < len(names) else str(index)


def stop_agents(agents: list[Agent], grace_s: float, cancel_s: float) -> None:
    """Stops all agents at once and waits for them."""
    for agent in agents:
        agent.stop(grace_s)
    until = time.monotonic() + grace_s + cancel_s + 15
    for agent in agents:
        agent.join(max(0.1, until - time.monotonic()))


def bind(host: str, port: int) -> socket.socket:
    """Returns a socket that listens on an address.

    Raises:
        UsageError: The port is taken, or the address is none of this machine.
    """
    listening = None
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        # A web process that is replaced finds what waited meanwhile.
        listening.listen(2048)
    except OSError as error:
        if listening is not None:
            listening.close()
        raise UsageError(
            f"cannot listen on `{host}` port {port}: {error.strerror or error}",
            hint="another --port (0 takes a free one) or --host",
        ) from error
    listening.set_inheritable(True)
    return listening


def rotate(log: Path) -> None:
    """Puts a log that has grown large beside itself; who writes into it goes on."""
    if log.is_file() and log.stat().st_size > _LARGEST_LOG:
        shutil.copyfile(log, log.with_name(f"{log.stem}.1{log.suffix}"))
        os.truncate(log, 0)


def _steady_time() -> Callable[[], float]:
    begin, clock = time.time(), time.monotonic()
    return lambda: begin + time.monotonic() - clock
