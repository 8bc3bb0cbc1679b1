"""The page of a run: what is on it, and that a browser runs it."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
import time
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from synthetic_run import VALIDATED, add_checkpoint, add_lines, make_run, set_config

from ultrashape_cli.files import write_json
from ultrashape_cli.monitoring.alerts import ALERTS_FILE
from ultrashape_cli.reporting.run_report import render_run, write_run_report
from ultrashape_cli.reporting.samples import read_samples
from ultrashape_cli.runs import RunFolder, record_event

CHROMIUM = shutil.which("chromium")
KINDS = ("reference", "coarse", "base", "current", "ema", "truth")


def _samples(run: RunFolder, step: int, *, kinds: tuple[str, ...] = KINDS) -> Path:
    folder = run.root / "samples" / f"step-{step:08d}"
    folder.mkdir(parents=True)
    for number, kind in enumerate(kinds):
        pixels = np.full((48, 48, 4), 40 * number, np.uint8)
        Image.fromarray(pixels).save(folder / f"shoe-{kind}.png")
    metrics = {"current": {"f_score@0.01": 0.75}, "base": {"f_score@0.01": 0.5}}
    write_json(folder / "metrics.json",
               {"step": step, "assets": [{"id": "shoe", **metrics}], "mean": metrics})  # fmt: skip
    return folder


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    run = make_run(tmp_path / "shoes")
    set_config(run, launch="price_per_hour = 2.0\n", model="tiny", data="/data/<b>")
    bins = {f"loss_t{index}": 0.5 for index in range(10)}
    add_lines(run, range(21, 40), start=time.time() - 40, mfu=0.4, **bins)
    add_lines(run, [40], start=time.time() - 40, **VALIDATED)
    add_lines(run, [41], start=time.time() - 40, **VALIDATED)
    record_event(run, "start", time=time.time() - 7200)
    run.status.write_text(json.dumps(run.read_status() | {"time": time.time() - 3600}))
    record_event(run, "start", step=20, time=time.time() - 1800)
    add_checkpoint(run, 40)
    run.write_status("failed", step=41, steps=100, error="<script>boom</script>")
    record_event(run, "fail", step=41, message="<script>boom</script>")
    write_json(run.origins, {"train.model": "flag", "train.data": "--set"})
    write_json(run.root / "environment.json", {"python": "3.12", "packages": {"torch": "2.9"}})
    hook = "--set alerts.webhook=https://hooks/T/secret1"
    (run.root / "command.txt").write_text(f"ushape train --model tiny\nushape train {hook}\n")
    alert = {"rule": "gpu-hot", "change": "raised", "message": "GPU too hot", "time": 1.0}
    (run.root / ALERTS_FILE).write_text(json.dumps(alert) + "\n")
    run.log().write_bytes(b"x INFO fine\nx WARNING step 7 skipped\n\xff\xfe WARNING odd\n")
    _samples(run, 20)
    _samples(run, 40)
    return run


class _Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href") and value]

    def handle_data(self, data) -> None:
        self.words.append(data)


def test_everything_a_run_left_is_on_its_page(run: RunFolder) -> None:
    page = _Page(render_run(run))
    text = " ".join(" ".join(page.words).split())
    for part in (
        *("shoes", "failed", "<script>boom</script>", "F-score@0.01", "+60.0 %", "pretrained"),
        *(
            "+50.0 % better",
            "fine-tuned",
            "over the run",
            "GPU too hot",
            "Warnings and errors of the log: 2",
        ),
        *("step 7 skipped", "died", "start", "step-00000040", "train.model", "flag", "--set"),
        *("/data/<b>", "torch", "2.9", "ushape train --model tiny", "41.0 % of 100 steps"),
        *("backward 60 %", "Loss by t", "Gradient norm", "cost so far"),
    ):
        assert part in text, part
    # Active for one hour, killed, and then for half an hour.
    assert "1h30m" in text
    assert "3.00" in text


@pytest.mark.parametrize("stage", ["dit", "vae"])
def test_better_than_the_start_but_worse_than_the_input_is_red(run: RunFolder, stage: str) -> None:
    set_config(run, stage=stage)
    assert "<div class='tile good'><b>+60.0 %</b><span>F-score@0.01 against pre" in render_run(run)
    assert "worse than the input" not in render_run(run)
    worse = {"val_coarse_f_score@0.01": 0.9, "val_coarse_chamfer_l1": 0.001}
    add_lines(run, [42], start=time.time() - 40, **VALIDATED | worse)
    add_lines(run, [43], start=time.time() - 40, val_loss=0.2)  # which refined no meshes
    newest = run.root / "samples" / "step-00000040" / "metrics.json"
    metrics = {"current": {"chamfer_l1": 0.3}, "coarse": {"chamfer_l1": 0.1}}
    write_json(newest, {"assets": [{"id": "shoe", **metrics}]})
    page = render_run(run)
    for part in (
        "<div class='tile '><b>+60.0 %</b><span>F-score@0.01 against pretrained",
        "<div class='tile bad'><b>-11.1 %</b><span>F-score@0.01: worse than the input",
        "<div class='tile bad'><b>10x</b><span>Chamfer-L1: worse than the input",
        "<th>against the input",
        "<em class=bad>10x worse</em>",
        "<em class=bad>3x worse than the input</em>",
    ):
        assert (part in page) == (stage == "dit"), part


def test_the_page_needs_nothing_else(run: RunFolder) -> None:
    text = render_run(run)
    page = _Page(text)
    assert len(page.links) == 8
    assert all(link.startswith("data:image/webp;base64,") for link in page.links)
    assert "http" not in re.sub(r"base64,[^']*", "", text)
    assert page.tags.count("script") == 1
    assert not {"link", "iframe"} & set(page.tags)


def test_the_page_holds_no_secret(run: RunFolder) -> None:
    set_config(run, init="https://me:password@host")
    page = render_run(run)
    assert "ushape train --set alerts.webhook=...ret1" in page
    assert "secret" not in page
    assert "password" not in page


@pytest.mark.parametrize("left_out", KINDS)
def test_missing_pictures_leave_the_others(run: RunFolder, left_out: str) -> None:
    for folder in (run.root / "samples").iterdir():
        (folder / f"shoe-{left_out}.png").unlink()
    page = _Page(render_run(run))
    assert len(page.links) == {"current": 0, "base": 8}.get(left_out, 7)


def test_a_run_that_has_only_begun_has_a_page(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    run = RunFolder(tmp_path / "new")
    run.write_status("running", step=0, steps=10)
    assert "running" in render_run(run)


def test_damaged_files_are_survived(run: RunFolder) -> None:
    for name in ("origins.json", "environment.json", "events.jsonl", "config.toml", "metrics.jsonl",
                 ALERTS_FILE, "command.txt"):  # fmt: skip
        (run.root / name).write_bytes(b'\xff["torn')
    newest = run.root / "samples" / "step-00000040" / "metrics.json"
    newest.write_text('{"assets": [3, {"id": "../x"}, {"id": "a"}], "mean": 7}')
    assert "boom" in render_run(run)
    assert [asset["id"] for asset in read_samples(run.root / "samples")[-1].assets] == ["a"]


def test_the_page_is_written_whole(run: RunFolder, tmp_path: Path) -> None:
    out = write_run_report(run, tmp_path / "new folder" / "page.html")
    assert out.read_text().endswith("</html>\n")
    assert os.listdir(out.parent) == ["page.html"]


DRIVE = """<script>
const seen = {errors: window.problems};
addEventListener('load', () => {
  const box = document.querySelector('.compare'), range = box.querySelector('input');
  const before = box.querySelector('.before');
  seen.loaded = [...document.images].every(i => i.complete && i.naturalWidth > 0);
  seen.middle = getComputedStyle(before).clipPath;
  range.value = 20;
  range.dispatchEvent(new Event('input'));
  seen.moved = getComputedStyle(before).clipPath;
  const svg = document.querySelector('svg[data-series]'), area = svg.getBoundingClientRect();
  svg.dispatchEvent(new MouseEvent('mousemove', {clientX: area.right - 15, clientY: area.top}));
  seen.hover = svg.parentNode.querySelector('output').textContent;
  seen.wide = document.documentElement.scrollWidth <= innerWidth;
  seen.offline = performance.getEntriesByType('resource').every(e => e.name.startsWith('data:'));
  document.title = JSON.stringify(seen);
});
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here (apt-get install chromium)")
def test_a_browser_runs_the_page(run: RunFolder, tmp_path: Path) -> None:
    catch = "<script>window.problems = []; onerror = text => problems.push(text)</script>"
    page = tmp_path / "page.html"
    page.write_text(render_run(run).replace("<meta", catch + "<meta", 1) + DRIVE)
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--dump-dom",
               "--disable-background-networking", "--disable-component-update", "--disable-sync",
               f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1280,900")  # fmt: skip
    done = subprocess.run(
        [CHROMIUM, *options, page.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    seen = json.loads(html.unescape(re.search(r"<title>(.*?)</title>", done.stdout)[1]))
    assert seen["errors"] == []
    assert seen["loaded"]
    assert seen["offline"]
    assert seen["wide"]
    assert "50%" in seen["middle"]
    assert "20%" in seen["moved"] or "80%" in seen["moved"]
    assert seen["hover"].startswith("step 41\n")
    assert "smoothed" in seen["hover"]


def test_rewards_have_curves_with_those_held_out_beside_them(tmp_path: Path) -> None:
    run = make_run(tmp_path / "rewarded")
    add_lines(run, range(21, 40), start=time.time() - 40, reward_chamfer=3.0)
    held = {"val_held_normals": 0.9, "val_base_held_normals": 0.8, "val_loss": 1.0}
    values = {"val_reward_chamfer": 4.0, "val_base_reward_chamfer": 3.5, **held}
    add_lines(run, [40], start=time.time() - 40, reward_chamfer=3.1, **values)
    add_lines(run, [41], start=time.time() - 40, reward_chamfer=3.2, **values)
    text = " ".join(" ".join(_Page(render_run(run)).words).split())
    for part in ("reward chamfer", "held out normals", "groups", "+12.5 % better"):
        assert part in text, part
