"""`ushape prepare`: selection, shards, filter, review, and the engine's options."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.meshfiles.save import save_mesh
from ultrashape_cli.synthetic.figurines import make_figurine

SMALL = [
    *("--set", "watertight.resolution=32", "--set", "render.size=32", "--set", "render.views=1"),
    *("--set", "render.ambient_rays=0", "--set", "render.supersample=1", "--workers", "2"),
    *("--set", "sample.surface_points=200", "--set", "sample.curvature_points=200"),
]
MEASURED = [*SMALL, "--until", "quality"]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    for seed, name in enumerate(("a", "b", "c")):
        save_mesh(make_figurine(seed, resolution=20), folder / f"{name}.ply")
    return folder


@pytest.fixture
def prepare(ushape, models: Path, tmp_path: Path):
    def call(*arguments: object, code: int = 0) -> dict:
        result = ushape("prepare", *arguments, "-o", tmp_path / "data", "--json")
        assert result.code == code, result.err
        body = json.loads(result.out)
        return {**body, "stderr": result.err}

    return call


def _records(data: Path) -> dict[str, dict]:
    return {p.stem[0]: json.loads(p.read_text()) for p in (data / "records").glob("[!.]*.json")}


def test_only_takes_an_id_or_a_file_name(prepare, models: Path, tmp_path: Path) -> None:
    assert prepare(models, "--only", "b.ply", *MEASURED)["counts"]["made"] == 1
    (record,) = _records(tmp_path / "data").values()
    body = prepare(models, "--only", record["id"], *MEASURED)
    assert body["counts"] == {"made": 0, "skipped": 1, "failed": 0}
    body = prepare(models, "--only", "d.ply", *MEASURED, code=2)
    assert "`d.ply`" in body["error"]["message"]


def test_shards_share_the_work(prepare, models: Path, tmp_path: Path) -> None:
    made = [
        prepare(models, "--shard", f"{shard}/2", *MEASURED)["counts"]["made"] for shard in (1, 2)
    ]
    assert sum(made) == 3
    assert prepare(models, *MEASURED)["counts"]["skipped"] == 3


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "a/b", "-1/2"])
def test_an_impossible_shard_is_bad_usage(ushape, models: Path, shard: str) -> None:
    assert ushape("prepare", models, "--shard", shard).code == 2


def test_a_filter_rejects_and_a_review_changes_the_verdict(
    prepare, models: Path, tmp_path: Path
) -> None:
    rules = tmp_path / "rules.toml"
    plain = Mesh.from_arrays([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]],
                             [[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]])  # fmt: skip
    save_mesh(plain, models / "d.ply")
    rules.write_text("[plain]\nmeasure = 'detail'\nmin = 2\n")
    body = prepare(models, "--filter", rules, *SMALL)
    assert body["counts"] | {"train": 0, "val": 0} == {
        **{"made": 4, "skipped": 0, "failed": 0, "rejected": 1, "train": 0, "val": 0}
    }
    assert body["counts"]["train"] + body["counts"]["val"] == 3
    assert _records(tmp_path / "data")["d"]["verdict"]["rejected"] == ["plain"]
    report = json.loads((tmp_path / "data" / "report.json").read_text())
    assert report["rejected_by_rule"] == {"plain": 1}

    rules.write_text("[plain]\nmeasure = 'detail'\nmin = 0.1\n")
    body = prepare("--review", "--filter", rules)
    assert body["counts"]["train"] + body["counts"]["val"] == 4
    assert not _records(tmp_path / "data")["d"]["verdict"]["rejected"]


def test_a_wrong_filter_is_found_before_any_work(prepare, models: Path, tmp_path: Path) -> None:
    body = prepare(models, "--filter", "collectables", *MEASURED, code=2)
    assert "collectibles" in body["error"]["hint"]
    assert not (tmp_path / "data").exists()


def test_without_a_folder_only_a_review_is_possible(prepare) -> None:
    assert "MODELS_DIR" in prepare(code=2)["error"]["hint"]
    prepare("--review", code=2)


@pytest.mark.slow
def test_a_deleted_source_is_reported_and_comes_back(prepare, models: Path, tmp_path: Path) -> None:
    prepare(models, *SMALL)
    content = (models / "a.ply").read_bytes()
    (models / "a.ply").unlink()
    body = prepare(models, *SMALL)
    assert body["counts"]["train"] + body["counts"]["val"] == 2
    assert "1 assets were deleted or edited" in " ".join(body["stderr"].split())
    record = _records(tmp_path / "data")["a"]
    assert record["stale"] == "deleted"
    assert all((tmp_path / "data" / f).exists() for f in record["steps"]["watertight"]["outputs"])
    (models / "a.ply").write_bytes(content)
    body = prepare(models, *SMALL)
    assert body["counts"]["skipped"] == 3
    assert body["counts"]["train"] + body["counts"]["val"] == 3


def test_workers_are_a_number_or_auto(ushape, models: Path, tmp_path: Path) -> None:
    shown = ushape("prepare", models, "--workers", "auto", "--show-config", "--json")
    assert json.loads(shown.out)["settings"]["engine.workers"] == {"value": 0, "origin": "flag"}
    (tmp_path / "data" / "records").mkdir(parents=True)
    for verb, folder in (("prepare", models), ("render", tmp_path / "data"),
                         ("sample", tmp_path / "data"), ("split", tmp_path / "data")):  # fmt: skip
        for wrong in ("many", "-1", "0", "1.5"):
            result = ushape(verb, folder, "--workers", wrong)
            assert result.code == 2
            assert f"`{wrong}` is not a number of workers: `auto`, or 1 or more" in " ".join(
                result.err.replace("│", " ").split()
            )


def test_a_dry_run_writes_nothing(prepare, models: Path, tmp_path: Path) -> None:
    assert prepare(models, "--dry-run", *MEASURED)["counts"]["planned"] == 3
    assert not (tmp_path / "data").exists()


def test_the_cluster_script_is_well_formed() -> None:
    script = Path(__file__).parents[2] / "examples" / "slurm" / "prepare.sbatch"
    subprocess.run(["bash", "-n", script], check=True)
    assert "--shard" in script.read_text()


@pytest.mark.slow
def test_progress_says_rate_time_left_and_causes(ushape, models: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("ultrashape_cli.ui.PLAIN_INTERVAL_S", 0.0)
    (models / "bad.obj").write_text("v 0 0 0\n")
    result = ushape("prepare", models, "-o", tmp_path / "data", *MEASURED)
    lines = [line for line in result.err.splitlines() if line.startswith("prepare: 4/4")]
    assert len(lines) == 1
    assert "/s" in lines[0] or "s each" in lines[0]
    assert "left" in lines[0]
    assert "failed: 1 error" in lines[0]


def _files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("own", "models_dir", "out"),
    [
        # The models would be the dataset too.
        ("models/a.ply", "models", "models"),
        ("models/a.ply", "models", "models/../models/."),
        # Files of that name are there, and nobody knows whose.
        ("data/report.html", "models", "data"),
        ("data/meshes/old.ply", "models", "data"),
        ("models/a.ply", "models", "."),
        # A dataset is not made from itself.
        ("data/records/a.json", "data/meshes", "data"),
        ("data/records/a.json", "data/meshes/new", "data"),
    ],
)
def test_nothing_of_the_user_is_replaced(
    ushape, models: Path, tmp_path: Path, own: str, models_dir: str, out: str, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for path in (Path(own), Path("renders", "mine.png"), Path(models_dir, "b.ply")):
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_text("mine")
    before = _files(tmp_path)
    result = ushape("prepare", models_dir, "-o", out, *MEASURED)
    assert result.code == 2, result.err
    assert "hint: ushape prepare" in result.err
    assert "--force" not in result.err
    assert _files(tmp_path) == before


def test_the_help_shows_a_filter_that_works(ushape, tmp_path: Path) -> None:
    from ultrashape_cli.preparation.filters import load_filter

    lines = [line.strip() for line in ushape("prepare", "--help").out.splitlines()]
    start = lines.index("[too-plain]")
    (tmp_path / "rules.toml").write_text("\n".join(lines[start : start + 3]))
    (rule,) = load_filter(str(tmp_path / "rules.toml"))
    assert (rule.name, rule.measure, rule.min) == ("too-plain", "detail", 1.2)


def test_the_words_of_the_usual_guides_are_understood(ushape, models: Path) -> None:
    words = ("--views", "4", "--resolution", "512")
    shown = json.loads(ushape("prepare", models, *words, "--show-config", "--json").out)
    assert shown["settings"]["render.views"] == {"value": 4, "origin": "flag"}
    assert shown["settings"]["watertight.resolution"] == {"value": 512, "origin": "flag"}
