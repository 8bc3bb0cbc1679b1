from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from ultrashape_cli.data.layout import Dataset, Record, StepRecord, settings_text, step_key
from ultrashape_cli.errors import DatasetError, DiskError, UsageError


def _record(name: str = "a", **steps: StepRecord) -> Record:
    source = {"path": f"/models/{name}.obj", "sha256": "0" * 64, "bytes": 1, "mtime_ns": 1}
    return Record(name, source, steps, ["/models/twin.obj"])


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path)
    error = {"cause": "error", "message": "bad", "hint": None}
    record = _record(watertight=StepRecord("done", "k", {"resolution": 3}, 1.5, {"n": 1}, {"m": 5}),
                     render=StepRecord("failed", "r", error=error))  # fmt: skip
    dataset.write_record(record)
    assert dataset.load_records() == {"a": record}
    assert dataset.read_record("a") == record
    assert record.error == {"step": "render", **error}


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"schema": 2}', '{"schema": 1}',
             '{"schema": 1, "id": "a", "source": {}, "steps": {"render": {"future": 1}}}'],
)  # fmt: skip
def test_a_record_that_cannot_be_read_counts_as_absent(tmp_path: Path, text: str) -> None:
    dataset = Dataset(tmp_path)
    dataset.write_record(_record("b"))
    (tmp_path / "records" / "a.json").write_text(text)
    assert list(dataset.load_records()) == ["b"]


def test_a_record_under_another_name_is_not_taken(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path)
    text = json.dumps(_record("../../a").to_json())
    dataset.write_record(_record("a"))
    (tmp_path / "records" / "a copy.json").write_text(text)
    assert list(dataset.load_records()) == ["a"]


def test_records_are_sorted_and_partial_ones_left_out(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path)
    for name in "cab":
        dataset.write_record(_record(name))
    (tmp_path / "records" / ".d.1.tmp.json").write_text("{}")
    assert list(dataset.load_records()) == ["a", "b", "c"]


def test_steps_written_at_the_same_time_are_all_kept(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path)
    dataset.write_record(_record())
    names = [f"step{n}" for n in range(8)]
    threads = [
        threading.Thread(target=dataset.write_step, args=("a", name, StepRecord("done", name)))
        for name in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(dataset.load_records()["a"].steps) == names


def test_a_new_mesh_drops_what_was_made_from_the_old_one(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path)
    dataset.write_record(_record(watertight=StepRecord("done", "old"),
                                 render=StepRecord("done", "r")))  # fmt: skip
    dataset.write_step("a", "watertight", StepRecord("done", "old"))
    assert dataset.load_records()["a"].done("render")
    dataset.write_step("a", "watertight", StepRecord("failed", "new"))
    assert list(dataset.load_records()["a"].steps) == ["watertight"]


def test_a_step_of_a_vanished_record_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="vanished"):
        Dataset(tmp_path).write_step("a", "render", StepRecord("done", "k"))


def test_a_result_is_current_while_key_and_files_are_the_same(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path)
    path = dataset.mesh("a")
    path.parent.mkdir()
    path.write_bytes(b"12345")
    record = _record(watertight=StepRecord("done", "k", outputs=dataset.output_sizes([path])))
    assert dataset.is_current(record, "watertight", "k")
    assert not dataset.is_current(record, "watertight", "other")
    assert not dataset.is_current(record, "render", "k")
    path.write_bytes(b"1234")
    assert not dataset.is_current(record, "watertight", "k")
    path.unlink()
    assert not dataset.is_current(record, "watertight", "k")
    record.steps["watertight"].status = "failed"
    record.steps["watertight"].outputs = {}
    assert not dataset.is_current(record, "watertight", "k")


def test_the_key_depends_on_everything_but_the_order_of_settings() -> None:
    def key_of(step: str, version: int, params: dict, upstream: str) -> str:
        return step_key(settings_text(step, version, params), upstream)

    key = key_of("render", 1, {"a": 1, "b": 2}, "up")
    assert key == key_of("render", 1, {"b": 2, "a": 1}, "up")
    others = [
        ("sample", 1, {"a": 1, "b": 2}, "up"),
        ("render", 2, {"a": 1, "b": 2}, "up"),
        ("render", 1, {"a": 1, "b": 3}, "up"),
        ("render", 1, {"a": 1, "b": 2}, "x"),
    ]
    assert len({key, *(key_of(*other) for other in others)}) == 5


def test_partial_files_of_one_asset_are_dropped(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path)
    mine = [dataset.views("a") / ".view_000.9.tmp.png", tmp_path / "samples" / ".a.9.tmp.npz",
            tmp_path / "meshes" / ".a.9.tmp.ply"]  # fmt: skip
    others = [dataset.views("a") / "view_000.png", dataset.samples("a"), dataset.mesh("a")]
    others += [tmp_path / "meshes" / f".{name}.tmp.ply" for name in ("b.9", "a.8")]
    for path in (*mine, *others):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    found = dataset.partial_files()
    assert sorted(found["a"]) == sorted([*mine[1:], others[-1]])
    assert found["b"] == [others[3]]
    dataset.drop_partial("a", 9)
    assert not any(path.exists() for path in mine)
    assert all(path.exists() for path in others)


def test_a_folder_without_records_is_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a prepared dataset") as caught:
        Dataset(tmp_path).require()
    assert caught.value.hint.endswith(f"-o {tmp_path}")


def test_a_file_in_the_place_of_the_records_is_a_disk_error(tmp_path: Path) -> None:
    (tmp_path / "records").touch()
    with pytest.raises(DiskError):
        Dataset(tmp_path).write_record(_record())
