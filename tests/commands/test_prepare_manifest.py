"""`ushape prepare MANIFEST`: what records keep, how it is split, what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from test_prepare import MEASURED, SMALL

from ultrashape_cli.collections.manifest import SourceItem, write_manifest
from ultrashape_cli.data.layout import Dataset
from ultrashape_cli.data.splits import read_places
from ultrashape_cli.meshfiles.save import save_mesh
from ultrashape_cli.synthetic.figurines import make_figurine


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Four meshes of two authors, one that is not fetched and one of a format that is not read."""
    items = []
    for n in range(4):
        save_mesh(make_figurine(n, resolution=20), tmp_path / "files" / f"m{n}.ply")
        items.append(
            SourceItem(
                uid=f"m{n}",
                source="objaverse",
                path=f"files/m{n}.ply",
                url=f"http://x/m{n}.ply",
                licence="CC-BY-4.0",
                author=f"maker{n % 2}",
                title=f"Figure | {n}",
                source_url=f"https://example.org/m{n}",
                tags=("figure",),
            )
        )
    items.append(SourceItem(uid="m8", source="objaverse", url="http://x/m8.ply"))
    (tmp_path / "files" / "m9.fbx").write_text("x")
    items.append(SourceItem(uid="m9", source="objaverse", path="files/m9.fbx"))
    write_manifest(tmp_path / "m.jsonl", items)
    return tmp_path / "m.jsonl"


@pytest.fixture
def prepare(ushape, tmp_path: Path) -> Callable[..., dict]:
    def call(*arguments: object, code: int = 0) -> dict:
        result = ushape("prepare", *arguments, "-o", tmp_path / "data", "--json")
        assert result.code == code, result.err
        return {**json.loads(result.out), "stderr": " ".join(result.err.split())}

    return call


@pytest.mark.slow
def test_records_lists_and_attribution_of_a_manifest(
    prepare, manifest: Path, tmp_path: Path
) -> None:
    body = prepare(manifest, *SMALL)
    assert body["counts"]["made"] == 4
    assert "1 of 6 items" in body["stderr"]
    assert "1 items" in body["stderr"]
    dataset = Dataset(tmp_path / "data")
    records = dataset.load_records()
    origins = {r.source["origin"]["uid"]: r.source["origin"] for r in records.values()}
    assert origins["m1"] == {
        "source": "objaverse", "uid": "m1", "licence": "CC-BY-4.0", "author": "maker1",
        "title": "Figure | 1", "source_url": "https://example.org/m1", "tags": ["figure"],
        "manifest": str(manifest),
    }  # fmt: skip
    rule, places = read_places(dataset)
    assert rule is not None
    assert rule.group_by == "author"
    authors: dict[str, set[str]] = {}
    for asset, place in places.items():
        authors.setdefault(place, set()).add(records[asset].source["origin"]["author"])
    assert not authors["train"] & authors["val"]
    text = (tmp_path / "data/data_list/ATTRIBUTION.md").read_text()
    assert r"| Figure \| 1 | maker1 | CC-BY-4.0 | objaverse |" in text
    # Repeated, nothing is left to do; from the folder, the authors stay known.
    assert prepare(manifest, *SMALL)["counts"]["skipped"] == 4
    body = prepare(tmp_path / "files", *SMALL)
    assert body["counts"]["skipped"] == 4
    assert (tmp_path / "data/data_list/ATTRIBUTION.md").read_text() == text


@pytest.mark.slow
def test_what_a_manifest_no_longer_names_leaves_the_lists(
    prepare, manifest: Path, tmp_path: Path
) -> None:
    prepare(manifest, *MEASURED)
    lines = manifest.read_text().splitlines()
    manifest.write_text("\n".join(lines[1:]))
    body = prepare(manifest, *MEASURED)
    assert "the sources of 1 assets were deleted or edited" in body["stderr"]
    stale = {r.source["origin"]["uid"]: r.stale
             for r in Dataset(tmp_path / "data").load_records().values()}  # fmt: skip
    assert stale == {"m0": "deleted", "m1": "", "m2": "", "m3": ""}
    # Nor does another file come in under its name.
    items = [json.loads(line) for line in lines]
    file = manifest.parent / items[0]["path"]
    content = file.read_bytes()
    save_mesh(make_figurine(9, resolution=20), file)
    items[0]["sha256"] = "0" * 64
    manifest.write_text("\n".join(map(json.dumps, items)))
    assert "another sha256" in prepare(manifest, *MEASURED, code=1)["stderr"]
    file.write_bytes(content)
    manifest.write_text("\n".join(lines))
    prepare(manifest, *MEASURED)
    left = [r for r in Dataset(tmp_path / "data").load_records().values() if r.stale]
    assert [r.steps["watertight"].status for r in left] == ["failed"]


@pytest.mark.slow
def test_a_series_comes_before_an_author_and_a_flag_before_both(
    prepare, manifest: Path, tmp_path: Path
) -> None:
    items = [json.loads(line) for line in manifest.read_text().splitlines()]
    for n, item in enumerate(items):
        item["series"] = f"s{n // 2}"
    manifest.write_text("\n".join(map(json.dumps, items)))
    settings = tmp_path / "data" / "settings.toml"
    prepare(manifest, *SMALL)
    assert 'group_by = "series"' in settings.read_text()
    body = prepare(manifest, "--set", "split.group_by=none", *SMALL)
    assert body["changed"]["split.group_by"] == ["series", "none"]
    # What the dataset remembers counts more than what the manifest suggests.
    prepare(manifest, *SMALL)
    assert 'group_by = "none"' in settings.read_text()


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (['{"uid": "1", "source": "objaverse", "path": "../x.ply"}'], "leads out"),
        (['{"uid": "1", "source": "objaverse", "path": "/etc/x.ply"}'], "leads out"),
        (['{"uid": "1", "source": "objaverse"}'], "no mesh of"),
        (["[]"], "line 1: no JSON object"),
        ([], "no mesh of"),
    ],
)
def test_a_manifest_that_cannot_be_used_touches_nothing(
    prepare, tmp_path: Path, lines: list[str], words: str
) -> None:
    (tmp_path / "m.jsonl").write_text("\n".join(lines))
    assert words in prepare(tmp_path / "m.jsonl", code=2)["error"]["message"]
    assert not (tmp_path / "data").exists()


def test_another_file_is_no_manifest_and_a_dataset_no_source(
    prepare, manifest: Path, tmp_path: Path
) -> None:
    assert "neither a folder nor a manifest" in prepare(
        tmp_path / "files/m0.ply", code=2)["error"]["message"]  # fmt: skip
    mesh = tmp_path / "data/meshes/a.ply"
    save_mesh(make_figurine(0, resolution=20), mesh)
    (tmp_path / "data/records").mkdir()
    write_manifest(manifest, [SourceItem(uid="a", source="folder", path="data/meshes/a.ply")])
    assert "is a part of the dataset" in prepare(manifest, code=2)["error"]["message"]
