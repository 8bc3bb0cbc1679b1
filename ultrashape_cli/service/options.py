"""The options of a job: the settings of `refine` that a client may set, and a few of the job."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ultrashape_cli.config.refine import RefineConfig
from ultrashape_cli.config.resolve import Resolved, resolve
from ultrashape_cli.errors import ConfigError, UsageError
from ultrashape_cli.finishing.write import check_finish, files_beside
from ultrashape_cli.inference.region import parse_region

OF_THE_MACHINE = ("memory", "max_memory_gib", "dtype", "compile", "attention", "chunk_size",
                  "backend")  # fmt: skip
"""Settings of refine that the machine decides, not the job."""
REFINE = tuple(f.name for f in fields(RefineConfig) if f.name not in OF_THE_MACHINE)
OF_THE_JOB = ("model", "seed", "format", "priority", "keep_full", "metrics", "picture", "webhook")
FORMATS = ("glb", "obj", "ply", "stl", "off", "3mf")
PRIORITIES = (-10, 10)
_MAX_DEPTH_CHARACTERS = 65_536


@dataclass(frozen=True, slots=True)
class Settings:
    """What decides how a machine refines, beside the options of a job."""

    file: str | None = None
    """A TOML file."""
    overrides: tuple[str, ...] = ()
    flags: Mapping[str, Any] | None = None
    no_config: bool = False

    def resolve(self, model: str, options: Mapping[str, Any]) -> Resolved:
        """Returns the settings of a job.

        Raises:
            ConfigError: A value of the options is bad.
        """
        own = {f"refine.{name}": value for name, value in options.get("refine", {}).items()}
        return resolve(
            flags={**(self.flags or {}), **own, "seed": options.get("seed", 0)},
            # Of a client's options and the service's own the client's count.
            overrides=[each for each in self.overrides if each.partition("=")[0] not in own],
            file=None if self.no_config or self.file is None else Path(self.file),
            environ={} if self.no_config else None,
            model=model,
        )


ResolveJob = Callable[[str, Mapping[str, Any]], Resolved]


@dataclass(frozen=True, slots=True)
class JobOptions:
    """Checked options."""

    model: str
    """Name of a checkpoint of the service."""
    priority: int
    webhook: str | None
    values: dict[str, Any]
    """`refine` (settings), `seed`, `format`, `keep_full`, `metrics` and `picture`."""


def parse_options(
    text: str, models: Collection[str], default: str, resolve_job: ResolveJob
) -> JobOptions:
    """Returns the options in a JSON text.

    Args:
        text: An object; empty for none.
        models: Names of the checkpoints.
        default: The checkpoint of jobs that name none.
        resolve_job: Settings of the machine and of the job, by the name of the checkpoint.

    Raises:
        ConfigError: Unknown keys and bad values, all in one message.
    """
    given = _object(text)
    problems = [f"unknown option `{name}`{_close(name)}" for name in _unknown(given)]
    fixed = [name for name in given if name in OF_THE_MACHINE]
    problems += [f"`{name}` is decided by the service" for name in fixed]
    model = given.get("model", default)
    if model not in models:
        problems.append(f"no model `{str(model)[:80]}`; there are {', '.join(models)}")
    priority = given.get("priority", 0)
    low, high = PRIORITIES
    if not _is_int(priority) or not low <= priority <= high:
        problems.append(f"`priority` must be a whole number from {low} to {high}")
    form = given.get("format", "glb")
    if form not in FORMATS:
        problems.append(f"`format` must be one of {', '.join(FORMATS)}")
    switches = {name: given.get(name, False) for name in ("keep_full", "metrics", "picture")}
    problems += [
        f"`{n}` must be true or false" for n, v in switches.items() if v not in (True, False)
    ]
    if not _is_int(given.get("seed", 0)):
        problems.append("`seed` must be a whole number")
    webhook = given.get("webhook")
    if webhook is not None and (problem := webhook_problem(webhook)):
        problems.append(f"`webhook` {problem}")
    refine = {name: given[name] for name in REFINE if name in given}
    values = {"refine": refine, "seed": given.get("seed", 0), "format": form, **switches}
    if not problems:
        problems += _bad_region(refine.get("region"))
        try:
            own, target = resolve_job(model, values).config.refine, Path(f"refined.{form}")
            check_finish(own, target)
            if files_beside(own, target):
                problems.append("a normal map beside an OBJ cannot be fetched: `format` glb")
        except (ConfigError, UsageError) as error:
            problems.append(error.message)
    if problems:
        raise ConfigError("; ".join(problems), hint="GET /v1/options lists options and bounds")
    return JobOptions(model, priority, webhook, values)


def _bad_region(text: Any) -> list[str]:
    """Returns what is wrong with a region; a mask would be a file of the service."""
    if not isinstance(text, str) or not text:
        return []
    if text.startswith("mask"):
        return ["`region` cannot be a mask here: box, sphere or side"]
    try:
        parse_region(text)
    except UsageError as error:
        return [error.message]
    return []


def _object(text: str) -> dict[str, Any]:
    if len(text) > _MAX_DEPTH_CHARACTERS:
        raise ConfigError("`options` is too long")
    try:
        given = json.loads(text or "{}", parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"`options` is not JSON: {str(error)[:200]}") from error
    if not isinstance(given, dict):
        raise ConfigError("`options` is not a JSON object", hint='such as {"quality": "draft"}')
    return given


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _unknown(given: Mapping[str, Any]) -> Sequence[str]:
    known = {*REFINE, *OF_THE_JOB, *OF_THE_MACHINE}
    return [name[:80] for name in given if name not in known]


def _close(name: str) -> str:
    close = difflib.get_close_matches(name, (*REFINE, *OF_THE_JOB), n=1)
    return f" (did you mean `{close[0]}`?)" if close else ""


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def webhook_problem(address: Any) -> str | None:
    """Returns what is wrong with the address of a webhook, as far as it can be told unasked."""
    if not isinstance(address, str) or len(address) > 2000:
        return "is no address"
    try:
        parts = urlsplit(address)
        _ = parts.port
    except ValueError:
        return "is no address"
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return "is no http or https address"
    if parts.username is not None or parts.password is not None:
        return "holds a name or a password"
    if any(ord(letter) <= 32 or ord(letter) == 127 for letter in address):
        return "holds a space or a control character"
    return None
