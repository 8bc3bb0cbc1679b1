"""What every verb does first: its output object and its settings, of all origins."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ultrashape_cli.config.resolve import Resolved
    from ultrashape_cli.ui import UI


def show_settings(ui: UI, resolved: Resolved, sections: tuple[str, ...]) -> None:
    """Prints every setting of the sections with its origin, on stdout."""
    rows = resolved.rows(sections)
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
) -> Resolved:
    """Merges the settings of a verb.

    Args:
        flags: `section.key` to value, None where the flag was not given.
        config: From `--config`.
        overrides: From `--set`.
        no_config: Leave files and variables out.
        model: Whose defaults count, where it is known from elsewhere.
    """
    from ultrashape_cli.config.resolve import resolve

    return resolve(
        flags=flags,
        overrides=overrides or (),
        file=None if no_config else config,
        environ={} if no_config else None,
        model=model,
    )
