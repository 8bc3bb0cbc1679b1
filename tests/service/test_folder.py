"""What a service does to the folder that it is given: nothing, unless it is its own."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from ultrashape_cli.errors import DiskError, UsageError
from ultrashape_cli.service.store import hold, prepare


@pytest.mark.parametrize("left", ["nothing", "empty"])
def test_jobs_without_their_database_are_not_touched(tmp_path: Path, left: str) -> None:
    queue = prepare(tmp_path / "data")
    queue.job_folder("a").mkdir()
    (queue.job_folder("a") / "result.glb").write_text("weeks of work")
    queue.close()
    for path in queue.folder.glob("service.db*"):
        path.unlink()
    if left == "empty":
        queue.path.touch()
    for begin in (prepare, hold):
        with pytest.raises(DiskError, match=r"the database `service\.db` is missing"):
            begin(queue.folder)
    assert (queue.job_folder("a") / "result.glb").read_text() == "weeks of work"


def test_a_folder_of_something_else_is_not_touched(tmp_path: Path) -> None:
    mine = tmp_path / "jobs/mine/thesis.tex"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    (tmp_path / "notes.txt").write_text("mine")
    mode = tmp_path.stat().st_mode
    for begin in (prepare, hold):
        with pytest.raises(UsageError, match="is not the folder of a service"):
            begin(tmp_path)
    (tmp_path / "notes.txt").unlink()
    with pytest.raises(DiskError, match="is not empty"):
        prepare(tmp_path)
    assert (mine.read_text(), tmp_path.stat().st_mode) == ("mine", mode)
    assert [path.name for path in tmp_path.iterdir()] == ["jobs"]


def test_the_root_of_a_new_disk_and_one_with_tokens_are_taken(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "tokens.json").write_text("{}")
    prepare(tmp_path)
    prepare(tmp_path)


@pytest.mark.parametrize("damage", ["torn", "missing"])
def test_the_way_out_that_the_hint_names_is_one(tmp_path: Path, damage: str) -> None:
    queue = prepare(tmp_path / "data")
    queue.job_folder("a").mkdir()
    (queue.job_folder("a") / "result.glb").write_text("weeks of work")
    queue.close()
    for path in queue.folder.glob("service.db*"):
        path.unlink()
    if damage == "torn":
        queue.path.write_bytes(b"\xff" * 20_000)
    with pytest.raises(DiskError) as found:
        prepare(queue.folder)
    commands = re.findall(r"mv \S+ [^\s;,]+", str(found.value.hint))
    assert commands
    subprocess.run(["bash", "-ec", "\n".join(commands)], check=True)
    prepare(queue.folder)
    kept = queue.folder / "jobs-before/a/result.glb"
    assert kept.read_text() == "weeks of work"
