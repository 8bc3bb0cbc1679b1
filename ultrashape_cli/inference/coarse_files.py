"""A job's coarse mesh where it has none: made of its images, kept beside the result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ultrashape_cli import __version__
from ultrashape_cli.config.choices import Background
from ultrashape_cli.config.coarse import HULL, CoarseCommand
from ultrashape_cli.dotenv import masked_text
from ultrashape_cli.errors import UsageError
from ultrashape_cli.files import disk_errors, file_hash, read_json, temporary_path, write_json
from ultrashape_cli.inference.view_files import ViewFile

Say = Callable[[str], None]
HULL_VERSION = 2
"""Counts what `hull` makes of the same outlines, so that no earlier one is taken for it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CoarseRecipe:
    """What a coarse mesh is made of."""

    command: CoarseCommand | None
    """None is the hull of the outlines."""
    views: tuple[ViewFile, ...]
    """References with their sides; a command sees the first. Empty where it reads a text alone."""
    text: str = ""
    seed: int = 0
    background: Background = "auto"

    def target(self, result: Path) -> Path:
        """Returns where the coarse mesh of a result goes."""
        suffix = ".glb" if self.command is None else self.command.suffix
        return result.with_name(f"{result.stem}_coarse{suffix}")

    def as_dict(self) -> dict[str, Any]:
        """Returns it for the record; of a command's variables the names alone."""
        made: dict[str, Any] = {"version": __version__, "coarse_with": HULL}
        if self.command is None:
            made["hull_version"] = HULL_VERSION
        else:
            made |= {
                "coarse_with": self.command.name,
                "command": [masked_text(part) for part in self.command.command],
                "cwd": self.command.cwd,
                "env": sorted(self.command.env),
                "seed": self.seed,
                "text": self.text,
            }
        views = [view.as_dict() for view in self.views]
        return {**made, "views": views, "background": self.background}


def make_coarse(
    recipe: CoarseRecipe,
    result: Path,
    say: Say = lambda text: None,
    stop: Callable[[], bool] = lambda: False,
) -> Path:
    """Writes the coarse mesh of a result, OUT_coarse, and its record; returns its path.

    Args:
        recipe: What it is made of.
        result: The mesh that the refinement is going to write.
        say: Is told what is going on.
        stop: Asked while a command runs; true ends it.

    Raises:
        UsageError: Something else is in its place.
        ImageError: An image cannot be used.
        AssetError: The command failed.
        Stopped: By `stop`.
    """
    target, record = recipe.target(result), _record_of(recipe.target(result))
    require_own(target)
    made, before = recipe.as_dict(), read_json(record)
    is_hull = recipe.command is None
    if is_hull and target.exists() and {**made, "mesh_sha256": file_hash(target)} == before:
        return target  # the same outlines make the same hull
    with disk_errors(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
    with temporary_path(target) as temporary:
        if recipe.command is None:
            _write_hull(recipe, temporary)
        else:
            made["kept"] = str(_run(recipe, recipe.command, temporary, say, stop))
        made["mesh_sha256"] = file_hash(temporary)
    write_json(record, made)
    return target


def is_own(path: Path) -> bool:
    """Says whether a file is there that was made here, and is as it was made."""
    before = read_json(_record_of(path))
    known = before.get("mesh_sha256") if isinstance(before, dict) else None
    return known is not None and path.is_file() and known == file_hash(path)


def require_own(path: Path) -> None:
    """Raises UsageError where a file is there that was not made here, or was changed since."""
    if path.exists() and not is_own(path):
        raise UsageError(
            f"`{path}` exists, and `ushape refine` did not make it",
            hint="another -o, or remove it",
        )


def _record_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _write_hull(recipe: CoarseRecipe, path: Path) -> None:
    from ultrashape_cli.data.background import load_reference
    from ultrashape_cli.inference.hull import hull
    from ultrashape_cli.meshfiles.save import save_mesh

    masks, directions = [], []
    for view in recipe.views:
        if view.direction is None:
            raise UsageError(
                f"there is no mesh yet that would tell from where `{view.path}` was seen",
                hint=f"--view back={view.path}",
            )
        masks.append(load_reference(view.path, recipe.background)[..., 3] >= 128)
        directions.append(view.direction)
    save_mesh(hull(masks, directions), path)


def _run(
    recipe: CoarseRecipe,
    command: CoarseCommand,
    copy: Path,
    say: Say,
    stop: Callable[[], bool],
) -> Path:
    """Copies what the command makes; returns where that is kept."""
    import shutil

    from ultrashape_cli.data.background import load_reference
    from ultrashape_cli.inference.coarse_mesh import mesh_of_command

    rgba = None
    if command.reads_image:
        rgba = load_reference(recipe.views[0].path, recipe.background)
    kept = mesh_of_command(command, rgba, recipe.text, recipe.seed, say, stop)
    shutil.copyfile(kept, copy)
    return kept
