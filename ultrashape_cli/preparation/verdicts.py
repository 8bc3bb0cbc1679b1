"""What all records together say: which assets the filter rejects, which have lost their source."""

from __future__ import annotations

import os
from pathlib import Path

from ultrashape_cli.data.attribution import origin_of
from ultrashape_cli.data.layout import Dataset, Record
from ultrashape_cli.preparation.filters import judge, load_filter


def update_verdicts(
    dataset: Dataset, records: dict[str, Record], name: str, *, dry: bool = False
) -> None:
    """Judges all measured assets anew and writes the records whose verdict changed.

    Nothing is deleted: a rejected asset keeps its files and leaves the splits only. With `dry`
    the verdicts are those of `records` alone.

    Raises:
        ConfigError: The filter is unknown or malformed.
    """
    verdicts = judge(list(records.values()), name, load_filter(name))
    for asset_id, verdict in verdicts.items():
        if verdict != records[asset_id].verdict:
            if not dry:
                dataset.mark(asset_id, verdict=verdict)
            records[asset_id].verdict = verdict


def find_stale(
    known: dict[str, Record],
    found: dict[str, Record],
    folder: Path | str,
    manifest: Path | None = None,
) -> dict[str, str]:
    """Returns the known assets whose staleness changed, with its new value.

    An asset whose file below `folder` is gone is stale (`deleted`), and so is one whose file now
    has other content (`edited`), which is another asset. Stale assets keep their files, leave the
    splits, and come back with their source. Assets made from other folders are left alone. One
    that the manifest it came from no longer names is stale too: its licence may be why.

    Args:
        known: All records of the dataset.
        found: The assets of all files below `folder`.
        folder: Where sources were looked for; an address if elsewhere.
        manifest: What names them, if anything does.
    """
    root = str(folder.absolute()) + os.sep if isinstance(folder, Path) else folder.rstrip("/") + "/"
    paths = {path for r in found.values() for path in (r.source["path"], *r.duplicates)}
    changed = {}
    for asset_id, record in known.items():
        path = record.source["path"]
        if asset_id in found:
            now = ""
        elif manifest and origin_of(record).get("manifest") == str(manifest):
            now = "edited" if path in paths else "deleted"
        elif not path.startswith(root):
            continue
        elif path in paths:
            now = "edited"
        else:
            # There, but passed over: hidden, or in a folder that cannot be read at the moment.
            now = record.stale if isinstance(folder, Path) and os.path.lexists(path) else "deleted"
        if now != record.stale:
            changed[asset_id] = now
    return changed
