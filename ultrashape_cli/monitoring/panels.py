"""The parts of the view of a run, each a few rows of text beside a label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.text import Text

from ultrashape_cli.formatting import duration
from ultrashape_cli.monitoring.alerts import Alert
from ultrashape_cli.monitoring.history import Line, MetricsHistory
from ultrashape_cli.monitoring.plot import bars, number, plot, progress
from ultrashape_cli.monitoring.run_state import RunState, clean
from ultrashape_cli.monitoring.system import Machine

STYLES = {
    "running": "green",
    "finished": "green",
    "failed": "red",
    "dead": "red",
    "stalled": "yellow",
}
PART_STYLES = {
    "data_wait": "red",
    "encode": "magenta",
    "rollout": "bright_cyan",
    "judge": "bright_magenta",
    "forward": "cyan",
    "backward": "blue",
    "compute": "cyan",
    "update": "green",
    "offload": "yellow",
    "other": "bright_black",
}
T_BINS = 10
SHOWN_METRICS = (
    ("f_score@0.01", "F-score@0.01"),
    ("chamfer_l1", "Chamfer-L1"),
    ("normal_consistency", "normals"),
    ("volume_iou", "volume IoU"),
    ("f_score@0.005", "F-score@0.005"),
    ("f_score@0.02", "F-score@0.02"),
    ("f_score@0.001", "F-score@0.001"),
    ("chamfer_l2", "Chamfer-L2"),
    ("watertight", "watertight"),
)
"""Validation metrics, most telling first, and what they are called."""
TELLING_METRICS = SHOWN_METRICS[:4]
LOWER_IS_BETTER = frozenset({"loss", "chamfer_l1", "chamfer_l2"})
VARIANTS = (("current", ""), ("base", "base_"), ("ema", "ema_"), ("coarse", "coarse_"))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What one refresh shows."""

    state: RunState
    history: MetricsHistory
    machine: Machine | None
    alerts: Sequence[Alert]
    ascii_only: bool = False


def headline(shot: Snapshot, width: int) -> list[Text]:
    """Returns name, state and progress, the bar, then error and alerts."""
    state = shot.state
    text = Text(clean(state.run.rstrip("/").rsplit("/", 1)[-1]), style="bold")
    text.append(f"  {state.state.upper()}", style=f"{STYLES.get(state.state, 'yellow')} bold")
    text.append(f"  step {state.step:,} of {state.steps:,}")
    share = state.step / state.steps if state.steps else 0.0
    text.append(f"  {100 * share:.1f} %")
    if state.seconds_left is not None:
        text.append(f"  {duration(state.seconds_left)} left")
    if state.cost is not None:
        text.append(f"  cost {state.cost:,.2f}")
        if state.cost_at_end is not None:
            text.append(f" of {state.cost_at_end:,.2f}")
    if state.state in ("stalled", "dead") and state.heartbeat_age is not None:
        text.append(f"  silent for {duration(state.heartbeat_age)}", style="yellow")
    style = STYLES.get(state.state, "yellow")
    rows = [text, Text(progress(share, width, ascii_only=shot.ascii_only), style=style)]
    if state.error:
        rows.append(Text(f"error: {state.error}", style="red"))
    for alert in shot.alerts:
        if alert.rule == "failed" and state.error:
            continue
        mark = "!!" if alert.level == "critical" else "! "
        since = duration(max(0.0, state.time - alert.time))
        row = Text(f"{mark} {alert.message}  ({alert.rule}, {since})")
        row.stylize("red" if alert.level == "critical" else "yellow")
        rows.append(row)
    return rows


def curve(shot: Snapshot, name: str, width: int, height: int) -> list[Text]:
    """Returns the curve of one metric."""
    points = shot.history.series(name)
    rows = plot(points, width, height, ascii_only=shot.ascii_only)
    return [Text(row, style="cyan") for row in rows]


