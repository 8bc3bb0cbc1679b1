"""The files of the page: ours need no other site, and the vendored ones are as they were sent."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

import httpx
import pytest
from serving import Served

import ultrashape_cli.service.app

PAGE = Path(ultrashape_cli.service.app.__file__).parent / "page"
OURS = sorted(path for path in PAGE.iterdir() if path.is_file())
ROWS = re.findall(r"^\| (\S+) \| ([0-9a-f]{64}) \|$", (PAGE / "three/SOURCES.md").read_text(), re.M)


@pytest.mark.parametrize(("name", "digest"), ROWS)
def test_a_vendored_file_is_as_it_came(name: str, digest: str) -> None:
    assert hashlib.sha256((PAGE / "three" / name).read_bytes()).hexdigest() == digest


def test_every_vendored_file_is_named_with_its_licence() -> None:
    found = {str(p.relative_to(PAGE / "three")) for p in (PAGE / "three").rglob("*") if p.is_file()}
    assert found == {name for name, _ in ROWS} | {"SOURCES.md"}
    assert "MIT License" in (PAGE / "three/LICENSE").read_text()
    assert sum(p.stat().st_size for p in PAGE.rglob("*") if p.is_file()) < 1.2e6


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.name)
def test_our_files_name_no_other_site(path: Path) -> None:
    addresses = re.findall(r"https?://[^\s'\"`]+", path.read_text())
    # The name of a format, which nobody fetches.
    assert set(addresses) <= {"http://www.w3.org/2000/svg"}
    assert len(path.read_text().splitlines()) <= 400


def test_the_page_holds_no_script_and_no_style_of_its_own() -> None:
    html = (PAGE / "index.html").read_text()
    assert re.findall(r"<script(?! type=\"(?:importmap|module)\")", html) == []
    assert not re.search(r"\sstyle=|<style|\son\w+=|javascript:", html)
    code = "".join(path.read_text() for path in OURS if path.suffix == ".js")
    assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|\beval\(|style: '", code)


def test_the_policy_lets_in_the_import_map_and_nothing_else_inline(http: httpx.Client) -> None:
    answer = http.get("/")
    policy = answer.headers["content-security-policy"]
    (text,) = re.findall(r'<script type="importmap">(.*?)</script>', answer.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    assert f"script-src 'self' 'sha256-{digest}'; " in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy


def test_a_browser_keeps_the_files_and_asks_whether_they_are_new(http: httpx.Client) -> None:
    one = http.get("/assets/three/three.core.min.js")
    assert one.headers["cache-control"] == "no-cache"
    headers = {"If-None-Match": one.headers["etag"]}
    assert http.get("/assets/three/three.core.min.js", headers=headers).status_code == 304
    assert http.get("/jobs").headers["cache-control"] == "no-store"


def test_every_file_that_the_page_names_is_there(http: httpx.Client, service: Served) -> None:
    seen, todo = set(), ["/"]
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        seen.add(path)
        answer = http.get(path)
        assert answer.status_code == 200, path
        here = path.rpartition("/")[0]
        for name in re.findall(r"(?:from|import\()\s?['\"](\.[^'\"]+)['\"]", answer.text):
            todo.append(str(httpx.URL(f"http://x{here}/").join(name).path))
        if path == "/":
            todo += re.findall(r'"(/assets/[^"]+)"', answer.text)
    assert "/assets/three/loaders/GLTFLoader.js" in seen
    assert "/assets/three/three.core.min.js" in seen
    named = {name.removeprefix("/assets/") for name in seen}
    assert {path.name for path in OURS} - named == {"index.html"}
