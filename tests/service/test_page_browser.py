"""The page as people meet it: a real service, a real browser."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import fake_worker
import httpx
import numpy as np
import pytest
from browser import CHROMIUM, Browser, browsing
from PIL import Image
from serving import Served, files, png, served, wait_for

from ultrashape_cli.meshfiles.save import save_mesh
from ultrashape_cli.service.auth import TOKENS_FILE, Tokens
from ultrashape_cli.synthetic.figurines import make_figurine

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium here (apt-get install chromium)"
)
STATE = "document.querySelector('em.state')?.textContent"
ALERT = "[...document.querySelectorAll('[role=alert]')].map(each => each.innerText).join('')"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsing(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(autouse=True)
def afresh(browser: Browser) -> Iterator[None]:
    """Each test begins with an empty page, and ends without a complaint of the browser."""
    browser.resize(1280, 900)
    browser.open("about:blank")
    browser.events.clear()
    yield
    # What the service refuses is told on the page, and noted by the browser.
    refused = "Failed to load resource: "
    assert [each for each in browser.problems() if not each.startswith(refused)] == []


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A mesh, which the stand-in for a worker sends back, and a picture."""
    folder = tmp_path_factory.mktemp("sent")
    save_mesh(make_figurine(1, 24), folder / "figure.glb")
    (folder / "view.png").write_bytes(png())
    return folder / "figure.glb", folder / "view.png"


def fill(browser: Browser, url: str, sent: tuple[Path, Path], seed: int) -> None:
    """Fills the form in, as a person does."""
    browser.open(f"{url}/")
    browser.wait("document.querySelector('#mesh-file')")
    browser.choose("#mesh-file", sent[0])
    browser.choose("#image-file", sent[1])
    browser.run(f"document.querySelector('#option-seed').value = {seed}")
    browser.wait("!document.querySelector('button[type=submit].main:not(#token *)').disabled")


def pixels(browser: Browser) -> np.ndarray:
    """Returns what the viewer shows, `[H, W, 3]`."""
    box = browser.run("(r => [r.left, r.top, r.right, r.bottom])"
                      "(document.querySelector('canvas').getBoundingClientRect())")  # fmt: skip
    image = Image.open(io.BytesIO(browser.picture())).convert("RGB").crop(box)
    return np.asarray(image, np.int16)


