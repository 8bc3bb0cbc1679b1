"""`ushape serve` as a user meets it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from serving import ROOT, free_port

from ultrashape_cli.commands.serve.start import named
from ultrashape_cli.errors import UsageError


@pytest.fixture
def quick_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """The packaged model without the process that looks for it, which loads torch."""
    from ultrashape_cli.service.plan import Checkpoint

    tiny = Checkpoint(None, "tiny", "tiny", "Apache-2.0", None, None, {"dit": "tiny.safetensors"})
    monkeypatch.setattr("ultrashape_cli.service.catalogue.look_up", lambda *_: ({"tiny": tiny}, []))


def test_a_dry_run_shows_the_plan_and_touches_nothing(ushape, quick_look, tmp_path: Path) -> None:
    data = tmp_path / "data"
    port = free_port()
    found = ushape("serve", "--model", "tiny", "--data", data, "--port", port, "--dry-run",
                   "--json")  # fmt: skip
    assert found.code == 0, found.err
    told = json.loads(found.out)
    assert told["models"] == {"tiny": "tiny"}
    assert told["workers"] == 1
    assert f"would listen on http://127.0.0.1:{port}" in found.err
    assert not data.exists()


def test_show_config_lists_the_section_with_origins(ushape) -> None:
    found = ushape("serve", "--show-config", "--port", "9000", "--json")
    settings = json.loads(found.out)["settings"]
    assert settings["serve.port"] == {"value": 9000, "origin": "flag"}
    assert settings["serve.host"]["origin"] == "default"


@pytest.mark.parametrize(
    ("arguments", "problem", "hint"),
    [
        (("--host", "0.0.0.0"), "has no token", "token add"),
        (("--token", "x"), "goes with --join", "token add"),
        (("--set", "serve.max_faces=0"), "serve.max_faces", "--show-config"),
        (("--set", "serve.prot=1"), "did you mean `serve.port`", "--show-config"),
        (("--join", "ftp://x"), "no http", "http://"),
    ],
)
def test_bad_usage_is_told_with_a_hint(
    ushape, quick_look, tmp_path: Path, arguments: tuple[str, ...], problem: str, hint: str
) -> None:
    found = ushape("serve", "--model", "tiny", "--data", tmp_path / "data", *arguments)
    assert found.code == 2
    assert problem in found.err
    assert hint in found.err
    assert not (tmp_path / "data").exists()


def test_one_who_joins_may_have_the_token_from_a_variable(
    ushape, quick_look, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USHAPE_SERVE_TOKEN", "ushape_secret")
    url = f"http://127.0.0.1:{free_port()}"
    found = ushape("serve", "--join", url, "--model", "tiny", "--data", tmp_path / "d")
    assert found.code == 1
    assert f"no service at `{url}`" in found.err
    assert "secret" not in found.err
    assert not (tmp_path / "d").exists()


def test_a_port_that_is_taken(ushape, quick_look, tmp_path: Path) -> None:
    import socket

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        for more in ((), ("--dry-run",)):
            found = ushape("serve", "--data", tmp_path / "data", "--port", port, *more)
            assert found.code == 2
            assert f"port {port}" in found.err
            assert "another --port" in found.err
            assert not (tmp_path / "data").exists()


@pytest.mark.slow
def test_weights_that_are_not_there(ushape, tmp_path: Path) -> None:
    found = ushape("serve", "--checkpoint", f"mine={tmp_path / 'none'}", "--data", tmp_path / "d")
    assert found.code == 1
    assert "no weights at" in found.err
    assert "hint: " in found.err


def test_a_licence_has_to_be_accepted_once(ushape, tmp_path: Path, monkeypatch) -> None:
    from ultrashape_cli.hub import LICENCES
    from ultrashape_cli.service.plan import Checkpoint

    (licence,) = LICENCES.values()
    big = Checkpoint(
        "x", None, "ultrashape-1.0", licence.name, licence.url, licence.limits, {}
    )  # fmt: skip
    monkeypatch.setattr("ultrashape_cli.service.catalogue.look_up", lambda *_: ({"x": big}, []))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("HOME", str(tmp_path))
    arguments = ("serve", "--checkpoint", "x", "--port", "0", "--dry-run")
    found = ushape(*arguments)
    assert found.code == 2
    assert "is not accepted yet" in found.err
    assert "--accept-license" in found.err
    assert licence.limits.split(":")[0] in found.err
    assert ushape(*arguments, "--accept-license").code == 0


def test_without_the_extra_it_says_how_to_install_it(ushape, monkeypatch) -> None:
    monkeypatch.setattr("ultrashape_cli.commands.serve.start._PACKAGES", ("fastapi", "no_such"))
    found = ushape("serve", "--model", "tiny")
    assert found.code == 1
    assert "needs no_such" in found.err
    assert "pipx install 'ultrashape-cli[serve]'" in found.err


def test_checkpoints_have_names() -> None:
    assert named(("a=runs/x", "runs/mine", "w/big.pt")) == {
        "a": "runs/x", "mine": "runs/mine", "big": "w/big.pt",
    }  # fmt: skip
    with pytest.raises(UsageError, match="taken"):
        named(("a=x", "a=y"))


def test_tokens_are_added_listed_and_removed(ushape, tmp_path: Path) -> None:
    data = ("--data", tmp_path / "data")
    made = ushape("serve", "token", "add", "anna", *data, "-q")
    assert made.code == 0, made.err
    assert made.out.startswith("ushape_")
    assert ushape("serve", "token", "add", "node", "--role", "worker", *data).code == 0
    assert ushape("serve", "token", "add", "anna", *data).code == 2
    listed = json.loads(ushape("serve", "token", "list", *data, "--json").out)
    assert [(t["name"], t["role"]) for t in listed["tokens"]] == [
        ("anna", "user"), ("node", "worker"),
    ]  # fmt: skip
    assert made.out.strip() not in json.dumps(listed)
    assert ushape("serve", "token", "remove", "anna", *data).code == 0
    missing = ushape("serve", "token", "remove", "anna", *data)
    assert missing.code == 2
    assert "known: node" in missing.err


@pytest.fixture
def process(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """`ushape serve` with the packaged model, as a user starts it."""
    command = [sys.executable, "-m", "ultrashape_cli", "serve", "--model", "tiny", "--port", "0",
               "--data", "data", "--device", "cpu", "--profile", "cpu", "--json"]  # fmt: skip
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as found:
        yield found
        found.kill()


@pytest.mark.slow
def test_a_service_says_where_it_is_and_ends_by_a_signal(
    process: subprocess.Popen[str], ushape, tmp_path: Path
) -> None:
    assert process.stdout is not None
    text = ""
    while not text.endswith("}\n") or text.count("{") != text.count("}"):
        text += process.stdout.readline()
    told = json.loads(text)
    url = told["outputs"]["url"]
    assert httpx.get(f"{url}/health").json()["status"] == "ok"
    again = ushape("serve", "--data", tmp_path / "data", "--model", "tiny", "--port", "0")
    assert again.code == 2
    assert f"(process {process.pid})" in again.err
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 143
    assert process.stdout.read() == ""  # one object, and no more
