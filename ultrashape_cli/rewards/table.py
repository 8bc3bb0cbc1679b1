"""The rewards by name, with range, direction and source, and what a mesh gets of each."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from ultrashape_cli.errors import ConfigError, DependencyError
from ultrashape_cli.geometry.check import Topology, topology
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.geometry.metrics import compare_meshes
from ultrashape_cli.geometry.optional import missing_reason
from ultrashape_cli.inference.acceptance import Outlines
from ultrashape_cli.rewards.measures import (
    TAU,
    Picture,
    chamfer_reward,
    crossings_reward,
    faces_reward,
    genus_reward,
    open_edges_reward,
    parts_reward,
    shading_reward,
    silhouette_reward,
    thickness_reward,
    view_normals_reward,
)

Values = dict[str, float | None]
"""Rewards by name; None where a mesh has none of that name."""
POINTS = 16_384
"""Surface samples of each mesh for the distances. Other samples of one figurine move `chamfer` by
0.003, `f_score` by 0.003 and `normals` by 0.001 (one standard deviation)."""


@dataclass(frozen=True)
class Evidence:
    """What a mesh of one asset is held against; all in the normalised frame."""

    truth: Mesh | None = None
    before: Mesh | None = None
    """The coarse input."""
    views: Sequence[Picture] = ()
    points: int = POINTS
    seed: int = 0

    @cached_property
    def shape(self) -> Topology | None:
        """Topology of the truth, else of the input: the parts and handles that are meant."""
        known = self.truth or self.before
        return None if known is None else topology(known)


class _Judged:
    """A mesh and its evidence; what several rewards need is computed once."""

    def __init__(self, mesh: Mesh, evidence: Evidence) -> None:
        self.mesh = mesh
        self.evidence = evidence

    @cached_property
    def topology(self) -> Topology:
        return topology(self.mesh)

    @cached_property
    def figures(self) -> dict[str, float]:
        evidence = self.evidence
        assert evidence.truth is not None
        return compare_meshes(self.mesh, evidence.truth, evidence.points, evidence.seed, (TAU,))

    @cached_property
    def outlines(self) -> Outlines:
        return Outlines(self.mesh)


@dataclass(frozen=True, slots=True)
class Reward:
    """One reward: higher is better, whatever its figure is."""

    low: float
    high: float
    """Range of the values."""
    direction: Literal[-1, 1]
    """1 where the figure itself is to rise, -1 where it is to fall and stands negated."""
    source: str
    """What it is computed from, and the figure."""
    measure: Callable[[_Judged], float | None]
    truth: bool = False
    """Needs the ground truth."""
    views: bool = False
    """Needs images."""


def _genus(judged: _Judged) -> float | None:
    expected = judged.evidence.shape
    return genus_reward(judged.topology, expected.genus if expected else 0.0)


def _parts(judged: _Judged) -> float:
    expected = judged.evidence.shape
    return parts_reward(judged.topology, expected.components if expected else 1)


def _view_normals(judged: _Judged) -> float | None:
    truth = judged.evidence.truth
    assert truth is not None
    return view_normals_reward(judged.mesh, truth, judged.evidence.views)


_MOST = math.inf
REWARDS: dict[str, Reward] = {
    "chamfer": Reward(-_MOST, 13.9, -1, "truth: log of the Chamfer-L1 distance",
                      lambda j: chamfer_reward(j.figures["chamfer_l1"]), truth=True),
    "f_score": Reward(0.0, 1.0, 1, f"truth: F-score at {TAU:g}",
                      lambda j: j.figures[f"f_score@{TAU:g}"], truth=True),
    "normals": Reward(0.0, 1.0, 1, "truth: normal consistency, the mean absolute cosine",
                      lambda j: j.figures["normal_consistency"], truth=True),
    "components": Reward(-_MOST, 0.0, -1, "mesh: log2 of 1 and parts beyond those meant", _parts),
    "open_edges": Reward(-200.0, 0.0, -1, "mesh: percentage of open edges",
                         lambda j: open_edges_reward(j.topology, len(j.mesh.faces))),
    "genus": Reward(-_MOST, 0.0, -1, "mesh: log2 of 1 and handles gained or lost", _genus),
    "crossings": Reward(-100.0, 0.0, -1, "mesh: percentage of faces that cross others",
                        lambda j: crossings_reward(j.mesh)),
    "thickness": Reward(0.0, 1.0, 1, "mesh: the thinnest walls, up to 0.04 of the cube [-1, 1]",
                        lambda j: thickness_reward(j.mesh, j.evidence.seed)),
    "silhouette": Reward(0.0, 1.0, 1, "images: overlap of the outlines",
                         lambda j: silhouette_reward(j.outlines, j.evidence.views), views=True),
    "shading": Reward(-1.0, 1.0, 1, "images: correlation of light and shade",
                      lambda j: shading_reward(j.outlines, j.evidence.views), views=True),
    "view_normals": Reward(-1.0, 1.0, 1, "truth as the images see it: cosine of the normals",
                           _view_normals, truth=True, views=True),
    "faces": Reward(-_MOST, 0.0, -1, "mesh: log2 of the number of faces",
                    lambda j: faces_reward(len(j.mesh.faces))),
}  # fmt: skip
"""All rewards. Parts and handles are held against the truth's, without one against the input's."""


def measure(mesh: Mesh, names: Sequence[str], evidence: Evidence) -> Values:
    """Returns the named rewards of a mesh; None where it has none, such as handles of an open one.

    Args:
        mesh: In the normalised frame, with at least one face.
        names: Of `REWARDS`.
        evidence: What they are computed from.

    Raises:
        ConfigError: Unknown names, or evidence that is not there.
        DependencyError: A library that one needs does not load.
    """
    require(names, truth=evidence.truth is not None, views=bool(evidence.views))
    judged = _Judged(mesh, evidence)
    found = {name: REWARDS[name].measure(judged) for name in names}
    # Without the negative zeros of what stands negated.
    return {name: None if value is None else value + 0.0 for name, value in found.items()}


def require(names: Sequence[str], *, truth: bool = True, views: bool = True) -> None:
    """Raises ConfigError or DependencyError where one of the named rewards cannot be had.

    Args:
        names: Of rewards.
        truth: There is a ground truth.
        views: There are images.
    """
    for name in names:
        if name not in REWARDS:
            raise _unknown(name)
        if REWARDS[name].truth and not truth:
            raise ConfigError(
                f"the reward `{name}` is held against a ground truth, and there is none",
                hint=f"without one: {_listed(truth=False)}",
            )
        if REWARDS[name].views and not views:
            raise ConfigError(
                f"the reward `{name}` is held against images, and there are none",
                hint="ushape render DATA",
            )
    for name, package in (("crossings", "pymeshlab"), ("thickness", "embreex")):
        if name in names and (reason := missing_reason(package)) is not None:
            raise DependencyError(
                f"the reward `{name}` needs {package}, which does not load: {reason}",
                hint=f"leave `{name}` out of train.rewards, or install what {package} lacks",
            )


def watched_rewards(rewards: Sequence[str], held_out: Sequence[str]) -> dict[str, bool]:
    """Returns the rewards that validation watches, and of each whether it is held out.

    Args:
        rewards: Texts of those that are learned from, as of the settings.
        held_out: Names of those that must not fall; what is learned from is not held out.

    Raises:
        ConfigError: An unknown name or a bad weight.
    """
    learned = dict.fromkeys(parse_rewards(rewards), False)
    return dict.fromkeys(parse_rewards(held_out, "reward.held_out"), True) | learned


def parse_rewards(texts: Sequence[str], key: str = "train.rewards") -> dict[str, float]:
    """Returns weights by reward of texts `NAME:WEIGHT`, or `NAME` for a weight of 1.

    Args:
        texts: As of the settings.
        key: The setting, for messages.

    Raises:
        ConfigError: An unknown name, a name given twice, or a weight that is not above 0.
    """
    found: dict[str, float] = {}
    for text in texts:
        name, colon, weight = (part.strip() for part in text.partition(":"))
        if name not in REWARDS:
            raise _unknown(name)
        if name in found:
            raise ConfigError(f"`{key}` has `{name}` twice", hint="leave one out")
        try:
            found[name] = float(weight) if colon else 1.0
        except ValueError:
            found[name] = math.nan
        if not 0 < found[name] < math.inf:
            raise ConfigError(
                f"`{text}` of `{key}` has no weight above 0", hint=f"{name}:1 or {name}:0.5"
            )
    return found


def _unknown(name: str) -> ConfigError:
    close = difflib.get_close_matches(name, REWARDS, n=1, cutoff=0.5)
    return ConfigError(
        f"no reward `{name}`" + (f" (did you mean `{close[0]}`?)" if close else ""),
        hint=f"rewards: {', '.join(REWARDS)}",
    )


def _listed(*, truth: bool) -> str:
    return ", ".join(name for name, reward in REWARDS.items() if truth or not reward.truth)
