"""Every rule, with a clock of our own."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from synthetic_run import add_lines, make_run, set_config

from ultrashape_cli.config.alerts import AlertConfig
from ultrashape_cli.errors import ConfigError
from ultrashape_cli.monitoring.alerts import ALERTS_FILE, RULES, AlertBook, Facts
from ultrashape_cli.monitoring.disk import DiskForecast
from ultrashape_cli.monitoring.run_state import RunReader
from ultrashape_cli.monitoring.system import Gpu, Machine
from ultrashape_cli.runs import RunFolder

GPU = Gpu(0, "A40", 97, 40.0, 48.0, 60, 250.0)
MACHINE = Machine(cpu=50.0, used_gib=10.0, total_gib=64.0, disk_free_gib=50.0, gpus=(GPU,))
DISK = DiskForecast(free_gib=50.0, total_gib=100.0, needed_gib=1.0, seconds_until_full=None)


class Watch:
    """A run, its book, and a clock that is moved by hand."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.run: RunFolder = make_run(folder / "run")
        self.told: list[tuple[str, str]] = []
        self.settings = settings
        self.now = self.run.read_status()["time"]
        self.clock = 100.0
        self.open()

    def open(self, **options: Any) -> None:
        self.book = AlertBook(
            self.run.root,
            AlertConfig(**self.settings),
            notify=lambda alert, change, state: self.told.append((alert.rule, change)),
            **options,
        )
        self.reader = RunReader(self.run)

    def look(self, seconds: float = 0.0, *, machine: Machine | None = MACHINE,
             **changes: Any) -> dict[str, str]:  # fmt: skip
        """Rule -> message after so many seconds; changes replace parts of the state."""
        self.now += seconds
        self.clock += seconds
        state = self.reader.read(self.now, self.clock)
        state = replace(state, **{"disk": DISK, **changes})
        facts = Facts(state, self.reader.history, machine)
        return {a.rule: a.message for a in self.book.look(facts, self.now, self.clock)}

    def written(self) -> list[tuple[str, str]]:
        path = self.run.root / ALERTS_FILE
        lines = path.read_text().splitlines() if path.exists() else []
        return [(line["rule"], line["change"]) for line in map(json.loads, lines)]


@pytest.fixture
def watch(tmp_path: Path) -> Watch:
    return Watch(tmp_path)


def _gpu(**values: Any) -> Machine:
    return replace(MACHINE, gpus=(replace(GPU, **values),))


def test_a_healthy_run_has_no_alerts(watch: Watch) -> None:
    assert watch.look() == {}
    assert watch.written() == []


def test_a_loss_that_is_no_number_is_critical_and_clears(watch: Watch) -> None:
    add_lines(watch.run, [21], start=watch.now - 21, loss=None)
    assert watch.look() == {"loss-nan": "the loss is no number at step 21"}
    add_lines(watch.run, [22], start=watch.now - 22)
    assert watch.look() == {}
    assert watch.told == watch.written() == [("loss-nan", "raised"), ("loss-nan", "cleared")]


def test_a_loss_that_jumps_is_a_spike(watch: Watch) -> None:
    start = watch.now - 200
    add_lines(watch.run, range(21, 200), start=start, loss=0.5)
    assert watch.look() == {}
    add_lines(watch.run, range(200, 205), start=start, loss=1.6)
    assert watch.look() == {"loss-spike": "loss 1.6 is 3.2 times the usual 0.5"}


def test_no_step_for_some_minutes_is_noticed(watch: Watch) -> None:
    assert watch.look(14 * 60, state="running") == {}
    assert watch.look(2 * 60, state="stalled") == {"no-step": "no step for 16 minutes"}


def test_a_run_of_slow_steps_gets_more_time(tmp_path: Path) -> None:
    watch = Watch(tmp_path)
    set_config(watch.run, log_every_steps=10)
    add_lines(watch.run, [21], start=watch.now - 21, seconds=60.0)
    assert watch.look(20 * 60, state="running") == {}
    assert "no-step" in watch.look(11 * 60, state="running")


def test_a_gpu_must_be_idle_for_some_minutes(watch: Watch) -> None:
    idle = _gpu(utilisation=40)
    assert watch.look(machine=idle) == {}
    assert watch.look(300, machine=idle, state="running") == {}
    assert watch.look(1, machine=MACHINE, state="running") == {}
    assert watch.look(1, machine=idle, state="running") == {}
    assert "gpu-idle" not in watch.look(599, machine=idle, state="running")
    assert watch.look(2, machine=idle, state="running")["gpu-idle"] == (
        "the GPU waits: gpu0 40 % busy"
    )


def test_single_looks_remember_how_long_a_gpu_is_idle(watch: Watch) -> None:
    idle = _gpu(utilisation=40)
    for seconds, expected in ((0, False), (300, False), (301, True), (300, True)):
        watch.open(remember=True)  # a new process every time
        assert ("gpu-idle" in watch.look(seconds, machine=idle, state="running")) == expected
    watch.open(remember=True)
    assert watch.look(1, state="running", step_age=0.0) == {}
    idle_lines = [change for rule, change in watch.written() if rule == "gpu-idle"]
    assert idle_lines == ["pending", "raised", "cleared"]
    assert watch.told.count(("gpu-idle", "raised")) == 1


