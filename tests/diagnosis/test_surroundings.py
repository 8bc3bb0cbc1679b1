"""Host, network, dataset and weights."""

from __future__ import annotations

import re
import resource
import stat
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ultrashape_cli.config.resolve import resolve
from ultrashape_cli.diagnosis import files, host, network
from ultrashape_cli.diagnosis.check import FAIL, OK, WARN, Finding, Subject
from ultrashape_cli.files import write_json
from ultrashape_cli.models.weight_files import write_safetensors_file, write_torch_file


def _subject(**values: Any) -> Subject:
    flags = {"profile": "cpu", **{k: v for k, v in values.items() if "." in k}}
    paths = {k: v for k, v in values.items() if "." not in k}
    return Subject(resolve(flags=flags, environ={}), **paths)


def test_this_python_is_fine() -> None:
    assert {found.status for found in host.check_python(_subject())} == {OK}


def test_optional_packages_are_told_with_what_replaces_them(monkeypatch) -> None:
    monkeypatch.setattr(host.importlib.util, "find_spec", lambda name: name == "peft" or None)
    monkeypatch.setattr(host, "_load_reasons", dict)
    there, absent = host.check_packages(_subject())
    assert there.message == "peft"
    assert "open3d (distances by our own search)" in absent.message


def test_packages_whose_libraries_are_missing_are_told() -> None:
    assert set(host._load_reasons()) == {"pymeshlab", "open3d"}


def test_little_shared_memory_and_few_files_are_told(monkeypatch) -> None:
    small = SimpleNamespace(f_blocks=64, f_frsize=2**20)
    monkeypatch.setattr(host.os, "statvfs", lambda path: small)
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (1024, 524_288))
    shared, opened = host.check_limits(_subject())
    assert (shared.status, "0.06 GiB" in shared.message) == (WARN, True)
    assert (opened.status, opened.fix) == (WARN, "ulimit -n 65536")
    assert next(iter(host.check_limits(_subject(**{"train.num_workers": 0})))).status == OK


