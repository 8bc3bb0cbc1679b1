"""The sections of a run's page, each from what the run folder holds."""

from __future__ import annotations

import html
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ultrashape_cli.dotenv import masked, masked_arguments
from ultrashape_cli.files import read_json
from ultrashape_cli.formatting import duration
from ultrashape_cli.monitoring.alerts import ALERTS_FILE
from ultrashape_cli.monitoring.events import MetricsReader
from ultrashape_cli.monitoring.history import MetricsHistory
from ultrashape_cli.monitoring.panels import (
    SHOWN_METRICS,
    T_BINS,
    VARIANTS,
    compare,
    shown_metrics,
    size,
)
from ultrashape_cli.monitoring.plot import number
from ultrashape_cli.monitoring.run_state import RunState, clean
from ultrashape_cli.reporting import page
from ultrashape_cli.reporting.charts import Series, columns, line_chart, stacked_bar
from ultrashape_cli.runs import RunFolder

MAX_LOG_BYTES = 1 << 20
MAX_PROBLEMS = 40
_ENDS = {"finish": "good", "stop": "", "fail": "bad", "died": "bad"}


def validation_table(line: Mapping[str, float] | None, against_input: bool = True) -> str:
    """Returns the metrics of one validation, variants beside each other.

    Args:
        line: Of metrics.jsonl, or None.
        against_input: Whether the input is something to compare with.
    """
    if line is None:
        return ""
    shown = shown_metrics(line)
    order = [VARIANTS[3], VARIANTS[1], VARIANTS[0], VARIANTS[2]]
    names = {"coarse": "input", "base": "pretrained", "current": "fine-tuned", "ema": "averaged"}
    there = [(names[variant], prefix) for variant, prefix in order
             if any(f"val_{prefix}{key}" in line for key, _ in shown)]  # fmt: skip
    others = [("against pretrained", "base_")]
    if against_input and ("input", "coarse_") in there:
        others.insert(0, ("against the input", "coarse_"))
    rows = []
    for key, label in shown:
        values = {prefix: line.get(f"val_{prefix}{key}") for _, prefix in there}
        cells = [number(value) for value in values.values()]
        changes = [
            _change(compare(key, values.get(""), values.get(prefix))) for _, prefix in others
        ]
        rows.append([label, *cells, *changes])
    if not rows:
        return ""
    head = ["metric", *(name for name, _ in there), *(name for name, _ in others)]
    return page.table(head, rows, "num")


def _change(verdict: tuple[bool, str] | None) -> str:
    if verdict is None:
        return "-"
    return page.Html(f"<em class={'good' if verdict[0] else 'bad'}>{html.escape(verdict[1])}</em>")


def curves(history: MetricsHistory, restarts: Sequence[float]) -> str:
    """Returns the charts of everything that was logged."""

    def series(*names: tuple[str, str, int, str]) -> list[Series]:
        return [Series(label, history.series(name), c, kind) for name, label, c, kind in names]

    bins = [(f"loss_t{i}", f"t {i / T_BINS:.1f}", colour, "line")
            for colour, i in enumerate((0, 2, 4, 6, 8, 9))]  # fmt: skip
    charts = [
        line_chart("Loss", series(("loss", "each step", 5, "faint"),
                                  ("loss_smooth", "smoothed", 0, "line"),
                                  ("val_loss", "validation", 1, "dots")), marks=restarts),
        line_chart("Loss by t", _smoothed(series(*bins)), marks=restarts,
                   note="t = 0 is noise, smoothed"),
        columns("Loss by t now", [(f"{i / T_BINS:.1f}", history.mean(f"loss_t{i}"))
                                  for i in range(T_BINS)], "mean of the newest lines"),
        *_metric_charts(history, restarts),
        line_chart("Learning rate", series(("learning_rate", "rate", 0, "line")), linear=True),
        line_chart("Gradient norm", series(("grad_norm", "before clipping", 5, "faint"),
                                           ("grad_norm_clipped", "after", 0, "line"))),
        line_chart("Samples per second", series(("samples_per_second", "each step", 5, "faint"))
                   + _smoothed(series(("samples_per_second", "smoothed", 0, "line")))),
        line_chart("Utilisation", series(("mfu", "MFU", 0, "line"), ("hfu", "HFU", 1, "line")),
                   note="share of the card's peak"),
        line_chart("Memory, GiB", series(("memory_gib", "device", 0, "line"),
                                         ("memory_reserved_gib", "reserved", 1, "line"),
                                         ("host_memory_gib", "host", 2, "line"))),
        line_chart("Experts", series(("expert_entropy", "entropy of the load", 0, "line"),
                                     ("expert_load_max", "largest share", 1, "line"))),
    ]  # fmt: skip
    return f"<div class=plots>{''.join(charts)}</div>" if any(charts) else ""


