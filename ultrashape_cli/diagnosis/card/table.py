"""The report for people: a table, and one line to paste."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ultrashape_cli.diagnosis.card.parts import Part
from ultrashape_cli.diagnosis.card.report import Report, is_red, memory_off

COLUMNS = ("case", "result", "peak GiB", "planned", "off")


class Row(NamedTuple):
    """One line of the table."""

    name: str
    text: str
    peak: str
    planned: str
    off: str
    red: bool

    @property
    def cells(self) -> tuple[str, ...]:
        """Returns what stands below `COLUMNS`."""
        return self[:-1]


def rows(report: Report, parts: Sequence[Part]) -> list[Row]:
    """Returns the table; checks that agree with their twins share a row."""
    found = [Row("device", describe_machine(report.machine), "", "", "", False)]
    for part in parts:
        results = {name: report.results[name] for name in part.names if name in report.results}
        if part.name == "twins":
            found.append(Row("twins", _twins(results), "", "", "", False))
            results = {n: r for n, r in results.items() if r["status"] not in ("ok", "skipped")}
        found += [case_row(name, result) for name, result in results.items()]
    return found


def describe_machine(machine: dict[str, Any]) -> str:
    """Returns name, memory, capability and versions."""
    words = [machine["name"]]
    if machine.get("gib"):
        words += [f"{machine['gib']:.1f} GiB", machine["capability"]]
    text = " ".join(words)
    driver = f", driver {machine['driver']}" if machine.get("driver") else ""
    return f"{text}{driver}, torch {machine['torch']}"


def counts(report: Report) -> dict[str, int]:
    """Returns how many cases ended how, and how many are red."""
    found = dict.fromkeys(("ok", "failed", "skipped", "timed out", "not run"), 0)
    for result in report.results.values():
        found[result["status"]] += 1
    found["red"] = sum(map(is_red, report.results.values()))
    return found


def paste_line(report: Report, parts: Sequence[Part]) -> str:
    """Returns the report in one line, without names of users and places."""
    machine = report.machine
    pieces = [f"ushape {machine['version']}", describe_machine(machine)]
    speed = []
    if rate := report.figure("device/products", "tflops"):
        speed.append(f"{rate:.3g} TFLOP/s")
    if copied := report.figure("device/bandwidth", "gb_per_s"):
        speed.append(f"{copied['memory']:.0f} GB/s")
    pieces.append(" ".join(speed))
    for part in parts:
        done = {n: report.results[n] for n in part.names if n in report.results}
        if part.name == "twins":
            pieces.append(f"twins {_agreeing(done)}")
            continue
        short = SHORT.get(part.name)
        if short is None:
            continue
        told = [
            f"{name.partition('/')[2]} {_mark(result)}{short(name, result)}"
            for name, result in done.items()
            if result["status"] in ("ok", "failed")
        ]
        if told:
            pieces.append(f"{part.name}: {', '.join(told)}")
    ended = counts(report)
    left = ended["not run"] + ended["timed out"]
    pieces.append(f"{ended['red']} red, {left} not run, {report.seconds / 60:.1f} min")
    return " | ".join(piece for piece in pieces if piece)


def _mark(result: dict[str, Any]) -> str:
    """Returns a word in front of a case that was off its plan; one that failed says so itself."""
    return "OFF ITS PLAN " if is_red(result) and result["status"] == "ok" else ""


def case_row(name: str, result: dict[str, Any]) -> Row:
    """Returns the line of one case."""
    figures = result.get("figures") or {}
    off = memory_off(result)
    text = result["status"]
    if result["status"] == "ok":
        text = _text(name, figures)
    elif result.get("reason"):
        text += f": {result['reason']}"
    return Row(
        name,
        text,
        _gib(figures.get("measured_bytes")),
        _gib(figures.get("planned_bytes")),
        "" if off is None else f"{off:+.1%}",
        is_red(result),
    )


def _text(name: str, figures: dict[str, Any]) -> str:
    part, _, rest = name.partition("/")
    if part == "device":
        return _products(figures) if rest == "products" else _bandwidth(figures)
    if part == "steps":
        return _step(figures)
    if part == "refine":
        return _refinement(figures)
    if part == "decode":
        return (
            f"{figures['cells']} cells in {figures['seconds']:.1f} s: "
            f"{figures['points'] / 1e6:.1f} million points, {figures['tflops']:.3g} TFLOP/s"
        )
    if part == "kernels":
        return _kernel(figures)
    return f"error {figures['error']:.1e} of {figures['allowed']:.1e}"


def _products(figures: dict[str, Any]) -> str:
    peak = figures["datasheet_tflops"]
    share = f" ({figures['tflops'] / peak:.0%} of the datasheet's {peak:g})" if peak else ""
    shapes = ", ".join(f"{shape} {rate:.3g}" for shape, rate in figures["by_shape"].items())
    return f"{figures['tflops']:.3g} TFLOP/s{share}: {shapes}"


def _bandwidth(figures: dict[str, Any]) -> str:
    ways = ", ".join(
        f"{way.replace('_', ' ')} {rate:.1f}" for way, rate in figures["gb_per_s"].items()
    )
    return f"GB/s: {ways}"


def _step(figures: dict[str, Any]) -> str:
    whole = figures["seconds_per_step"]
    parts = ", ".join(
        f"{name} {value:.2f}" for name, value in figures["split"].items() if value > 0.01 * whole
    )
    mfu = f", MFU {figures['mfu']:.0%}" if "mfu" in figures else ""
    cap = f"{figures['cap']}: " if figures["cap"] else ""
    count = figures["accumulation"]
    return (
        f"{cap}{figures['seconds_per_run_step']:.2f} s a step of four{mfu}; of {count} "
        f"{whole:.2f}, planned {figures['planned_seconds']:.2f}: {parts}"
    )


def _refinement(figures: dict[str, Any]) -> str:
    stages = ", ".join(f"{name} {value:.2f}" for name, value in figures["seconds"].items())
    return (
        f"{figures['standard_sampling_seconds']:.3g} s to sample `standard`, "
        f"{figures['standard_evaluations']} x {figures['seconds_per_evaluation']:.3g}; "
        f"here {stages}"
    )


def _kernel(figures: dict[str, Any]) -> str:
    seconds = figures["seconds"].get("both", figures["seconds"])
    text = ", ".join(f"{name} {1e3 * value:.2f} ms" for name, value in seconds.items())
    first, *others = seconds
    if others and figures.get("gain"):
        text += f": {figures.get('fastest', others[0])} {figures['gain']:.2f} times as fast"
        text += f" as {first}"
    compiled = figures.get("seconds_to_compile")
    return text + (f", {compiled:.0f} s to compile" if compiled is not None else "")


def _twins(results: dict[str, dict[str, Any]]) -> str:
    absent = [n.partition("/")[2] for n, r in results.items() if r["status"] == "skipped"]
    bitwise = [
        name.partition("/")[2]
        for name, result in results.items()
        if (result.get("figures") or {}).get("note") == "bitwise"
    ]
    text = f"{_agreeing(results)} agree"
    text += f"; bitwise: {', '.join(bitwise)}" if bitwise else ""
    return text + (f"; not here: {', '.join(absent)}" if absent else "")


def _agreeing(results: dict[str, dict[str, Any]]) -> str:
    tried = [r for r in results.values() if r["status"] in ("ok", "failed", "timed out")]
    return f"{sum(r['status'] == 'ok' for r in tried)}/{len(tried)}"


def _short_step(name: str, result: dict[str, Any]) -> str:
    figures = result.get("figures") or {}
    cap = f"@{figures['cap'].removesuffix(' GB')} " if figures.get("cap") else ""
    seconds = figures.get("seconds_per_run_step")
    return cap + (f"{seconds:.3g} s" if seconds else "failed") + _short_memory(figures)


def _short_refinement(name: str, result: dict[str, Any]) -> str:
    figures = result.get("figures") or {}
    seconds = figures.get("standard_sampling_seconds")
    return (f"{seconds:.3g} s" if seconds else "failed") + _short_memory(figures)


def _short_memory(figures: dict[str, Any]) -> str:
    if figures.get("measured_bytes") is None:
        return ""
    return f" {_gib(figures['measured_bytes'])}/{_gib(figures['planned_bytes'])} GiB"


def _short_kernel(name: str, result: dict[str, Any]) -> str:
    figures = result.get("figures") or {}
    fastest = f"{figures['fastest']} " if "fastest" in figures else ""
    gain = figures.get("gain")
    return fastest + (f"x{gain:.2f}" if gain else result["status"])


def _short_decoding(name: str, result: dict[str, Any]) -> str:
    seconds = (result.get("figures") or {}).get("seconds")
    return f"{seconds:.3g} s" if seconds else "failed"


SHORT: dict[str, Callable[[str, dict[str, Any]], str]] = {
    "steps": _short_step,
    "refine": _short_refinement,
    "kernels": _short_kernel,
    "decode": _short_decoding,
}
"""What a case is in the line, by part."""


def _gib(size: int | None) -> str:
    return "" if size is None else f"{size / 2**30:.2f}"