def test_the_cache_may_not_exist_yet(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "a" / "b"))
    (found,) = host.check_cache(_subject())
    assert found.status in (OK, WARN)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("said", "status"),
    [("Blender 4.2.1", OK), ("Blender 3.6.0", WARN), ("what?", WARN), ("", WARN)],
)
def test_blender_is_asked_for_its_version(tmp_path: Path, said: str, status: str) -> None:
    program = tmp_path / "blender"
    program.write_text(f"#!/bin/sh\necho '{said}'\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    (found,) = host.check_blender(_subject(**{"render.blender": str(program)}))
    assert found.status == status


def test_a_missing_blender_matters_only_where_it_is_asked_for() -> None:
    nowhere = {"render.blender": "no-such-program"}
    assert next(iter(host.check_blender(_subject(**nowhere)))).status == OK
    wanted = nowhere | {"render.renderer": "blender"}
    assert next(iter(host.check_blender(_subject(**wanted)))).status == FAIL


def test_variables_are_shown_without_secrets(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("HF_TOKEN=hf_0123456789\nDATABASE_URL=x\n")
    environ = {"WANDB_API_KEY": "abcdefghijklmnop", "CUDA_VISIBLE_DEVICES": "1", "HOME": "/h"}
    shown, dotenv = host.describe_variables(environ, tmp_path)
    assert shown.message == "CUDA_VISIBLE_DEVICES=1, WANDB_API_KEY=...mnop"
    assert dotenv.message == (
        "sets HF_TOKEN where they are not set; not read, of other prefixes: DATABASE_URL"
    )


class _Answers(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.send_response(self.server.status)
        self.end_headers()

    def date_time_string(self, timestamp: float | None = None) -> str:
        return super().date_time_string(time.time() - self.server.behind_s)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    server = HTTPServer(("127.0.0.1", 0), _Answers)
    server.status, server.behind_s = 200, 0.0
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def _named(found: Iterator[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in found}


@pytest.mark.parametrize("status", [200, 403, 503])
def test_a_hub_that_answers_anything_is_reachable(server, monkeypatch, status: int) -> None:
    server.status = status
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}/")
    monkeypatch.setenv("HF_TOKEN", "hf_secret_0123")
    found = _named(network.check_hub(_subject()))
    assert {finding.status for finding in found.values()} == {OK}
    assert "secret" not in found["hub login"].message


def test_a_clock_far_from_the_servers_is_told(server, monkeypatch) -> None:
    server.behind_s = 600.0
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
    clock = _named(network.check_hub(_subject()))["clock"]
    assert clock.status == WARN
    assert re.search(r"\+(599|60\d) s against the hub", clock.message)


def test_a_clock_at_its_epoch_is_told() -> None:
    (found,) = network.judge_clock(1000.0, None)
    assert found.status == WARN


def test_an_unreachable_hub_is_a_warning(monkeypatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert _named(network.check_hub(_subject()))["hub"].status == WARN


def test_wandb_is_asked_only_with_a_key(server, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    assert _named(network.check_wandb(_subject()))["wandb"].status == OK
    wanted = _subject(**{"train.trackers": "wandb"})
    assert _named(network.check_wandb(wanted))["wandb"].fix == "wandb login"
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login user password 0123456789abcdef\n")
    (tmp_path / ".netrc").chmod(0o600)
    assert "refused" in _named(network.check_wandb(_subject()))["wandb"].message
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.server_address[1]}")
    found = _named(network.check_wandb(_subject()))["wandb"]
    assert (found.status, found.message.endswith("key ...cdef")) == (OK, True)


def _data(root: Path, *, views: bool = True, samples: bool = True) -> Path:
    (root / "records").mkdir(parents=True)
    for name, ids in (("train", ["a", "b"]), ("val", ["c"])):
        write_json(root / "data_list" / f"{name}.json", ids)
    for asset in "abc":
        (root / "renders" / asset).mkdir(parents=True)
        (root / "samples").mkdir(exist_ok=True)
        if views or asset != "b":
            (root / "renders" / asset / "view_000.png").touch()
        if samples or asset != "a":
            (root / "samples" / f"{asset}.npz").touch()
    return root


def test_a_whole_dataset_is_ok_and_missing_files_are_counted(tmp_path: Path) -> None:
    (found,) = files.check_data(_subject(data=_data(tmp_path / "whole")))
    assert (found.status, "2 train, 1 val" in found.message) == (OK, True)
    broken = _data(tmp_path / "broken", views=False, samples=False)
    unseen, unsampled = files.check_data(_subject(data=broken))
    assert unseen.message == "no views of 1 assets, such as b"
    assert unsampled.message == "no samples of 1 assets, such as a"
    (found,) = files.check_data(_subject(data=tmp_path))
    assert (found.status, "not a prepared dataset" in found.message) == (FAIL, True)
    assert list(files.check_data(_subject())) == []


def test_whole_weights_are_ok_and_cut_ones_are_not(tmp_path: Path) -> None:
    tensors = {"vae.weight": torch.ones(1000)}
    safe, bundle = tmp_path / "w.safetensors", tmp_path / "w.pt"
    write_safetensors_file(safe, tensors, {}, None)
    write_torch_file(bundle, {"vae": tensors}, None)
    for path in (safe, bundle):
        assert files.inspect_weights(path) == ""
        whole = path.read_bytes()
        for size in (0, 5, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:size])
            assert files.inspect_weights(path), size
    assert files.inspect_weights(tmp_path / "absent") == "is not there"
    assert files.inspect_weights(tmp_path.parent) != ""


def test_weights_are_named_as_training_names_them() -> None:
    (found,) = files.check_weights(_subject(weights=Path("tiny")))
    assert found.status == OK
    assert found.message.startswith("tiny, which comes with the package, 0.0")


def test_damaged_weights_are_told_with_what_brings_them_back(tmp_path: Path) -> None:
    for name, fix in (("ultrashape_v1.pt", f"ushape weights pull -o {tmp_path} --force"),
                      ("mine.safetensors", "")):  # fmt: skip
        (tmp_path / name).write_bytes(b"")
        (found,) = files.check_weights(_subject(weights=tmp_path / name))
        assert found == Finding("weights", FAIL, f"{tmp_path / name} is empty (0 bytes)", fix)


def test_missing_weights_are_told_with_the_command(tmp_path: Path) -> None:
    (found,) = files.check_weights(_subject(weights=tmp_path / "absent.pt"))
    assert (found.status, found.fix) == (FAIL, "ushape weights pull")
    (found,) = files.check_weights(_subject())
    assert found.status == WARN
    assert list(files.check_weights(_subject(**{"train.model": "tiny"}))) == []
