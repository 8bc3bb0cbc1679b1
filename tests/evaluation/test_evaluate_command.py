"""`ushape evaluate`: rows, resume, reports, failures."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import trimesh

from ultrashape_cli.commands.evaluation_rows import refined_rows
from ultrashape_cli.commands.settings import resolve_settings
from ultrashape_cli.errors import CheckpointError
from ultrashape_cli.evaluation import evaluate as module
from ultrashape_cli.evaluation.rows import Asset, Row
from ultrashape_cli.evaluation.scores import Sampling
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.meshfiles.save import save_mesh
from ultrashape_cli.models.sources import resolve_named

FAST = [
    part
    for setting in ("points=2000", "earth_movers_points=64", "views=1", "view_size=48")
    for part in ("--set", f"evaluate.{setting}")
]


def _ball(path: Path, radius: float) -> None:
    ball = trimesh.creation.icosphere(3, radius)
    save_mesh(Mesh.from_arrays(ball.vertices, ball.faces), path)


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Three truths, a tool that is close and one that is far off and lacks a mesh."""
    folder = tmp_path / "pairs"
    for index, radius in enumerate((0.7, 0.8, 0.9)):
        _ball(folder / "truth" / f"a{index}.ply", radius)
        _ball(folder / "far" / f"a{index}.obj", radius * 0.7)
        if index:
            _ball(folder / "near" / f"a{index}.ply", radius * 0.98)
    return folder


def test_meshes_of_other_tools_are_compared(ushape, pairs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = ushape("evaluate", "--pairs", pairs, "-o", out, "--json", *FAST)
    # One mesh is missing: the others are measured, and the code says that something failed.
    assert result.code == 1
    body = json.loads(result.out)
    assert body["counts"] == {"made": 5, "failed": 1}
    assert "has no mesh `a0`" in result.err
    found = json.loads((out / "results.json").read_text())
    (comparison,) = found["comparisons"]
    assert (comparison["row"], comparison["against"]) == ("near", "far")
    chamfer = comparison["scores"]["chamfer_l1"]
    assert chamfer["better"] == 1
    assert chamfer["difference"]["mean"] == pytest.approx(-0.28 * 0.85, abs=0.03)
    text = (
        "better than far on 3 of 4 measures; no clear difference in F-score@0.01; "
        "2 assets are too few to say, it takes 6"
    )
    assert comparison["verdict"]["text"] == text
    assert body["verdicts"] == [{key: comparison[key] for key in ("row", "against", "verdict")}]
    assert f"near: {text} (p 0.5 for Chamfer-L1)" in result.err
    assert found["not_measured"].keys() == {"lpips", "clip"}
    rows = list(csv.DictReader((out / "results.csv").read_text().splitlines()))
    assert len(rows) == 5
    assert {row["row"] for row in rows} == {"near", "far"}
    page = (out / "report.html").read_text()
    assert "near against far" in page
    assert page.count("data:image/") >= 6
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_the_table_fits_a_terminal_and_one_asset_has_no_interval(
    ushape, pairs: Path, tmp_path: Path
) -> None:
    (pairs / "near").rename(pairs / "a tool with a very long name, wrong image")
    for limit, mark in ((3, "±"), (1, "")):
        result = ushape(
            "evaluate", "--pairs", pairs, "-o", tmp_path / "out", "--limit", limit, *FAST
        )
        start = result.err.index("row ")
        head, *rows = result.err[start:].splitlines()[:3]
        assert head.split() == ["row", "CD-L1", "F@1%", "NC", "IoU"]
        assert all(len(row) <= 80 for row in rows)
        assert rows[0].startswith("a tool with... wrong image ")
        assert ("±" in "".join(rows)) == bool(mark)
        # No number of the file is NaN.
        json.loads((tmp_path / "out" / "results.json").read_text(), parse_constant=pytest.fail)


def test_networks_that_do_not_load_are_tried_once(pairs: Path, tmp_path: Path) -> None:
    tries = []

    def load() -> None:
        tries.append(1)
        raise CheckpointError("does not fit")

    assets = [Asset(path.stem, path) for path in (pairs / "truth").iterdir()]
    row = Row("mine", "", {}, load)
    result = module.evaluate(assets, [row], tmp_path / "out", Sampling(points=100, views=0))
    assert len(tries) == 1
    assert [failure["error"] for failure in result.failures] == ["does not fit"] * 3


@pytest.mark.parametrize("listed", [None, "[]"])
def test_a_split_without_assets_says_how_to_make_one(ushape, tmp_path: Path, listed) -> None:
    data = tmp_path / "my data"
    (data / "records").mkdir(parents=True)
    if listed:
        (data / "data_list").mkdir()
        (data / "data_list" / "test.json").write_text(listed)
    result = ushape("evaluate", "--model", "tiny", "--data", data, "--split", "test")
    assert result.code == 1
    assert f"`{data}` has no test assets" in result.err
    assert f"hint: ushape split '{data}' --test 0.1" in result.err


@pytest.mark.slow
def test_a_repeated_command_makes_nothing_again(
    ushape, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("evaluate", "--pairs", pairs, "-o", tmp_path / "out", *FAST)
    ushape(*command)
    made = []
    original = module.score_mesh
    monkeypatch.setattr(module, "score_mesh", lambda *a: made.append(1) or original(*a))
    ushape(*command)
    assert made == []
    _ball(pairs / "far" / "a1.obj", 0.3)
    ushape(*command)
    # Another file of the folder: its row is made again, the other is not.
    assert len(made) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--pairs", "none"), "is not a folder of pairs"),
        (("--pairs", "none", "--model", "tiny"), "--pairs takes no weights"),
        (("--checkpoint", "none"), "no weights at `none`"),
    ],
)
def test_bad_usage_is_named(ushape, tmp_path, monkeypatch, arguments, message) -> None:
    monkeypatch.chdir(tmp_path)
    result = ushape("evaluate", *arguments)
    assert result.code in (1, 2)
    assert message in result.err
    assert not (tmp_path / "evaluation").exists()


def test_results_never_go_where_something_is_read(ushape, pairs: Path, tmp_path: Path) -> None:
    (tmp_path / "data" / "records").mkdir(parents=True)
    for out in (pairs, pairs / "near", pairs / "results", tmp_path, tmp_path / "data"):
        result = ushape("evaluate", "--pairs", pairs, "-o", out, *FAST)
        assert result.code == 2, out
    assert sorted(path.name for path in pairs.iterdir()) == ["far", "near", "truth"]


@pytest.mark.parametrize(
    ("setting", "vae", "expected"),
    [
        ("true", False, ["coarse", "vae tiny", "tiny"]),
        ("false", False, ["coarse", "tiny"]),
        ("false", True, ["coarse", "vae tiny"]),
    ],
)
def test_the_round_trip_is_a_row_unless_it_is_left_out(setting, vae, expected) -> None:
    overrides = [f"evaluate.round_trip={setting}"]
    resolved = resolve_settings({}, None, overrides, True, model="tiny")
    sources = {"tiny": resolve_named(Path("tiny"))}
    rows = refined_rows(resolved, sources, [], vae=vae, ablation=False)
    assert [row.name for row in rows] == expected
