from __future__ import annotations

import random
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from stub_pipeline import CONFIG, stub_prepare, stub_step
from worker_processes import workers

from ultrashape_cli.config.schema import Config
from ultrashape_cli.data.layout import STEPS, Dataset
from ultrashape_cli.errors import DatasetError, DiskError
from ultrashape_cli.preparation.discover import find_meshes, new_records
from ultrashape_cli.preparation.pipeline import plan_steps, run_plan, steps_until

FINE = replace(CONFIG, watertight=replace(CONFIG.watertight, resolution=1024))
MORE_VIEWS = replace(CONFIG, render=replace(CONFIG.render, views=3))


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return Dataset(tmp_path / "data")


def _add(models: Path, *names: str) -> None:
    for name in names:
        (models / f"{name}.obj").write_text(name)


def _calls(dataset: Dataset) -> list[str]:
    """Returns the steps run since the last call, as `asset step`."""
    log = dataset.root / "calls.txt"
    lines = log.read_text().splitlines() if log.exists() else []
    log.unlink(missing_ok=True)
    return sorted(f"{line.split('-')[0]} {line.split()[-1]}" for line in lines)


def _all(*names: str) -> list[str]:
    return sorted(f"{name} {step}" for name in names for step in STEPS)


def test_every_step_of_every_asset_runs_once(models: Path, dataset: Dataset) -> None:
    _add(models, "a", "b")
    plan, outcome = stub_prepare(models, dataset)
    assert (len(plan.tasks), outcome.made, outcome.failed) == (2, 2, {})
    assert _calls(dataset) == _all("a", "b")
    assert all(record.complete for record in dataset.load_records().values())


def test_a_package_that_could_not_load_is_named_once(models: Path, dataset: Dataset) -> None:
    _add(models, "a", "branching-a", "branching-b")
    _, outcome = stub_prepare(models, dataset)
    assert outcome.made == 3
    assert outcome.notes == {"pymeshlab cannot load: apt-get install libgl1"}


def test_what_is_current_is_skipped(models: Path, dataset: Dataset) -> None:
    _add(models, "a", "b")
    stub_prepare(models, dataset)
    _calls(dataset)
    plan, outcome = stub_prepare(models, dataset)
    assert (plan.tasks, len(plan.finished), outcome.made) == ([], 2, 0)
    assert _calls(dataset) == []


def test_a_new_file_is_added_without_redoing_the_others(models: Path, dataset: Dataset) -> None:
    _add(models, "a")
    stub_prepare(models, dataset)
    _calls(dataset)
    _add(models, "b")
    stub_prepare(models, dataset)
    assert _calls(dataset) == _all("b")


def test_a_changed_setting_redoes_its_step_only(models: Path, dataset: Dataset) -> None:
    _add(models, "a")
    stub_prepare(models, dataset)
    _calls(dataset)
    stub_prepare(models, dataset, MORE_VIEWS)
    assert _calls(dataset) == ["a render"]
    (record,) = dataset.load_records().values()
    assert record.steps["render"].params["views"] == 3


def test_a_setting_that_does_not_matter_redoes_nothing(models: Path, dataset: Dataset) -> None:
    _add(models, "a")
    stub_prepare(models, dataset)
    slower = replace(CONFIG, engine=replace(CONFIG.engine, timeout_s=9999.0, workers=1))
    assert not stub_prepare(models, dataset, slower)[0].tasks


def test_force_redoes_all(models: Path, dataset: Dataset) -> None:
    _add(models, "a")
    stub_prepare(models, dataset)
    _calls(dataset)
    stub_prepare(models, dataset, force=True)
    assert _calls(dataset) == _all("a")


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"123")])
def test_a_deleted_or_truncated_output_is_made_again(models, dataset: Dataset, damage) -> None:
    _add(models, "a")
    stub_prepare(models, dataset)
    _calls(dataset)
    (path,) = (dataset.root / "samples").iterdir()
    damage(path)
    stub_prepare(models, dataset)
    assert _calls(dataset) == ["a sample"]
    assert path.read_bytes() == b"12345"


def test_a_damaged_record_redoes_its_asset(models: Path, dataset: Dataset) -> None:
    _add(models, "a", "b")
    stub_prepare(models, dataset)
    _calls(dataset)
    next((dataset.root / "records").glob("a-*.json")).write_text('{"schema": 1, "id"')
    stub_prepare(models, dataset)
    assert _calls(dataset) == _all("a")


def test_a_new_mesh_resolution_redoes_everything(models: Path, dataset: Dataset) -> None:
    _add(models, "a")
    stub_prepare(models, dataset)
    _calls(dataset)
    stub_prepare(models, dataset, FINE)
    assert _calls(dataset) == _all("a")


