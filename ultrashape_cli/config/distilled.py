"""What distilled weights say of themselves, and the settings with which they are sampled."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from ultrashape_cli.errors import ConfigError

if TYPE_CHECKING:
    from ultrashape_cli.config.refine import RefineConfig
    from ultrashape_cli.config.resolve import Resolved


class Distilled(NamedTuple):
    """How distilled weights are sampled."""

    evaluations: int
    """Euler steps; 0 for any sampler without guidance."""
    guidance: float
    """What they have in them."""
    teacher: str
    """Name of the weights that taught them."""

    @classmethod
    def parse(cls, value: object) -> Distilled | None:
        """Returns what a record or a file's metadata says; None where it says nothing of use."""
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except ValueError:
                return None
        if not isinstance(value, dict):
            return None
        try:
            found = cls(
                int(value["evaluations"]), float(value["guidance"]), str(value.get("teacher", ""))
            )
        except (KeyError, TypeError, ValueError):
            return None
        return found if 0 <= found.evaluations <= 999 else None

    def as_dict(self) -> dict[str, Any]:
        """Returns the record."""
        return {**self._asdict(), "solver": "euler"}

    def settings(self) -> dict[str, Any]:
        """Returns the settings of section `refine` with which the weights are sampled."""
        found: dict[str, Any] = {"guidance_scale": 0.0}
        if self.evaluations:
            # The schedule's last point adds no step.
            found |= {"steps": self.evaluations + 1, "solver": "euler"}
        return found

    def sampled(self, config: RefineConfig) -> RefineConfig:
        """Returns the settings of a refinement with these weights."""
        return replace(config, **self.settings())


def for_distilled(resolved: Resolved, distilled: Distilled | None) -> Resolved:
    """Returns the settings with those that distilled weights want; what the user set stays.

    Raises:
        ConfigError: The user asks for guidance, which the weights have in them.
    """
    if distilled is None:
        return resolved
    wanted = {
        name: value
        for name, value in distilled.settings().items()
        if resolved.origins[f"refine.{name}"].split()[0]
        in ("default", "model", "quality", "profile")
    }
    refine = replace(resolved.config.refine, **wanted)
    if refine.guidance_scale not in (0.0, 1.0):
        raise ConfigError(
            f"guidance of {refine.guidance_scale:g} upon weights that were distilled with "
            f"{distilled.guidance:g} would count it twice",
            hint="leave refine.guidance_scale out, or set it to 0",
        )
    origins = resolved.origins | {f"refine.{name}": "distilled weights" for name in wanted}
    return replace(resolved, config=replace(resolved.config, refine=refine), origins=origins)
