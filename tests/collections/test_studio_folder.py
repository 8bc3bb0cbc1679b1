"""A studio's own tree."""

from __future__ import annotations

from pathlib import Path

import pytest

from ultrashape_cli.collections.folder import parse_series, read_items
from ultrashape_cli.errors import UsageError


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("dragons/red/a.obj", "dragons/red/b.stl", "dragons/blue.ply", "knight_v2.glb"):
        path = tmp_path / "studio" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "studio"


def series_by(tree: Path, rule: str) -> dict[str, str]:
    items = read_items(tree, tree.parent / "m.jsonl", parse_series(rule))
    return {item.uid: item.series for item in items}


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("depth", ["dragons", "dragons", "dragons", ""]),
        ("depth:1", ["dragons", "dragons", "dragons", ""]),
        ("depth:2", ["dragons", "dragons/red", "dragons/red", ""]),
        (r"(?P<series>[a-z]+)_v\d", ["", "", "", "knight"]),
        (r"^([a-z]+)[/_]", ["dragons", "dragons", "dragons", "knight"]),
        (r"dr.", ["dra", "dra", "dra", ""]),
    ],
)
def test_a_series_is_a_folder_or_what_a_pattern_finds(
    tree: Path, rule: str, expected: list[str]
) -> None:
    assert [series for _, series in sorted(series_by(tree, rule).items())] == expected


@pytest.mark.parametrize("rule", ["depth:0", "(", "[z-a]"])
def test_an_impossible_rule_is_bad_usage(rule: str) -> None:
    with pytest.raises(UsageError):
        parse_series(rule)


def test_what_has_no_licence_stated_is_the_studios_own(tree: Path) -> None:
    items = list(read_items(tree, tree.parent / "m.jsonl"))
    assert {item.licence for item in items} == {"LicenseRef-own"}
    assert {item.path for item in items} == {f"studio/{item.uid}" for item in items}
    assert all(item.bytes == len(item.uid) for item in items)
    elsewhere = {i.uid: i.path for i in read_items(tree, tree / "dragons" / "m.jsonl")}
    assert elsewhere["dragons/blue.ply"] == "blue.ply"
    assert elsewhere["knight_v2.glb"] == str(tree / "knight_v2.glb")
    assert {item.licence for item in read_items(tree, tree, licence="CC0-1.0")} == {"CC0-1.0"}


def test_the_nearest_licence_file_counts_and_the_table_more(tree: Path) -> None:
    (tree / "dragons" / "licence.txt").write_text("CC-BY-NC-4.0\n")
    (tree / "dragons" / "red" / "LICENSE").write_text("MIT License\n\nCopyright (c) X\n")
    (tree / "sources.csv").write_text(
        "path,licence,author,tags,series\n"
        "dragons/red/b.stl,Creative Commons - Attribution,A. Sculptor,bust; grey,busts\n"
        "knight_v2.glb,ask Anna,,,\n"
    )
    found = {i.uid: i for i in read_items(tree, tree.parent / "m.jsonl", parse_series("depth:1"))}
    licences = {uid: item.licence for uid, item in found.items()}
    assert licences == {
        "dragons/blue.ply": "CC-BY-NC-4.0",
        "dragons/red/a.obj": "MIT",
        "dragons/red/b.stl": "CC-BY-4.0",
        # What is not understood is unknown, not the studio's own.
        "knight_v2.glb": "",
    }
    table = found["dragons/red/b.stl"]
    assert (table.author, table.tags, table.series) == ("A. Sculptor", ("bust", "grey"), "busts")
    assert found["knight_v2.glb"].licence_text == "ask Anna"
    assert found["dragons/red/a.obj"].series == "dragons"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SPDX-License-Identifier: CC0-1.0", "CC0-1.0"),
        ("\n# SPDX-License-Identifier: CC-BY-SA-4.0\nmore\n", "CC-BY-SA-4.0"),
        ("\ufeffcc by 4.0", "CC-BY-4.0"),
        ("Apache License\n  Version 2.0, January 2004\n", "Apache-2.0"),
        ("LicenseRef-Studio", "LicenseRef-Studio"),
        ("All rights reserved", "LicenseRef-proprietary"),
        ("please ask us first", ""),
        ("", ""),
    ],
)
def test_a_licence_file_states_one(tree: Path, text: str, expected: str) -> None:
    (tree / "licence.txt").write_text(text, encoding="utf-8")
    items = list(read_items(tree, tree.parent / "m.jsonl"))
    assert {item.licence for item in items} == {expected}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("file,licence\na,b\n", "no column `path`"),
        ("path,colour\na,b\n", "unknown column `colour`"),
        ("path,licence\nnone.obj,MIT\n", "`none.obj`, which is no mesh"),
    ],
)
def test_a_table_that_fits_nothing_is_refused(tree: Path, text: str, words: str) -> None:
    (tree / "sources.csv").write_text(text)
    with pytest.raises(UsageError) as caught:
        list(read_items(tree, tree.parent / "m.jsonl"))
    assert words in caught.value.message
