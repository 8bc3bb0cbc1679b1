"""What weights that were trained with several views say of themselves."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

KEY = "views"
"""Of a record, and of the metadata of a file."""
EMBEDDING = "azimuth-elevation"
"""What the network is told of a camera (`models.view_embedding`)."""


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
