from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
from synthetic_run import add_lines, make_run

from ultrashape_cli.errors import DependencyError
from ultrashape_cli.monitoring.tensorboard import Feed, serve, tunnel_command


def _losses(folder: Path) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload().Scalars("loss")
    return [(event.step, event.wall_time) for event in events]


def test_a_feed_writes_the_past_and_then_what_is_new(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra [tensorboard]")
    run = make_run(tmp_path / "run")
    feed = Feed(run, tmp_path / "tb")
    past = _losses(tmp_path / "tb")
    assert len(past) == 20
    assert all(moment > 0 for _, moment in past)
    add_lines(run, [21, 22])
    feed.update()
    feed.update()
    assert [step for step, _ in _losses(tmp_path / "tb")][-2:] == [21, 22]
    assert len(_losses(tmp_path / "tb")) == 22
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
    # The server is a stand-in; the files are written by the package itself.
    pytest.importorskip("tensorboard", reason="needs the extra [tensorboard]")
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
