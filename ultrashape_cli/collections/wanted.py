"""Which items of a collection are taken, before anything of them is fetched."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ultrashape_cli.collections.licences import UNKNOWN, is_allowed
from ultrashape_cli.collections.manifest import SourceItem
from ultrashape_cli.meshfiles.load import MESH_SUFFIXES


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What an item must be. An item of which the collection does not tell the faces is taken."""

    licences: tuple[str, ...] = ()
    """Identifiers as of `is_allowed`; none stands for redistributable and commercial."""
    min_faces: int = 0
    max_faces: int | None = None
    categories: tuple[str, ...] = ()
    """Categories or tags, in any case; none stands for all."""
    animated: bool = True

    def refuses(self, item: SourceItem) -> str:
        """Returns why an item is not taken; empty where it is."""
        # A GLTF has its geometry in further files, which no collection names.
        if item.kind not in MESH_SUFFIXES or (item.url and item.kind == ".gltf"):
            return f"format {item.kind or UNKNOWN}"
        if not is_allowed(item.licence, self.licences):
            return f"licence {item.licence or UNKNOWN}"
        if item.faces is not None:
            if item.faces < self.min_faces:
                return "too few faces"
            if self.max_faces is not None and item.faces > self.max_faces:
                return "too many faces"
        if item.animated and not self.animated:
            return "animated"
        names = {name.lower() for name in (item.category, *item.tags)}
        if self.categories and not names & {name.lower() for name in self.categories}:
            return "category"
        return ""


@dataclass(slots=True)
class Tally:
    """What was found in a collection."""

    kept: Counter[str] = field(default_factory=Counter)
    """Licence -> items."""
    excluded: Counter[str] = field(default_factory=Counter)
    """Reason -> items."""
    bytes: int = 0
    """Of the kept items, as far as the collection tells."""
    unsized: int = 0
    """Kept items whose size it does not tell."""
    series: int = 0
    """Kept items that are of a series."""

    def select(
        self, items: Iterable[SourceItem], wanted: Wanted, limit: int | None = None
    ) -> Iterator[SourceItem]:
        """Yields the items that are wanted, at most `limit`, and counts all that it looked at."""
        seen: set[str] = set()
        for item in items:
            reason = "twice in the collection" if item.key in seen else wanted.refuses(item)
            if reason:
                self.excluded[reason] += 1
                continue
            seen.add(item.key)
            self.kept[item.licence or UNKNOWN] += 1
            self.bytes += item.bytes
            self.unsized += not item.bytes
            self.series += bool(item.series)
            yield item
            if limit is not None and len(seen) >= limit:
                return
