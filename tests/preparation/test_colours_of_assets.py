"""Colours are part of what an asset is: of its identity, its views and its near-duplicates."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from ultrashape_cli.config.schema import Config, RenderConfig, WatertightConfig
from ultrashape_cli.data.layout import Dataset, Record
from ultrashape_cli.preparation.discover import find_meshes, new_records
from ultrashape_cli.preparation.filters import judge, load_filter, measurements
from ultrashape_cli.preparation.report import summarise
from ultrashape_cli.preparation.steps import StepKeys
from ultrashape_cli.preparation.worker import run_step
from ultrashape_cli.synthetic.figurines import make_figurine

CONFIG = replace(
    Config(),
    watertight=WatertightConfig(resolution=32),
    render=RenderConfig(views=1, size=48, supersample=1, ambient_rays=0, shadow_rays=1),
)
CLAY = replace(CONFIG, render=replace(CONFIG.render, textures=False))


def _obj(folder: Path, mtl: str | None, *, turned: bool = False) -> Path:
    """Writes a figurine of one material, its texture coordinates all in one place."""
    mesh = make_figurine(0, resolution=20)
    vertices = mesh.vertices[:, [2, 1, 0]] * (1, 1, -1) * 3 if turned else mesh.vertices
    lines = ["mtllib paint.mtl", *(f"v {x} {y} {z}" for x, y, z in vertices), "vt 0.5 0.5"]
    lines += ["usemtl paint", *(f"f {a}/1 {b}/1 {c}/1" for a, b, c in mesh.faces + 1)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "a.obj").write_text("\n".join(lines) + "\n")
    if mtl is not None:
        (folder / "paint.mtl").write_text(f"newmtl paint\n{mtl}\n")
    return folder / "a.obj"


def _records(folder: Path, known: Iterator[Record] | tuple = ()) -> dict[str, Record]:
    found = new_records(find_meshes(folder), {record.id: record for record in known})
    return {Path(record.source["path"]).parent.name: record for record in found}


def _key(record: Record, config: Config = CONFIG) -> str:
    return StepKeys(("watertight", "render"), config).of(record)["render"]


@pytest.fixture(scope="module")
def painted(tmp_path_factory) -> tuple[Dataset, dict[str, Record]]:
    """One shape in red, in red once more and turned, in blue by a texture, and three in clay."""
    folder = tmp_path_factory.mktemp("painted")
    _obj(folder / "red", "Kd 0.8 0 0")
    _obj(folder / "turned", "Kd 0.8 0 0", turned=True)
    blue = _obj(folder / "blue", "map_Kd t.png").parent
    Image.new("RGB", (4, 4), (0, 0, 255)).save(blue / "t.png")
    _obj(folder / "lost", None)
    _obj(folder / "plain", "Ns 10")
    _obj(folder / "undefined", "\nnewmtl other\nKd 1 0 0".replace("paint", "other"))
    (folder / "undefined" / "paint.mtl").write_text("newmtl other\nKd 1 0 0\n")
    dataset = Dataset(folder / "data")
    records = _records(folder)
    for record in records.values():
        for step in ("watertight", "quality", "render"):
            record.steps[step] = run_step(dataset, record, step, CONFIG)
            assert record.steps[step].status == "done", record.steps[step].error
    return dataset, records


def test_copies_in_other_colours_are_assets_of_their_own(painted) -> None:
    _, records = painted
    assert set(records) == {"red", "turned", "blue", "lost", "plain", "undefined"}
    assert len({record.id for record in records.values()}) == 6
    sources = [records[name].source for name in ("red", "blue", "lost", "plain")]
    assert len({source["sha256"] for source in sources}) == 1


def test_a_painted_copy_is_no_rejected_near_duplicate(painted) -> None:
    _, records = painted
    names = {record.id: name for name, record in records.items()}
    rules = [rule for rule in load_filter("collectibles") if rule.measure == "twin_distance"]

    def verdicts(*wanted: str) -> dict[str, dict]:
        found = judge([records[name] for name in wanted], "f", rules)
        return {names[asset_id]: verdict for asset_id, verdict in found.items()}

    found = verdicts("red", "blue", "plain")
    assert [v["rejected"] for v in found.values()] == [[], [], []]
    # They are still named as one shape, which the lists keep together.
    assert sum("twin" in v for v in found.values()) == 2
    assert all(v.get("other_colours") for v in found.values() if "twin" in v)
    # One that is turned, scaled and of the same colour is no other.
    found = verdicts("red", "blue", "turned")
    assert sorted(v["rejected"] for v in found.values()) == [[], [], ["near-duplicate"]]
    assert not found["blue"]["rejected"]
    # Of one whose colours are lost nobody knows that it differs.
    found = verdicts("red", "lost")
    assert sorted(v["rejected"] for v in found.values()) == [[], ["near-duplicate"]]


@pytest.mark.parametrize("name", ["lost", "undefined"])
def test_a_lost_material_leaves_clay_and_is_counted(painted, name: str) -> None:
    dataset, records = painted
    measured = measurements(records[name])
    assert measured["surface"] == "clay"
    assert "colours left out" in measured["problems"][0]
    pixels = [
        (dataset.views(records[each].id) / "view_000.png").read_bytes() for each in (name, "plain")
    ]
    assert pixels[0] == pixels[1]
    assert summarise(dataset, list(records.values()))["colours_lost"] == 2


def test_lost_colours_are_said_once(painted, ushape) -> None:
    dataset, records = painted
    for record in records.values():
        dataset.write_record(record)
    result = ushape("prepare", "--review", "-o", dataset.root)
    assert result.code == 0
    assert result.err.count("2 assets are shown without their colours") == 1
    assert "colours lost" in (dataset.root / "report.html").read_text()


def test_a_changed_material_or_texture_redoes_the_views_alone(tmp_path: Path) -> None:
    folder = _obj(tmp_path / "x", "map_Kd t.png").parent
    picture = folder / "t.png"
    states = [_records(tmp_path)["x"]]
    for change in (
        lambda: picture.write_bytes(b"red"),
        lambda: picture.write_bytes(b"new"),
        lambda: (folder / "paint.mtl").write_text("newmtl paint\nKd 1 0 0\n"),
        lambda: (folder / "paint.mtl").unlink(),
    ):
        change()
        states.append(_records(tmp_path, states[-1:])["x"])
    assert len({state.id for state in states}) == 1
    assert len({state.source["sha256"] for state in states}) == 1
    assert len({_key(state) for state in states}) == 5
    assert len({_key(state, CLAY) for state in states}) == 1
    # Touched, but the same: nothing is redone.
    (folder / "a.obj").touch()
    assert _key(_records(tmp_path, states[-1:])["x"]) == _key(states[-1])


def test_pictures_of_a_gltf_and_of_a_ply_are_followed(tmp_path: Path) -> None:
    (tmp_path / "g").mkdir()
    (tmp_path / "p").mkdir()
    (tmp_path / "g" / "a.gltf").write_text(json.dumps({"images": [{"uri": "my%20t.png"}]}))
    (tmp_path / "p" / "a.ply").write_text("ply\ncomment TextureFile t.png\nend_header\n")
    before = _records(tmp_path)
    (tmp_path / "g" / "my t.png").write_bytes(b"1")
    (tmp_path / "p" / "t.png").write_bytes(b"1")
    after = _records(tmp_path, before.values())
    for name in ("g", "p"):
        assert after[name].id == before[name].id
        assert _key(after[name]) != _key(before[name])


def test_no_colour_file_outside_the_folder_or_without_end_is_read(tmp_path: Path) -> None:
    path = _obj(tmp_path / "in" / "x", None)
    path.write_text(path.read_text().replace("paint.mtl", "../out.mtl"))
    (tmp_path / "in" / "out.mtl").write_text("newmtl paint\nmap_Kd t.png\n")
    assert "colours" not in _records(tmp_path / "in")["x"].source
    path.write_text(path.read_text().replace("../out.mtl", "pipe.mtl"))
    os.mkfifo(path.with_name("pipe.mtl"))
    assert list(_records(tmp_path / "in")["x"].source["colour_files"]) == ["pipe.mtl"]


def test_an_older_dataset_keeps_its_assets(tmp_path: Path) -> None:
    _obj(tmp_path / "x", "Kd 1 0 0")
    _obj(tmp_path / "y", "Kd 0 0 1")
    now = _records(tmp_path)
    old = Record("a-old", {k: v for k, v in now["x"].source.items() if "colour" not in k})
    del old.source["materials"]
    old.duplicates = [now["y"].source["path"]]
    again = _records(tmp_path, [old])
    assert again["x"].id == "a-old"
    assert again["y"].id == now["y"].id != "a-old"
    # Once they are told apart, they stay so, whoever comes first.
    _obj(tmp_path / "w", "Kd 0 1 0")
    later = _records(tmp_path, again.values())
    assert {name: later[name].id for name in "xy"} == {name: again[name].id for name in "xy"}
