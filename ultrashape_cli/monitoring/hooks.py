"""Tells others about alerts: a program, a webhook, Weights & Biases. None can stop a view."""

from __future__ import annotations

import json
import logging
import os
import shlex
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ultrashape_cli.config.alerts import AlertConfig
from ultrashape_cli.dotenv import masked_text
from ultrashape_cli.errors import ConfigError, DependencyError
from ultrashape_cli.formatting import cause
from ultrashape_cli.monitoring.alerts import Alert, alert_json
from ultrashape_cli.monitoring.run_state import RunState
from ultrashape_cli.monitoring.trackers import start_wandb, wandb_key

logger = logging.getLogger(__name__)

COMMAND_TIMEOUT_S = 30.0
WEBHOOK_TIMEOUT_S = 5.0

Message = dict[str, Any]
Hook = Callable[[Message], None]


class Notifier:
    """Calls the configured hooks in threads; failures are logged and kept in `problems`."""

    def __init__(self, config: AlertConfig) -> None:
        """Prepares the hooks.

        Raises:
            ConfigError: The webhook is no http address, or the command cannot be parsed.
        """
        self.hooks = make_hooks(config)
        self.problems: list[str] = []
        self._threads: list[threading.Thread] = []

    def __call__(self, alert: Alert, change: str, state: RunState) -> None:
        """Sends an alert that was `raised` or `cleared`."""
        message = alert_json(alert, change, state) | {"text": describe(alert, change, state)}
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        for name, hook in self.hooks.items():
            thread = threading.Thread(target=self._send, args=(name, hook, message), daemon=True)
            thread.start()
            self._threads.append(thread)

    def wait(self, timeout_s: float = COMMAND_TIMEOUT_S) -> None:
        """Waits for hooks under way, each for so long."""
        for thread in self._threads:
            thread.join(timeout_s)

    def _send(self, name: str, hook: Hook, message: Message) -> None:
        try:
            hook(message)
        except Exception as error:  # whatever a hook does, watching goes on
            # A webhook's address is a secret, and some of urllib's errors hold it.
            problem = masked_text(f"alert hook `{name}` failed: {_cause(error)}")
            self.problems.append(problem)
            logger.warning("%s", problem)


def make_hooks(config: AlertConfig) -> dict[str, Hook]:
    """Returns the configured hooks by name.

    Raises:
        ConfigError: The webhook is no http address, or the command cannot be parsed.
    """
    hooks: dict[str, Hook] = {}
    if config.command:
        try:
            command = shlex.split(config.command)
        except ValueError as error:
            raise ConfigError(f"`alerts.command` cannot be parsed ({cause(error)})") from error
        hooks["command"] = lambda message: _run(command, message)
    if config.webhook:
        if not config.webhook.startswith(("http://", "https://")):
            raise ConfigError("`alerts.webhook` is no http or https address")
        hooks["webhook"] = lambda message: _post(config.webhook, message)
    if config.wandb:
        hooks["wandb"] = _WandbHook()
    return hooks


def _cause(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answered {error.code}"
    if isinstance(error, subprocess.TimeoutExpired):
        return f"no end within {COMMAND_TIMEOUT_S:.0f} s"
    return cause(error)


def describe(alert: Alert, change: str, state: RunState) -> str:
    """Returns an alert as one line for people."""
    name = Path(state.run).name
    if change == "cleared":
        return f"[ok] {name}: {alert.rule} is over (step {state.step:,})"
    return f"[{alert.level}] {name}: {alert.message} (step {state.step:,}, {alert.rule})"


def _run(command: list[str], message: Message) -> None:
    environ = {
        "USHAPE_ALERT": message["text"],
        "USHAPE_ALERT_RULE": message["rule"],
        "USHAPE_ALERT_STATE": message["change"],
        "USHAPE_ALERT_RUN": message["run"],
    }
    done = subprocess.run(
        command,
        input=json.dumps(message),
        text=True,
        env=os.environ | environ,
        capture_output=True,
        timeout=COMMAND_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [""]
        raise ChildProcessError(f"`{command[0]}` ended with {done.returncode} {last[0]}".rstrip())


def _post(address: str, message: Message) -> None:
    request = urllib.request.Request(
        address,
        json.dumps({"text": message["text"]}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=WEBHOOK_TIMEOUT_S) as answer:
        answer.read(1024)


class _WandbHook:
    """Opens a run of its own for the alerts: the trainer's run belongs to the trainer."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._run: Any = None

    def __call__(self, message: Message) -> None:
        # wandb would ask for one on the terminal, in the middle of the view.
        if wandb_key() is None:
            raise DependencyError("no key of Weights & Biases", hint="wandb login")
        with self._lock:
            if self._run is None:
                name = f"{Path(message['run']).name}-alerts"
                self._run = start_wandb(project="ushape", name=name, job_type="monitor")
            level = {"critical": "ERROR"}.get(message["level"], "WARN")
            self._run.alert(title=message["rule"], text=message["text"], level=level)
