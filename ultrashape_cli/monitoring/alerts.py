"""The rules that tell when something is wrong with a run, and the book of what was found.

alerts.jsonl in the run folder holds one line per change of a rule: `raised`, `cleared`, and, from
single looks (`--once`), `pending`. So that a cron job knows how long something has been wrong, and
two monitors do not tell it twice, every look begins by reading what is new in it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from ultrashape_cli.config.alerts import AlertConfig
from ultrashape_cli.errors import ConfigError
from ultrashape_cli.files import end_torn_line
from ultrashape_cli.monitoring.events import MetricsReader
from ultrashape_cli.monitoring.history import MetricsHistory
from ultrashape_cli.monitoring.run_state import RunState
from ultrashape_cli.monitoring.system import Gpu, Machine

ALERTS_FILE = "alerts.jsonl"
SPIKE_LINES, USUAL_LINES = 5, 200
LOGGING_INTERVALS = 3.0
"""Steps are overdue only after so many times the usual time between two logged lines."""
_TAIL_BYTES = 1 << 18


@dataclass(frozen=True, slots=True)
class Facts:
    """What the rules look at."""

    state: RunState
    history: MetricsHistory
    machine: Machine | None
    """None where it is not looked at."""

    @property
    def active(self) -> bool:
        """Says whether the run should be making steps."""
        return self.state.state in ("running", "stalled")

    def gpus(self) -> Sequence[Gpu]:
        """Returns the GPUs that the run most likely uses: those with most memory in use."""
        if self.machine is None:
            return ()
        launch = self.state.settings.get("launch", {})
        processes = launch.get("num_processes") or 1
        machines = launch.get("num_machines") or 1
        ranked = sorted(self.machine.gpus, key=lambda gpu: -(gpu.used_gib or 0.0))
        return sorted(ranked[: -(-processes // machines)], key=lambda gpu: gpu.index)


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing that can be wrong."""

    name: str
    level: str
    """`critical` or `warning`."""
    check: Callable[[Facts, AlertConfig], str | None]
    """Returns what is wrong, or None."""
    local: bool = False
    """Can only be judged on the machine of the run."""
    hold_s: Callable[[AlertConfig], float] = lambda config: 0.0
    """How long it must be wrong."""


@dataclass(frozen=True, slots=True)
class Alert:
    """A rule that is broken."""

    rule: str
    level: str
    message: str
    time: float
    """When it began, seconds since 1970."""


def _loss_lost(facts: Facts, config: AlertConfig) -> str | None:
    step = facts.history.lost_step
    return f"the loss is no number at step {step:,}" if step is not None and facts.active else None


def _loss_spike(facts: Facts, config: AlertConfig) -> str | None:
    lines = facts.history.recent(SPIKE_LINES + USUAL_LINES)
    losses = [line["loss"] for line in lines if "loss" in line]
    if not facts.active or len(losses) < 4 * SPIKE_LINES:
        return None
    usual = median(losses[:-SPIKE_LINES])
    now = sum(losses[-SPIKE_LINES:]) / SPIKE_LINES
    if usual <= 0 or now <= config.loss_spike * usual:
        return None
    return f"loss {now:.4g} is {now / usual:.1f} times the usual {usual:.4g}"


def _no_step(facts: Facts, config: AlertConfig) -> str | None:
    state = facts.state
    if not facts.active:
        return None
    ages = [age for age in (state.step_age, _start_age(facts)) if age is not None]
    silence = min(ages, default=state.heartbeat_age or 0.0)
    usual = state.metrics.get("seconds", 0.0) * (state.train("log_every_steps") or 1)
    if silence <= max(60 * config.no_step_minutes, LOGGING_INTERVALS * usual):
        return None
    return f"no step for {silence / 60:.0f} minutes"


def _start_age(facts: Facts) -> float | None:
    starts = [event for event in facts.state.events if event.get("event") == "start"]
    age, beat = facts.state.heartbeat_age, starts[-1].get("time") if starts else None
    if not isinstance(beat, int | float) or age is None:
        return None
    return max(0.0, facts.state.time - beat)


