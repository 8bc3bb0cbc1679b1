from __future__ import annotations

from pathlib import Path

import pytest

from ultrashape_cli.data.layout import TRAINING_STEPS, Dataset, Record, StepRecord
from ultrashape_cli.data.splits import SplitRule, write_splits
from ultrashape_cli.errors import ConfigError, DatasetError
from ultrashape_cli.preparation.filters import MEASURES, PRESETS, Rule, judge, load_filter
from ultrashape_cli.preparation.ranking import WORSE_WHEN
from ultrashape_cli.preparation.verdicts import find_stale, update_verdicts

ONE, TWO = "////" + "A" * 12, "A" * 12 + "////"
GOOD = {
    **{"components": 1, "boundary_loops": 0, "lost_share": 0.0, "genus": 1, "flatness": 0.4},
    **{"interior_ratio": 0.3, "primitive_share": 0.3, "detail": 4.0, "source_faces": 90_000},
    "source_size": 1.0,
}


def _record(name: str, **measured: object) -> Record:
    steps = {step: StepRecord("done", "k") for step in TRAINING_STEPS}
    steps["quality"] = StepRecord("done", "k", measurements={**GOOD, **measured})
    source = {"path": f"/m/{name}.obj", "sha256": name, "bytes": 1, "mtime_ns": 1}
    return Record(name, source, steps)


def _dataset(folder: Path, *records: Record) -> Dataset:
    dataset = Dataset(folder / "data")
    for record in records:
        dataset.write_record(record)
    return dataset


def _update(dataset: Dataset, name: str) -> dict[str, Record]:
    update_verdicts(dataset, dataset.load_records(), name)
    return dataset.load_records()


@pytest.mark.parametrize("name", PRESETS)
def test_presets_load_and_keep_a_good_sculpt(name: str) -> None:
    verdicts = judge([_record("a")], name, load_filter(name))
    assert verdicts["a"] == {"filter": name, "rejected": []}


@pytest.mark.parametrize(
    ("measure", "value", "rule"),
    [
        ("components", 500, "fragments"),
        ("boundary_loops", 10**5, "open-scan"),
        ("lost_share", 0.015, "lost-surface"),
        ("interior_ratio", 0.001, "thin-shell"),
        ("flatness", 0.001, "sheet"),
        ("primitive_share", 1.0, "primitive"),
        ("detail", 1.0, "plain"),
        ("source_faces", 12, "few-faces"),
        ("source_faces", 10**9, "monster"),
        ("source_size", 1e9, "no-size"),
    ],
)
def test_collectibles_rejects_by_name(measure: str, value: float, rule: str) -> None:
    records = [_record("a", **{measure: value})]
    assert judge(records, "c", load_filter("collectibles"))["a"]["rejected"] == [rule]


def test_every_rule_can_be_broken_by_a_measure_that_exists() -> None:
    assert {rule.measure for rule in load_filter("collectibles")} <= set(MEASURES)
    assert set(WORSE_WHEN) <= set(MEASURES)


def test_an_asset_that_was_not_measured_breaks_the_rule() -> None:
    assert Rule("r", "vae_f_score", min=0.5).broken_by({})
    assert not Rule("r", "vae_f_score", min=0.5).broken_by({"vae_f_score": 0.5})
    assert not Rule("r", "twin_distance", min=0.5).broken_by({})


def test_of_twins_the_one_with_more_faces_stays() -> None:
    records = [_record("a", descriptor=ONE), _record("b", descriptor=ONE, source_faces=10**5),
               _record("c", descriptor=TWO)]  # fmt: skip
    verdicts = judge(records, "f", load_filter("collectibles"))
    assert [v["rejected"] for v in verdicts.values()] == [["near-duplicate"], [], []]
    assert (verdicts["a"]["twin"], verdicts["a"]["twin_distance"]) == ("b", 0.0)
    # Without the rule they are named and kept.
    verdicts = judge(records, "none", [])
    assert verdicts["a"] == {"filter": "none", "rejected": [], "twin": "b", "twin_distance": 0.0}


def test_a_rejected_asset_is_no_ones_twin() -> None:
    records = [_record("a", descriptor=ONE),
               _record("b", descriptor=ONE, source_faces=10**5, detail=0.5)]  # fmt: skip
    verdicts = judge(records, "f", load_filter("collectibles"))
    assert [v["rejected"] for v in verdicts.values()] == [[], ["plain"]]


def test_rejected_assets_keep_their_files_and_leave_the_split(tmp_path: Path) -> None:
    dataset = _dataset(tmp_path, _record("a"), _record("b"), _record("flat", flatness=0.0))
    records = _update(dataset, "collectibles")
    assert records["flat"].rejected == ["sheet"]
    lists = write_splits(dataset, SplitRule(0.5, 0))
    assert sorted(lists["train"] + lists["val"]) == ["a", "b"]
    # Another filter brings it back; nothing else of the record has changed.
    again = _update(dataset, "none")
    lists = write_splits(dataset, SplitRule(0.5, 0))
    assert "flat" in lists["train"] + lists["val"]
    assert again["flat"].steps == records["flat"].steps


def test_a_split_without_usable_assets_names_the_filter(tmp_path: Path) -> None:
    dataset = _dataset(tmp_path, _record("flat", flatness=0.0))
    _update(dataset, "collectibles")
    with pytest.raises(DatasetError, match="rejected by the filter"):
        write_splits(dataset, SplitRule(0.5, 0))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[a]\nmeasure = 'detial'\nmin = 1", "did you mean `detail`"),
        ("[a]\nmeasure = 'detail'", "neither `min` nor `max`"),
        ("[a]\nmeasure = 'detail'\nmin = '1'", "not a number"),
        ("[a]\nmeasure = 'detail'\nmin = true", "not a number"),
        ("[a]\nmeasure = 'detail'\nmin = 1\nmost = 2", "unknown key `most`"),
        ("a = 3", "`a` is not a table"),
        ("[a", "not TOML"),
    ],
)
def test_a_malformed_filter_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_filter(str(path))
    assert message in caught.value.message


def test_an_unknown_filter_names_the_presets() -> None:
    with pytest.raises(ConfigError) as caught:
        load_filter("collectables")
    assert "collectibles" in caught.value.hint


def _stale(known: list[Record], found: list[Record], folder: str = "/m") -> dict[str, str]:
    return find_stale({r.id: r for r in known}, {r.id: r for r in found}, Path(folder))


def test_deleted_and_edited_sources_make_assets_stale(tmp_path: Path) -> None:
    old, gone, new = _record("old"), _record("gone"), _record("new")
    new.source["path"] = old.source["path"]
    assert _stale([old, gone], [new]) == {"old": "edited", "gone": "deleted"}
    assert _stale([old, gone], [], "/other") == {}
    gone.stale = "deleted"
    assert _stale([gone], []) == {}
    assert _stale([gone], [gone]) == {"gone": ""}


def test_a_file_that_is_there_but_was_passed_over_is_not_called_deleted(tmp_path: Path) -> None:
    record = _record("a")
    path = tmp_path / "a.obj"
    path.touch()
    record.source["path"] = str(path)
    assert _stale([record], [], str(tmp_path)) == {}


def test_a_stale_asset_leaves_the_split_and_keeps_its_record(tmp_path: Path) -> None:
    dataset = _dataset(tmp_path, _record("a"), _record("b"), _record("c"))
    dataset.mark("b", stale="deleted")
    lists = write_splits(dataset, SplitRule(0.5, 0))
    assert sorted(lists["train"] + lists["val"]) == ["a", "c"]
    assert dataset.load_records()["b"].complete
