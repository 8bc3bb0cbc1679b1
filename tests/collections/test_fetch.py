from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from collections_server import FileServer, serving

from ultrashape_cli.collections.fetch import (
    JOURNAL,
    FetchSettings,
    fetch_items,
    read_journal,
    target_of,
)
from ultrashape_cli.collections.manifest import SourceItem
from ultrashape_cli.errors import DiskError, UsageError

FAST = FetchSettings(pause_s=0.001, timeout_s=5.0)


def body_of(path: str) -> bytes:
    return f"mesh of {path}".encode()


def items_of(server: FileServer, count: int, **more: object) -> list[SourceItem]:
    return [SourceItem(uid=f"{n:04d}", source="objaverse", url=f"{server.url}/{n:04d}.glb", **more)
            for n in range(count)]  # fmt: skip


def test_a_thousand_items_with_failures_end_and_the_second_run_fetches_those_only(
    tmp_path: Path,
) -> None:
    broken = {f"/{n:04d}.glb" for n in range(0, 1000, 10)}
    with serving(lambda path, _: (500, b"") if path in broken else (200, body_of(path))) as server:
        items = items_of(server, 1000)
        first = fetch_items(items, tmp_path, FetchSettings(workers=8, tries=2, pause_s=0.001))
        assert (first.fetched, len(first.failed), first.had, first.left) == (900, 100, 0, 0)
        assert set(first.failed.values()) == {"the server answered 500"}
        assert server.most_at_once <= 8
        assert sum(server.asked.values()) == 900 + 2 * 100
        server.asked.clear()
        broken.clear()
        second = fetch_items(items, tmp_path, FAST)
        assert (second.fetched, len(second.failed), second.had) == (100, 0, 900)
        assert sum(server.asked.values()) == 100
        third = fetch_items(items, tmp_path, FAST)
        assert (third.fetched, third.had) == (0, 1000)
        assert sum(server.asked.values()) == 100
    for item in items:
        assert target_of(item, tmp_path).read_bytes() == body_of(f"/{item.uid}.glb")
    entry = read_journal(tmp_path)["objaverse/0001"]
    assert entry.sha256 == hashlib.sha256(body_of("/0001.glb")).hexdigest()


def test_what_another_try_mends_is_no_failure(tmp_path: Path) -> None:
    answers = {"/0000.glb": 503, "/0001.glb": 429, "/0002.glb": -200}
    with serving(lambda path, n: (answers[path] if n < 3 else 200, body_of(path))) as server:
        done = fetch_items(items_of(server, 3), tmp_path, FAST)
        assert (done.fetched, done.failed) == (3, {})
        assert set(server.asked.values()) == {3}


def test_what_is_gone_is_not_asked_for_again_unless_told(tmp_path: Path) -> None:
    with serving(lambda path, _: (404 if path == "/0000.glb" else 410, b"")) as server:
        items = items_of(server, 2)
        for _ in range(2):
            done = fetch_items(items, tmp_path, FAST)
            assert (len(done.gone), done.failed, done.left) == (2, {}, 0)
        assert set(server.asked.values()) == {1}
        server.answer = lambda path, _: (200, body_of(path))
        again = FetchSettings(retry_gone=True, pause_s=0.001)
        assert fetch_items(items, tmp_path, again).fetched == 2


def test_another_content_than_the_collection_tells_is_not_taken(tmp_path: Path) -> None:
    right = hashlib.sha256(body_of("/0000.glb")).hexdigest()
    with serving(lambda path, _: (200, body_of(path))) as server:
        done = fetch_items(items_of(server, 2, sha256=right), tmp_path, FAST)
        assert done.fetched == 1
        assert f"not {right}" in done.gone["objaverse/0001"]
        # A damaged transfer is asked for once more.
        assert server.asked["/0001.glb"] == 2
    assert not target_of(items_of(server, 2)[1], tmp_path).exists()
    assert not list(tmp_path.rglob("*.tmp.*"))


def test_a_file_that_the_collection_replaced_is_fetched_again(tmp_path: Path) -> None:
    old, new = b"mesh one", b"mesh two"  # the same size
    with serving(lambda path, _: (200, old)) as server:
        fetch_items(items_of(server, 1, sha256=hashlib.sha256(old).hexdigest()), tmp_path, FAST)
        server.answer = lambda path, _: (200, new)
        items = items_of(server, 1, sha256=hashlib.sha256(new).hexdigest())
        done = fetch_items(items, tmp_path, FAST)
        assert (done.fetched, done.had) == (1, 0)
    assert target_of(items[0], tmp_path).read_bytes() == new


@pytest.mark.parametrize("length", [True, False])
def test_the_limit_is_never_passed(tmp_path: Path, length: bool) -> None:
    with serving(lambda path, _: (200, b"x" * 1000)) as server:
        server.length = length
        items = items_of(server, 20)
        first = fetch_items(items, tmp_path, FetchSettings(workers=4, max_bytes=5500))
        assert first.fetched <= 5
        assert first.fetched + first.left == 20
        again = fetch_items(items, tmp_path, FetchSettings(workers=4, max_bytes=5500))
        # What is there counts.
        assert again.had + again.fetched <= 5
        files = list(tmp_path.rglob("*.glb"))
        assert sum(path.stat().st_size for path in files) <= 5500
        assert not list(tmp_path.rglob("*.tmp.*"))
        assert fetch_items(items, tmp_path, FAST).left == 0