def rates(shot: Snapshot, width: int) -> list[Text]:
    """Returns the numbers of the newest step."""
    found = shot.state.metrics
    names = (
        ("loss", "loss", 1.0, ""),
        ("loss_smooth", "smooth", 1.0, ""),
        ("learning_rate", "lr", 1.0, ""),
        ("grad_norm", "grad norm", 1.0, ""),
        ("grad_norm_clipped", "clipped", 1.0, ""),
        ("seconds", "s/step", 1.0, ""),
        ("samples_per_second", "samples/s", 1.0, ""),
        ("mfu", "MFU", 100.0, " %"),
        ("hfu", "HFU", 100.0, " %"),
        ("memory_gib", "peak", 1.0, " GiB"),
        ("memory_reserved_gib", "reserved", 1.0, " GiB"),
        ("expert_entropy", "expert entropy", 1.0, ""),
        ("experts_idle", "idle experts", 1.0, ""),
        ("skipped_steps", "skipped", 1.0, ""),
        ("bad_samples", "bad samples", 1.0, ""),
    )
    quiet = {"skipped_steps", "bad_samples", "experts_idle"}
    cells = []
    for name, label, factor, unit in names:
        if name not in found or (name in quiet and not found[name]):
            continue
        text = Text(f"{label} ", style="dim")
        value = f"{found[name] * factor:.0f}" if unit == " %" else number(found[name])
        text.append(f"{value}{unit}", style="not dim")
        cells.append(text)
    return flow(cells, width)


def t_bins(shot: Snapshot) -> list[Text]:
    """Returns the loss by t in one row, noise first, over the newest lines."""
    means = [shot.history.mean(f"loss_t{index}") for index in range(T_BINS)]
    if all(mean is None for mean in means):
        return []
    row = Text()
    for bar, mean in zip(bars(means, ascii_only=shot.ascii_only), means, strict=True):
        # Four characters, so that ten bins fit beside the label in 80 columns.
        text = "-" if mean is None else f"{mean:.3f}".removeprefix("0")[:4]
        row.append(bar, style="cyan")
        row.append(f"{text:5}")
    return [row]


def split_row(shot: Snapshot, width: int) -> list[Text]:
    """Returns how the seconds of a step are spent: a bar, then the shares by name."""
    split = shot.state.split
    if not split:
        return []
    bar, legend, block = Text(), Text(), "#" if shot.ascii_only else "█"
    done, drawn = 0.0, 0
    for name, share in split.items():
        done += share
        columns = round(min(done, 1.0) * width) - drawn
        drawn += columns
        bar.append(block * columns, style=PART_STYLES[name])
        if share >= 0.005 or name == "data_wait":
            legend.append(f"{name.removesuffix('_wait')} ", style=PART_STYLES[name])
            legend.append(f"{100 * share:.0f}%  ")
    legend.rstrip()
    return [legend, bar]


def validation(shot: Snapshot) -> list[Text]:
    """Returns the newest validation, metrics below each other and variants beside each other."""
    line = shot.state.validation
    if line is None:
        return []
    best = min(v["val_loss"] for v in shot.history.validations if "val_loss" in v)
    head = Text(f"val_loss {number(line.get('val_loss'))}")
    head.append(f" at step {line['step']:,.0f}, best {number(best)}", style="dim")
    bins = [line.get(f"val_loss_t{index}") for index in range(8)]
    if any(value is not None for value in bins):
        head.append("  by t ", style="dim")
        head.append(bars(bins, ascii_only=shot.ascii_only), style="cyan")
    line = measured(shot.history)
    if line is None:
        return [head]
    shown = shown_metrics(line)
    columns = [(name, prefix) for name, prefix in VARIANTS
               if any(f"val_{prefix}{key}" in line for key, _ in shown)]  # fmt: skip
    rows = [head]
    if below := below_input(shot.state, line):
        text = ", ".join(f"{label} {change}" for label, change in below)
        rows.append(Text(f"worse than the input: {text}", style="red"))
    at = f"step {line['step']:,.0f}"
    width = max(13, *(len(label) + 1 for _, label in shown))
    rows += [Text(f"{at:{width}}" + "".join(f"{name:>9}" for name, _ in columns), style="dim")]
    for key, label in shown:
        row = Text(f"{label:{width}}")
        for _, prefix in columns:
            row.append(f"{number(line.get(f'val_{prefix}{key}')):>9}")
        verdict = compare(key, line.get(f"val_{key}"), line.get(f"val_base_{key}"))
        if verdict is not None:
            better, change = verdict
            row.append(f"  {change}", style="green" if better else "red")
        rows.append(row)
    return rows


