"""Reading a TOML file of the user."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from ultrashape_cli.errors import ConfigError


def read_toml(file: Path) -> dict[str, Any]:
    """Returns the tables of a file.

    Raises:
        ConfigError: It cannot be read, or is not TOML.
    """
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read `{file}`: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"`{file}` is not TOML: {error}") from error