def _metric_charts(history: MetricsHistory, restarts: Sequence[float]) -> list[str]:
    kinds = (("", "fine-tuned", 0, "dots"), ("ema_", "averaged", 2, "line"),
             ("base_", "pretrained", 5, "dashed"), ("coarse_", "input", 3, "dashed"))  # fmt: skip
    charts = []
    known = [*SHOWN_METRICS[:4], *reward_metrics(history)]
    for key, label in known:
        curves = [Series(name, history.series(f"val_{prefix}{key}"), colour, kind)
                  for prefix, name, colour, kind in kinds]  # fmt: skip
        # What training saw of it, of groups of its own generations.
        if key.startswith("reward_"):
            curves.append(Series("groups", history.series(key), 1, "faint"))
        if curves[0].points or curves[-1].points:
            charts.append(line_chart(label, curves, marks=restarts, note="validation"))
    return charts


def reward_metrics(history: MetricsHistory) -> list[tuple[str, str]]:
    """Returns the rewards of a run, those that are held out behind those that it learns from."""
    lines = (*history.validations, *history.recent(1))
    # Those of training itself, of groups, have the same names without the prefix.
    names = dict.fromkeys(f"val_{name.removeprefix('val_')}" for line in lines for name in line)
    shown = shown_metrics(dict.fromkeys(names, 0.0))
    return [(key, label) for key, label in shown if key.startswith(("reward_", "held_"))]


def _smoothed(curves: Sequence[Series]) -> list[Series]:
    return [Series(s.name, _smooth(s.points), s.colour, s.kind) for s in curves]


def _smooth(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    smoothed: list[tuple[float, float]] = []
    for step, value in points:
        before = smoothed[-1][1] if smoothed else value
        smoothed.append((step, before + (value - before) * 0.08))
    return smoothed


def time_section(state: RunState) -> str:
    """Returns how a step's time is spent, when the run was active, and its checkpoints."""
    body = ""
    if state.split:
        shares = [(name.replace("_", " "), share) for name, share in state.split.items()]
        body += f"<div class=card><h3>One step</h3>{stacked_bar(shares)}</div>"
    body += _timeline(state)
    rows = [
        [item.name, size(item.gib), f"{duration(item.age_s)} ago"]
        for item in reversed(state.checkpoints)
    ]
    if rows:
        body += page.table(("checkpoint", "size", "written"), rows, "num")
    return body


def _timeline(state: RunState) -> str:
    """Returns when processes of the run were there, as bars over time, and the list of events."""
    spans: list[tuple[float, float, str]] = []
    opened: float | None = None
    for event in state.events:
        moment = event.get("time")
        if not isinstance(moment, int | float):
            continue
        if event.get("event") == "start":
            opened = moment
        elif opened is not None:
            spans.append((opened, moment, _ENDS.get(str(event.get("event")), "")))
            opened = None
    if opened is not None:
        last = state.time - (state.heartbeat_age or 0.0)
        spans.append((opened, last, "bad" if state.state == "dead" else "good"))
    if not spans:
        return ""
    first, whole = spans[0][0], max(spans[-1][1] - spans[0][0], 1.0)
    bars = "".join(
        f"<i class='{kind}' style='left:{100 * (start - first) / whole:.2f}%;"
        f"width:{100 * max(end - start, 0.0) / whole:.2f}%' title='{duration(end - start)}'></i>"
        for start, end, kind in spans
    )
    rows = [
        [
            when(event.get("time")),
            page.Html(
                f"<em class='{_ENDS.get(str(event.get('event')), '')}'>"
                f"{html.escape(str(event.get('event')))}</em>"
            ),
            f"{event.get('step') or 0:,}",
            f"{event.get('host')}, process {event.get('pid')}",
            clean(str(event.get("message", ""))),
        ]
        for event in state.events
    ]
    ends = f"<small>{when(first)}</small><small>{when(first + whole)}</small>"
    table = page.table(("time", "event", "step", "where", "message"), rows)
    return (
        f"<div class=card><h3>Active <small>{duration(state.seconds_active)}</small></h3>"
        f"<div class=timeline>{bars}</div><div class=ends>{ends}</div></div>{table}"
    )


def problems(run: RunFolder, state: RunState) -> str:
    """Returns why the run failed, its alerts, and the warnings of its log."""
    body = ""
    if state.error:
        body += f"<p class=error>{html.escape(state.error)}</p>"
    alerts = [line for line in MetricsReader(run.root / ALERTS_FILE, MAX_LOG_BYTES).read_new()
              if line.get("change") in ("raised", "cleared")]  # fmt: skip
    rows = [
        [when(line.get("time")), str(line.get("rule")), str(line.get("change")),
         clean(str(line.get("message")))]
        for line in alerts[-MAX_PROBLEMS:]
    ]  # fmt: skip
    if rows:
        body += "<h3>Alerts</h3>" + page.table(("time", "rule", "", "message"), rows)
    counts = {"skipped steps": state.metrics.get("skipped_steps"),
              "samples left out": state.metrics.get("bad_samples")}  # fmt: skip
    body += "".join(f"<p>{count:,.0f} {name}</p>" for name, count in counts.items() if count)
    lines = _warnings(run)
    if lines:
        text = "\n".join(html.escape(line) for line in lines[-MAX_PROBLEMS:])
        body += (
            f"<details><summary>Warnings and errors of the log: {len(lines):,}</summary>"
            f"<pre>{text}</pre></details>"
        )
    return body


def _warnings(run: RunFolder) -> list[str]:
    try:
        with run.log().open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - MAX_LOG_BYTES))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    marks = (" WARNING ", " ERROR ", " CRITICAL ")
    return [clean(line) for line in text.splitlines() if any(mark in line for mark in marks)]


