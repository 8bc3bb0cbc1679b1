"""`ushape refine --coarse-with NAME`: the coarse mesh comes from an image or a text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ultrashape_cli.commands.refine.made import require_ours
from ultrashape_cli.commands.refine.request import target_of

if TYPE_CHECKING:
    from ultrashape_cli.commands.refine.request import Request
    from ultrashape_cli.config.coarse import CoarseCommand
    from ultrashape_cli.config.resolve import Resolved
    from ultrashape_cli.inference.coarse_files import CoarseRecipe
    from ultrashape_cli.inference.files import Job
    from ultrashape_cli.inference.view_files import ViewFile
    from ultrashape_cli.ui import UI


def command_of(request: Request) -> CoarseCommand | None:
    """Returns what makes the coarse mesh; None is the hull.

    Raises:
        ConfigError: There is no such command, or it is written wrongly.
    """
    from ultrashape_cli.config.coarse import HULL, read_coarse
    from ultrashape_cli.errors import ConfigError

    name = request.coarse_with
    assert name is not None
    if name == HULL:
        return None
    if request.config is None:
        raise ConfigError(
            f"no file says what `{name}` is",
            hint=f"--config FILE with a table [coarse.{name}], or --coarse-with hull",
        )
    return read_coarse(request.config, name)


def settings_of(command: CoarseCommand | None, resolved: Resolved) -> dict[str, Any]:
    """Returns the settings that go with a coarse mesh of this command.

    Axes are those that the command is known to write, for a file's `[refine] up` tells of the
    user's own meshes; what was typed counts more. It is repaired unless anyone said otherwise.
    """
    from ultrashape_cli.config.resolve import TYPED

    up, front = ("y", "z") if command is None else (command.up, command.front)
    found: dict[str, Any] = {
        key: value
        for key, value in (("refine.up", up), ("refine.front", front))
        if resolved.origins[key] not in TYPED
    }
    if resolved.origins["refine.repair"] == "default":
        found["refine.repair"] = True
    return found


def with_coarse_mesh(ui: UI, request: Request, resolved: Resolved) -> Request:
    """Returns a request that has a coarse mesh.

    The mesh is written beside the result, as OUT_coarse, and the image of a text as OUT_image. A
    dry run makes neither, and its request has no mesh.

    Raises:
        ConfigError: There is no such command, or it is written wrongly.
        AssetError: It failed.
        UsageError: Something else is where its mesh goes, or it makes nothing of this.
    """
    from ultrashape_cli.inference.coarse_files import CoarseRecipe, make_coarse, require_own

    command, target = command_of(request), target_of(request)
    views = _views(request, command)
    recipe = CoarseRecipe(
        command=command,
        views=views,
        text=request.text or "",
        seed=resolved.config.seed,
        background=resolved.config.refine.background,
    )
    # Before hours of a generator rather than behind them.
    require_own(recipe.target(target))
    if not request.varies:
        record = target.with_name(f"{target.name}.json")
        require_ours(target, record, request.preview)
    if request.dry_run:
        ui.info(
            f"would make a coarse mesh with `{request.coarse_with}` and refine it into {target}"
        )
        ui.result(
            inputs={"image": str(request.image or ""), "text": request.text or "",
                    "coarse_with": request.coarse_with},
            outputs={"mesh": str(target)}, counts={"planned": 1},
        )  # fmt: skip
        return request
    if request.image is None and not views and command is not None:
        from dataclasses import replace

        from ultrashape_cli.inference.view_files import ViewFile

        image = _image_of_text(ui, command, request, resolved, target)
        request = request._replace(image=image)
        if command.reads_image:
            recipe = replace(recipe, views=(ViewFile(image, (0.0, 0.0)),))
    mesh = make_coarse(recipe, target, ui.info)
    ui.info(f"coarse mesh: {mesh}")
    return request._replace(
        mesh=mesh, out=request.out if request.varies else target, coarse_with=None
    )


def recipe_for_many(request: Request, resolved: Resolved) -> CoarseRecipe | None:
    """Returns how the coarse meshes of a batch are made, but for views and seeds of each.

    Raises:
        ConfigError: There is no such command, or it is written wrongly.
        UsageError: It reads a text.
    """
    from ultrashape_cli.errors import UsageError
    from ultrashape_cli.inference.coarse_files import CoarseRecipe

    if request.coarse_with is None:
        return None
    command = command_of(request)
    if command is not None and command.reads_text:
        raise UsageError(
            f"`{request.coarse_with}` reads a text, and --batch has images", hint="one at a time"
        )
    background = resolved.config.refine.background
    return CoarseRecipe(command=command, views=(), background=background)


def coarse_of_many(
    ui: UI, jobs: list[Job], out: Path, fail_fast: bool
) -> tuple[dict[str, str], int]:
    """Makes the coarse meshes of a batch; returns which failed and why, and the exit code."""
    from ultrashape_cli.inference.coarse_batch import make_all
    from ultrashape_cli.interrupts import SignalFlag

    done = 0
    with (
        SignalFlag(lambda: ui.warn("Stopping; what is made is kept")) as flag,
        ui.progress("coarse", len(jobs)) as bar,
    ):

        def on_end(job: Job, message: str) -> None:
            nonlocal done
            done += 1
            bar.update(done, job.name)
            if message:
                ui.warn(f"{job.name}: {message}")

        failed = make_all(jobs, out, on_end=on_end, stop=lambda: bool(flag), fail_fast=fail_fast)
    return failed, flag.exit_code if flag else 0


def _views(request: Request, command: CoarseCommand | None) -> tuple[ViewFile, ...]:
    """Returns the images that there are, those that the coarse mesh is made of first.

    Raises:
        UsageError: They, or the text, are not what the command reads.
    """
    from ultrashape_cli.errors import UsageError
    from ultrashape_cli.inference.view_files import ViewFile, parse_views

    name = request.coarse_with
    views = parse_views(request.views)
    if request.image is not None:
        views = (ViewFile(request.image, (0.0, 0.0)), *views)
    if command is None or not command.reads_text:
        chain = command is not None and command.image_command
        if request.text and not (chain and not views):
            raise UsageError(
                f"`{name}` makes nothing of a text" + (" beside an image" if views else ""),
                hint="leave one of them out" if views and chain else "--image FILE",
            )
    elif not request.text:
        raise UsageError(f"`{name}` reads a text", hint='--text "a stone lion"')
    if not views and not (command is not None and command.image_command):
        raise UsageError(
            f"`{name}` makes a mesh of a text, and refining needs an image too",
            hint=f"an image_command in [coarse.{name}], or --image FILE",
        )
    if command is None or not command.reads_image:
        return views
    front = [view for view in views if view.direction == (0.0, 0.0)]
    if views and not front:
        raise UsageError(
            f"`{name}` makes the mesh of one image, and none is of the front", hint="--image FILE"
        )
    return tuple(front[:1])


def _image_of_text(
    ui: UI, command: CoarseCommand, request: Request, resolved: Resolved, target: Path
) -> Path:
    """Returns the image that a command makes of the text; one that is there is taken."""
    from ultrashape_cli.dotenv import masked_text
    from ultrashape_cli.errors import UsageError
    from ultrashape_cli.files import file_hash, read_json, write_json
    from ultrashape_cli.inference.coarse_mesh import image_of_command

    image = target.with_name(f"{target.stem}_image.png")
    record = image.with_name(f"{image.name}.json")
    before = read_json(record) or {}
    made = {"text": request.text, "command": [masked_text(part) for part in command.image_command],
            "cwd": command.cwd, "env": sorted(command.env),
            "seed": resolved.config.seed}  # fmt: skip
    if image.exists():
        if {key: before.get(key) for key in made} == made and not request.force:
            # Retouched or not.
            ui.info(f"image of `{request.text}` as it was made before: {image}")
            return image
        if before.get("image_sha256") != file_hash(image):
            raise UsageError(
                f"`{image}` exists, and `ushape refine` did not make it, or it was changed since",
                hint=f"--image {image}, another -o, or remove it",
            )
    ui.info(f"`{command.name}` makes an image of `{request.text}`")
    image_of_command(command, request.text or "", resolved.config.seed, image)
    write_json(record, {**made, "image_sha256": file_hash(image)})
    return image