def test_full_memory_and_heat_are_noticed(watch: Watch) -> None:
    assert watch.look(machine=_gpu(used_gib=46.0)) == {"gpu-memory": "GPU memory almost full: "
                                                       "gpu0 96 %"}  # fmt: skip
    assert watch.look(machine=_gpu(celsius=86)) == {"gpu-hot": "GPU too hot: gpu0 86 C"}
    assert watch.look(machine=replace(MACHINE, used_gib=62.0)) == {
        "host-memory": "host memory 97 % used"
    }


def test_readings_the_driver_refuses_are_no_alert(watch: Watch) -> None:
    silent = _gpu(utilisation=None, used_gib=None, total_gib=None, celsius=None, watts=None)
    assert watch.look(machine=silent) == {}
    assert watch.look(machine=replace(MACHINE, gpus=())) == {}
    assert watch.look(machine=None) == {}


def test_gpus_that_the_run_does_not_use_do_not_count(watch: Watch) -> None:
    other = Gpu(1, "A40", 0, 0.1, 48.0, 90, 30.0)
    assert watch.look(machine=replace(MACHINE, gpus=(other, GPU))) == {}


def test_a_disk_that_is_low_or_will_be_full_is_noticed(watch: Watch) -> None:
    low = replace(DISK, free_gib=15.0)
    assert watch.look(disk=low) == {"disk-low": "disk 15 % free (15.0 GiB)"}
    short = replace(DISK, needed_gib=60.0)
    assert "60.0 GiB of checkpoints to come" in watch.look(disk=short)["disk-full"]
    filling = replace(DISK, seconds_until_full=3600.0)
    assert watch.look(disk=filling, seconds_left=1800.0) == {}
    assert "in 1.0 h" in watch.look(disk=filling, seconds_left=7200.0)["disk-full"]


def test_an_overdue_checkpoint_is_noticed(watch: Watch) -> None:
    assert watch.look(step=75) == {}
    assert watch.look(step=76) == {
        "checkpoint-overdue": "no checkpoint for 76 steps, one is due every 50"
    }


def test_waiting_for_data_is_noticed(watch: Watch) -> None:
    add_lines(watch.run, range(21, 71), start=watch.now - 71, data_wait=0.3)
    assert watch.look() == {"data-wait": "30 % of the step waits for data"}


def test_a_dead_and_a_failed_run_are_critical(watch: Watch) -> None:
    assert "process is gone" in watch.look(state="dead")["dead"]
    assert watch.look(state="failed", error="boom") == {"failed": "failed: boom"}
    assert watch.look(state="finished") == {}


def test_a_run_on_another_machine_is_not_judged_by_this_one(watch: Watch) -> None:
    hot = _gpu(celsius=99)
    assert watch.look(machine=hot, here=False) == {}
    assert "gpu-hot" in watch.look(machine=hot)
    # Nor is its alert ended from there.
    assert "gpu-hot" in watch.look(here=False)


def test_rules_can_be_turned_off_and_moved(tmp_path: Path) -> None:
    watch = Watch(tmp_path, off=("gpu-hot",), data_wait=0.01)
    assert watch.look(machine=_gpu(celsius=99)).keys() == {"data-wait"}
    with pytest.raises(ConfigError, match="names no rule: hot"):
        AlertBook(tmp_path, AlertConfig(off=("hot",)))


def test_an_alert_is_told_once_by_all_monitors_together(watch: Watch) -> None:
    hot = _gpu(celsius=99)
    watch.look(machine=hot)
    watch.open()
    watch.look(10, machine=hot)
    assert watch.told == [("gpu-hot", "raised")]


def test_critical_alerts_come_first(watch: Watch) -> None:
    found = watch.look(machine=_gpu(celsius=99, used_gib=47.9), disk=replace(DISK, free_gib=1.0))
    assert next(iter(found)) == "gpu-hot"
    assert set(found) == {"gpu-hot", "gpu-memory", "disk-low"}


def test_a_folder_that_cannot_be_written_is_only_read(watch: Watch, monkeypatch) -> None:
    watch.run.root.joinpath(ALERTS_FILE).mkdir()  # nothing can be appended to that, by anyone
    assert "gpu-hot" in watch.look(machine=_gpu(celsius=99))
    assert watch.told == [("gpu-hot", "raised")]


def test_torn_and_foreign_lines_of_the_book_are_passed_over(watch: Watch) -> None:
    path = watch.run.root / ALERTS_FILE
    path.write_bytes(b'{"rule": 3}\n[1]\n\xff\n{"rule": "gpu-hot", "since": "x"}\n{"ru')
    assert watch.look() == {}


def test_rule_names_are_unique_and_levels_known() -> None:
    assert len({rule.name for rule in RULES}) == len(RULES)
    assert {rule.level for rule in RULES} == {"critical", "warning"}


def test_an_alert_behind_a_torn_line_is_read_and_written(tmp_path: Path) -> None:
    watch = Watch(tmp_path)
    hot = replace(MACHINE, gpus=(replace(GPU, celsius=99),))
    path = watch.run.root / ALERTS_FILE
    path.write_text('{"rule": "gpu-hot", "chan')
    assert "gpu-hot" in watch.look(machine=hot)
    assert path.read_text().count("\n") == 2
    watch.open()
    assert "gpu-hot" in watch.look(machine=hot)
    assert watch.told == [("gpu-hot", "raised")]
