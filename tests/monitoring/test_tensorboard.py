from __future__ import annotations

import struct
import sys
import time
from pathlib import Path

import pytest
from synthetic_run import add_lines, make_run

from ultrashape_cli.errors import DependencyError
from ultrashape_cli.monitoring.tensorboard import Feed, crc32c, event, serve, tunnel_command


def _records(path: Path) -> list[bytes]:
    """The bodies of a record file; their checksums must be right."""
    data, found = path.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        body, rest = data[12 : 12 + length], data[12 + length :]
        for part, stored in ((data[:8], data[8:12]), (body, rest[:4])):
            crc = crc32c(part)
            wanted = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
            assert struct.unpack("<I", stored) == (wanted,)
        found.append(body)
        data = rest[4:]
    return found


def test_the_checksum_is_the_standards() -> None:
    # The check value of CRC-32C, RFC 3720 B.4 has the second one.
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA


def test_an_event_holds_time_step_and_values() -> None:
    body = event({"step": 300, "time": 2.5, "loss": 0.5})
    summary = b"\x0a\x0b" + b"\x0a\x04loss\x15" + struct.pack("<f", 0.5)
    assert body == b"\x09" + struct.pack("<d", 2.5) + b"\x10\xac\x02" + b"\x2a\x0d" + summary


def test_a_feed_writes_the_past_and_then_what_is_new(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    feed = Feed(run, tmp_path / "tb")
    (file,) = (tmp_path / "tb").iterdir()
    assert "tfevents" in file.name
    assert len(_records(file)) == 1 + 20
    add_lines(run, [21, 22])
    feed.update()
    feed.update()
    assert len(_records(file)) == 1 + 22
    feed.close()


def test_the_server_gets_a_folder_per_run_and_ends_with_the_view(
    tmp_path: Path, monkeypatch
) -> None:
    package = tmp_path / "site" / "tensorboard"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    said = tmp_path / "said"
    (package / "main.py").write_text(
        "import os, sys, time\n"
        f"text = repr([sys.argv[1:], sorted(os.listdir(sys.argv[2]))])\n"
        f"open({str(said)!r}, 'w').write(text)\n"
        "time.sleep(60)\n"
    )
    monkeypatch.syspath_prepend(package.parent)
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    with serve([make_run(tmp_path / "a"), make_run(tmp_path / "b")]) as (port, feeds):
        deadline = time.monotonic() + 30
        while not said.exists() or not said.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert len(feeds) == 2
    text = said.read_text()
    assert f"'--host', 'localhost', '--port', '{port}'" in text
    assert "'a', 'b'" in text
    folder = text.split("'")[3]
    assert not Path(folder).exists()


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(DependencyError) as caught, serve([]):
        pass
    assert caught.value.hint == "pip install 'ultrashape-cli[tensorboard]'"


def test_the_tunnel_leads_back_the_way_the_user_came(monkeypatch) -> None:
    monkeypatch.setenv("LOGNAME", "me")
    came = {"SSH_CONNECTION": "10.0.0.9 50000 203.0.113.7 2222"}
    assert tunnel_command(6006, came) == "ssh -N -L 6006:localhost:6006 -p 2222 me@203.0.113.7"
    assert tunnel_command(6006, {}).startswith("ssh -N -L 6006:localhost:6006 me@")
