from __future__ import annotations

import pytest

from ultrashape_cli.collections.manifest import SourceItem
from ultrashape_cli.collections.wanted import Tally, Wanted


def item(uid: str = "1", **more: object) -> SourceItem:
    values = {"url": "http://x/y.glb", "licence": "CC0-1.0", **more}
    return SourceItem(uid=uid, source="objaverse", **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wanted", "what", "expected"),
    [
        (Wanted(), item(), ""),
        (Wanted(), item(licence=""), "licence unknown"),
        (Wanted(), item(licence="CC-BY-NC-4.0"), "licence CC-BY-NC-4.0"),
        (Wanted(licences=("cc-by-nc",)), item(licence="CC-BY-NC-4.0"), ""),
        (Wanted(licences=("cc-by-nc",)), item(), "licence CC0-1.0"),
        (Wanted(min_faces=10), item(faces=9), "too few faces"),
        (Wanted(max_faces=10), item(faces=11), "too many faces"),
        (Wanted(min_faces=10, max_faces=10), item(faces=10), ""),
        (Wanted(min_faces=10), item(), ""),
        (Wanted(animated=False), item(animated=True), "animated"),
        (Wanted(categories=("Chair",)), item(category="chair"), ""),
        (Wanted(categories=("chair",)), item(tags=("Chair", "x")), ""),
        (Wanted(categories=("chair",)), item(category="table"), "category"),
        (Wanted(), item(url="http://x/y.fbx"), "format .fbx"),
        (Wanted(), item(url="http://x/y.gltf"), "format .gltf"),
        (Wanted(), item(url="", path="y.gltf"), ""),
        (Wanted(), item(url="http://x/y"), "format unknown"),
    ],
)
def test_why_an_item_is_not_taken(wanted: Wanted, what: SourceItem, expected: str) -> None:
    assert wanted.refuses(what) == expected


def test_the_counts_are_those_of_all_items() -> None:
    items = [item(str(n), licence="CC0-1.0" if n % 2 else "", bytes=n) for n in range(10)]
    tally = Tally()
    kept = list(tally.select([*items, items[1]], Wanted()))
    assert [i.uid for i in kept] == ["1", "3", "5", "7", "9"]
    assert tally.kept == {"CC0-1.0": 5}
    assert tally.excluded == {"licence unknown": 5, "twice in the collection": 1}
    assert (tally.bytes, tally.unsized) == (25, 0)
    assert len(list(Tally().select(items, Wanted(), 2))) == 2
