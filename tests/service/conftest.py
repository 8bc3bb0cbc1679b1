"""Fixtures of the service's tests."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from serving import Served, served


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service of this module, without a model."""
    with served(tmp_path_factory.mktemp("service") / "data") as found:
        yield found


@pytest.fixture
def http(service: Served) -> Iterator[httpx.Client]:
    """Requests to the service of this module."""
    with httpx.Client(base_url=service.url, timeout=30) as client:
        yield client
