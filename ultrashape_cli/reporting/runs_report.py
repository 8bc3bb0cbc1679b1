"""The self-contained page of several runs side by side."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ultrashape_cli.files import write_atomic
from ultrashape_cli.formatting import duration
from ultrashape_cli.monitoring.history import MetricsHistory
from ultrashape_cli.monitoring.panels import SHOWN_METRICS, TELLING_METRICS
from ultrashape_cli.monitoring.plot import number
from ultrashape_cli.monitoring.run_state import RunReader, RunState
from ultrashape_cli.monitoring.summary import COLUMNS, Summary, best, summary_of
from ultrashape_cli.reporting import page
from ultrashape_cli.reporting.charts import Series, line_chart
from ultrashape_cli.reporting.run_sections import (
    flat_settings,
    reward_metrics,
    run_name,
    shown_value,
    when,
)
from ultrashape_cli.reporting.run_style import SCRIPT, STYLE
from ultrashape_cli.reporting.samples import MAX_ASSETS, SMALL, SampleStep, read_samples
from ultrashape_cli.runs import RunFolder

NUM_COLOURS = 8
CURVES = (
    ("loss_smooth", "Loss, smoothed", "line"),
    ("val_loss", "Validation loss", "dots"),
    *((f"val_{key}", label, "dots") for key, label in TELLING_METRICS),
    ("learning_rate", "Learning rate", "line"),
    ("grad_norm", "Gradient norm", "line"),
    ("samples_per_second", "Samples per second", "line"),
)


@dataclass(frozen=True, slots=True)
class _Run:
    name: str
    state: RunState
    history: MetricsHistory
    summary: Summary
    samples: Sequence[SampleStep]


def write_runs_report(runs: Sequence[RunFolder], out: Path) -> Path:
    """Writes the page of several runs; returns its path."""
    text = render_runs(runs)
    write_atomic(out, lambda file: file.write(text.encode(errors="backslashreplace")))
    return out


def render_runs(runs: Sequence[RunFolder]) -> str:
    """Returns the page: curves overlaid, what differs in the settings, scores, pictures."""
    read = [_read(run, name) for run, name in zip(runs, _names(runs), strict=True)]
    body = [
        page.section("Runs", _overview(read)),
        page.section("Best scores", _scores(read), "over each run, not of one checkpoint"),
        page.section("Pictures", _pictures(read), "the newest of each run"),
        page.section("Curves", _curves(read)),
        page.section("Settings that differ", _settings(read)),
    ]
    names = ", ".join(run.name for run in read)
    head = (
        f"<h1>{html.escape(names)}</h1><p>{len(read)} runs side by side. "
        f"Read {when(read[0].state.time)} UTC.</p>"
    )
    title = f"{names} - ushape runs"
    return page.page(title, head, "".join(body), style=STYLE, script=SCRIPT)


def _names(runs: Sequence[RunFolder]) -> list[str]:
    """Returns the names of the folders; their paths where two are called the same."""
    names = [run_name(run) for run in runs]
    return names if len(set(names)) == len(names) else [str(run.root) for run in runs]


def _read(run: RunFolder, name: str) -> _Run:
    reader = RunReader(run)
    state, history = reader.read(), reader.history
    samples = read_samples(run.root / "samples")
    return _Run(name, state, history, summary_of(run, state, history), samples)


def _overview(runs: Sequence[_Run]) -> str:
    rows = [
        [run.name, *run.summary.cells()[1:], duration(run.summary.seconds_active)] for run in runs
    ]
    return page.table((*COLUMNS, "active"), rows)


def _scores(runs: Sequence[_Run]) -> str:
    """Returns the best of every metric by run, the best of all marked, beside the input's."""
    rows = []
    for name, label in (("loss", "validation loss"), *SHOWN_METRICS, *_rewards(runs).items()):
        metric = f"val_{name}"
        found = [best(run.history.series(metric), metric) for run in runs]
        first = best([score for score in found if score], metric)
        if first is None:
            continue
        inputs = [score for run in runs for score in run.history.series(f"val_coarse_{name}")]
        cells = [
            "-" if score is None
            else page.Html(f"<em class=good>{number(score[1])}</em>") if score[1] == first[1]
            else number(score[1])
            for score in found
        ]  # fmt: skip
        rows.append([label, *cells, number(inputs[-1][1]) if inputs else "-"])
    head = ("metric", *(run.name for run in runs), "input")
    return page.table(head, rows, "num") if rows else ""


def _curves(runs: Sequence[_Run]) -> str:
    charts = [
        line_chart(label, [
            Series(run.name, run.history.series(metric), place % NUM_COLOURS, kind)
            for place, run in enumerate(runs)
        ])
        for metric, label, kind in (*CURVES, *_reward_curves(runs))
    ]  # fmt: skip
    return f"<div class=plots>{''.join(charts)}</div>" if any(charts) else ""


def _rewards(runs: Sequence[_Run]) -> dict[str, str]:
    """Returns the rewards of all runs and what they are called."""
    return dict(pair for run in runs for pair in reward_metrics(run.history))


def _reward_curves(runs: Sequence[_Run]) -> list[tuple[str, str, str]]:
    """Returns the rewards of validations, and of the groups that were trained on."""
    names = _rewards(runs)
    held = [(f"val_{key}", f"{label}, validation", "dots") for key, label in names.items()]
    groups = [(key, f"{label}, groups", "line") for key, label in names.items()
              if key.startswith("reward_")]  # fmt: skip
    return [*held, *groups]


def _settings(runs: Sequence[_Run]) -> str:
    flat: list[Mapping[str, object]] = [flat_settings(run.state) for run in runs]
    keys = dict.fromkeys(key for settings in flat for key in settings)
    rows = [
        [key, *("-" if key not in s else shown_value(key, s[key]) for s in flat)]
        for key in keys
        if any(s.get(key) != flat[0].get(key) for s in flat)
    ]
    if not rows:
        return "<p>None: the runs have the same settings.</p>"
    return page.table(("setting", *(run.name for run in runs)), rows)


def _pictures(runs: Sequence[_Run]) -> str:
    """Returns the assets that all runs have pictures of: what they started from and made of it."""
    newest = [run.samples[-1] for run in runs if run.samples]
    if len(newest) < len(runs):
        return ""
    first = newest[0]
    names = [str(asset["id"]) for asset in first.assets]
    shared = [n for n in names if all(s.file(n, "current").is_file() for s in newest)]
    parts = []
    for name in shared[:MAX_ASSETS]:
        files = [
            ("reference", first.file(name, "reference")),
            ("input", first.file(name, "coarse")),
        ]
        files += [
            (f"{run.name}, step {sample.step:,}", sample.file(name, "current"))
            for run, sample in zip(runs, newest, strict=True)
        ]
        files.append(("ground truth", first.file(name, "truth")))
        figures = "".join(
            f"<figure>{image}<figcaption>{html.escape(label)}</figcaption></figure>"
            for label, path in files
            if (image := page.picture(path, SMALL, alt=label))
        )
        parts.append(f"<h3>{html.escape(name)}</h3><div class='stills large'>{figures}</div>")
    return "".join(parts)
