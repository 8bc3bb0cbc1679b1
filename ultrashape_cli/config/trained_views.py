"""What weights that were trained with several views say of themselves, and how they see them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from ultrashape_cli.errors import ConfigError

if TYPE_CHECKING:
    from ultrashape_cli.config.resolve import Resolved

KEY = "views"
"""Of a record, and of the metadata of a file."""
EMBEDDING = "azimuth-elevation"
"""What the network is told of a camera (`models.view_embedding`)."""
_OWN = ("default", "model", "quality", "profile")
"""Origins of values that no user has set."""


class TrainedViews(NamedTuple):
    """How weights were trained with several views."""

    most: int
    """Views of a sample."""
    embedding: str = EMBEDDING
    """What the network is told of a camera."""

    @classmethod
    def parse(cls, value: object) -> TrainedViews | None:
        """Returns what a record or a file's metadata says; None where it says nothing of use."""
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                return None
        if not isinstance(value, Mapping):
            return None
        most = value.get("most")
        # Another embedding is that of a later version: this one would show it wrong cameras.
        if type(most) is not int or most < 2 or value.get("embedding") != EMBEDDING:
            return None
        return cls(most)

    def as_dict(self) -> dict[str, Any]:
        """Returns the record."""
        return self._asdict()

    def metadata(self) -> dict[str, str]:
        """Returns what a file says of its weights."""
        return {KEY: json.dumps(self.as_dict())}


def for_views(resolved: Resolved, views: TrainedViews | None) -> Resolved:
    """Returns the settings of a refinement, with the views as the weights were trained with them.

    What the user set stays.

    Args:
        resolved: The settings.
        views: What the weights say.

    Raises:
        ConfigError: The weights know no views and are to be shown them, or not so many.
    """
    refine = resolved.config.refine

    def unset(name: str) -> bool:
        return resolved.origins[f"refine.{name}"].split()[0] in _OWN

    if views is None:
        if refine.view_mode == "trained":
            raise ConfigError(
                "refine.view_mode=trained needs weights that were trained with several views, and "
                "these were not",
                hint="--view-mode spatial; or `ushape train --set train.views=4`, and "
                "name that run",
            )
        return resolved
    wanted: dict[str, Any] = {"view_mode": "trained"} if unset("view_mode") else {}
    if wanted.get("view_mode", refine.view_mode) != "trained":
        return resolved
    if refine.max_views > views.most:
        if not unset("max_views"):
            raise ConfigError(
                f"refine.max_views of {refine.max_views} is more than the {views.most} views that "
                "the weights were trained with",
                hint=f"--set refine.max_views={views.most}, or --view-mode spatial",
            )
        wanted["max_views"] = views.most
    origins = resolved.origins | {f"refine.{n}": "weights trained with views" for n in wanted}
    config = replace(resolved.config, refine=replace(refine, **wanted))
    return replace(resolved, config=config, origins=origins)
