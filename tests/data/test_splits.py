from __future__ import annotations

import pytest

from ultrashape_cli.data.layout import STEPS, Dataset, Record, StepRecord
from ultrashape_cli.data.splits import (
    SplitRule,
    as_lists,
    group_keys,
    name_prefix,
    split_records,
    write_splits,
)
from ultrashape_cli.errors import DatasetError, UsageError
from ultrashape_cli.files import read_json

IDS = [f"asset-{n}" for n in range(2000)]


def split_ids(ids: list[str], val: float, seed: int) -> dict[str, list[str]]:
    return as_lists(split_records([Record(i, {}) for i in ids], SplitRule(val, seed)))


def test_lists_are_disjoint_sorted_and_complete() -> None:
    lists = split_ids(IDS, 0.1, 0)
    assert sorted(lists["train"] + lists["val"]) == sorted(IDS)
    assert all(ids == sorted(ids) for ids in lists.values())


def test_the_share_of_validation_is_as_asked() -> None:
    # Three standard deviations of 2000 draws with probability 0.1 are 40.
    assert 160 <= len(split_ids(IDS, 0.1, 0)["val"]) <= 240


def test_the_order_of_the_ids_does_not_matter() -> None:
    assert split_ids(IDS[::-1], 0.1, 0) == split_ids(IDS, 0.1, 0)


def test_the_seed_moves_assets() -> None:
    assert split_ids(IDS, 0.1, 0) != split_ids(IDS, 0.1, 1)


def test_added_assets_move_no_other() -> None:
    some, all_ = split_ids(IDS[:500], 0.1, 0), split_ids(IDS, 0.1, 0)
    assert set(some["val"]) == set(all_["val"]) & set(IDS[:500])


def test_a_larger_share_keeps_what_is_held_out() -> None:
    assert set(split_ids(IDS, 0.05, 0)["val"]) < set(split_ids(IDS, 0.2, 0)["val"])


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("val", [0.0001, 0.5, 0.9])
def test_small_sets_have_both_lists(count: int, val: float) -> None:
    for seed in range(20):
        assert all(split_ids(IDS[:count], val, seed).values())


def test_one_asset_trains() -> None:
    for val in (0.0, 0.1, 0.9):
        assert split_ids(["a"], val, 0) == {"train": ["a"], "val": []}


def test_no_validation_is_possible() -> None:
    assert split_ids(IDS, 0.0, 0)["val"] == []


def _add(dataset: Dataset, name: str, steps: tuple[str, ...], failed: str = "") -> None:
    records = {step: StepRecord("failed" if step == failed else "done", "k") for step in steps}
    dataset.write_record(Record(name, {"path": name, "sha256": name}, records))


def test_only_complete_assets_are_listed(tmp_path) -> None:
    dataset = Dataset(tmp_path)
    _add(dataset, "a", STEPS)
    _add(dataset, "b", STEPS)
    _add(dataset, "c", STEPS, failed="sample")
    _add(dataset, "d", STEPS[:2])
    _add(dataset, "e", STEPS, failed="watertight")
    lists = write_splits(dataset, SplitRule(0.5, 0))
    assert sorted(lists["train"] + lists["val"]) == ["a", "b"]
    assert {name: dataset.read_split(name) for name in lists} == lists
    assert read_json(dataset.render_map) == {"a": "renders/a", "b": "renders/b"}


def test_a_dataset_without_complete_assets_is_refused(tmp_path) -> None:
    dataset = Dataset(tmp_path)
    _add(dataset, "a", STEPS[:1])
    with pytest.raises(DatasetError, match="no asset"):
        write_splits(dataset, SplitRule(0.1, 0))
    assert not (tmp_path / "data_list").exists()


@pytest.mark.parametrize("text", ["", "{}", "[1]", "null"])
def test_a_list_that_holds_no_ids_is_refused(tmp_path, text: str) -> None:
    dataset = Dataset(tmp_path)
    dataset.list_path("train").parent.mkdir()
    dataset.list_path("train").write_text(text)
    with pytest.raises(DatasetError, match=r"train\.json") as caught:
        dataset.read_split("train")
    assert caught.value.hint.startswith("ushape split")


def _asset(name: str, path: str = "", **measurements: float) -> Record:
    return Record(name, {"path": path or name}, {"quality": StepRecord("done", "k",
                  measurements=measurements)})  # fmt: skip


def test_three_lists_have_their_shares() -> None:
    records = [_asset(name) for name in IDS]
    rule = SplitRule(val=0.1, test=0.2, train=0.5, seed=0)
    lists = as_lists(split_records(records, rule))
    sizes = {name: len(ids) for name, ids in lists.items()}
    # Three standard deviations of 2000 draws.
    assert sizes["train"] == pytest.approx(1000, abs=67)
    assert sizes["val"] == pytest.approx(200, abs=40)
    assert sizes["test"] == pytest.approx(400, abs=54)
    assert lists["val"] == split_ids(IDS, 0.1, 0)["val"]


