from __future__ import annotations

import pytest

from ultrashape_cli.collections.licences import (
    Terms,
    forbids_public_weights,
    forbids_redistribution,
    identifier,
    is_allowed,
    spdx,
    terms,
)


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ("by", "CC-BY-4.0"),
        ("by-nc-sa", "CC-BY-NC-SA-4.0"),
        ("cc0", "CC0-1.0"),
        ("CC BY-NC 3.0", "CC-BY-NC-3.0"),
        ("cc-by-nd-4.0", "CC-BY-ND-4.0"),
        ("Creative Commons - Attribution", "CC-BY-4.0"),
        ("Creative Commons - Attribution - Share Alike", "CC-BY-SA-4.0"),
        ("Creative Commons - Attribution - Non-Commercial - No Derivatives", "CC-BY-NC-ND-4.0"),
        ("Attribution-NonCommercial-ShareAlike 4.0 International", "CC-BY-NC-SA-4.0"),
        ("Creative Commons - Public Domain Dedication", "CC0-1.0"),
        ("https://creativecommons.org/licenses/by-sa/3.0/", "CC-BY-SA-3.0"),
        ("http://creativecommons.org/publicdomain/zero/1.0/", "CC0-1.0"),
        ("Public Domain", "LicenseRef-public-domain"),
        ("MIT License", "MIT"),
        ("apache-2.0", "Apache-2.0"),
        ("All Rights Reserved", "LicenseRef-proprietary"),
        # Words that are not all understood say nothing.
        ("not Creative Commons Attribution", ""),
        ("Attribution, but ask me first", ""),
        ("Creative Commons - Share Alike", ""),
        ("Creative Commons - Sampling Plus", ""),
        ("by-sa-nd", ""),
        ("free", ""),
        ("unknown", ""),
        ("", ""),
    ],
)
def test_statements_become_identifiers(stated: str, expected: str) -> None:
    assert spdx(stated) == expected


def test_a_version_is_that_of_the_collection_where_none_is_named() -> None:
    assert spdx("Creative Commons - Attribution", cc_version="3.0") == "CC-BY-3.0"
    assert spdx("by 4.0", cc_version="3.0") == "CC-BY-4.0"


@pytest.mark.parametrize(
    ("licence", "expected"),
    [
        ("CC0-1.0", Terms(True, True)),
        ("CC-BY-SA-4.0", Terms(True, True)),
        ("CC-BY-NC-3.0", Terms(True, False)),
        ("CC-BY-NC-SA-4.0", Terms(True, False)),
        # A repaired mesh is a changed one.
        ("CC-BY-ND-4.0", Terms(False, True)),
        ("CC-BY-NC-ND-4.0", Terms(False, False)),
        ("LicenseRef-ShapeNet", Terms(False, False)),
        ("LicenseRef-own", Terms(True, True)),
        ("Something-1.0", None),
        ("", None),
    ],
)
def test_what_a_licence_permits(licence: str, expected: Terms | None) -> None:
    assert terms(licence) == expected
    assert forbids_redistribution(licence) == (expected is None or not expected.redistribute)
    assert forbids_public_weights(licence) == (expected != Terms(True, True))
    assert is_allowed(licence) == (expected == Terms(True, True))


def test_an_allow_list_takes_the_place_of_the_rule() -> None:
    assert is_allowed("CC-BY-3.0", ["cc-by"])
    assert is_allowed("CC-BY-4.0", ["by"])
    assert not is_allowed("CC-BY-NC-4.0", ["cc-by"])
    assert not is_allowed("CC0-1.0", ["cc-by"])
    assert is_allowed("CC-BY-NC-4.0", ["cc0", "CC-BY-NC-4.0"])
    assert is_allowed("LicenseRef-ShapeNet", ["licenseref-shapenet"])
    assert is_allowed("", ["unknown"])
    assert not is_allowed("", ["cc0"])
    assert is_allowed("", ["any"])


def test_what_looks_like_an_identifier_is_kept() -> None:
    assert identifier(" LicenseRef-Studio ") == "LicenseRef-Studio"
    assert identifier("cc by") == "CC-BY-4.0"
    assert identifier("ask Anna before use") == ""