def _gpu_idle(facts: Facts, config: AlertConfig) -> str | None:
    idle = [
        gpu
        for gpu in facts.gpus()
        if gpu.utilisation is not None and gpu.utilisation < config.gpu_utilisation
    ]
    if not idle or not facts.active:
        return None
    text = ", ".join(f"gpu{gpu.index} {gpu.utilisation} %" for gpu in idle)
    return f"the GPU waits: {text} busy"


def _gpu_memory(facts: Facts, config: AlertConfig) -> str | None:
    full = [
        f"gpu{gpu.index} {100 * gpu.used_gib / gpu.total_gib:.0f} %"
        for gpu in facts.gpus()
        if gpu.used_gib and gpu.total_gib and gpu.used_gib > config.memory * gpu.total_gib
    ]
    return f"GPU memory almost full: {', '.join(full)}" if full and facts.active else None


def _host_memory(facts: Facts, config: AlertConfig) -> str | None:
    machine = facts.machine
    if machine is None or not facts.active:
        return None
    share = machine.used_gib / machine.total_gib
    return f"host memory {100 * share:.0f} % used" if share > config.memory else None


def _hot(facts: Facts, config: AlertConfig) -> str | None:
    hot = [
        f"gpu{gpu.index} {gpu.celsius} C"
        for gpu in facts.gpus()
        if gpu.celsius is not None and gpu.celsius > config.temperature
    ]
    return f"GPU too hot: {', '.join(hot)}" if hot and facts.active else None


def _disk_low(facts: Facts, config: AlertConfig) -> str | None:
    disk = facts.state.disk
    if disk is None or not facts.active or disk.free_gib >= config.disk_free * disk.total_gib:
        return None
    return f"disk {100 * disk.free_gib / disk.total_gib:.0f} % free ({disk.free_gib:.1f} GiB)"


def _disk_full(facts: Facts, config: AlertConfig) -> str | None:
    disk = facts.state.disk
    if disk is None or not facts.active or not disk.full_before(facts.state.seconds_left):
        return None
    if disk.needed_gib is not None and disk.needed_gib > disk.free_gib:
        return (
            f"the disk fills before the run ends: {disk.needed_gib:.1f} GiB of checkpoints to "
            f"come, {disk.free_gib:.1f} GiB free"
        )
    hours = (disk.seconds_until_full or 0.0) / 3600
    return f"the disk fills before the run ends: in {hours:.1f} h at the present pace"


def _checkpoint_overdue(facts: Facts, config: AlertConfig) -> str | None:
    state, every = facts.state, facts.state.train("save_every_steps") or 0
    last = state.checkpoints[-1].step if state.checkpoints else 0
    behind = state.step - last
    if not facts.active or every <= 0 or behind <= config.checkpoint_intervals * every:
        return None
    return f"no checkpoint for {behind:,} steps, one is due every {every:,}"


def _data_wait(facts: Facts, config: AlertConfig) -> str | None:
    share = facts.state.split.get("data_wait", 0.0)
    if not facts.active or share <= config.data_wait:
        return None
    return f"{100 * share:.0f} % of the step waits for data"


def _dead(facts: Facts, config: AlertConfig) -> str | None:
    if facts.state.state != "dead":
        return None
    return f"the process is gone since step {facts.state.step:,}, without an end"


def _failed(facts: Facts, config: AlertConfig) -> str | None:
    return f"failed: {facts.state.error}" if facts.state.state == "failed" else None


RULES = (
    Rule("dead", "critical", _dead),
    Rule("failed", "critical", _failed),
    Rule("loss-nan", "critical", _loss_lost),
    Rule("loss-spike", "warning", _loss_spike),
    Rule("no-step", "critical", _no_step),
    Rule("gpu-idle", "warning", _gpu_idle, True, lambda config: 60 * config.gpu_minutes),
    Rule("gpu-memory", "warning", _gpu_memory, True),
    Rule("gpu-hot", "critical", _hot, True),
    Rule("host-memory", "warning", _host_memory, True),
    Rule("disk-low", "warning", _disk_low),
    Rule("disk-full", "critical", _disk_full),
    Rule("checkpoint-overdue", "warning", _checkpoint_overdue),
    Rule("data-wait", "warning", _data_wait),
)


