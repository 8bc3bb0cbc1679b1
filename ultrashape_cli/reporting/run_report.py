"""The self-contained page of a run: what it learned, what that cost, and what went wrong."""

from __future__ import annotations

import html
from pathlib import Path

from ultrashape_cli.files import write_atomic
from ultrashape_cli.formatting import duration
from ultrashape_cli.monitoring.history import MetricsHistory
from ultrashape_cli.monitoring.panels import below_input, compare, measured
from ultrashape_cli.monitoring.plot import number
from ultrashape_cli.monitoring.run_state import RunReader, RunState
from ultrashape_cli.reporting import page
from ultrashape_cli.reporting import run_sections as sections
from ultrashape_cli.reporting.run_style import SCRIPT, STYLE
from ultrashape_cli.reporting.samples import SampleStep, read_samples, render_samples
from ultrashape_cli.runs import RunFolder

_GOOD = {"running": "good", "finished": "good", "failed": "bad", "dead": "bad", "stalled": "warn"}


def write_run_report(run: RunFolder, out: Path) -> Path:
    """Writes the page of a run; returns its path."""
    text = render_run(run)
    write_atomic(out, lambda file: file.write(text.encode(errors="backslashreplace")))
    return out


def render_run(run: RunFolder) -> str:
    """Returns the page."""
    reader = RunReader(run)
    state, history = reader.read(), reader.history
    samples = read_samples(run.root / "samples")
    restarts = [float(event["step"]) for event in state.events
                if event.get("event") == "start" and event.get("step")]  # fmt: skip
    at = f"step {samples[-1].step:,}; drag the handle" if samples else ""
    validated = measured(history)
    # An autoencoder's input is the truth itself.
    against_input = state.train("stage") != "vae"
    problems = page.section("Problems", sections.problems(run, state))
    body = [
        page.tiles(_tiles(state, history)),
        _progress(state),
        problems if state.state in ("failed", "dead") else "",
        page.section("Before and after", render_samples(samples, against_input), at),
        page.section(
            "Validation",
            sections.validation_table(validated or _means(samples), against_input),
            f"step {validated['step']:,.0f}" if validated else at,
        ),
        page.section("Curves", sections.curves(history, restarts), "dashed lines are restarts"
                     if restarts else ""),
        page.section("Time", sections.time_section(state)),
        problems if state.state not in ("failed", "dead") else "",
        page.section("Settings", sections.settings(run, state)),
        page.section("Machine", sections.machine(run)),
    ]  # fmt: skip
    name = sections.run_name(run)
    return page.page(
        f"{name} - ushape run", _header(name, state), "".join(body), style=STYLE, script=SCRIPT
    )


def _header(name: str, state: RunState) -> str:
    facts = [state.train("model"), state.train("stage"), state.train("strategy")]
    data = state.train("data")
    facts.append(f"on {Path(str(data)).name}" if data else None)
    text = html.escape(", ".join(str(fact) for fact in facts if fact))
    kind = _GOOD.get(state.state, "warn")
    return (
        f"<h1>{html.escape(name)} <em class='state {kind}'>{html.escape(state.state)}</em></h1>"
        f"<p>{text}. Read {sections.when(state.time)} UTC.</p>"
    )


def _tiles(state: RunState, history: MetricsHistory) -> list[page.Tile]:
    tiles: list[page.Tile] = [("step", f"{state.step:,}", "")]
    if state.seconds_left is not None:
        tiles.append(("left", duration(state.seconds_left), ""))
    if state.seconds_active:
        tiles.append(("active", duration(state.seconds_active), ""))
    if state.cost is not None:
        tiles.append(("cost so far", f"{state.cost:,.2f}", ""))
    if state.cost_at_end is not None:
        tiles.append(("cost at the end", f"{state.cost_at_end:,.2f}", ""))
    losses = [value for _, value in history.series("val_loss")]
    if losses:
        tiles.append(("best validation loss", number(min(losses)), ""))
    elif "loss_smooth" in state.metrics:
        tiles.append(("loss, smoothed", number(state.metrics["loss_smooth"]), ""))
    line = measured(history) or {}
    below = dict(below_input(state, line))
    for key, label in (("f_score@0.01", "F-score@0.01"), ("chamfer_l1", "Chamfer-L1")):
        verdict = compare(key, line.get(f"val_{key}"), line.get(f"val_base_{key}"))
        if verdict:
            change = verdict[1].rpartition(" ")[0]
            # Better than its start is no success while doing nothing is better still.
            kind = "bad" if not verdict[0] else "" if label in below else "good"
            tiles.append((f"{label} against pretrained", change, kind))
        if label in below:
            tiles.append((f"{label}: worse than the input", below[label], "bad"))
    if "mfu" in state.metrics:
        tiles.append(("MFU", f"{100 * state.metrics['mfu']:.0f} %", ""))
    return tiles


def _progress(state: RunState) -> str:
    if not state.steps:
        return ""
    share = min(1.0, state.step / state.steps)
    return (
        f"<div class=progress><i style='width:{100 * share:.1f}%'></i></div>"
        f"<small>{100 * share:.1f} % of {state.steps:,} steps</small>"
    )


def _means(samples: list[SampleStep]) -> dict[str, float] | None:
    """Returns the means of the newest samples as a validation line would hold them."""
    if not samples:
        return None
    prefixes = {"current": "val_", "base": "val_base_", "ema": "val_ema_", "coarse": "val_coarse_"}
    return {
        f"{prefixes[variant]}{key}": value
        for variant, found in samples[-1].mean.items()
        if variant in prefixes and isinstance(found, dict)
        for key, value in found.items()
        if isinstance(value, int | float)
    }