def test_a_new_mesh_makes_render_and_sample_stale(models: Path, dataset: Dataset) -> None:
    """Also where the single commands do not know the setting that made the mesh."""
    _add(models, "a")
    stub_prepare(models, dataset)
    stub_prepare(models, dataset, FINE, ("watertight",))
    (record,) = dataset.load_records().values()
    assert not record.complete
    _calls(dataset)
    stub_step(dataset, "render")
    assert _calls(dataset) == ["a render"]
    stub_step(dataset, "sample")
    assert _calls(dataset) == ["a sample"]
    stub_step(dataset, "quality")
    # Nothing is left, neither for them nor for a prepare with that setting.
    assert not stub_step(dataset, "render")[0].tasks
    assert not stub_prepare(models, dataset, FINE)[0].tasks


def test_a_single_step_with_default_settings_leaves_a_custom_mesh_alone(models, dataset) -> None:
    _add(models, "a")
    stub_prepare(models, dataset, FINE)
    assert not stub_step(dataset, "render")[0].tasks


def test_a_single_step_skips_assets_without_a_mesh(models: Path, dataset: Dataset) -> None:
    _add(models, "a", "error")
    stub_prepare(models, dataset, steps=("watertight",))
    _calls(dataset)
    _, outcome = stub_step(dataset, "render")
    assert _calls(dataset) == ["a render"]
    assert outcome.failed == {}


def test_a_single_step_without_any_mesh_says_what_to_run(models: Path, dataset: Dataset) -> None:
    _add(models, "error")
    stub_prepare(models, dataset)
    with pytest.raises(DatasetError, match="watertight mesh") as caught:
        stub_step(dataset, "sample")
    assert "--until watertight" in caught.value.hint


def _engine(**changes: object) -> Config:
    return replace(CONFIG, engine=replace(CONFIG.engine, **changes))


@pytest.mark.parametrize(
    ("fault", "config"),
    [("abort", _engine(retries=1)),
     ("allocate", _engine(memory_gib=1.25))],
)  # fmt: skip
def test_a_failure_is_tried_again_where_it_may_end_differently(
    models: Path, dataset: Dataset, fault: str, config: Config
) -> None:
    _add(models, "a", fault)
    _, first = stub_prepare(models, dataset)
    assert len(first.failed) == 1
    _calls(dataset)
    _, again = stub_prepare(models, dataset)
    assert again.failed == first.failed
    assert _calls(dataset) == []
    stub_prepare(models, dataset, config)
    assert f"{fault} watertight" in _calls(dataset)


@pytest.mark.parametrize("fault", ["abort", "error"])
def test_failures_are_tried_again_when_asked(models: Path, dataset: Dataset, fault: str) -> None:
    _add(models, "a", fault)
    stub_prepare(models, dataset)
    _calls(dataset)
    stub_prepare(models, dataset, retry_failed=True)
    assert _calls(dataset) == [f"{fault} watertight"]


def test_a_failure_under_other_settings_is_tried_again(models: Path, dataset: Dataset) -> None:
    _add(models, "error")
    stub_prepare(models, dataset)
    _calls(dataset)
    stub_prepare(models, dataset, FINE)
    assert _calls(dataset) == ["error watertight"]


def test_causes_are_counted(models: Path, dataset: Dataset) -> None:
    _add(models, "a", "error", "abort", "raise")
    _, outcome = stub_prepare(models, dataset)
    assert outcome.causes == {"earlier": 0, "error": 2, "crash": 1}
    assert (outcome.made, len(outcome.failed)) == (1, 3)


def test_fail_fast_stops_at_the_first_failure(models: Path, dataset: Dataset) -> None:
    _add(models, "error", *(f"slow-{n}" for n in range(30)))
    _, outcome = stub_prepare(models, dataset, fail_fast=True)
    assert len(outcome.failed) == 1
    assert outcome.made < 5
    assert not outcome.stopped


def test_a_full_disk_stops_the_run_and_keeps_what_is_done(models: Path, dataset: Dataset) -> None:
    _add(models, "a", "disk", *(f"slow-{n}" for n in range(30)))
    with pytest.raises(DiskError, match="no space left"):
        stub_prepare(models, dataset, replace(CONFIG, engine=replace(CONFIG.engine, workers=1)))
    records = {record.id.split("-")[0]: record for record in dataset.load_records().values()}
    assert records["a"].complete
    assert not records["disk"].steps
    assert not workers()