def check_rule_names(config: AlertConfig) -> None:
    """Raises ConfigError where `alerts.off` names a rule that is none."""
    known = [rule.name for rule in RULES]
    unknown = [name for name in config.off if name not in known]
    if unknown:
        raise ConfigError(
            f"`alerts.off` names no rule: {', '.join(unknown)}", hint=f"rules: {', '.join(known)}"
        )


class AlertBook:
    """Keeps which rules are broken, since when, and writes changes to alerts.jsonl."""

    def __init__(
        self,
        folder: Path,
        config: AlertConfig,
        *,
        notify: Callable[[Alert, str, RunState], None] = lambda alert, change, state: None,
        remember: bool = False,
    ) -> None:
        """Opens the book of a run.

        Args:
            folder: Of the run; where it cannot be written, nothing is.
            config: Limits.
            notify: Called with an alert, `raised` or `cleared`, and the state.
            remember: Write down what must stay wrong for a while before it counts: single looks.
        """
        check_rule_names(config)
        self.config = config
        self._path = folder / ALERTS_FILE
        self._reader = MetricsReader(self._path, _TAIL_BYTES)
        self._notify = notify
        self._remember = remember
        self._active: dict[str, Alert] = {}
        self._since: dict[str, tuple[float, float]] = {}

    def look(self, facts: Facts, now: float, clock: float) -> tuple[Alert, ...]:
        """Judges all rules; returns the alerts, critical ones first.

        Args:
            facts: What is known.
            now: Wall clock, for what is written.
            clock: A clock that never goes back, for how long something has been wrong.
        """
        self._read(now, clock)
        for rule in RULES:
            if rule.name in self.config.off or (rule.local and not facts.state.here):
                continue
            message = rule.check(facts, self.config)
            if message is None:
                self._clear(rule, facts.state, now)
            else:
                self._break(rule, message, facts.state, now, clock)
        return tuple(sorted(self._active.values(), key=lambda a: (a.level != "critical", a.time)))

    def _break(self, rule: Rule, message: str, state: RunState, now: float, clock: float) -> None:
        if rule.name not in self._since:
            self._since[rule.name] = (now, clock)
            if self._remember and rule.hold_s(self.config) > 0:
                self._write(Alert(rule.name, rule.level, message, now), "pending", state, now)
        began, began_clock = self._since[rule.name]
        alert = Alert(rule.name, rule.level, message, began)
        if rule.name in self._active:
            self._active[rule.name] = alert
        elif clock - began_clock >= rule.hold_s(self.config):
            self._active[rule.name] = alert
            self._write(alert, "raised", state, now)
            self._notify(alert, "raised", state)

    def _clear(self, rule: Rule, state: RunState, now: float) -> None:
        since, alert = self._since.pop(rule.name, None), self._active.pop(rule.name, None)
        if alert is not None:
            self._write(alert, "cleared", state, now)
            self._notify(alert, "cleared", state)
        elif since is not None and self._remember:
            self._write(Alert(rule.name, rule.level, "", now), "cleared", state, now)

    def _read(self, now: float, clock: float) -> None:
        """Takes over what this and other monitors wrote."""
        for line in self._reader.read_new():
            name, change, began = line.get("rule"), line.get("change"), line.get("since")
            if not isinstance(name, str) or not isinstance(began, int | float):
                continue
            if change == "cleared":
                self._active.pop(name, None)
                self._since.pop(name, None)
                continue
            # The wall clock may have been set back since.
            self._since.setdefault(name, (began, clock - max(0.0, now - began)))
            if change == "raised":
                self._active[name] = Alert(
                    name, str(line.get("level")), str(line.get("message")), began
                )

    def _write(self, alert: Alert, change: str, state: RunState, now: float) -> None:
        line = alert_json(alert, change, state) | {"time": now, "since": alert.time}
        try:
            end_torn_line(self._path)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError:  # a read-only or full disk; the alert itself may say so
            return


def alert_json(alert: Alert, change: str, state: RunState) -> dict[str, Any]:
    """Returns what files and hooks get of an alert."""
    return asdict(alert) | {
        "change": change,
        "run": state.run,
        "step": state.step,
        "state": state.state,
        "host": os.uname().nodename,
    }
