"""Named rules that say which measured assets stay out of the splits."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ultrashape_cli.data.layout import Record
from ultrashape_cli.errors import ConfigError
from ultrashape_cli.preparation.twins import decode_descriptors, decode_palettes, find_twins

PRESETS = ("none", "collectibles")
PRESET_FOLDER = Path(__file__).with_name("presets")
TWIN_LIMIT = 0.06
"""Descriptor distance below which two assets are twins where no rule names another one. Turned,
remeshed or reduced copies of a figurine measured at most 0.05, different figurines at least 0.1."""

MEASURES = {
    "source_faces": "faces of the source",
    "source_size": "longest side of the source, in its units",
    "source_flatness": "shortest over longest side of the source's box",
    "boundary_loops": "holes of the source",
    "input_components": "parts of the source",
    "lost_share": "visible surface lost when it was closed",
    "distance_mean": "mean distance of the source to the closed mesh, over the box's diagonal",
    "faces": "faces of the closed mesh",
    "components": "parts of the closed mesh",
    "genus": "handles of the closed mesh",
    "interior_ratio": "volume inside over volume outside, within the box",
    "wall_thickness": "mean wall thickness: volume over half the area, over the longest side",
    "flatness": "smallest over largest spread along the principal axes",
    "primitive_share": "share of the surface on one box, ball, cylinder or cone",
    "detail": "integral of the absolute mean curvature, 1 for a ball",
    "filled": "share of the pixels of the views that the asset covers",
    "vae_f_score": "F-score at 0.02 of the VAE's round trip",
    "vae_chamfer": "Chamfer-L1 distance of the VAE's round trip",
    "twin_distance": "descriptor distance to the nearest asset of the same colours that is "
    "preferred to this one",
}
"""What a rule can ask for."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One named condition; an asset that breaks it is rejected."""

    name: str
    measure: str
    min: float = float("-inf")
    max: float = float("inf")
    why: str = ""

    def broken_by(self, measured: dict[str, Any]) -> bool:
        """Says whether the measurements break the rule; a missing one does.

        `twin_distance` is the exception: without a twin it has no value.
        """
        value = measured.get(self.measure)
        if value is None:
            return self.measure != "twin_distance"
        return not self.min <= float(value) <= self.max


def load_filter(name: str) -> list[Rule]:
    """Returns the rules of a preset or of a TOML file.

    Raises:
        ConfigError: No such filter, or its problems, all together.
    """
    path = PRESET_FOLDER / f"{name}.toml" if name in PRESETS else Path(name)
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"cannot read the filter `{name}`: {error.strerror}",
            hint=f"--filter {'|'.join(PRESETS)}, or a TOML file",
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the filter `{name}` is not TOML: {error}") from error
    problems = [text for rule, body in tables.items() for text in _problems(rule, body)]
    if problems:
        hint = f"measures: {', '.join(MEASURES)}"
        raise ConfigError(f"filter `{name}`: {'; '.join(problems)}", hint=hint)
    return [Rule(rule, **body) for rule, body in tables.items()]


def _problems(name: str, body: Any) -> list[str]:
    if not isinstance(body, dict):
        return [f"`{name}` is not a table"]
    found = [
        f"rule `{name}` has an unknown key `{key}`"
        for key in body
        if key not in ("measure", "min", "max", "why")
    ]
    measure = body.get("measure")
    if measure not in MEASURES:
        close = difflib.get_close_matches(str(measure), MEASURES, n=1)
        hint = f" (did you mean `{close[0]}`?)" if close else ""
        found.append(f"rule `{name}` has an unknown measure `{measure}`{hint}")
    for key in ("min", "max"):
        value = body.get(key, 0)
        if isinstance(value, bool) or not isinstance(value, int | float):
            found.append(f"`{key}` of rule `{name}` is not a number")
    if not {"min", "max"} & set(body):
        found.append(f"rule `{name}` has neither `min` nor `max`")
    return found


def measurements(record: Record) -> dict[str, Any]:
    """Returns what all finished steps measured of an asset, under one roof."""
    measured: dict[str, Any] = {}
    for step in record.steps.values():
        if step.status == "done":
            measured |= step.measurements
    return measured


def judge(records: Sequence[Record], name: str, rules: Sequence[Rule]) -> dict[str, dict[str, Any]]:
    """Returns the verdict on every asset that has been measured.

    Twins are looked for among the assets that break no other rule; the one with most source faces
    stays, of equals the one with the lower id. The same shape in other colours is named as a twin,
    so that `--group-by duplicates` keeps both together, and breaks no rule.
    """
    limit = max([r.min for r in rules if r.measure == "twin_distance"], default=TWIN_LIMIT)
    measured = {r.id: measurements(r) for r in records if r.done("quality")}
    verdicts: dict[str, dict[str, Any]] = {}
    for asset_id, values in measured.items():
        broken = [rule.name for rule in rules if rule.broken_by(values)]
        verdicts[asset_id] = {"filter": name, "rejected": broken}
    stale = {r.id for r in records if r.stale}
    kept = [i for i, verdict in verdicts.items() if not verdict["rejected"] and i not in stale]
    kept.sort(key=lambda i: (-int(measured[i].get("source_faces", 0)), i))
    # Those of another version have another length until their step is redone.
    texts = {i: str(measured[i].get("descriptor", "")) for i in kept}
    usual = max((len(text) for text in texts.values()), default=0)
    kept = [i for i in kept if usual and len(texts[i]) == usual]
    shapes = decode_descriptors([texts[i] for i in kept])
    twins = find_twins(shapes, limit, decode_palettes([_palette(measured[i]) for i in kept]))
    for row, (earlier, distance) in (find_twins(shapes, limit) | twins).items():
        values = {"twin_distance": distance} if row in twins else {}
        broken = [r.name for r in rules if r.measure == "twin_distance" and r.broken_by(values)]
        verdicts[kept[row]] |= {
            "rejected": broken,
            "twin": kept[earlier],
            "twin_distance": round(distance, 4),
        }
        if row not in twins:
            verdicts[kept[row]]["other_colours"] = True
    return verdicts


def _palette(measured: dict[str, Any]) -> str | None:
    """Returns the palette of an asset, empty for clay; None where its colours are not known."""
    if measured.get("problems"):
        return None
    found = measured.get("palette")
    return str(found) if found else "" if measured.get("surface") == "clay" else None
