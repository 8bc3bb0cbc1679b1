"""What collections say of their licences as SPDX identifiers, and what those permit.

A statement is only understood where all of its words are; anything else counts as unknown, and
unknown permits nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from ultrashape_cli.data.attribution import OWN

PUBLIC_DOMAIN = "LicenseRef-public-domain"
UNKNOWN = "unknown"
"""How an absent licence is shown, and allowed."""


class Terms(NamedTuple):
    """What a licence permits to do with an asset that was prepared for training."""

    redistribute: bool
    """Hand on changed copies, such as the watertight mesh."""
    commercial: bool


_FREE = Terms(redistribute=True, commercial=True)
_KNOWN = {
    **dict.fromkeys(
        (
            *(OWN, PUBLIC_DOMAIN, "LicenseRef-BSD", "LicenseRef-GPL", "LicenseRef-LGPL"),
            *("CC0-1.0", "CC-PDDC", "0BSD", "MIT", "MIT-0", "ISC", "Zlib", "Unlicense", "WTFPL"),
            *("Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "Artistic-2.0"),
            *("MPL-2.0", "EPL-2.0", "EUPL-1.2", "GPL-2.0-only", "GPL-2.0-or-later"),
            *("GPL-3.0-only", "GPL-3.0-or-later", "LGPL-2.1-only", "LGPL-2.1-or-later"),
            *("LGPL-3.0-only", "LGPL-3.0-or-later", "AGPL-3.0-only", "AGPL-3.0-or-later"),
        ),
        _FREE,
    ),
    **dict.fromkeys(
        ("LicenseRef-proprietary", "LicenseRef-ShapeNet", "LicenseRef-Onshape"),
        Terms(redistribute=False, commercial=False),
    ),
}
_BY_LOWER = {name.lower(): name for name in _KNOWN}
_ALIASES = {
    "mit license": "MIT",
    "apache license 2.0": "Apache-2.0",
    "apache license version 2.0": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "bsd license": "LicenseRef-BSD",
    'bsd 2-clause "simplified" license': "BSD-2-Clause",
    'bsd 3-clause "new" or "revised" license': "BSD-3-Clause",
    "isc license": "ISC",
    "the unlicense": "Unlicense",
    "boost software license 1.0": "BSL-1.0",
    "mozilla public license 2.0": "MPL-2.0",
    "gnu - gpl": "LicenseRef-GPL",
    "gnu - lgpl": "LicenseRef-LGPL",
    "gpl-2.0": "GPL-2.0-only",
    "gpl-3.0": "GPL-3.0-only",
    "gnu general public license v2.0": "GPL-2.0-only",
    "gnu general public license v3.0": "GPL-3.0-only",
    "gnu affero general public license v3.0": "AGPL-3.0-only",
    "gnu lesser general public license v2.1": "LGPL-2.1-only",
    "gnu lesser general public license v3.0": "LGPL-3.0-only",
    "all rights reserved": "LicenseRef-proprietary",
    "public domain": PUBLIC_DOMAIN,
    "no known copyright": PUBLIC_DOMAIN,
}
_CC = re.compile(r"CC-BY(-NC)?(?:-SA|(-ND))?-[1-4]\.[05]")
_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]{1,63}")
_CC_MARKS = {
    "by": ("by", "attribution"),
    "nc": ("nc", "noncommercial", "commercial"),
    "sa": ("sa", "sharealike", "alike"),
    "nd": ("nd", "noderivatives", "noderivs", "derivatives", "derivs"),
    "zero": ("cc0", "zero", "dedication", "domain", "publicdomain"),
}
_CC_FILLERS = frozenset(
    (
        *("creative", "commons", "creativecommons.org", "cc", "license", "licence", "licenses"),
        *("licences", "international", "unported", "universal", "generic", "public", "non", "no"),
        *("share", "works", "http", "https", "www.creativecommons.org", "deed", "en", "1.0"),
    )
)


def spdx(text: str, *, cc_version: str = "4.0") -> str:
    """Returns the SPDX identifier of a licence as a collection states it; empty where unknown.

    Args:
        text: A name, an identifier, an abbreviation such as `by-nc`, or an address.
        cc_version: Of a Creative Commons licence that is named without one.
    """
    plain = " ".join(text.split()).lower()
    return _BY_LOWER.get(plain) or _ALIASES.get(plain) or _creative_commons(plain, cc_version)


def _creative_commons(text: str, version: str) -> str:
    named = re.search(r"(?<![\d.])[1-4]\.[05](?![\d.])", text)
    words = [word for word in re.split(r"[^a-z0-9.]+", text) if word]
    marks = {mark for mark, names in _CC_MARKS.items() if set(words) & set(names)}
    known = {*_CC_FILLERS, *(name for names in _CC_MARKS.values() for name in names)}
    if not marks or not all(word in known or word == (named and named.group()) for word in words):
        return ""
    if marks == {"zero"}:
        return "CC0-1.0"
    if "by" not in marks or "zero" in marks or {"sa", "nd"} <= marks:
        return ""
    parts = [mark.upper() for mark in ("by", "nc", "sa", "nd") if mark in marks]
    return "-".join(("CC", *parts, named.group() if named else version))


def identifier(text: str) -> str:
    """Returns `spdx` of a text, or the text itself where it looks like an identifier."""
    text = text.strip()
    return spdx(text) or (text if _IDENTIFIER.fullmatch(text) else "")


def terms(licence: str) -> Terms | None:
    """Returns what an SPDX identifier permits; None where it is not known."""
    if found := _CC.fullmatch(licence):
        return Terms(redistribute=not found[2], commercial=not found[1])
    return _KNOWN.get(licence)


def forbids_redistribution(licence: str) -> bool:
    """Says whether a licence forbids to hand on prepared assets, or is not known to permit it."""
    known = terms(licence)
    return known is None or not known.redistribute


def forbids_public_weights(licence: str) -> bool:
    """Says whether a licence stands against publishing weights that learned from an asset."""
    known = terms(licence)
    return known is None or not (known.redistribute and known.commercial)


def is_allowed(licence: str, allow: Sequence[str] = ()) -> bool:
    """Says whether a licence is one of those allowed.

    Args:
        licence: SPDX identifier, empty where unknown.
        allow: Identifiers, with or without version, `unknown`, or `any`. Without any: all that
            permit redistribution and commercial use.
    """
    if not allow:
        return not forbids_public_weights(licence)
    names = {name.strip().lower() for name in allow}
    bare = re.sub(r"-\d\.\d$", "", licence.lower())
    own = {licence.lower(), bare} if licence else {UNKNOWN}
    return bool(names & {*own, "any"}) or (
        bool(licence) and any(spdx(name) == licence for name in names)
    )
