"""The pictures a run left in samples/: input, pretrained base, result and ground truth."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ultrashape_cli.files import read_json
from ultrashape_cli.monitoring.panels import compare
from ultrashape_cli.monitoring.plot import number
from ultrashape_cli.reporting.page import picture, picture_data

MAX_ASSETS = 12
MAX_STAGES = 8
"""Steps whose results are shown in a row."""
LARGE, SMALL = 384, 176
STILLS = (("reference", "reference"), ("coarse", "input"), ("truth", "ground truth"))
SHOWN = (("f_score@0.01", "F-score@0.01"), ("chamfer_l1", "Chamfer-L1"),
         ("normal_consistency", "normals"), ("volume_iou", "volume IoU"))  # fmt: skip
_STEP = re.compile(r"step-(\d+)")


@dataclass(frozen=True, slots=True)
class SampleStep:
    """One folder of samples."""

    step: int
    folder: Path
    assets: Sequence[Mapping[str, Any]]
    """`id` and, by variant, metric -> value."""
    mean: Mapping[str, Any]

    def file(self, asset: str, kind: str) -> Path:
        """Returns where a picture of an asset is, should there be one."""
        return self.folder / f"{asset}-{kind}.png"


def read_samples(folder: Path) -> list[SampleStep]:
    """Returns the sample folders of a run that can be read, oldest first."""
    found = []
    for path in folder.glob("step-*"):
        match = _STEP.fullmatch(path.name)
        body = read_json(path / "metrics.json") if match else None
        if match and isinstance(body, dict):
            assets = [a for a in body.get("assets") or () if isinstance(a, dict) and _is_name(a)]
            mean = body.get("mean")
            mean = mean if isinstance(mean, dict) else {}
            found.append(SampleStep(int(match[1]), path, assets, mean))
    return sorted(found, key=lambda sample: sample.step)


def render_samples(samples: Sequence[SampleStep], against_input: bool = True) -> str:
    """Returns the newest samples, each with a slider between base and result.

    Args:
        samples: Oldest first.
        against_input: Whether the input is something to compare with.
    """
    if not samples:
        return ""
    newest = samples[-1]
    return "".join(_asset(asset, samples, against_input) for asset in newest.assets[:MAX_ASSETS])


def _asset(asset: Mapping[str, Any], samples: Sequence[SampleStep], against_input: bool) -> str:
    newest, name = samples[-1], str(asset["id"])
    current = picture_data(newest.file(name, "current"), LARGE)
    before, label = picture_data(newest.file(name, "base"), LARGE), "pretrained"
    if not before:
        before, label = picture_data(newest.file(name, "coarse"), LARGE), "input"
    if not current:
        return ""
    stills = "".join(
        f"<figure>{image}<figcaption>{text}</figcaption></figure>"
        for kind, text in STILLS
        if (image := picture(newest.file(name, kind), SMALL, alt=text))
    )
    ema = picture(newest.file(name, "ema"), SMALL, alt="averaged weights")
    if ema:
        stills += f"<figure>{ema}<figcaption>averaged</figcaption></figure>"
    return (
        f"<article class=asset><div>{_slider(before, label, current, name)}</div>"
        f"<div><h3>{html.escape(name)}</h3>{_numbers(asset, against_input)}"
        f"<div class=stills>{stills}</div>"
        f"{_stages(name, samples)}</div></article>"
    )


def _slider(before: str, label: str, current: str, name: str) -> str:
    after = f"<img alt='result' src='{current}'>"
    if not before:
        return f"<div class=compare>{after}<span class=right>fine-tuned</span></div>"
    return (
        f"<div class=compare style='--at:50%'>{after}"
        f"<img class=before alt='{label}' src='{before}'><hr>"
        f"<span class=left>{label}</span><span class=right>fine-tuned</span>"
        f"<input type=range min=0 max=100 value=50 "
        f"aria-label='{html.escape(name)}: {label} to fine-tuned'></div>"
    )


def _numbers(asset: Mapping[str, Any], against_input: bool) -> str:
    current, base, coarse = (_metrics(asset, name) for name in ("current", "base", "coarse"))
    cells = []
    for key, label in SHOWN:
        if key not in current:
            continue
        verdict = compare(key, current[key], base.get(key))
        change = ""
        if verdict:
            change = f"<em class={'good' if verdict[0] else 'bad'}>{html.escape(verdict[1])}</em>"
        below = compare(key, current[key], coarse.get(key)) if against_input else None
        if below and not below[0]:
            change += f" <em class=bad>{html.escape(below[1])} than the input</em>"
        cells.append(f"<span>{label} <b>{number(current[key])}</b> {change}</span>")
    return f"<p class=numbers>{''.join(cells)}</p>" if cells else ""


def _stages(name: str, samples: Sequence[SampleStep]) -> str:
    """Returns the result of an asset at steps spread over the run."""
    stride = max(1, -(-len(samples) // MAX_STAGES))
    chosen = list(reversed(samples[::-1][::stride]))
    figures = [
        f"<figure>{image}<figcaption>{sample.step:,}</figcaption></figure>"
        for sample in chosen
        if (image := picture(sample.file(name, "current"), SMALL, alt=f"step {sample.step}"))
    ]
    if len(figures) < 2:
        return ""
    return f"<h4>over the run</h4><div class=stills>{''.join(figures)}</div>"


def _metrics(asset: Mapping[str, Any], variant: str) -> dict[str, float]:
    found = asset.get(variant)
    if not isinstance(found, dict):
        return {}
    return {k: v for k, v in found.items() if isinstance(v, int | float)}


def _is_name(asset: Mapping[str, Any]) -> bool:
    """Says whether the id is the name of a file and no way out of its folder."""
    name = asset.get("id")
    return isinstance(name, str) and bool(name) and "/" not in name
