"""`ushape refine --server`: a real service, and lines to it that break."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import fake_worker
import pytest
from serving import ROOT, Served, free_port, png, served, wait_for

from ultrashape_cli.files import read_json
from ultrashape_cli.meshfiles.save import save_mesh
from ultrashape_cli.service.auth import TOKENS_FILE, Tokens
from ultrashape_cli.synthetic.figurines import make_figurine

FAST = ("--quality", "draft", "--set", "refine.grid_resolution=48", "--tokens", "512")


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("sent")
    save_mesh(make_figurine(0, 24), folder / "mesh.ply")
    (folder / "view.png").write_bytes(png())
    return folder / "mesh.ply", folder / "view.png"


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service with the tiny model."""
    folder = tmp_path_factory.mktemp("studio") / "data"
    with served(folder, job="ultrashape_cli.service.worker") as found:
        yield found


@pytest.fixture(scope="module")
def pretender(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service whose jobs do what their seed says."""
    with served(tmp_path_factory.mktemp("pretender") / "data") as found:
        yield found


@pytest.fixture
def refine(ushape, sent: tuple[Path, Path], tmp_path: Path) -> Callable:
    def call(url: str, *more: object, out: str = "out.glb"):
        return ushape("refine", *sent, "-o", tmp_path / out, "--server", url, *more)

    return call


def states(service: Served) -> list[str]:
    rows = service.store.connection.execute("SELECT state FROM jobs ORDER BY seq").fetchall()
    return [row["state"] for row in rows]


@pytest.mark.slow
def test_it_is_the_mesh_that_this_machine_makes(
    ushape, refine, studio: Served, sent: tuple[Path, Path], tmp_path: Path
) -> None:
    more = (*FAST, "--faces", "2000", "--keep-full", "--seed", "7", "--metrics")
    preview = tmp_path / "there.png"
    there = refine(studio.url, *more, "--preview", preview, "--json")
    assert there.code == 0, there.err
    local = ("--model", "tiny", "--device", "cpu", "--profile", "cpu")
    here = ushape("refine", *sent, "-o", tmp_path / "here.glb", *local, *more, "--json")
    assert here.code == 0, here.err
    assert (tmp_path / "out.glb").read_bytes() == (tmp_path / "here.glb").read_bytes()
    assert (tmp_path / "out_full.glb").read_bytes() == (tmp_path / "here_full.glb").read_bytes()
    assert preview.read_bytes()[:4] == b"\x89PNG"

    one, two = json.loads(there.out), json.loads(here.out)
    assert set(one) == set(two)
    assert one["outputs"] == {
        "mesh": str(tmp_path / "out.glb"), "full": str(tmp_path / "out_full.glb"),
        "preview": str(preview),
    }  # fmt: skip
    # With fewer points here, as of all tests.
    assert set(one["result"]["metrics"]) == set(two["result"]["metrics"])
    record, other = (read_json(tmp_path / f"{name}.glb.json") for name in ("out", "here"))
    assert record["settings"] | {"memory": ""} == other["settings"] | {"memory": ""}
    assert record["inputs"]["mesh"] == str(sent[0])
    assert record["inputs"]["mesh_sha256"] == other["inputs"]["mesh_sha256"]
    assert record["seed"] == 7


@pytest.mark.slow
def test_it_is_made_once_and_anew_by_force(refine, studio: Served, tmp_path: Path) -> None:
    assert refine(studio.url, *FAST).code == 0
    before = len(states(studio))
    again = refine(studio.url, *FAST, "--json")
    assert again.code == 0
    assert json.loads(again.out)["counts"] == {"skipped": 1}
    other = refine(studio.url, *FAST, "--seed", "1")
    assert other.code == 2
    assert "was made from something else" in other.err
    assert len(states(studio)) == before
    assert refine(studio.url, *FAST, "--seed", "1", "--force").code == 0
    (tmp_path / "mine.glb").write_text("mine")
    foreign = refine(studio.url, *FAST, "--force", out="mine.glb")
    assert foreign.code == 2
    assert "did not make it" in foreign.err


@pytest.mark.parametrize(
    ("more", "name"),
    [
        (("--device", "cpu"), "--device"),
        (("--profile", "a40"), "--profile"),
        (("--checkpoint", "."), "--checkpoint"),
        (("--max-memory-gib", "3"), "--max-memory-gib"),
        (("--compare-speed",), "--compare-speed"),
        (("--num-processes", "2"), "--num-processes"),
        (("--set", "refine.memory=int8"), "refine.memory"),
    ],
)
def test_what_has_no_meaning_there_is_refused_before_anything_is_sent(
    refine, more: tuple[str, ...], name: str, tmp_path: Path
) -> None:
    result = refine("http://127.0.0.1:9", *more)
    assert result.code == 2
    assert f"`{name}` has no meaning with --server" in result.err
    assert "hint: " in result.err
    assert not any(tmp_path.iterdir())


def test_a_dry_run_asks_and_sends_nothing(refine, pretender: Served, tmp_path: Path) -> None:
    before = states(pretender)
    result = refine(pretender.url, "--dry-run")
    assert result.code == 0
    assert "with `tiny`" in result.err
    assert states(pretender) == before
    assert not any(tmp_path.iterdir())


def test_errors_have_the_codes_and_hints_of_refine(
    refine, pretender: Served, tmp_path: Path, monkeypatch
) -> None:
    nobody = refine(f"http://127.0.0.1:{free_port()}")
    assert nobody.code == 1
    assert "no service at" in nobody.err
    assert refine("ftp://studio").code == 2
    failed = refine(pretender.url, "--seed", str(fake_worker.FAIL), "--json")
    assert failed.code == 1
    assert json.loads(failed.out)["error"]["hint"] == "another"
    unknown = refine(pretender.url, "--model", "other")
    assert unknown.code == 2
    assert "no model `other`" in unknown.err
    # Refused by the service alone.
    monkeypatch.setattr("ultrashape_cli.commands.refine.server._model", lambda *_: {})
    refused = refine(pretender.url, "--model", "other")
    assert refused.code == 2
    assert "there are tiny" in refused.err
    assert not any(tmp_path.iterdir())


def test_a_token_is_needed_where_the_service_wants_one(
    refine, ushape, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    secret = Tokens(folder / TOKENS_FILE).add("anna", "user")
    with served(folder) as service:
        without = refine(service.url, "--dry-run")
        assert without.code == 1
        assert "USHAPE_SERVER_TOKEN" in without.err
        assert refine(service.url, "--dry-run", "--token", secret).code == 0
        monkeypatch.setenv("USHAPE_SERVER_TOKEN", secret)
        assert refine(service.url, "--dry-run").code == 0
    # Nor does the variable disturb another command, as that of `serve --join` does not.
    monkeypatch.setenv("USHAPE_SERVE_TOKEN", secret)
    assert ushape("serve", "--show-config", "--profile", "cpu").code == 0


def run(sent: tuple[Path, Path], out: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "ultrashape_cli", "refine", *map(str, sent), "-o", str(out)]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    # Who started the tests in the background ignores SIGINT, and so would all they start.
    return subprocess.Popen([*command, *more], stderr=subprocess.PIPE, stdout=subprocess.PIPE,
                            text=True, env=environ, preexec_fn=heed_interrupts)  # fmt: skip


def heed_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_cancels_the_job_and_says_so(
    pretender: Served, sent: tuple[Path, Path], tmp_path: Path, number: int, code: int
) -> None:
    more = ("--server", pretender.url, "--seed", str(fake_worker.LONG))
    with run(sent, tmp_path / "out.glb", *more) as process:
        wait_for(lambda: states(pretender)[-1:] == ["running"])
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
    assert process.returncode == code
    assert "cancelled job " in said
    wait_for(lambda: states(pretender)[-1] == "cancelled")
    assert not any(tmp_path.iterdir())


def test_no_torch_and_no_web_framework_is_loaded(
    pretender: Served, sent: tuple[Path, Path], tmp_path: Path
) -> None:
    code = (
        "import sys; from ultrashape_cli.cli import run\n"
        f"code = run({['refine', *map(str, sent), '-o', str(tmp_path / 'a.glb')]!r} + "
        f"['--server', {pretender.url!r}, '--seed', '{fake_worker.FAIL}'])\n"
        "heavy = {'torch', 'fastapi', 'starlette', 'httpx', 'uvicorn'} & set(sys.modules)\n"
        "sys.exit(f'{code} {heavy}' if code != 1 or heavy else 0)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr


class Line:
    """A line to a service that breaks: each connection after so many bytes of answers."""

    def __init__(self, url: str, breaks: list[int]) -> None:
        self.breaks = breaks
        self.target = ("127.0.0.1", int(url.rpartition(":")[2]))
        self.server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.server.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                near, _ = self.server.accept()
                most = self.breaks.pop(0) if self.breaks else 1 << 60
                threading.Thread(target=self._carry, args=(near, most), daemon=True).start()

    def _carry(self, near: socket.socket, most: int) -> None:
        with near, socket.create_connection(self.target) as far, contextlib.suppress(OSError):
            while True:
                for one in select.select([near, far], [], [])[0]:
                    if not (data := one.recv(65536)):
                        return
                    (far if one is near else near).sendall(data[:most] if one is far else data)
                    most -= len(data) * (one is far)
                    if most <= 0:
                        return


def test_over_a_line_that_breaks_it_is_one_job_and_whole(
    refine, studio: Served, tmp_path: Path
) -> None:
    """The answer to the upload is lost, events are cut twice, and so is the download."""
    assert refine(studio.url, *FAST, out="direct.glb").code == 0
    before = len(states(studio))
    everything = 1 << 60
    line = Line(studio.url, [everything, 0, everything, 700, 900, everything, 5000, 0])
    result = refine(line.url, *FAST)
    assert result.code == 0, result.err
    assert "waiting for the service" in result.err
    assert not line.breaks
    assert len(states(studio)) == before + 1
    assert (tmp_path / "out.glb").read_bytes() == (tmp_path / "direct.glb").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "direct.glb", "direct.glb.json", "out.glb", "out.glb.json",
    ]  # fmt: skip
    line.server.close()


@pytest.mark.slow
def test_a_service_that_is_started_anew_is_waited_for(
    sent: tuple[Path, Path], tmp_path: Path
) -> None:
    with served(tmp_path / "data") as service:
        service.settings["port"] = int(service.url.rpartition(":")[2])
        more = ("--server", service.url, "--seed", str(fake_worker.SLOW))
        with run(sent, tmp_path / "out.glb", *more) as process:
            wait_for(lambda: states(service)[-1:] == ["running"])
            service.kill()
            service.start()
            wait_for(lambda: states(service)[-1] == "done")
            wait_for(lambda: (tmp_path / "out.glb").exists())
            process.kill()
            process.communicate()
    assert (tmp_path / "out.glb").read_bytes() == sent[0].read_bytes()
