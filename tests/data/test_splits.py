from __future__ import annotations

import pytest

from ultrashape_cli.data.layout import STEPS, Dataset, Record, StepRecord
from ultrashape_cli.data.splits import split_ids, write_splits
from ultrashape_cli.errors import DatasetError
from ultrashape_cli.files import read_json

IDS = [f"asset-{n}" for n in range(2000)]


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
    lists = write_splits(dataset, 0.5, 0)
    assert sorted(lists["train"] + lists["val"]) == ["a", "b"]
    assert {name: dataset.read_split(name) for name in lists} == lists
    assert read_json(dataset.render_map) == {"a": "renders/a", "b": "renders/b"}


def test_a_dataset_without_complete_assets_is_refused(tmp_path) -> None:
    dataset = Dataset(tmp_path)
    _add(dataset, "a", STEPS[:1])
    with pytest.raises(DatasetError, match="no asset"):
        write_splits(dataset, 0.1, 0)
    assert not (tmp_path / "data_list").exists()


@pytest.mark.parametrize("text", ["", "{}", "[1]", "null"])
def test_a_list_that_holds_no_ids_is_refused(tmp_path, text: str) -> None:
    dataset = Dataset(tmp_path)
    dataset.list_path("train").parent.mkdir()
    dataset.list_path("train").write_text(text)
    with pytest.raises(DatasetError, match=r"train\.json") as caught:
        dataset.read_split("train")
    assert caught.value.hint.startswith("ushape split")
