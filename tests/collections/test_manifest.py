from __future__ import annotations

from pathlib import Path

import pytest

from ultrashape_cli.collections.manifest import (
    ManifestError,
    SourceItem,
    file_of,
    read_manifest,
    stored_path,
    write_manifest,
)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    items = [
        SourceItem(uid="1", source="objaverse", url="https://x/1.GLB?y=1", licence="CC-BY-4.0"),
        SourceItem(uid="é | \n", source="folder", path="a/b.stl", tags=("x", "y"), faces=0,
                   bytes=7, animated=True, series="s", author="ä", licence_text="by"),
        SourceItem(uid="3", source="objaverse-xl", url="https://x/download:3", suffix=".stl"),
    ]  # fmt: skip
    write_manifest(path, iter(items))
    assert list(read_manifest(path)) == items
    assert [item.kind for item in items] == [".glb", ".stl", ".stl"]
    assert len(path.read_bytes().splitlines()) == 3


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line 2: no JSON"),
        ("[]", "line 2: no JSON object"),
        ('{"uid": "2"}', "line 2: no `source`"),
        ('{"uid": "", "source": "folder"}', "line 2: no `uid`"),
        ('{"uid": "2", "source": "folder", "colour": 1}', "line 2: unknown key `colour`"),
        ('{"uid": "2", "source": "folder", "faces": "9"}', "`faces` is '9', not a number"),
        ('{"uid": "2", "source": "folder", "faces": true}', "`faces` is True"),
        ('{"uid": "2", "source": "folder", "tags": "x"}', "not a list of texts"),
        ('{"uid": "2", "source": "folder", "licence": null}', "`licence` is None, not a text"),
        ('{"uid": "1", "source": "folder"}', "`folder/1` is there twice"),
        ('{"uid": "' + "x" * (1 << 20) + '"}', "longer than"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, words: str) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text(f'{{"uid": "1", "source": "folder"}}\n{line}\n')
    with pytest.raises(ManifestError, match=r"m\.jsonl") as caught:
        list(read_manifest(path))
    assert words in caught.value.message


def test_no_path_leads_out_of_the_manifests_folder(tmp_path: Path) -> None:
    manifest = tmp_path / "sub" / "m.jsonl"
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "link").symlink_to(tmp_path)
    for path in ("../x.stl", "/etc/x.stl", "a/../../x.stl", "link/x.stl"):
        with pytest.raises(ManifestError, match="leads out"):
            file_of(SourceItem(uid="1", source="objaverse", path=path), manifest)
    inside = SourceItem(uid="1", source="objaverse", path="a/x.stl")
    assert file_of(inside, manifest) == tmp_path / "sub/a/x.stl"
    assert file_of(SourceItem(uid="1", source="objaverse"), manifest) is None
    # The user's own files may be anywhere.
    own = SourceItem(uid="1", source="folder", path="/models/x.stl")
    assert file_of(own, manifest) == Path("/models/x.stl")


def test_a_path_is_stored_below_the_manifest_where_it_lies_there(tmp_path: Path) -> None:
    manifest = tmp_path / "m.jsonl"
    assert stored_path(tmp_path / "a" / "x.stl", manifest) == "a/x.stl"
    assert stored_path(Path("/elsewhere/x.stl"), manifest) == "/elsewhere/x.stl"
