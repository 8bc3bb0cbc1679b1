"""Workers on Ray: with Ray jobs are done by actors, without it the error says how to install it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from serving import files, make_plan, served, wait_for

from ultrashape_cli.errors import DependencyError
from ultrashape_cli.service.auth import Tokens
from ultrashape_cli.service.ray_workers import TOKEN, RayWorkers


def test_without_ray_the_error_names_the_install_command(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(DependencyError, match="needs the package ray") as caught:
        RayWorkers(make_plan(engine="ray"), "http://127.0.0.1:1", Tokens(tmp_path / "t"))
    assert "ultrashape-cli[cluster]" in (caught.value.hint or "")


def work(folder: Path) -> None:
    """Has a service with actors do jobs; run in a process of its own."""
    (folder / "data").mkdir()
    tokens = Tokens(folder / "data" / "tokens.json")
    headers = {"Authorization": f"Bearer {tokens.add('anna', 'admin')}"}
    with (
        served(folder / "data", engine="ray", workers=1) as service,
        httpx.Client(base_url=service.url, headers=headers) as http,
    ):
        wait_for(lambda: http.get("/ready").status_code == 200, 90)
        assert TOKEN in [token.name for token in tokens.all()]
        job = http.post("/refine", files=files(), data={"options": '{"seed": 1}'}).json()["job_id"]
        wait_for(lambda: http.get(f"/jobs/{job}").json()["state"] == "done", 30)
        (worker,) = http.get("/status").json()["workers"]
        assert worker["name"] == f"{TOKEN}/ray:0"
    assert [token.name for token in tokens.all()] == ["anna"]


@pytest.mark.slow
def test_ray_actors_do_the_jobs(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason='needs pip install "ultrashape-cli[cluster]"')
    # Ray leaves sockets and threads behind that the suite's strict warnings would trip over.
    command = [sys.executable, __file__, tmp_path]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]


if __name__ == "__main__":
    work(Path(sys.argv[1]))
