from __future__ import annotations

from pathlib import Path

import pytest

from ultrashape_cli.data.attribution import Work, read_works, work_of, works_of, write_works
from ultrashape_cli.data.layout import Dataset, Record, StepRecord
from ultrashape_cli.data.splits import SplitRule, group_keys, write_splits
from ultrashape_cli.errors import DatasetError


def record(name: str, **origin: object) -> Record:
    steps = {step: StepRecord("done", "k") for step in ("watertight", "render", "sample")}
    source = {"path": name, "sha256": name, **({"origin": origin} if origin else {})}
    return Record(name, source, steps)


@pytest.mark.parametrize("text", ["a | b", "\\", "\\|", "<b>[x](y)</b>", "*_`", "  a\nb ", "é", ""])
def test_what_is_written_is_read_back(tmp_path: Path, text: str) -> None:
    names = ("title", "author", "licence", "source", "uid")
    works = {work_of(dict.fromkeys(names, text)), work_of({"title": text, "author": f"{text}x"})}
    write_works(tmp_path / "a.md", works)
    assert read_works(tmp_path / "a.md") == works
    write_works(tmp_path / "a.md", [])
    assert not (tmp_path / "a.md").exists()


def test_the_same_works_give_the_same_bytes(tmp_path: Path) -> None:
    works = [work_of({"title": f"t{n}", "licence": "CC0-1.0"}) for n in range(9)]
    write_works(tmp_path / "a", works)
    write_works(tmp_path / "b", reversed(works * 2))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_studios_own_meshes_are_not_attributed() -> None:
    own = {"licence": "LicenseRef-own", "source": "folder", "uid": "a.stl"}
    records = [
        record("a"),
        record("b", **own),
        record("c", **own, author="A. Sculptor"),
        record("d", source="objaverse", uid="d", licence_text="ask"),
    ]
    assert works_of(records) == {
        Work("a.stl", "A. Sculptor", "LicenseRef-own", "folder", "a.stl"),
        Work("d", "unknown", "ask", "objaverse", "d"),
    }


def test_the_lists_of_a_dataset_have_their_attribution(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path)
    for n in range(6):
        origin = {"source": "objaverse", "uid": str(n), "author": f"m{n % 2}", "licence": "CC0-1.0"}
        dataset.write_record(record(f"a{n}", **origin))
    lists = write_splits(dataset, SplitRule(val=0.5, seed=0, group_by="author"))
    assert [len(ids) for ids in lists.values()] == [3, 3]
    path = tmp_path / "data_list/ATTRIBUTION.md"
    assert {work.author for work in read_works(path)} == {"m0", "m1"}
    assert len(read_works(path)) == 6
    for n in range(6):
        dataset.write_record(record(f"a{n}"))
    write_splits(dataset, SplitRule(val=0.5, seed=0))
    assert not path.exists()


def test_imported_meshes_stay_with_their_series_or_author() -> None:
    records = [
        record("a", source="x", series="1", author="m"),
        record("b", source="x", series="1", author="n"),
        record("c", source="y", series="1", author="m"),
        record("d", source="x"),
        record("e"),
    ]
    assert group_keys(records, "series") == ["x/1", "x/1", "y/1", "d", "e"]
    assert group_keys(records, "author") == ["x/m", "x/n", "y/m", "d", "e"]
    with pytest.raises(DatasetError, match="same series"):
        write_of_one_series(records[:2])


def write_of_one_series(records: list[Record]) -> None:
    from ultrashape_cli.data.splits import split_records

    split_records(records, SplitRule(val=0.5, seed=0, group_by="series"))