def settings(run: RunFolder, state: RunState) -> str:
    """Returns all settings with their origins; those that somebody chose come first."""
    origins = read_json(run.origins)
    origins = origins if isinstance(origins, dict) else {}
    rows = [
        [key, shown_value(key, value), str(origins.get(key, "")).strip("`")]
        for key, value in flat_settings(state).items()
    ]
    chosen = [row for row in rows if row[2] not in ("", "default")]
    rest = [row for row in rows if row not in chosen]
    head = ("setting", "value", "from")
    if not chosen:
        return page.table(head[:2], [row[:2] for row in rows]) if rows else ""
    return (
        f"{page.table(head, chosen)}<details><summary>{len(rest)} more, by default</summary>"
        f"{page.table(head, rest)}</details>"
    )


def flat_settings(state: RunState) -> dict[str, Any]:
    """Returns the recorded settings, `train.steps` -> value."""
    flat: dict[str, Any] = {}
    for name, value in state.settings.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{key}": item for key, item in value.items()}
        else:
            flat[name] = value
    return flat


def machine(run: RunFolder) -> str:
    """Returns where the run was started, with which versions, and what was typed."""
    found = read_json(run.root / "environment.json")
    found = found if isinstance(found, dict) else {}
    packages = found.pop("packages", None)
    if isinstance(packages, dict):
        found |= packages
    found.pop("arguments", None)
    rows = [[str(key), str(value)] for key, value in found.items() if value is not None]
    body = page.table(("", ""), rows, "plain") if rows else ""
    try:
        typed = (run.root / "command.txt").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return body
    # Earlier versions recorded what was typed as it was.
    lines = [" ".join(masked_arguments(line.split(" "))) for line in typed.strip().splitlines()]
    return body + "".join(f"<pre>{html.escape(clean(line))}</pre>" for line in lines)


def when(moment: Any) -> str:
    """Returns a point in time, in UTC."""
    if not isinstance(moment, int | float):
        return ""
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(moment))


def shown_value(key: str, value: Any) -> str:
    """Returns the value of a setting as a text, secrets masked."""
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return masked(key.upper(), text)


def run_name(run: RunFolder) -> str:
    """Returns the name of a run's folder."""
    return Path(run.root).absolute().name
