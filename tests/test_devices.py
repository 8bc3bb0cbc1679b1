"""The device of a setting, and what is set before the first call to it."""

from __future__ import annotations

import os
import sys

import pytest

from ultrashape_cli.devices import choose_device
from ultrashape_cli.errors import ConfigError

NAMES = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has growing segments")
def test_the_allocator_may_grow_its_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    choose_device("cpu")
    assert [os.environ[n] for n in NAMES if n in os.environ] == ["expandable_segments:True"]
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(NAMES[1], "max_split_size_mb:64")
    choose_device("cpu")
    assert NAMES[0] not in os.environ


def test_a_device_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match="device `tpu` is not available"):
        choose_device("tpu")
