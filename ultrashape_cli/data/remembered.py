"""The settings a dataset was made with, DATA/settings.toml: later commands go on with them.

A dataset made before there was this file says what it was made with in split.json and records.
"""

from __future__ import annotations

import json
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import tomli_w

from ultrashape_cli.config.schema import Config, flatten
from ultrashape_cli.data.layout import Dataset
from ultrashape_cli.data.splits import read_places
from ultrashape_cli.errors import ConfigError
from ultrashape_cli.files import write_atomic

SECTIONS = ("watertight", "quality", "render", "sample", "split")
"""Sections that say what a dataset is; `seed` belongs to all of them."""


def read_settings(dataset: Dataset) -> dict[str, Any]:
    """Returns what a dataset was made with, `section.key` -> value; empty for a new one.

    Raises:
        ConfigError: Its file cannot be read.
    """
    path = dataset.settings
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return _without_the_file(dataset) if dataset.exists() else {}
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"cannot read `{path}`: {error}", hint="--no-config ignores it"
        ) from error
    values: dict[str, Any] = {}
    for name, table in tables.items():
        values |= (
            {f"{name}.{k}": v for k, v in table.items()}
            if isinstance(table, dict)
            else {name: table}
        )
    return values


def write_settings(dataset: Dataset, config: Config, sections: Sequence[str]) -> None:
    """Remembers the sections of a config, and the seed; keeps what is known of the others.

    Raises:
        DiskError: The dataset cannot be written.
    """
    new = {k: v for k, v in flatten(config).items() if k == "seed" or _section(k) in sections}
    try:
        known = read_settings(dataset)
    except ConfigError:  # a file that `--no-config` has passed over
        known = {}
    # Several machines may prepare one dataset.
    with dataset.lock():
        tables: dict[str, Any] = {}
        for key, value in sorted((known | new).items()):
            if key not in flatten(config):
                continue  # of another version, passed over by `--no-config`
            section, dot, name = key.partition(".")
            value = list(value) if isinstance(value, tuple) else value
            if dot:
                tables.setdefault(section, {})[name] = value
            else:
                tables[key] = value
        write_atomic(dataset.settings, lambda file: file.write(tomli_w.dumps(tables).encode()))


def changed_settings(
    remembered: Mapping[str, Any], config: Config, sections: Sequence[str]
) -> dict[str, tuple[Any, Any]]:
    """Returns key -> (old, new) of the settings in these sections, and the seed, that differ.

    Args:
        remembered: From `Resolved.remembered`.
        config: What is asked for now.
        sections: Those that the command uses.
    """
    new = flatten(config)
    return {
        key: (old, new[key])
        for key, old in remembered.items()
        if (key == "seed" or _section(key) in sections) and old != new[key]
    }


def _section(key: str) -> str:
    return key.partition(".")[0]


def _without_the_file(dataset: Dataset) -> dict[str, Any]:
    """Returns what the places of the assets and most of their records say."""
    params: dict[str, Counter[str]] = {}
    filters: Counter[str] = Counter()
    for record in dataset.load_records().values():
        for name, step in record.steps.items():
            params.setdefault(name, Counter())[json.dumps(step.params, sort_keys=True)] += 1
        filters[str(record.verdict.get("filter", ""))] += 1
    values: dict[str, Any] = {}
    for name, found in params.items():
        for key, value in json.loads(found.most_common(1)[0][0]).items():
            values["seed" if key == "seed" else f"{name}.{key}"] = value
    del filters[""]
    if filters:
        values["quality.filter"] = filters.most_common(1)[0][0]
    rule = read_places(dataset)[0]
    if rule is not None:
        values |= {k if k == "seed" else f"split.{k}": v for k, v in asdict(rule).items()}
    # Settings that there are no more count for nothing.
    return {key: value for key, value in values.items() if key in flatten(Config())}
