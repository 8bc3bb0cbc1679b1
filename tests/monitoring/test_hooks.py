from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
from synthetic_run import make_run

from ultrashape_cli.config.alerts import AlertConfig
from ultrashape_cli.errors import ConfigError
from ultrashape_cli.monitoring.alerts import Alert
from ultrashape_cli.monitoring.hooks import Notifier
from ultrashape_cli.monitoring.run_state import RunReader, RunState

HOT = Alert("gpu-hot", "critical", "GPU too hot: gpu0 90 C", 0.0)


@pytest.fixture
def state(tmp_path: Path) -> RunState:
    return RunReader(make_run(tmp_path / "shoes")).read()


class _Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((self.path, self.headers["Content-Type"], json.loads(body)))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[HTTPServer]:
    server = HTTPServer(("127.0.0.1", 0), _Receiver)
    server.got, server.status = [], 200
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def _send(config: AlertConfig, state: RunState, *changes: str) -> Notifier:
    notifier = Notifier(config)
    for change in changes or ("raised",):
        notifier(HOT, change, state)
        notifier.wait()
    return notifier


def test_a_webhook_gets_what_slack_understands(receiver, state: RunState) -> None:
    address = f"http://127.0.0.1:{receiver.server_address[1]}/services/T/B/secret"
    notifier = _send(AlertConfig(webhook=address), state, "raised", "cleared")
    raised = {"text": "[critical] shoes: GPU too hot: gpu0 90 C (step 20, gpu-hot)"}
    cleared = {"text": "[ok] shoes: gpu-hot is over (step 20)"}
    path = "/services/T/B/secret"
    assert receiver.got == [
        (path, "application/json", raised),
        (path, "application/json", cleared),
    ]
    assert notifier.problems == []


def test_a_refusing_webhook_is_a_problem_without_its_secret(receiver, state: RunState) -> None:
    receiver.status = 403
    address = f"http://127.0.0.1:{receiver.server_address[1]}/secret"
    (problem,) = _send(AlertConfig(webhook=address), state).problems
    assert "403" in problem
    assert "secret" not in problem


def test_an_unreachable_webhook_is_a_problem(state: RunState) -> None:
    assert "refused" in _send(AlertConfig(webhook="http://127.0.0.1:9/x"), state).problems[0]


def test_a_command_gets_the_alert_on_stdin_and_in_variables(tmp_path: Path, state) -> None:
    script = tmp_path / "hook.py"
    script.write_text(
        "import json, os, sys\n"
        "names = ('', '_RULE', '_STATE', '_RUN')\n"
        "found = [os.environ['USHAPE_ALERT' + name] for name in names]\n"
        "open(sys.argv[1], 'w').write(json.dumps([found, json.load(sys.stdin)]))\n"
    )
    out = tmp_path / "my out"
    _send(AlertConfig(command=f"{sys.executable} {script} '{out}'"), state)
    variables, message = json.loads(out.read_text())
    assert variables == [message["text"], "gpu-hot", "raised", state.run]
    assert (message["level"], message["step"]) == ("critical", 20)


def test_a_failing_command_is_a_problem(state: RunState) -> None:
    command = f"{sys.executable} -c 'import sys; sys.exit(\"no network\")'"
    (problem,) = _send(AlertConfig(command=command), state).problems
    assert "ended with 1 no network" in problem


def test_a_mistyped_webhook_is_a_problem_without_its_secret(state: RunState) -> None:
    (problem,) = _send(AlertConfig(webhook="https://hooks:port/secret1"), state).problems
    assert "secret" not in problem


def test_wandb_gets_an_alert_of_the_right_level(monkeypatch, state: RunState) -> None:
    calls = []
    monkeypatch.setenv("WANDB_API_KEY", "x")
    run = SimpleNamespace(alert=lambda **values: calls.append(values))
    monkeypatch.setitem(
        sys.modules, "wandb", SimpleNamespace(init=lambda **values: calls.append(values) or run)
    )
    _send(AlertConfig(wandb=True), state, "raised", "cleared")
    assert calls[0]["name"] == "shoes-alerts"
    assert [call["level"] for call in calls[1:]] == ["ERROR", "ERROR"]
    assert len(calls) == 3


def test_hooks_that_cannot_work_are_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="no http"):
        Notifier(AlertConfig(webhook="hooks.slack.com/x"))
    with pytest.raises(ConfigError, match="cannot be parsed"):
        Notifier(AlertConfig(command="mail 'me"))


def test_wandb_without_a_key_is_a_problem_and_no_question(monkeypatch, tmp_path, state) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace())
    assert "no key" in _send(AlertConfig(wandb=True), state).problems[0]
