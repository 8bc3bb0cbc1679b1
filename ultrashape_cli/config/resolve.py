"""Each value of the settings, from where it counts most, and where that was.

Default < profile < objective < strategy < model < quality < data set < file < environment < flags.
"""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from ultrashape_cli.config.bounds import POSITIVE, RANGES
from ultrashape_cli.config.coarse import coarse_problems
from ultrashape_cli.config.models import model_settings, quality_settings
from ultrashape_cli.config.profiles import (
    OBJECTIVE_SETTINGS,
    STRATEGY_SETTINGS,
    HardwareProfile,
    get_profile,
    objective_rate,
)
from ultrashape_cli.config.schema import Config, flatten
from ultrashape_cli.config.toml_file import read_toml
from ultrashape_cli.dotenv import masked, masked_arguments
from ultrashape_cli.errors import ConfigError

TYPED = ("flag", "--set")
"""Origins of what was typed for one command."""
ENV_PREFIX = "USHAPE_"
DATA_SET = "data set"
"""Origin of the settings that a dataset was made with."""
NOT_CONFIG = frozenset(
    {
        *("USHAPE_DEBUG", "USHAPE_NO_PROGRESS", "USHAPE_GOLDEN"),
        # Tokens of `refine --server` and of `serve --join`.
        *("USHAPE_SERVER_TOKEN", "USHAPE_SERVE_TOKEN"),
        # What alert commands get, should one of them be ushape.
        *(f"USHAPE_ALERT{name}" for name in ("", "_RULE", "_STATE", "_RUN")),
    }
)


@dataclass(frozen=True, slots=True)
class Resolved:
    """A config, the profile behind it and the origin of each value."""

    config: Config
    profile: HardwareProfile
    origins: dict[str, str]
    remembered: dict[str, Any] = field(default_factory=dict)
    """What the dataset was made with, whether or not it counts now."""

    def rows(self, sections: Sequence[str] = ()) -> list[tuple[str, Any, str]]:
        """Returns (key, value, origin) of the named sections, or of all; secrets masked."""
        return [
            (key, masked(key, value) if isinstance(value, str) else value, self.origins[key])
            for key, value in flatten(self.config).items()
            if not sections or "." not in key or key.split(".")[0] in sections
        ]


def resolve(
    *,
    flags: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    model: str | None = None,
    remembered: Mapping[str, Any] | None = None,
) -> Resolved:
    """Merges all sources of settings into one validated config.

    Args:
        flags: Dotted key to value; `None` values mean "not given".
        overrides: `--set` texts, `section.field=value`.
        file: A TOML file with the sections as tables.
        environ: Variables such as `USHAPE_TRAIN_STEPS`; defaults to the process environment.
        model: Row of the model table where a checkpoint, not the user, names it.
        remembered: What the dataset was made with, dotted key to value.

    Raises:
        ConfigError: Unknown keys and bad values, all in one message.
    """
    kinds = _leaf_types(Config)
    problems: list[str] = []
    given: dict[str, tuple[Any, str]] = {}

    def accept(key: str, value: Any, origin: str) -> None:
        where = "the settings.toml of the dataset" if origin == DATA_SET else origin
        if key not in kinds:
            problems.append(f"unknown key `{key}` in {where}{_close_to(key, kinds)}")
            return
        try:
            given[key] = (_parse(value, kinds[key]), origin)
        except ValueError as error:
            problems.append(f"`{key}` in {where}: {error}")

    for key, value in (remembered or {}).items():
        accept(key, value, DATA_SET)
    before = {key: value for key, (value, _) in given.items()}
    hint = "--no-config ignores it" if problems else "`--show-config` lists every key and value"
    if file is not None:
        for key, value in _settings_of(file, problems).items():
            accept(key, value, f"`{file}`")
    for name, text in sorted((os.environ if environ is None else environ).items()):
        if name.startswith(ENV_PREFIX) and name not in NOT_CONFIG:
            accept(_env_key(name, kinds), text, f"${name}")
    for key, value in (flags or {}).items():
        if value is not None:
            accept(key, value, "flag")
    for text in overrides:
        key, equals, value = text.partition("=")
        if equals:
            accept(key.strip(), value.strip(), "--set")
        else:
            problems.append(f"`--set {masked_arguments([text])[0]}` has no `=`")

    problems += [p for key, (value, _) in given.items() if (p := _out_of_range(key, value))]
    values: dict[str, tuple[Any, str]] = {}
    try:
        profile = get_profile(given.get("profile", ("auto", ""))[0])
        own = profile.settings(given.get("launch.host_memory_gib", (0.0, ""))[0])
        values |= _from(f"profile {profile.name}", own)
        objective = given.get("train.objective", (Config().train.objective, ""))[0]
        values |= _from(f"objective {objective}", OBJECTIVE_SETTINGS.get(objective, {}))
        strategy = given.get("train.strategy", values["train.strategy"])[0]
        values |= _from(f"strategy {strategy}", STRATEGY_SETTINGS.get(strategy, {}))
        model = model or given.get("train.model", (Config().train.model, ""))[0]
        values |= _from(f"model {model}", model_settings(model))
        values |= _from(f"objective {objective}", objective_rate(objective, strategy))
        quality = given.get("refine.quality", (Config().refine.quality, ""))[0]
        values |= _from(f"quality {quality}", quality_settings(model, quality))
    except ConfigError as error:
        problems.append(error.message)
        hint = error.hint or hint
    if problems:
        raise ConfigError("; ".join(problems), hint=hint)
    values |= given
    config = _build({key: value for key, (value, _) in values.items()})
    origins = {key: values[key][1] if key in values else "default" for key in kinds}
    return Resolved(config, profile, origins, before)


