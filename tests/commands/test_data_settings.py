"""A dataset goes on with the settings it was made with, and says which of them change."""

from __future__ import annotations

import json
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from ultrashape_cli.data.layout import Dataset
from ultrashape_cli.files import read_json
from ultrashape_cli.meshfiles.save import save_mesh
from ultrashape_cli.synthetic.figurines import make_figurine

SMALL = (
    *("--resolution", "32", "--views", "1", "--set", "render.size=32", "--workers", "1"),
    *("--set", "render.ambient_rays=0", "--set", "render.supersample=1"),
    *("--set", "sample.surface_points=200", "--set", "sample.curvature_points=200"),
)
RULES = "[smooth]\nmeasure = 'detail'\nmax = 0.5\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with models/, rules.toml, and data/ prepared by that filter and grouped."""
    from ultrashape_cli.cli import run

    folder = tmp_path_factory.mktemp("made")
    for seed, name in enumerate(("one/a.ply", "one/b.ply", "two/c.ply")):
        save_mesh(make_figurine(seed, resolution=20), folder / "models" / name)
    (folder / "rules.toml").write_text(RULES.replace("max = 0.5", "min = 0.5"))
    where = ("-o", str(folder / "data"), "--filter", str(folder / "rules.toml"))
    grouped = ("--set", "split.group_by=folder", "--set", "split.val=0.4", "--seed", "3")
    assert run(["prepare", str(folder / "models"), *where, *SMALL, *grouped]) == 0
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, with the sources in the same place."""
    shutil.copytree(made / "data", tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def call(ushape, made: Path) -> Callable:
    def call(verb: str, *more: object, code: int = 0) -> dict:
        start = (made / "models", "-o", "data") if verb == "prepare" else ("data",)
        result = ushape(verb, *start, *more, "--json")
        assert result.code == code, result.err
        return {**json.loads(result.out), "said": " ".join(result.err.split())}

    return call


def _snapshot(folder: Path) -> dict[Path, bytes]:
    """Returns all files but reports, which are written anew."""
    files = (p for p in folder.rglob("*") if p.is_file() and p.parent.name != ".claims")
    return {p: p.read_bytes() for p in files if not p.name.startswith("report.")}


def test_settings_hold_for_the_next_command(call, folder: Path, made: Path) -> None:
    before = _snapshot(folder / "data")
    body = call("prepare")
    assert (body["counts"]["made"], body["counts"]["skipped"]) == (0, 3)
    assert body["changed"] == {}
    for verb in ("render", "sample"):
        assert call(verb)["counts"]["made"] == 0
    call("split")
    assert _snapshot(folder / "data") == before
    shown = call("prepare", "--show-config")["settings"]
    assert shown["render.views"] == {"value": 1, "origin": "data set"}
    assert shown["quality.filter"] == {"value": str(made / "rules.toml"), "origin": "data set"}
    assert shown["seed"] == {"value": 3, "origin": "data set"}
    assert shown["engine.timeout_s"]["origin"] == "default"


def test_what_is_given_wins_over_what_is_remembered(call, folder: Path, monkeypatch) -> None:
    (folder / "own.toml").write_text("[render]\nviews = 2\n")
    monkeypatch.setenv("USHAPE_SPLIT_VAL", "0.3")
    shown = call("prepare", "--config", "own.toml", "--resolution", "64", "--show-config")
    assert {key: shown["settings"][key]["value"] for key in
            ("render.views", "split.val", "watertight.resolution", "render.size")} == {
        "render.views": 2, "split.val": 0.3, "watertight.resolution": 64, "render.size": 32,
    }  # fmt: skip
    shown = call("prepare", "--no-config", "--show-config")["settings"]
    assert shown["render.views"] == {"value": 8, "origin": "default"}


def test_a_change_is_told_before_it_costs_something(call, folder: Path) -> None:
    before = _snapshot(folder / "data")
    body = call("prepare", "--views", "2", "--set", "split.group_by=none", "--dry-run")
    assert body["changed"] == {"render.views": [1, 2], "split.group_by": ["folder", "none"]}
    assert "`data`: render.views 1 -> 2" in body["said"]
    assert "render: 3 finished assets are made again" in body["said"]
    assert "sample" not in body["said"].replace("would run render", "")
    assert body["counts"]["planned"] == 3
    assert body["counts"]["train"] + body["counts"]["val"] == 3
    body = call("prepare", "--no-config", "--dry-run")
    assert body["changed"]["seed"] == [3, 0]
    assert body["changed"]["quality.filter"][1] == "none"
    assert _snapshot(folder / "data") == before


def test_more_views_stay_when_it_is_prepared_again(call, folder: Path) -> None:
    assert call("render", "--views", "2")["counts"]["made"] == 3
    body = call("prepare", "--dry-run")
    assert (body["counts"]["planned"], body["changed"]) == (0, {})


def test_a_trial_on_some_assets_is_not_remembered(call, folder: Path) -> None:
    settings = (folder / "data" / "settings.toml").read_bytes()
    body = call("render", "--views", "2", "--limit", "1")
    assert "keeps its settings" in body["said"]
    assert (folder / "data" / "settings.toml").read_bytes() == settings
    # The one that differs is made like the others again.
    assert call("prepare", "--dry-run")["counts"]["planned"] == 1
    # What is about all assets is remembered, however few are handled.
    body = call("prepare", "--limit", "1", "--views", "1", "--filter", "none")
    assert "keeps its settings" not in body["said"]
    again = tomllib.loads((folder / "data" / "settings.toml").read_text())
    assert again["quality"]["filter"] == "none"


def test_a_filter_of_a_review_is_remembered(call, folder: Path, ushape) -> None:
    (folder / "strict.toml").write_text(RULES)
    review = ("prepare", "--review", "-o", "data")
    dry = ushape(*review, "--filter", "strict.toml", "--dry-run")
    assert "3 leave" in dry.err or "rejected by the filter" in dry.err
    before = _snapshot(folder / "data")
    assert ushape(*review, "--filter", "strict.toml", "--dry-run").code == 0
    assert _snapshot(folder / "data") == before
    assert ushape(*review, "--filter", "strict.toml").code == 0
    assert all(r.rejected == ["smooth"] for r in Dataset(folder / "data").load_records().values())
    assert ushape(*review).code == 0
    assert all(r.rejected for r in Dataset(folder / "data").load_records().values())
    # Once its file is gone, that is said, and what helps.
    (folder / "strict.toml").unlink()
    result = ushape(*review)
    assert result.code == 2
    assert f"the filter `{folder / 'strict.toml'}`" in result.err
    assert "`data` was made with it" in result.err
    assert ushape(*review, "--filter", "none").code == 0


def test_an_older_data_set_says_what_it_was_made_with(call, folder: Path, made: Path) -> None:
    path = folder / "data" / "settings.toml"
    written = tomllib.loads(path.read_text())
    path.unlink()
    body = call("prepare", "--dry-run")
    assert (body["counts"]["planned"], body["changed"]) == (0, {})
    places = read_json(folder / "data" / "data_list" / "split.json")
    call("split")
    assert read_json(folder / "data" / "data_list" / "split.json") == places
    again = tomllib.loads(path.read_text())
    assert again["split"] == written["split"]
    assert again["render"] == written["render"]
    assert again["quality"]["filter"] == str(made / "rules.toml")


@pytest.mark.parametrize("text", ["[render\n", "[render]\nvews = 3\n"])
def test_broken_settings_are_no_reason_to_start_anew(call, folder: Path, text: str) -> None:
    (folder / "data" / "settings.toml").write_text(text)
    body = call("render", "--dry-run", code=2)
    assert "settings.toml" in body["error"]["message"]
    assert "--no-config" in body["error"]["hint"]
    assert call("sample", "--no-config", "--dry-run")["counts"]["planned"] == 3
    call("split", "--no-config")
    assert call("split")["changed"] == {}


def test_an_export_that_fails_changes_nothing(call, folder: Path) -> None:
    before = _snapshot(folder)
    for more in ((), ("--val", "0.6"), ("--group-by", "none")):
        body = call("split", "--layout", "reference", "out", *more, code=1)
        assert "fewer than 16 views" in body["error"]["message"]
        assert _snapshot(folder) == before


@pytest.mark.parametrize("target", ["data", "data/out", "data/renders", ".", "link", "other"])
def test_an_export_never_goes_into_a_data_set(call, folder: Path, target: str) -> None:
    (folder / "link").symlink_to(folder / "data")
    (folder / "other" / "records").mkdir(parents=True)
    before = _snapshot(folder)
    body = call("split", "--layout", "reference", target, code=2)
    assert "data-reference" in body["error"]["hint"]
    assert _snapshot(folder) == before


def test_a_list_without_assets_is_named(call, folder: Path) -> None:
    body = call("split", "--test", "0.01", "--val", "0", "--group-by", "none")
    assert "test: 0 of 1 %: too few assets" in body["said"]
    assert "val:" not in body["said"]