def test_no_web_page_and_no_other_kind_of_address_is_taken(tmp_path: Path) -> None:
    (tmp_path / "secret.glb").write_text("secret")
    with serving(lambda path, _: (200, b"<html>")) as server:
        server.headers = {"Content-Type": "text/html; charset=utf-8"}
        page = items_of(server, 1)
        other = [SourceItem(uid=name, source="objaverse", url=url) for name, url in (
            ("file", f"file://{tmp_path}/secret.glb"), ("ftp", "ftp://127.0.0.1/x.glb"),
            ("none", "x.glb"))]  # fmt: skip
        done = fetch_items(page + other, tmp_path / "out", FAST)
    assert done.fetched == 0
    assert done.failed["objaverse/0000"] == "the server sent a web page"
    assert "no address of http" in done.failed["objaverse/file"]
    assert len(done.failed) == 4


def test_a_redirect_leads_to_the_web_only(tmp_path: Path) -> None:
    with serving(lambda path, _: (302, b"")) as server:
        server.headers = {"Location": f"file://{tmp_path}/secret.glb"}
        (tmp_path / "secret.glb").write_text("secret")
        done = fetch_items(items_of(server, 1), tmp_path / "out", FAST)
    assert (done.fetched, len(done.failed)) == (0, 1)


def test_nobody_there_is_a_failure_of_each_item(tmp_path: Path) -> None:
    items = [SourceItem(uid="1", source="objaverse", url="http://127.0.0.1:9/x.glb")]
    done = fetch_items(items, tmp_path, FAST)
    assert done.failed == {"objaverse/1": "connection refused"}


@pytest.mark.parametrize("uid", ["../../x", "a/b", "", ".hidden", "x" * 300, "CON\0", "é"])
def test_a_strange_uid_makes_no_strange_path(tmp_path: Path, uid: str) -> None:
    item = SourceItem(uid=uid, source="objaverse-xl", url="http://x/y.glb")
    path = target_of(item, tmp_path)
    assert path.parent.parent == tmp_path
    assert path.name.isascii()
    assert path.suffix == ".glb"
    assert len(path.name) < 40


def test_two_processes_do_not_fetch_into_one_folder(tmp_path: Path) -> None:
    code = (
        "import sys,time,pathlib\n"
        "from ultrashape_cli.collections.fetch import _alone\n"
        "with _alone(pathlib.Path(sys.argv[1])): print('in',flush=True); time.sleep(60)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(UsageError, match="another process"):
            fetch_items([], tmp_path, FAST)
        process.kill()


def test_a_full_disk_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with serving(lambda path, _: (200, body_of(path))) as server:
        monkeypatch.setattr(Path, "replace", full)
        with pytest.raises(DiskError, match="no space left"):
            fetch_items(items_of(server, 20), tmp_path, FAST)


def test_a_signal_leaves_the_rest_for_the_next_call(tmp_path: Path) -> None:
    with serving(lambda path, _: (200, body_of(path))) as server:
        items = items_of(server, 200)
        told: list[int] = []
        done = fetch_items(
            items,
            tmp_path,
            FetchSettings(workers=2),
            on_progress=lambda count, _: told.append(count),
            stop=lambda: len(told) >= 10,
        )
        assert 10 <= done.fetched < 200
        assert done.fetched + done.left == 200
        assert fetch_items(items, tmp_path, FAST).had == done.fetched


def test_killed_it_goes_on_where_it_was(tmp_path: Path) -> None:
    code = (
        "import sys,pathlib\n"
        "from ultrashape_cli.collections.fetch import *\n"
        "from ultrashape_cli.collections.manifest import SourceItem\n"
        "url,out=sys.argv[1:]\n"
        "items=[SourceItem(uid=f'{n:04d}',source='objaverse',url=f'{url}/{n:04d}.glb')"
        " for n in range(200)]\n"
        "fetch_items(items,pathlib.Path(out),FetchSettings(workers=4),"
        "on_progress=lambda n,_: print(n,flush=True))\n"
    )

    def slow(path: str, _: int) -> tuple[int, bytes]:
        time.sleep(0.005)
        return 200, body_of(path) * 500

    with serving(slow) as server:
        command = [sys.executable, "-c", code, server.url, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            while int(process.stdout.readline()) < 40:
                pass
            os.kill(process.pid, signal.SIGKILL)
        whole = len(list(tmp_path.rglob("[!.]*.glb")))
        assert 40 <= whole < 200
        # The journal ends in the middle of a line.
        with (tmp_path / JOURNAL).open("ab") as file:
            file.write(b'{"key": "objaverse/01')
        server.asked.clear()
        done = fetch_items(items_of(server, 200), tmp_path, FAST)
        assert done.had + done.fetched == 200
        # Nothing that was whole is asked for again.
        assert sum(server.asked.values()) == 200 - whole
    for item in items_of(server, 200):
        assert target_of(item, tmp_path).read_bytes() == body_of(f"/{item.uid}.glb") * 500
    assert not list(tmp_path.rglob(".*.tmp.*"))
