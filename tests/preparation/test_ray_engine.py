"""The engine on Ray: with Ray the same records, without it the command that installs it."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from ultrashape_cli.config.schema import Config, EngineConfig, flatten
from ultrashape_cli.data.layout import Record
from ultrashape_cli.errors import DependencyError
from ultrashape_cli.preparation.engine import Engine
from ultrashape_cli.preparation.guard import Task
from ultrashape_cli.preparation.ray_engine import RayEngine

CONFIG = EngineConfig(kind="ray", workers=2, memory_gib=0.5, retries=1)
NAMES = ("a", "b", "abort", "allocate", "error", "flaky", "c")


def test_without_ray_the_error_names_the_install_command(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(DependencyError, match="needs the package ray") as caught:
        RayEngine(CONFIG, 1, str(tmp_path), {})
    assert "ultrashape-cli[cluster]" in caught.value.hint


def outcomes(engine, folder: Path) -> set[tuple[object, ...]]:
    """Runs the stub on the names and returns what must not depend on the engine."""
    tasks = [
        Task(Record(n, {"path": str(folder / f"{n}.obj"), "sha256": n}), ("watertight", "sample"))
        for n in NAMES
    ]
    with closing(engine):
        return {
            (e.asset_id, e.step, e.result.status, (e.result.error or {}).get("cause"),
             e.result.attempts, e.last)
            for e in engine.run(iter(tasks))
        }  # fmt: skip


def compare(folder: Path) -> None:
    """Fails where the two engines differ; run in a process of its own."""
    settings = flatten(replace(Config(), engine=CONFIG))
    found = []
    for number, kind in enumerate((RayEngine, Engine)):
        place = folder / str(number)
        place.mkdir()
        engine = kind(CONFIG, 2, str(place / "data"), settings, "stub_worker")
        found.append(outcomes(engine, place))
    assert found[0] == found[1], found[0] ^ found[1]
    assert len(found[0]) == 4 * 2 + 3


@pytest.mark.slow
def test_ray_gives_the_same_results_as_the_local_engine(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason='needs pip install "ultrashape-cli[cluster]"')
    # Ray leaves sockets and threads behind that the suite's strict warnings would trip over.
    command = [sys.executable, __file__, tmp_path]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]


if __name__ == "__main__":
    compare(Path(sys.argv[1]))