def test_a_stopped_run_goes_on_where_it_was(models: Path, dataset: Dataset) -> None:
    names = [f"slow{n}" for n in range(6)]
    _add(models, *names)
    answers = iter([False] * 8)
    _, outcome = stub_prepare(models, dataset, stop=lambda: next(answers, True))
    assert outcome.stopped
    before = _calls(dataset)
    assert 0 < len(before) < 24
    done = [r.steps.keys() for r in dataset.load_records().values()]
    finished = sum(map(len, done))
    stub_prepare(models, dataset)
    assert len(_calls(dataset)) == 24 - finished


def test_a_killed_run_loses_nothing(models: Path, dataset: Dataset) -> None:
    names = [f"slow-{n}" for n in range(8)]
    _add(models, *names)
    rng = random.Random(0)
    program = Path(__file__).with_name("stub_pipeline.py")
    for _ in range(3):
        process = subprocess.Popen([sys.executable, program, models, dataset.root])
        try:
            process.wait(rng.uniform(0.4, 1.2))
        except subprocess.TimeoutExpired:
            workers = psutil.Process(process.pid).children()
            process.send_signal(signal.SIGKILL)
            process.wait()
            _, alive = psutil.wait_procs(workers, timeout=10)
            assert not [p for p in alive if p.status() != psutil.STATUS_ZOMBIE]
        finished = sum(len(record.steps) for record in dataset.load_records().values())
        for record in dataset.load_records().values():
            keys = {name: step.key for name, step in record.steps.items()}
            assert all(dataset.is_current(record, name, key) for name, key in keys.items())
    _calls(dataset)
    _, outcome = stub_prepare(models, dataset)
    assert outcome.failed == {}
    assert len(_calls(dataset)) == 32 - finished
    records = dataset.load_records()
    assert len(records) == 8
    assert all(record.complete for record in records.values())


def test_two_equal_runs_at_once_do_nothing_twice(models: Path, dataset: Dataset) -> None:
    _add(models, *(f"slow-{n}" for n in range(6)), "error")
    program = Path(__file__).with_name("stub_pipeline.py")
    command = [sys.executable, program, models, dataset.root]
    runs = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(2)]
    assert [(run.communicate()[1], run.returncode) for run in runs] == [(b"", 0)] * 2
    calls = (dataset.root / "calls.txt").read_text().splitlines()
    assert len(calls) == len(set(calls)) == 6 * 4 + 1
    assert sum(record.complete for record in dataset.load_records().values()) == 6
    assert not stub_prepare(models, dataset)[0].tasks


def test_what_another_run_has_finished_since_planning_is_not_done_again(models, dataset) -> None:
    _add(models, "a", "error")
    records = list(new_records(find_meshes(models), {}))
    for record in records:
        dataset.add_record(record)
    plan = plan_steps(dataset, records, STEPS, CONFIG)
    stub_prepare(models, dataset)
    _calls(dataset)
    outcome = run_plan(dataset, plan, CONFIG, worker="stub_worker")
    assert _calls(dataset) == []
    assert (outcome.made, outcome.elsewhere, outcome.causes["error"]) == (0, 1, 1)


def test_an_asset_of_another_run_is_taken_over_when_that_ends(models, dataset: Dataset) -> None:
    _add(models, "a", "b")
    (first, _) = (r.id for r in new_records(find_meshes(models), {}))
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLD, dataset.root, first], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    done: list[str] = []

    def stop() -> bool:
        log = dataset.root / "calls.txt"
        if log.exists() and "b-" in log.read_text() and holder.poll() is None:
            done.append(log.read_text())
            holder.kill()
            holder.communicate()
        return False

    stub_prepare(models, dataset, stop=stop)
    assert "a-" not in done[0]
    assert all(record.complete for record in dataset.load_records().values())


_HOLD = """
import sys, time
from pathlib import Path
from ultrashape_cli.claims import open_claims
with open_claims(Path(sys.argv[1])) as claims:
    assert claims.take(sys.argv[2])
    print("held", flush=True)
    time.sleep(60)
"""


def test_orphans_of_a_killed_run_are_removed(models: Path, dataset: Dataset) -> None:
    _add(models, "a")
    stub_prepare(models, dataset)
    orphan = dataset.root / "meshes" / ".gone-123.4.tmp.ply"
    orphan.touch()
    _add(models, "b")
    stub_prepare(models, dataset)
    assert not orphan.exists()


def test_planning_writes_nothing(models: Path, dataset: Dataset) -> None:
    assert plan_steps(dataset, [], STEPS, CONFIG).tasks == []
    assert not dataset.root.exists()


def test_steps_until_a_step_are_those_before_it_too() -> None:
    assert steps_until("watertight") == ("watertight",)
    assert steps_until("sample") == steps_until("split") == STEPS
