"""The XML of a 3MF, and what slicers say there of volumes that are not printed."""

from __future__ import annotations

import zipfile
from typing import Any

from lxml import etree

_PRUSA = "metadata/slic3r_pe_model.config"
NOT_PRINTED = ("support", "solidsupport", "other")
"""Types of objects that are no part of a model (3MF core specification, 4.1.3)."""


def parse_xml(data: bytes) -> Any:
    """Returns the root of a file of an archive."""
    # No entity is resolved and nothing fetched; models are larger than the default limit.
    parser = etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=True)
    return etree.fromstring(data, parser)


def helper_ranges(
    archive: zipfile.ZipFile, names: dict[str, str]
) -> dict[str, list[tuple[int, int]]]:
    """Returns the triangles, first to last, that are no part of each object, by its id.

    PrusaSlicer writes all volumes of an object as one mesh, and says here which of its triangles
    belong to modifiers, negative volumes and support enforcers or blockers.

    Args:
        archive: The 3MF.
        names: Its files by lower-case name.
    """
    real = names.get(_PRUSA)
    if real is None:
        return {}
    try:
        root = parse_xml(archive.read(real))
    except etree.XMLSyntaxError:
        return {}
    found: dict[str, list[tuple[int, int]]] = {}
    for item in root.iter("object"):
        for volume in item.iter("volume"):
            first, last = volume.get("firstid", ""), volume.get("lastid", "")
            if _is_helper(volume) and first.isdecimal() and last.isdecimal():
                found.setdefault(item.get("id", ""), []).append((int(first), int(last)))
    return found


def _is_helper(volume: Any) -> bool:
    values = {entry.get("key"): entry.get("value") for entry in volume.iter("metadata")}
    kind = values.get("volume_type", "ModelPart")
    return kind != "ModelPart" or values.get("modifier") == "1"