@pytest.mark.slow
def test_from_upload_to_the_slider_and_the_files(
    browser: Browser, service: Served, sent: tuple[Path, Path], tmp_path: Path
) -> None:
    fill(browser, service.url, sent, 1)
    browser.click_text("Refine")
    browser.wait(f"{STATE} === 'done'")
    assert browser.run("document.title") == "done: figure.glb"
    browser.wait("document.querySelector('canvas').dataset.painted === 'input result'")
    both = pixels(browser)
    left, right = np.split(both[:, : both.shape[1] // 2 * 2], 2, axis=1)
    assert np.abs(left - right).mean() < 3  # here the result is the input
    assert both.std() > 5

    browser.click_text("Slider")
    browser.wait("document.querySelector('canvas').dataset.mode === 'slide'")
    browser.run("document.querySelector('#split').focus()")
    browser.press("ArrowLeft", 20)
    assert browser.run("document.querySelector('#split').value") == "30"
    assert browser.run("document.querySelector('.handle').style.left") == "30%"

    browser.run("document.querySelector('canvas').focus()")
    before = pixels(browser)
    browser.press("ArrowRight", 3)
    wait_for(lambda: np.abs(pixels(browser) - before).mean() > 0.5)

    browser.send("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    browser.click_text("Save GLB")
    wait_for(lambda: (tmp_path / "figure_refined.glb").exists())
    assert (tmp_path / "figure_refined.glb").read_bytes() == sent[0].read_bytes()
    assert "figure.glb with view.png" in browser.run("document.querySelector('#jobs').innerText")


def test_a_file_that_has_gone_since_it_was_chosen_is_named(
    browser: Browser, service: Served, sent: tuple[Path, Path], tmp_path: Path
) -> None:
    mesh = tmp_path / "figure.glb"
    mesh.write_bytes(sent[0].read_bytes())
    fill(browser, service.url, (mesh, sent[1]), 1)
    mesh.unlink()
    browser.click_text("Refine")
    browser.wait("document.body.innerText.includes('has changed or gone since it was chosen')")


@pytest.mark.slow
def test_the_slider_lies_between_input_and_result(
    browser: Browser, service: Served, sent: tuple[Path, Path], tmp_path: Path
) -> None:
    """With another result: left of the line nothing changes, right of it all does."""
    fill(browser, service.url, sent, 1)
    browser.click_text("Refine")
    browser.wait(f"{STATE} === 'done'")
    job = browser.run("location.hash.slice(5)")
    (made,) = service.store.job_folder(job).rglob("refined.glb")
    save_mesh(make_figurine(8, 24), made)
    browser.reload()
    browser.wait("document.querySelector('canvas')?.dataset.painted === 'input result'")
    browser.click_text("Slider")
    browser.wait("document.querySelector('canvas').dataset.mode === 'slide'")

    def at(value: int) -> np.ndarray:
        browser.run(f"document.querySelector('#split').value = {value}")
        browser.run("document.querySelector('#split').dispatchEvent(new Event('input'))")
        browser.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        return pixels(browser)

    result, middle, only_input = at(0), at(50), at(100)
    half, edge = middle.shape[1] // 2, 30  # beside the line and its handle
    assert np.abs(middle[:, : half - edge] - only_input[:, : half - edge])[:, edge:].max() <= 2
    assert np.abs(middle[:, half + edge :] - result[:, half + edge :])[:, :-edge].max() <= 2
    assert np.abs(result - only_input)[:, edge:-edge].max() > 30


def test_a_reload_in_the_middle_and_cancel(
    browser: Browser, service: Served, sent: tuple[Path, Path]
) -> None:
    fill(browser, service.url, sent, fake_worker.LONG)
    browser.click_text("Refine")
    browser.wait("location.hash.startsWith('#job=')")
    browser.wait(f"{STATE} === 'running' && document.querySelector('#job progress').value > 0")
    browser.reload()
    browser.wait(f"{STATE} === 'running'")
    browser.wait("document.body.innerText.includes('sampling the shape, ')")
    browser.click_text("Cancel")
    browser.wait(f"{STATE} === 'cancelled'")
    assert "This refinement was cancelled." in browser.text()
    browser.click_text("Another try")
    browser.wait("!document.querySelector('#new').hidden")


@pytest.mark.slow
def test_two_pictures_wait_in_the_queue_and_each_is_a_job(
    browser: Browser, service: Served, sent: tuple[Path, Path], http: httpx.Client
) -> None:
    options = {"options": f'{{"seed": {fake_worker.LONG}}}'}
    long = http.post("/refine", files=files(), data=options).json()["job_id"]
    fill(browser, service.url, sent, 1)
    browser.choose("#image-file", sent[1])
    browser.wait("document.body.innerText.includes('2 refinements, one for each picture')")
    browser.click_text("Refine")
    browser.wait(f"{STATE} === 'queued'")
    browser.wait("document.body.innerText.includes('Next in the queue')")
    newest = http.get("/jobs?limit=1").json()["jobs"][0]["job_id"]
    browser.run(f"location.hash = 'job={newest}'")
    browser.wait("document.body.innerText.includes('Place 2 in the queue')")
    http.delete(f"/jobs/{long}")
    browser.wait(f"{STATE} === 'done'")
    browser.wait("[...document.querySelectorAll('#jobs em')].slice(0, 3)"
                 ".map(each => each.textContent).join(' ') === 'done done cancelled'")  # fmt: skip


def test_what_is_wrong_is_told_with_what_helps(
    browser: Browser, service: Served, sent: tuple[Path, Path], tmp_path: Path
) -> None:
    notes, scene = tmp_path / "notes.txt", tmp_path / "scene.glb"
    notes.write_text("no mesh")
    scene.write_text("<html>no mesh either")
    fill(browser, service.url, sent, 1)
    browser.choose("#mesh-file", notes)
    browser.wait(f"{ALERT}.includes('neither a mesh nor a picture')")
    browser.wait(f"{ALERT}.includes('What helps: meshes: glb, obj, ply, stl, off, 3mf')")
    browser.choose("#mesh-file", scene)
    browser.wait(f"{ALERT} === ''")
    browser.click_text("Refine")
    browser.wait(f"{ALERT}.includes('415 bad-type')")
    browser.wait(f"{ALERT}.includes('a web page')")
    browser.wait(f"{ALERT}.includes('What helps:')")

    fill(browser, service.url, sent, fake_worker.FAIL)
    browser.click_text("Refine")
    browser.wait(f"{ALERT}.includes('bad-mesh')")
    assert "What helps: another" in browser.text()

    browser.open("about:blank")
    browser.open(f"{service.url}/#job=nope")
    browser.wait(f"{ALERT}.includes('404 no-job')")
    assert "another token" in browser.text()
    browser.run("location.hash = 'job=../status'")
    browser.wait("!document.querySelector('#new').hidden")


@pytest.mark.slow
def test_why_no_worker_is_ready(browser: Browser, tmp_path: Path) -> None:
    service = Served(tmp_path / "data").start(FAKE_WORKER_FAILS="1")
    try:
        wait_for(lambda: "no such weights" in service.log())
        browser.open(f"{service.url}/")
        browser.wait("document.querySelector('#service').textContent === 'no worker is ready yet'")
        said = "The last one said: no such weights; find them"
        browser.wait(f"document.body.innerText.includes('{said}')")
    finally:
        service.stop()


@pytest.mark.slow
def test_a_service_that_goes_away_and_comes_back(
    browser: Browser, sent: tuple[Path, Path], tmp_path: Path
) -> None:
    with served(tmp_path / "data", port=0) as service:
        fill(browser, service.url, sent, fake_worker.LONG)
        browser.click_text("Refine")
        browser.wait(f"{STATE} === 'running'")
        service.settings["port"] = int(service.url.rpartition(":")[2])
        service.kill()
        browser.wait("document.querySelector('#job .lost').offsetParent")
        assert "The job goes on without this page." in browser.text()
        service.start()
        browser.wait("!document.querySelector('#job .lost').offsetParent", 40)
        browser.wait(f"{STATE} === 'running'")
        browser.wait("document.querySelector('canvas').dataset.painted === 'input'")
        browser.click_text("Cancel")
        browser.wait(f"{STATE} === 'cancelled'")


@pytest.mark.slow
def test_a_part_of_the_page_that_was_cut_off_is_asked_for_again(
    browser: Browser, service: Served, sent: tuple[Path, Path]
) -> None:
    browser.send("Network.enable")
    browser.send("Network.setBlockedURLs", urls=["*/viewer.js"])
    try:
        fill(browser, service.url, sent, 1)
        browser.click_text("Refine")
        browser.wait(f"{STATE} === 'done'")
        browser.wait("document.body.innerText.includes('The service does not answer.')")
    finally:
        browser.send("Network.setBlockedURLs", urls=[])
    browser.wait("document.querySelector('canvas').dataset.painted === 'input result'")


@pytest.mark.slow
def test_a_token_is_asked_for_and_kept_in_this_tab_only(
    browser: Browser, sent: tuple[Path, Path], tmp_path: Path
) -> None:
    tokens = Tokens(tmp_path / TOKENS_FILE)
    secret = tokens.add("anna", "user")
    with served(tmp_path) as service:
        browser.open(f"{service.url}/")
        browser.wait(f"{ALERT}.includes('The service wants a token')")
        assert browser.run("document.activeElement.id") == "secret"
        for given in ("wrong", secret):
            browser.send("Input.insertText", text=given)
            browser.press("Enter")
            if given == "wrong":
                browser.wait(f"{ALERT}.includes('does not know this token')")
        browser.wait("document.querySelector('#mesh-file')")
        assert browser.run("JSON.stringify(localStorage) + document.cookie").find(secret) < 0
        assert browser.run("sessionStorage.getItem('ushape.token')") == secret
        fill(browser, service.url, sent, 1)
        browser.click_text("Refine")
        browser.wait("document.querySelector('canvas')?.dataset.painted === 'input result'")
        browser.click_text("Token")
        browser.click_text("Forget it")
        browser.wait(f"{ALERT}.includes('The service wants a token')")
        assert browser.run("localStorage.getItem('ushape.history')") in (None, "[]")


def test_on_a_phone_nothing_is_wider_than_the_page(
    browser: Browser, service: Served, sent: tuple[Path, Path]
) -> None:
    browser.resize(375, 812, phone=True, dark=True)
    fill(browser, service.url, sent, 1)
    browser.click_text("More options")
    assert browser.run("document.documentElement.scrollWidth") == 375
    browser.click_text("Refine")
    browser.wait("document.querySelector('canvas')?.dataset.painted === 'input result'")
    browser.click_text("What was asked")
    assert browser.run("document.documentElement.scrollWidth") == 375
    background = "getComputedStyle(document.body).backgroundColor"
    assert browser.run(background) == "rgb(23, 24, 27)"
    browser.resize(375, 812, phone=True)
    assert browser.run(background) == "rgb(246, 246, 243)"


def test_by_keyboard_all_is_reached_and_seen(browser: Browser, service: Served) -> None:
    browser.open(f"{service.url}/")
    browser.wait("document.querySelector('#mesh-file')?.offsetParent")
    reached = []
    while len(reached) < 14:
        browser.press("Tab")
        reached.append(browser.run("document.activeElement.id || document.activeElement.value"))
    wanted = {"mesh-file", "image-file", "standard", "guidance_scale", "option-format"}
    assert wanted <= {*reached}, reached
    unnamed = browser.run(
        "[...document.querySelectorAll('input, select, button, progress, canvas')].filter(each => "
        "!each.labels?.length && !each.getAttribute('aria-label') && !each.textContent.trim())"
        ".map(each => each.outerHTML)"
    )
    assert unnamed == []
