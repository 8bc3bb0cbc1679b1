"""Workers on a Ray cluster: an actor on each of its cards, which leases jobs as `--join` does.

Ray places the actors and says when one is lost; jobs, leases and results go over HTTP as for any
other machine. The nodes need the package, the paths of the checkpoints, and a way to the service.
"""

from __future__ import annotations

import logging
import tempfile
import time
from pathlib import Path
from typing import Any

from ultrashape_cli.errors import UsageError
from ultrashape_cli.processes import join_cluster
from ultrashape_cli.service.agent import Agent
from ultrashape_cli.service.auth import Tokens
from ultrashape_cli.service.plan import Plan
from ultrashape_cli.service.remote import HttpLessor, Service

logger = logging.getLogger(__name__)

TOKEN = "ray workers"
"""Name of the token of the actors, made anew by each start."""
_LOOK_S = 5.0
_LONGEST_PAUSE_S = 60.0


class Node:
    """What runs inside an actor: an agent and its worker process."""

    def __init__(self, plan: str, url: str, token: str, models: list[str], name: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="ushape-serve-")
        folder = Path(self._folder.name)
        file = folder / "plan.json"
        file.write_text(plan)
        settings = Plan.read(file)
        lessor = HttpLessor(Service(url, token), name, models, folder / "work")
        # Ray has set which card this process sees, and its children see the same.
        self._agent = Agent(name, lessor, settings.serve, module=settings.job,
                            arguments=[str(file)], environ={}, log=folder / "log.txt")  # fmt: skip
        self._agent.start()

    def alive(self) -> bool:
        """Says whether the agent works."""
        return self._agent.is_alive()

    def stop(self, grace_s: float) -> None:
        """Lets the job at hand end within so many seconds, or gives it back."""
        self._agent.stop(grace_s)
        self._agent.join()
        self._folder.cleanup()


class RayWorkers:
    """The actors of a service, started, watched and replaced."""

    def __init__(self, plan: Plan, url: str, tokens: Tokens) -> None:
        """Joins the cluster; no actor starts before `watch`.

        Args:
            plan: Of the service.
            url: Where the service listens, for this machine.
            tokens: Of the service, where it asks for one.

        Raises:
            DependencyError: Ray is not installed.
            UsageError: There is no cluster at the address, or no way from it to the service.
        """
        ray, self._owns = join_cluster(plan.config.engine.address)
        self._ray, self._plan = ray, plan
        nodes = [node for node in ray.nodes() if node["Alive"]]
        if len(nodes) > 1 and plan.serve.host in ("127.0.0.1", "localhost", "::1"):
            raise UsageError(
                f"{len(nodes)} nodes of the cluster cannot reach a service at {plan.serve.host}",
                hint="ushape serve token add NAME, then --host 0.0.0.0",
            )
        # What listens everywhere is found at the address by which the nodes know this machine.
        everywhere = plan.serve.host in ("0.0.0.0", "::")
        port = url.rpartition(":")[2]
        self._url = f"http://{ray.util.get_node_ip_address()}:{port}" if everywhere else url
        self._tokens, self._token = tokens, ""
        self._actors: dict[int, Any] = {}
        self._due: dict[int, float] = {}
        self._failures: dict[int, int] = {}
        self._looked = 0.0
        cards = int(ray.cluster_resources().get("GPU", 0))
        self.count = plan.serve.workers or max(1, cards)
        """Of actors."""
        self._needs = {"num_gpus": 1} if cards else {"num_cpus": 1}

    def watch(self) -> None:
        """Starts actors that are not there, and replaces those that were lost."""
        if time.monotonic() - self._looked < _LOOK_S:
            return
        self._looked = time.monotonic()
        if not self._token and self._tokens.required:
            self.forget_token()
            self._token = self._tokens.add(TOKEN, "worker")
        for index in range(self.count):
            actor = self._actors.get(index)
            if actor is not None and not self._is_alive(actor):
                self._actors.pop(index)
                self._failures[index] = self._failures.get(index, 0) + 1
                pause = min(_LONGEST_PAUSE_S, 2.0 ** self._failures[index])
                self._due[index] = time.monotonic() + pause
                logger.error("the cluster lost worker %d, again in %.0f s", index, pause)
            if index not in self._actors and time.monotonic() >= self._due.get(index, 0.0):
                self._actors[index] = self._start(index)

    def stop(self, grace_s: float, cancel_s: float) -> None:
        """Stops all actors and waits for them; leaves the cluster where this joined it."""
        calls = [actor.stop.remote(grace_s) for actor in self._actors.values()]
        self._ray.wait(calls, num_returns=max(1, len(calls)), timeout=grace_s + cancel_s + 15)
        for actor in self._actors.values():
            self._ray.kill(actor)
        self.forget_token()
        if self._owns:
            self._ray.shutdown()

    def forget_token(self) -> None:
        """Removes the token of the actors, also of a service that ended without notice."""
        if any(token.name == TOKEN for token in self._tokens.all()):
            self._tokens.remove(TOKEN)

    def _start(self, index: int) -> Any:
        plan, models = self._plan.text(), list(self._plan.models)
        options = self._ray.remote(Node).options(**self._needs, max_concurrency=4)
        return options.remote(plan, self._url, self._token, models, f"ray:{index}")

    def _is_alive(self, actor: Any) -> bool:
        """Says whether an actor works, or waits for its place on the cluster."""
        try:
            ready, _ = self._ray.wait([actor.alive.remote()], timeout=1.0)
            return not ready or self._ray.get(ready[0])
        except self._ray.exceptions.RayError as error:
            logger.warning("an actor: %s", " ".join(str(error).split())[:300])
            return False