def _from(origin: str, settings: Mapping[str, Any]) -> dict[str, tuple[Any, str]]:
    return {key: (value, origin) for key, value in settings.items()}


def _close_to(key: str, kinds: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(key, kinds, n=1, cutoff=0.6)
    return f" (did you mean `{close[0]}`?)" if close else ""


def restore(values: Mapping[str, Any]) -> Config:
    """Returns the config that `flatten` turned into `values`, also after a trip through JSON."""
    kinds = _leaf_types(Config)
    return _build({key: _parse(value, kinds[key]) for key, value in values.items()})


def _build(values: Mapping[str, Any]) -> Config:
    config = Config()
    sections: dict[str, dict[str, Any]] = {}
    top: dict[str, Any] = {}
    for key, value in values.items():
        section, dot, name = key.partition(".")
        if dot:
            sections.setdefault(section, {})[name] = value
        else:
            top[key] = value
    for section, changes in sections.items():
        top[section] = replace(getattr(config, section), **changes)
    return replace(config, **top)


def _leaf_types(cls: type, prefix: str = "") -> dict[str, Any]:
    kinds: dict[str, Any] = {}
    hints = get_type_hints(cls)
    for item in fields(cls):
        kind = hints[item.name]
        if isinstance(kind, type) and is_dataclass(kind):
            kinds.update(_leaf_types(kind, f"{prefix}{item.name}."))
        else:
            kinds[f"{prefix}{item.name}"] = kind
    return kinds


def plain_types(section: type) -> dict[str, dict[str, Any]]:
    """Returns the type of each field of a section in the words of JSON Schema."""
    names = {bool: "boolean", int: "integer", float: "number", str: "string"}
    found: dict[str, dict[str, Any]] = {}
    for name, kind in _leaf_types(section).items():
        if get_origin(kind) is Literal:
            found[name] = {"type": "string", "enum": list(get_args(kind))}
        else:
            found[name] = {"type": names.get(kind, "array")}
    return found


def _settings_of(file: Path, problems: list[str]) -> dict[str, Any]:
    """Returns the settings of a file; what is wrong with its `[coarse.NAME]` joins the problems."""
    tables = read_toml(file)
    problems += coarse_problems(tables.pop("coarse", {}), f"`{file}`")
    leaves: dict[str, Any] = {}
    for name, value in tables.items():
        if isinstance(value, dict):
            leaves.update({f"{name}.{key}": item for key, item in value.items()})
        else:
            leaves[name] = value
    return leaves


def _env_key(name: str, kinds: Mapping[str, Any]) -> str:
    plain = name.removeprefix(ENV_PREFIX).lower()
    by_env = {key.replace(".", "_"): key for key in kinds}
    return by_env.get(plain, plain)


def _parse(value: Any, kind: Any) -> Any:
    """Converts text or a TOML value to the field's type; ValueError says what was expected."""
    if get_origin(kind) in (Union, UnionType):
        kind = next(arg for arg in get_args(kind) if arg is not type(None))
    if get_origin(kind) is Literal:
        if value in get_args(kind):
            return value
        raise ValueError(f"`{value}` is not one of {', '.join(map(str, get_args(kind)))}")
    if get_origin(kind) is tuple:
        items = value.split(",") if isinstance(value, str) else value
        if not isinstance(items, list | tuple):
            raise ValueError(f"`{value}` is not a list")
        texts = [str(item).strip() for item in items]
        return tuple(_parse(text, get_args(kind)[0]) for text in texts if text)
    if kind is bool:
        if isinstance(value, bool):
            return value
        text = str(value).lower()
        if text in {"true", "1", "yes", "on"}:
            return True
        if text in {"false", "0", "no", "off"}:
            return False
        raise ValueError(f"`{value}` is not true or false")
    if kind is int:
        return _parse_int(value)
    if kind is float:
        return _parse_float(value)
    if isinstance(value, list | dict):
        raise ValueError(f"`{value}` is not a text")
    return str(value)


def _parse_int(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    try:
        return int(str(value))
    except ValueError:
        raise ValueError(f"`{value}` is not a whole number") from None


def _parse_float(value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"`{value}` is not a finite number")
    return number


def _out_of_range(key: str, value: Any) -> str | None:
    if key in POSITIVE and not value > 0:
        return f"`{key}` must be above 0, got `{value}`"
    if key in RANGES:
        low, high = RANGES[key]
        items = value if isinstance(value, tuple) else (value,)
        if not all(low <= item <= high for item in items):
            return f"`{key}` must be from {low:g} to {high:g}, got `{value}`"
    return None
