"""What every verb does first: its output object and its settings, of all origins."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ultrashape_cli.config.resolve import Resolved
    from ultrashape_cli.ui import UI


def show_settings(
    ui: UI,
    resolved: Resolved,
    sections: tuple[str, ...],
    more: Sequence[tuple[str, Any, str]] = (),
) -> None:
    """Prints every setting of the sections with its origin, and further ones, on stdout."""
    rows = [*resolved.rows(sections), *more]
    if ui.json_output:
        settings = {key: {"value": value, "origin": origin} for key, value, origin in rows}
        ui.result(settings=settings, profile=resolved.profile.name)
    else:
        ui.data_table(("key", "value", "origin"), rows)


def make_ui(command: str, json_output: bool, quiet: bool, verbose: bool, progress: bool) -> UI:
    """Returns the output object of a verb."""
    from ultrashape_cli.ui import UI

    return UI(command, json_output=json_output, quiet=quiet, verbose=verbose, progress=progress)


def resolve_settings(
    flags: dict[str, Any],
    config: Path | None,
    overrides: Sequence[str] | None,
    no_config: bool,
    *,
    model: str | None = None,
    data: Path | None = None,
) -> Resolved:
    """Merges the settings of a verb.

    Args:
        flags: `section.key` to value, None where the flag was not given.
        config: From `--config`.
        overrides: From `--set`.
        no_config: Leave files and variables out, and what the dataset remembers.
        model: Whose defaults count, where it is known from elsewhere.
        data: Data set that the verb makes something of.
    """
    from ultrashape_cli.config.resolve import resolve
    from ultrashape_cli.errors import ConfigError

    known = _remembered(data, no_config) if data is not None else {}
    resolved = resolve(
        flags=flags,
        overrides=overrides or (),
        file=None if no_config else config,
        environ={} if no_config else None,
        model=model,
        remembered={} if no_config else known,
    )
    if no_config and known:
        # It does not count, but a change of it is still one to tell.
        with suppress(ConfigError):
            return replace(resolved, remembered=resolve(environ={}, remembered=known).remembered)
    return resolved


def _remembered(data: Path, no_config: bool) -> dict[str, Any]:
    from ultrashape_cli.data.layout import Dataset
    from ultrashape_cli.data.remembered import read_settings
    from ultrashape_cli.errors import ConfigError

    try:
        return read_settings(Dataset(data))
    except ConfigError:
        if no_config:
            return {}
        raise
