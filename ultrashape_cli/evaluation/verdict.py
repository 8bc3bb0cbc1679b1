"""What a comparison amounts to: short names, means that fit a terminal, a verdict in words."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from ultrashape_cli.evaluation.scores import sign_of

MEASURES = {
    "chamfer_l1": ("CD-L1", "Chamfer-L1"),
    "f_score@0.01": ("F@1%", "F-score@0.01"),
    "normal_consistency": ("NC", "normal consistency"),
    "volume_iou": ("IoU", "volume IoU"),
}
"""The scores that decide -> their name in a table and in a sentence."""
ENOUGH = 6
"""With fewer pairs no signed-rank test reaches p < 0.05, even where all of them agree."""
LEGEND = (
    "CD-L1 is Chamfer-L1 (lower is better), F@1% the F-score at 0.01, NC normal consistency, IoU "
    "that of the volumes; in the cube [-1, 1]"
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """On which measures one is better than another."""

    better: tuple[str, ...]
    worse: tuple[str, ...]
    unclear: tuple[str, ...]
    """Equal, or with an interval of the difference that holds zero."""
    good: bool
    """Better on some and worse on none."""
    text: str


def judge(
    means: Mapping[str, tuple[float, float]],
    against: str,
    *,
    unclear: Collection[str] = (),
    lost: str = "",
    pairs: int | None = None,
) -> Verdict | None:
    """Returns the verdict over those of `MEASURES` that are there; None without any.

    Args:
        means: Score -> ours, theirs.
        against: What the other is called.
        unclear: Scores whose difference may be chance.
        lost: What ours lacks altogether, in words.
        pairs: Assets that were compared; None for a single mesh, which speaks for itself.
    """
    names = [name for name in MEASURES if name in means]
    if not names:
        return None
    even = [n for n in names if n in unclear or means[n][0] == means[n][1]]
    gains = {n: (means[n][0] - means[n][1]) * sign_of(n) for n in names if n not in even}
    better = [name for name, gain in gains.items() if gain > 0]
    worse = sorted((n for n in gains if n not in better), key=lambda n: -_severity(n, *means[n]))
    count = len(names)
    share = {count: f"all {count}", 0: f"none of {count}"}.get(
        len(better), f"{len(better)} of {count}"
    )
    parts = [f"better than {against} on {share} measures"]
    parts += [f"{MEASURES[name][1]} worse {_by(name, *means[name])}" for name in worse]
    if even:
        parts.append(f"no clear difference in {', '.join(MEASURES[name][1] for name in even)}")
    if lost:
        parts.append(lost)
    few = pairs is not None and pairs < ENOUGH
    if few:
        assets = "1 asset is" if pairs == 1 else f"{pairs} assets are"
        parts.append(f"{assets} too few to say, it takes {ENOUGH}")
    good = bool(better) and not worse and not lost and not few
    return Verdict(tuple(better), tuple(worse), tuple(even), good, "; ".join(parts))


def is_worse(name: str, ours: float, theirs: float) -> bool:
    """Says whether a score is worse than another."""
    return (ours - theirs) * sign_of(name) < 0


def show_mean(value: Mapping[str, Any], sign: str = "±") -> str:
    """Returns a mean to three digits, with half the width of its interval where it has one.

    Args:
        value: `mean`, and `low` and `high` or neither.
        sign: Between the two.
    """
    mean, low, high = value["mean"], value.get("low"), value.get("high")
    digits = 3 if not mean else min(max(2 - math.floor(math.log10(abs(mean))), 0), 5)
    text = f"{mean:.{digits}f}"
    return text if low is None or high is None else f"{text}{sign}{(high - low) / 2:.{digits}f}"


def _by(name: str, ours: float, theirs: float) -> str:
    """Returns by how much a score is worse: of distances the factor, where it is large."""
    if not theirs:
        return f"(from 0 to {ours:.3g})"
    factor = ours / theirs
    if sign_of(name) < 0 and factor >= 2:
        return f"by {factor:,.0f}x" if factor >= 10 else f"by {factor:.1f}x"
    share = 100 * abs(ours - theirs) / abs(theirs)
    return f"by {share:.0f} %" if share >= 10 else f"by {share:.2g} %"


def _severity(name: str, ours: float, theirs: float) -> float:
    return abs(ours - theirs) / abs(theirs) if theirs else math.inf