def test_shares_above_one_are_refused() -> None:
    with pytest.raises(UsageError, match="sum to"):
        SplitRule(val=0.5, test=0.4, train=0.2, seed=0)


@pytest.mark.parametrize("group_by", ["folder", "prefix"])
def test_groups_stay_together(group_by: str) -> None:
    records = [
        _asset(f"{series}-{n}", f"/m/{series}/{series}_v{n}.stl")
        for series in (f"series{chr(97 + i)}" for i in range(26))
        for n in range(4)
    ]
    places = split_records(records, SplitRule(val=0.3, seed=1, group_by=group_by))
    for record in records:
        assert places[record.id] == places[record.id.split("-")[0] + "-0"]
    assert set(places.values()) == {"train", "val"}


def test_one_group_cannot_be_split() -> None:
    records = [_asset(name, f"/m/all/{name}.stl") for name in IDS[:5]]
    with pytest.raises(DatasetError, match="same folder"):
        split_records(records, SplitRule(val=0.1, seed=0, group_by="folder"))


def test_the_prefix_drops_numbers_and_variants() -> None:
    names = ("Dragon", "dragon_v2", "dragon-03", "dragon (1)", "dragon copy", "dragon.final.2")
    assert {name_prefix(name) for name in names} == {"dragon"}
    assert name_prefix("groove") == "groove"
    assert name_prefix("0017") == "0017"


def test_near_duplicates_stay_together() -> None:
    records = [_asset(name) for name in ("a", "b", "c", "d")]
    with pytest.raises(DatasetError, match="not been looked for"):
        group_keys(records, "duplicates")
    records[1].verdict = {"twin": "d"}
    records[2].verdict = {"twin": "b"}
    assert group_keys(records, "duplicates") == ["a", "b", "b", "b"]


def test_every_list_gets_the_same_quarters_of_a_measure() -> None:
    records = [_asset(name, detail=float(n)) for n, name in enumerate(IDS[:400])]
    rule = SplitRule(val=0.1, seed=0, stratify="detail")
    lists = as_lists(split_records(records, rule))
    assert len(lists["val"]) == 40
    quarters = [int(name.split("-")[1]) // 100 for name in lists["val"]]
    assert [quarters.count(n) for n in range(4)] == [10] * 4


def test_strata_move_no_asset_that_has_a_place() -> None:
    rule = SplitRule(val=0.2, seed=0, stratify="detail")
    some = [_asset(name, detail=float(n % 7)) for n, name in enumerate(IDS[:50])]
    more = some + [_asset(name, detail=float(n)) for n, name in enumerate(IDS[50:200])]
    before = split_records(some, rule)
    after = split_records(more, rule, before)
    assert {name: after[name] for name in before} == before
    assert sum(place == "val" for place in after.values()) == pytest.approx(40, abs=4)


def test_a_measure_that_no_asset_has_is_refused() -> None:
    with pytest.raises(DatasetError, match="`beauty`"):
        split_records([_asset("a")], SplitRule(val=0.1, seed=0, stratify="beauty"))


def test_a_forced_place_is_kept_when_assets_are_added(tmp_path) -> None:
    dataset = Dataset(tmp_path)
    kept: dict[str, str] = {}
    for name in IDS[:12]:
        _add(dataset, name, STEPS)
        lists = write_splits(dataset, SplitRule(0.1, 0))
        now = {asset: place for place, ids in lists.items() for asset in ids}
        assert {asset: now[asset] for asset in kept} == kept
        kept = now


def test_gone_files_are_named_with_the_command_that_brings_them_back(tmp_path) -> None:
    dataset = Dataset(tmp_path)
    _add(dataset, "a", STEPS)
    record = dataset.read_record("a")
    record.steps["sample"].outputs = {"samples/a.npz": 5}
    dataset.write_record(record)
    with pytest.raises(DatasetError, match="step `sample` are gone") as caught:
        write_splits(dataset, SplitRule(0.1, 0))
    assert caught.value.hint == f"ushape sample {tmp_path}"


def test_a_list_that_is_no_longer_asked_for_is_removed(tmp_path) -> None:
    dataset = Dataset(tmp_path)
    for name in IDS[:20]:
        _add(dataset, name, STEPS)
    write_splits(dataset, SplitRule(val=0.1, test=0.3, seed=0))
    assert dataset.read_split("test")
    write_splits(dataset, SplitRule(0.1, 0))
    assert not dataset.list_path("test").exists()