def shown_metrics(line: Mapping[str, float]) -> list[tuple[str, str]]:
    """Returns the metrics of a validation and what they are called; rewards come last."""
    shown = [(key, label) for key, label in SHOWN_METRICS if f"val_{key}" in line]
    names = {"reward_": "reward", "held_": "held out"}
    return shown + [
        (name.removeprefix("val_"), f"{label} {name.removeprefix(f'val_{kind}')}")
        for kind, label in names.items()
        for name in line
        if name.startswith(f"val_{kind}")
    ]


def compare(metric: str, value: float | None, base: float | None) -> tuple[bool, str] | None:
    """Returns whether a value is better than the base's, and by how much in words."""
    if value is None or base is None or base == 0 or value == base:
        return None
    better = (value < base) == (metric in LOWER_IS_BETTER)
    if metric in LOWER_IS_BETTER and base > 0 and value >= 2 * base:
        return better, f"{value / base:,.3g}x worse"
    return better, f"{100 * (value - base) / abs(base):+.1f} % {'better' if better else 'worse'}"


def measured(history: MetricsHistory) -> Line | None:
    """Returns the newest validation that refined meshes, which not every one does."""
    lines = reversed(history.validations)
    return next((v for v in lines if shown_metrics(v)), None)


def below_input(state: RunState, line: Mapping[str, float]) -> list[tuple[str, str]]:
    """Returns the metrics in which a validation is worse than doing nothing, and by how much.

    An autoencoder's input is the truth itself, which nothing can beat.
    """
    if state.train("stage") == "vae":
        return []
    found = []
    for key, label in TELLING_METRICS:
        verdict = compare(key, line.get(f"val_{key}"), line.get(f"val_coarse_{key}"))
        if verdict and not verdict[0]:
            found.append((label, verdict[1].removesuffix(" worse")))
    return found


def checkpoints(shot: Snapshot, count: int = 3) -> list[Text]:
    """Returns the newest checkpoints with size and age, newest first."""
    return [
        Text(f"{item.name}  {size(item.gib)}  {duration(item.age_s)} ago")
        for item in reversed(shot.state.checkpoints[-count:])
    ]


def machine_rows(shot: Snapshot, width: int) -> list[Text]:
    """Returns GPUs, CPU, memory and disk."""
    machine, disk = shot.machine, shot.state.disk
    rows = []
    for gpu in machine.gpus if machine else ():
        parts = [
            f"gpu{gpu.index} {gpu.name}",
            f"{number(gpu.utilisation)} %",
            f"{_gib(gpu.used_gib)}/{_gib(gpu.total_gib)} GiB",
            f"{number(gpu.celsius)} C",
            f"{_whole(gpu.watts)} W",
        ]
        rows.append(Text("  ".join(parts)))
    cells = []
    if machine:
        cells.append(Text(f"cpu {machine.cpu:.0f} %"))
        cells.append(Text(f"memory {machine.used_gib:.1f}/{machine.total_gib:.1f} GiB"))
    if disk:
        cells.append(Text(f"disk {disk.free_gib:,.0f} GiB free of {disk.total_gib:,.0f}"))
        if disk.seconds_until_full is not None:
            cells.append(Text(f"full in {duration(disk.seconds_until_full)}", style="yellow"))
        elif disk.needed_gib is not None and disk.needed_gib >= 0.1:
            cells.append(Text(f"checkpoints to come {size(disk.needed_gib)}"))
    if not shot.state.here:
        cells.append(Text("(the run is on another machine)", style="dim"))
    return [*rows, *flow(cells, width)]


def flow(cells: Sequence[Text], width: int) -> list[Text]:
    """Returns cells in as few rows as the width allows."""
    rows: list[Text] = []
    for cell in cells:
        if rows and rows[-1].cell_len + 3 + cell.cell_len <= width:
            rows[-1].append("   ").append_text(cell)
        else:
            rows.append(cell.copy())
    return rows


def log_rows(shot: Snapshot, count: int) -> list[Text]:
    """Returns the last lines of the log."""
    return [Text(line, style="dim") for line in shot.state.log[-count:]] if count > 0 else []


def size(gib: float) -> str:
    """Returns a size with a fitting unit."""
    return f"{gib:.1f} GiB" if gib >= 1 else f"{gib * 1024:.1f} MiB"


def _gib(value: Any) -> str:
    return "-" if value is None else f"{value:.1f}"


def _whole(value: Any) -> str:
    return "-" if value is None else f"{value:.0f}"
