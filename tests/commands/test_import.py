"""`ushape import`: what is written, fetched, told and refused."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from collections_server import FileServer, serving

from ultrashape_cli.collections.manifest import read_manifest


@pytest.fixture
def call(ushape) -> Callable[..., dict]:
    def run(*arguments: object, code: int = 0) -> dict:
        result = ushape("import", *arguments, "--json")
        assert result.code == code, result.err
        return {**json.loads(result.out), "stderr": " ".join(result.err.split())}

    return run


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """A copy of the index of Objaverse with forty objects, every fourth of them non-commercial."""
    folder = tmp_path / "index"
    (folder / "metadata").mkdir(parents=True)
    paths = {f"{n:04x}": f"glbs/000-000/{n:04x}.glb" for n in range(40)}
    notes = {
        uid: {"name": uid, "license": "by-nc" if int(uid, 16) % 4 == 0 else "by",
              "faceCount": 100 * int(uid, 16), "user": {"username": f"maker{int(uid, 16) % 5}"}}
        for uid in paths
    }  # fmt: skip
    for name, value in (("object-paths", paths), ("metadata/000-000", notes)):
        with gzip.open(folder / f"{name}.json.gz", "wt") as file:
            json.dump(value, file)
    return folder


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch):
    with serving(lambda path, _: (200, f"mesh {path}".encode())) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


def test_a_manifest_tells_licences_and_reasons(call, index: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.jsonl"
    body = call("objaverse", index, "-o", out, "--min-faces", "1000", "--dry-run")
    assert body["counts"] == {"kept": 23, "excluded": 17}
    assert not out.exists()
    body = call("objaverse", index, "-o", out, "--min-faces", "1000")
    assert body["licences"] == {"CC-BY-4.0": 23}
    # Reasons are counted in the order of the rules: licences first.
    assert body["excluded"] == {"licence CC-BY-NC-4.0": 10, "too few faces": 7}
    items = list(read_manifest(out))
    assert len(items) == 23
    assert {item.path for item in items} == {""}
    body = call("objaverse", index, "-o", out, "--licence-allow", "cc-by-nc,cc0", "--limit", "3")
    assert body["licences"] == {"CC-BY-NC-4.0": 3}
    assert "not for commercial use" in body["stderr"]


def test_fetching_records_failures_and_the_next_call_fetches_those(
    call, index: Path, hub: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ultrashape_cli.collections.download._MAX_PAUSE_S", 0.001)
    out, files = tmp_path / "o.jsonl", tmp_path / "files"
    whole = hub.answer
    bad = {f"/datasets/allenai/objaverse/resolve/main/glbs/000-000/{uid}.glb": code
           for uid, code in (("0001", 500), ("0002", 404), ("0003", 403))}  # fmt: skip
    hub.answer = lambda path, n: (bad[path], b"") if path in bad else whole(path, n)
    command = ("objaverse", index, "-o", out, "--fetch", files)
    body = call(*command, code=1)
    assert body["status"] == "failed"
    assert body["counts"] == {"kept": 30, "excluded": 10, "fetched": 27, "had": 0, "failed": 2,
                              "gone": 1, "left": 0}  # fmt: skip
    assert body["failures"].keys() == {"objaverse/0001", "objaverse/0003"}
    assert body["gone"] == {"objaverse/0002": "the server answered 404"}
    items = {item.uid: item for item in read_manifest(out)}
    assert sum(bool(item.path) for item in items.values()) == 27
    fetched = items["0005"]
    assert (tmp_path / fetched.path).read_bytes().endswith(b"/0005.glb")
    assert len(fetched.sha256) == 64

    bad.clear()
    hub.asked.clear()
    body = call(*command)
    assert sorted(path[-8:] for path in hub.asked) == ["0001.glb", "0003.glb"]
    assert (body["counts"]["fetched"], body["counts"]["had"], body["counts"]["gone"]) == (2, 27, 1)
    body = call(*command, "--retry-gone")
    assert (body["counts"]["fetched"], body["counts"]["had"]) == (1, 29)
    # Without --fetch what is known of the files stays.
    call("objaverse", index, "-o", out)
    assert all(item.path for item in read_manifest(out))


def test_the_limit_leaves_the_rest(call, index: Path, hub: FileServer, tmp_path: Path) -> None:
    command = ("objaverse", index, "-o", tmp_path / "o.jsonl", "--fetch", tmp_path / "files")
    body = call(*command, "--max-gb", "0.0000005")
    counts = body["counts"]
    assert 0 < counts["fetched"] < 30
    assert counts["fetched"] + counts["left"] == 30
    assert body["bytes"] <= 500
    assert "would pass --max-gb" in body["stderr"]


def test_a_studios_tree(call, tmp_path: Path) -> None:
    for name in ("knights/a.stl", "knights/b.stl", "dragons/c.stl", "dragons/d.obj"):
        (tmp_path / "studio" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "studio" / name).write_text(name)
    (tmp_path / "studio/dragons/licence.txt").write_text("CC-BY-NC-4.0")
    out = tmp_path / "m.jsonl"
    body = call("folder", tmp_path / "studio", "--series-from", "depth:1", "-o", out)
    assert body["licences"] == {"LicenseRef-own": 2}
    assert body["excluded"] == {"licence CC-BY-NC-4.0": 2}
    assert {item.series for item in read_manifest(out)} == {"knights"}
    body = call("folder", tmp_path / "studio", "--licence", "cc-by", "--licence-allow", "any",
                "-o", out, "--force")  # fmt: skip
    assert body["licences"] == {"CC-BY-NC-4.0": 2, "CC-BY-4.0": 2}


def test_lines_that_were_edited_stay(call, tmp_path: Path) -> None:
    for name in ("a.stl", "b.stl"):
        (tmp_path / "studio").mkdir(exist_ok=True)
        (tmp_path / "studio" / name).write_text(name)
    out = tmp_path / "m.jsonl"
    command = ("folder", tmp_path / "studio", "-o", out)
    call(*command)
    edited = out.read_text().replace('"title": "a"', '"title": "Anna"')
    out.write_text("\ufeff" + edited)
    for more in ((), ("--limit", 1)):
        assert (
            "this would change 1 lines (`folder/a.stl`)" in call(*command, *more, code=2)["stderr"]
        )
        assert "Anna" in out.read_text()
    (tmp_path / "studio/c.stl").write_text("c")
    call(*command, code=2)
    call(*command, "--force")
    assert [item.title for item in read_manifest(out)] == ["a", "b", "c"]
    assert "leave 2 out" in call(*command, "--limit", 1, code=2)["stderr"]
    told = call(*command, "--series-from", "knights/(.*)/", "--dry-run")["stderr"]
    assert "finds no series in any path" in told


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("folder",), "needs the folder"),
        (("folder", ".", "-o", "m.txt"), "no name of a manifest"),
        (("folder", ".", "--fetch", "x"), "nothing to fetch"),
        (("objaverse", ".", "--series-from", "depth:1"), "are of `folder`"),
        (("folder", ".", "--licence", "ask Anna"), "no SPDX identifier"),
        (("folder", ".", "--series-from", "("), "no regular expression"),
        (("folder", ".", "--series-from", "depth:x"), "names no number of folders"),
        (("objaverse", ".", "--max-gb", "1"), "--max-gb limits"),
        (("objaverse", ".", "--fetch", ".."), "not below the folder"),
        (("thingi10k",), "whole archive"),
        (("thingi10k", "--fetch", "x", "--max-gb", "1"), "all at once"),
        (("thingi10k", "--fetch", "x", "--dry-run"), "all at once"),
        (("folder", ".", "-o", "other.jsonl"), "is a manifest of `abc`"),
        (("folder", ".", "-o", "broken.jsonl"), "line 1: no JSON"),
    ],
)
def test_what_does_not_go_together_touches_nothing(
    call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.stl").write_text("x")
    (tmp_path / "other.jsonl").write_text('{"uid": "1", "source": "abc"}\n')
    (tmp_path / "broken.jsonl").write_text("my notes\n")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    body = call(*arguments, code=2)
    assert words in body["error"]["message"]
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
